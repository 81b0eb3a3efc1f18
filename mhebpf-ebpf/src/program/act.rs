//! Carrying out a verdict.

use core::mem::size_of;

use aya_ebpf::{
    bindings::{
        __sk_buff, TC_ACT_REDIRECT, TC_ACT_SHOT, TC_ACT_UNSPEC, bpf_redir_neigh,
        bpf_redir_neigh__bindgen_ty_1,
    },
    helpers::generated::{
        bpf_redirect, bpf_redirect_neigh, bpf_skb_set_tunnel_key, bpf_skb_store_bytes, bpf_skb_vlan_pop,
    },
};
use mhebpf_ebpf::{
    Action, CounterKey, Direction, Family, Iface, Ipv4, Network, Packet, Reason,
    packet::{ARP_SENDER_OFFSET, ETHERTYPE_IPV4, MAX_TAGS},
};
use network_types::{eth::EthHdr, vlan::VlanHdr};

use super::{
    maps::{self, BpfTables},
    too_big,
};

/// `AF_INET`.
const AF_INET: u32 = 2;

/// Where the source hardware address stands in an Ethernet header.
const ETHERNET_SOURCE_OFFSET: u32 = 6;

/// The word of `skb->cb` that carries [`REDIRECTED`]: the last, which neither the neighbour queue nor the IP
/// layer of the redirect path overwrites (`struct neighbour_cb` covers the first).
const MARK_WORD: usize = 4;

/// Marks a packet that was redirected. Other users of `skb->cb` leave rests there, hence a value that is none
/// of theirs.
const REDIRECTED: u32 = 0x6d68_6562;

/// What the kernel is told to do with a packet.
#[derive(Clone, Copy)]
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
    pub(super) packet: &'a Packet,
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
    #[inline(always)]
    pub(super) fn carry_out(&self, action: Action) -> Outcome {
        let (outcome, reason) = match action {
            Action::Drop => (Outcome::Drop, self.reason),
            Action::RewriteSender { address } => (self.rewrite_sender(address), self.reason),
            Action::Redirect { owner, neighbour } => {
                self.redirect_once(|| self.to_neighbour(owner, neighbour))
            }
            Action::RedirectGroup { owner, source } => {
                self.redirect_once(|| (self.to_group(owner, &source), self.reason))
            }
        };
        self.count(reason, false);
        outcome
    }

    #[inline(always)]
    fn count(&self, reason: Reason, observed: bool) {
        let family = match self.packet.network {
            Network::Ipv4(_) => Family::Ipv4,
            Network::Arp(_) => Family::Arp,
        };
        maps::count(&CounterKey {
            ifindex: self.ifindex,
            direction: self.direction as u8,
            family: family as u8,
            reason: reason as u8,
            observed: u8::from(observed),
        });
    }

    /// An own sender address or nothing: a request that can't be rewritten must not leave.
    #[inline(always)]
    fn rewrite_sender(&self, address: Ipv4) -> Outcome {
        let offset = (self.packet.offset + ARP_SENDER_OFFSET) as u32;
        if self.store(offset, &address.octets()) { Outcome::Pass } else { Outcome::Drop }
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
    fn to_neighbour(&self, owner: u32, neighbour: Ipv4) -> (Outcome, Reason) {
        if !self.take_off_tags() {
            return (Outcome::Drop, Reason::RedirectFailed);
        }
        // The sender has kept to the MTU of this interface, so only a smaller one is of interest.
        if let (Some(iface), Network::Ipv4(datagram)) = (BpfTables.find(owner), self.packet.network)
            && iface.mtu < self.iface.mtu
            && too_big::datagram_length(self.skb) > iface.mtu
        {
            return (too_big::answer(self.skb, owner, iface, datagram), Reason::TooBig);
        }
        (self.resolve_and_send(owner, neighbour), self.reason)
    }

    #[inline(always)]
    fn resolve_and_send(&self, owner: u32, neighbour: Ipv4) -> Outcome {
        // For IPv4 the first word is the neighbour, and the others are not looked at. They are not zero,
        // since that would have the compiler call `memset`, whose loop the verifier refuses without
        // CAP_PERFMON.
        let mut parameters = bpf_redir_neigh {
            nh_family: AF_INET,
            __bindgen_anon_1: bpf_redir_neigh__bindgen_ty_1 { ipv6_nh: [neighbour.to_wire(); 4] },
        };
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
                &raw mut parameters,
                size_of::<bpf_redir_neigh>() as i32,
                0,
            ))
        }
    }

    /// Takes priority tags out of the frame: `bpf_redirect_neigh` sends what follows the Ethernet header, and
    /// knows the protocol by `skb->protocol` alone. `false` where that is not IPv4 even so, as a sender on
    /// AF_PACKET can have it.
    #[inline(always)]
    fn take_off_tags(&self) -> bool {
        // Written out: the verifier does not follow the counter of a loop through the helper.
        const { assert!(MAX_TAGS == 4) };
        self.take_off_tag(0);
        self.take_off_tag(1);
        self.take_off_tag(2);
        self.take_off_tag(3);
        // SAFETY: the kernel passes a valid context, whose fields the verifier knows.
        unsafe { (*self.skb).protocol == u32::from(ETHERTYPE_IPV4.to_be()) }
    }

    #[inline(always)]
    fn take_off_tag(&self, before: usize) {
        if self.packet.offset > EthHdr::LEN + before * VlanHdr::LEN {
            // SAFETY: a valid context. On failure the protocol stays that of the tag.
            unsafe { bpf_skb_vlan_pop(self.skb) };
        }
    }

    /// `bpf_redirect_neigh` drops packets for a group; they need no neighbour anyway.
    #[inline(always)]
    fn to_group(&self, owner: u32, source: &[u8; 6]) -> Outcome {
        if !self.store(ETHERNET_SOURCE_OFFSET, source) {
            return Outcome::Drop;
        }
        // SAFETY: no pointers are involved.
        Outcome::from_helper(unsafe { bpf_redirect(owner, 0) })
    }

    /// Writes through the helper: a direct write would have the kernel copy every packet that enters the
    /// program.
    #[inline(always)]
    fn store<const N: usize>(&self, offset: u32, bytes: &[u8; N]) -> bool {
        // SAFETY: a valid context, and a pointer to `N` initialised bytes.
        unsafe { bpf_skb_store_bytes(self.skb, offset, bytes.as_ptr().cast(), N as u32, 0) == 0 }
    }
}
