//! Carrying out a verdict.

use core::mem::size_of;

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_REDIRECT, TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::generated::{
        bpf_redirect, bpf_redirect_neigh, bpf_skb_change_head, bpf_skb_set_tunnel_key, bpf_skb_store_bytes,
        bpf_skb_vlan_pop,
    },
};
use mhebpf_ebpf::{
    Act, Action, CounterKey, Direction, Family, Frame as _, Iface, Neighbour, Reason,
    packet::{ARP_SENDER_OFFSET, ETHERTYPE_IPV4, ETHERTYPE_IPV6, MAX_TAGS},
};
use network_types::{eth::EthHdr, vlan::VlanHdr};

use super::{
    frame::SkbBytes,
    maps::{self, BpfTables},
    too_big,
};

/// Where the source hardware address stands in an Ethernet header.
const ETHERNET_SOURCE_OFFSET: u32 = 6;

/// The word of `skb->cb` that carries [`REDIRECTED`]: the last, which neither the neighbour queue nor the IP
/// layer of the redirect path overwrites (`struct neighbour_cb` covers the first).
const MARK_WORD: usize = 4;

/// Marks a packet that was redirected. Other users of `skb->cb` leave rests there, hence a value that is none
/// of theirs.
const REDIRECTED: u32 = 0x6d68_6562;

/// What the kernel is told to do with a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The next program, and the packet's way, go on.
    Pass,
    /// The packet ends here.
    Drop,
    /// The packet takes the way that a redirect helper has noted down.
    Redirect,
}

impl Outcome {
    /// The return code. Passing is `TC_ACT_UNSPEC` (`TCX_NEXT`): any other would hide the programs after this
    /// one.
    #[inline(always)]
    pub(super) fn code(self) -> i32 {
        match self {
            Self::Pass => TC_ACT_UNSPEC,
            Self::Drop => TC_ACT_SHOT,
            Self::Redirect => TC_ACT_REDIRECT as i32,
        }
    }

    /// What a redirect helper answered.
    #[inline(always)]
    pub(super) fn from_helper(code: i64) -> Self {
        if code == i64::from(TC_ACT_REDIRECT) { Self::Redirect } else { Self::Drop }
    }
}

/// A packet that does not simply pass.
pub(super) struct Case<'a> {
    pub(super) skb: *mut __sk_buff,
    pub(super) direction: Direction,
    pub(super) ifindex: u32,
    pub(super) iface: &'a Iface,
    /// Where the network layer's header starts, in bytes from the start of the frame.
    pub(super) offset: usize,
    /// What that header is, in host byte order.
    pub(super) ethertype: u16,
    pub(super) family: Family,
    pub(super) reason: Reason,
}

impl Case<'_> {
    /// Counts what would have been done.
    #[inline(always)]
    pub(super) fn observe(&self) -> Outcome {
        self.count(self.reason, true);
        Outcome::Pass
    }

    /// Does it and counts it.
    ///
    /// A function of its own for the kernel too: what only this needs on the stack, the way of most packets does
    /// not have to find room for.
    #[inline(never)]
    pub(super) fn carry_out(&self, action: &Action) -> Outcome {
        let Action { act, owner, address } = *action;
        let (outcome, reason) = match act {
            Act::Drop => (Outcome::Drop, self.reason),
            Act::RewriteSender => (self.rewrite_sender(address.address[0]), self.reason),
            Act::Redirect => self.redirect_once(|| self.to_neighbour(owner, address)),
            Act::RedirectGroup => self.redirect_once(|| (self.to_group(owner), self.reason)),
        };
        self.count(reason, false);
        outcome
    }

    #[inline(always)]
    fn count(&self, reason: Reason, observed: bool) {
        maps::count(&CounterKey {
            ifindex: self.ifindex,
            direction: self.direction as u8,
            family: self.family as u8,
            reason: reason as u8,
            observed: u8::from(observed),
        });
    }

    /// An own sender address or nothing: a request that can't be rewritten must not leave.
    #[inline(always)]
    fn rewrite_sender(&self, address: u32) -> Outcome {
        let offset = (self.offset + ARP_SENDER_OFFSET) as u32;
        if self.store(offset, &address.to_ne_bytes()) { Outcome::Pass } else { Outcome::Drop }
    }

    /// The owner's program sees the packet again and lets it pass. If the tables change in between it could
    /// be sent back and forth, hence the mark: no packet is redirected twice.
    #[inline(always)]
    fn redirect_once(&self, redirect: impl FnOnce() -> (Outcome, Reason)) -> (Outcome, Reason) {
        // SAFETY: the kernel passes a valid context, whose `cb` is ours to read and write.
        unsafe {
            if (*self.skb).cb[MARK_WORD] == REDIRECTED {
                return (Outcome::Drop, Reason::Loop);
            }
            (*self.skb).cb[MARK_WORD] = REDIRECTED;
        }
        match redirect() {
            (Outcome::Redirect, reason) => (Outcome::Redirect, reason),
            _ => (Outcome::Drop, Reason::RedirectFailed),
        }
    }

    #[inline(always)]
    fn to_neighbour(&self, owner: u32, neighbour: Neighbour) -> (Outcome, Reason) {
        let Some(to) = BpfTables.find(owner) else { return (Outcome::Drop, Reason::RedirectFailed) };
        if !self.take_off_tags() {
            return (Outcome::Drop, Reason::RedirectFailed);
        }
        // The sender has kept to the MTU of this interface, so only a smaller one is of interest.
        if to.mtu < self.iface.mtu && too_big::is_too_big(self.skb, self.iface, self.ethertype, to.mtu) {
            let outcome = match self.ethertype {
                ETHERTYPE_IPV4 => too_big::answer_ipv4(self.skb, self.iface, owner, to),
                _ => too_big::answer_ipv6(self.skb, self.iface, owner, to),
            };
            return (outcome, Reason::TooBig);
        }
        if !to.has_ethernet() {
            // There is one way through such a device. The kernel takes the Ethernet header off for it.
            return (redirect(owner), self.reason);
        }
        if !self.iface.has_ethernet() && !self.put_on_ethernet() {
            return (Outcome::Drop, Reason::RedirectFailed);
        }
        (self.resolve_and_send(owner, neighbour), self.reason)
    }

    #[inline(always)]
    fn resolve_and_send(&self, owner: u32, mut neighbour: Neighbour) -> Outcome {
        // An id and an address: the oldest layout of `struct bpf_tunnel_key`, which every kernel takes.
        let mut any_key = [0u32; 2];
        // SAFETY: a valid context, and pointers to initialised memory of the sizes that are given.
        unsafe {
            // The packet carries the route by which it came here. Were its neighbour unresolved, it would
            // wait for it and then find "its" neighbour again through that route, and leave with the wrong
            // interface's hardware address (`neigh_resolve_output` by way of `skb_dst`). Tunnel metadata
            // takes the route's place.
            if bpf_skb_set_tunnel_key(self.skb, any_key.as_mut_ptr().cast(), size_of::<[u32; 2]>() as u32, 0)
                != 0
            {
                return Outcome::Drop;
            }
            Outcome::from_helper(bpf_redirect_neigh(
                owner,
                (&raw mut neighbour).cast(),
                size_of::<Neighbour>() as i32,
                0,
            ))
        }
    }

    /// Takes priority tags out of the frame: `bpf_redirect_neigh` sends what follows the Ethernet header, and
    /// knows the protocol by `skb->protocol` alone. `false` where that is not the packet's even so, as a sender
    /// on AF_PACKET can have it.
    #[inline(always)]
    fn take_off_tags(&self) -> bool {
        // Written out: the verifier does not follow the counter of a loop through the helper.
        const { assert!(MAX_TAGS == 4) };
        self.take_off_tag(0);
        self.take_off_tag(1);
        self.take_off_tag(2);
        self.take_off_tag(3);
        // SAFETY: the kernel passes a valid context, whose fields the verifier knows.
        unsafe { (*self.skb).protocol == u32::from(self.ethertype.to_be()) }
    }

    #[inline(always)]
    fn take_off_tag(&self, before: usize) {
        if self.offset > EthHdr::LEN + before * VlanHdr::LEN {
            // SAFETY: a valid context. On failure the protocol stays that of the tag.
            unsafe { bpf_skb_vlan_pop(self.skb) };
        }
    }

    /// `bpf_redirect_neigh` drops packets for a group; they need no neighbour anyway.
    #[inline(always)]
    fn to_group(&self, owner: u32) -> Outcome {
        let Some(to) = BpfTables.find(owner) else { return Outcome::Drop };
        let ready = match (self.iface.has_ethernet(), to.has_ethernet()) {
            (true, true) => self.store(ETHERNET_SOURCE_OFFSET, &to.mac),
            // The kernel takes the Ethernet header off, and would leave tags.
            (true, false) => self.take_off_tags(),
            (false, true) => self.put_on_ethernet() && self.store(0, &self.group_header(to.mac)),
            (false, false) => true,
        };
        if ready { redirect(owner) } else { Outcome::Drop }
    }

    /// Makes room for an Ethernet header in front of a packet that has none.
    #[inline(always)]
    fn put_on_ethernet(&self) -> bool {
        // SAFETY: a valid context.
        unsafe { bpf_skb_change_head(self.skb, EthHdr::LEN as u32, 0) == 0 }
    }

    /// The Ethernet header of a packet to its group (RFC 1112 section 6.4, RFC 2464 section 7), which has none yet.
    #[inline(always)]
    fn group_header(&self, source: [u8; 6]) -> [u8; EthHdr::LEN] {
        let destination_offset = EthHdr::LEN + if self.ethertype == ETHERTYPE_IPV4 { 16 } else { 36 };
        // The last four octets are all that the hardware address is made of.
        let [a, b, c, d] = SkbBytes(self.skb).read(destination_offset).unwrap_or_default();
        let [e, f, g, h, i, j] = match self.ethertype {
            ETHERTYPE_IPV6 => [0x33, 0x33, a, b, c, d],
            // The limited broadcast address is the one group that is not multicast.
            _ if a == 0xff => [0xff; 6],
            _ => [0x01, 0x00, 0x5e, b & 0x7f, c, d],
        };
        let [k, l, m, n, o, p] = source;
        let [high, low] = self.ethertype.to_be_bytes();
        [e, f, g, h, i, j, k, l, m, n, o, p, high, low]
    }

    /// Writes through the helper: a direct write would have the kernel copy every packet that enters the
    /// program.
    #[inline(always)]
    fn store<const N: usize>(&self, offset: u32, bytes: &[u8; N]) -> bool {
        // SAFETY: a valid context, and a pointer to `N` initialised bytes.
        unsafe { bpf_skb_store_bytes(self.skb, offset, bytes.as_ptr().cast(), N as u32, 0) == 0 }
    }
}

#[inline(always)]
fn redirect(owner: u32) -> Outcome {
    // SAFETY: no pointers are involved.
    Outcome::from_helper(unsafe { bpf_redirect(owner, 0) })
}
