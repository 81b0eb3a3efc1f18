//! Carrying out a verdict.

use core::{
    mem::{size_of, size_of_val},
    ptr,
};

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_PSEUDO_HDR},
    helpers::generated::{
        bpf_csum_diff, bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_redirect, bpf_redirect_neigh,
        bpf_skb_change_head, bpf_skb_set_tunnel_key, bpf_skb_store_bytes, bpf_skb_vlan_pop,
    },
};
use mhebpf_ebpf::{
    Act, CounterKey, Family, Frame as _, Iface, Neighbour, Reason,
    packet::{
        ARP_SENDER_OFFSET, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ICMPV6_CHECKSUM_OFFSET,
        IPV4_CHECKSUM_OFFSET, IPV4_SOURCE_OFFSET, IPV6_SOURCE_OFFSET,
    },
};
use network_types::{eth::EthHdr, ip::Ipv6Hdr, vlan::VlanHdr};

use super::{
    frame::{self, SkbBytes},
    judge::INGRESS,
    maps::{self, BpfTables},
    outcome::Outcome,
    report::{Event, report},
    ruling::Ruling,
    too_big, watch,
};

/// Where the source hardware address stands in an Ethernet header.
const ETHERNET_SOURCE_OFFSET: u32 = 6;

/// The word of `skb->cb` that carries [`REDIRECTED`]: the last, which neither the neighbour queue nor the IP
/// layer of the redirect path overwrites (`struct neighbour_cb` covers the first).
const MARK_WORD: usize = 4;

/// Marks a packet that was redirected. Other users of `skb->cb` leave rests there, hence a value that is none
/// of theirs.
const REDIRECTED: u32 = 0x6d68_6562;

/// A `struct bpf_tunnel_key`, which the helper only reads.
static TUNNEL_KEY: [u32; 11] = [0; 11];

/// The whole of it, as newer kernels have it (Linux 6.1, and not 5.10).
const TUNNEL_KEY_LENGTH: u32 = size_of_val(&TUNNEL_KEY) as u32;

/// An id and an address: the oldest layout, which every kernel takes, but completes first where it has a longer one.
const OLD_TUNNEL_KEY_LENGTH: u32 = 2 * size_of::<u32>() as u32;

/// Does what the ruling says, and counts it.
///
/// A function of its own for the kernel too, which is called in one place: see [`super::ruling`].
#[inline(never)]
pub(super) fn carry_out<const DIRECTION: u8>(
    skb: *mut __sk_buff,
    iface: &Iface,
    ruling: Ruling,
    address: &Neighbour,
) -> Outcome {
    let ifindex = frame::ifindex(skb);
    let mut counted = CounterKey {
        ifindex,
        direction: DIRECTION,
        family: ruling.family(),
        reason: ruling.reason(),
        observed: u8::from(!ruling.is_enforced()),
    };
    let sampler = watch::begin::<DIRECTION>(skb, ruling);
    let outcome = if !ruling.is_enforced() {
        Outcome::Pass
    } else if DIRECTION == INGRESS {
        // Nothing else is done there.
        Outcome::Drop
    } else {
        let ethertype = match ruling.family() {
            IPV4 => ETHERTYPE_IPV4,
            ARP => ETHERTYPE_ARP,
            _ => ETHERTYPE_IPV6,
        };
        let case = Case { skb, iface, offset: ruling.offset(), ethertype };
        let (outcome, instead) = match ruling.act() {
            REDIRECT => case.redirect_once(ruling.owner(), || case.to_neighbour(ruling.owner(), *address)),
            REDIRECT_GROUP => case.redirect_once(ruling.owner(), || (case.to_group(ruling.owner()), None)),
            REWRITE_SENDER => (case.rewrite_sender(address.address[0]), None),
            REWRITE_SOURCE if ethertype == ETHERTYPE_IPV4 => (case.rewrite_source(address.address[0]), None),
            REWRITE_SOURCE => (case.rewrite_source6(address.address), None),
            _ => (Outcome::Drop, None),
        };
        if let Some(reason) = instead {
            counted.reason = reason as u8;
        }
        outcome
    };
    maps::count(&counted);
    if let Some(sampler) = sampler {
        watch::finish(sampler, ruling, &counted);
    }
    outcome
}

const IPV4: u8 = Family::Ipv4 as u8;
const ARP: u8 = Family::Arp as u8;
const REDIRECT: u8 = Act::Redirect as u8;
const REDIRECT_GROUP: u8 = Act::RedirectGroup as u8;
const REWRITE_SENDER: u8 = Act::RewriteSender as u8;
const REWRITE_SOURCE: u8 = Act::RewriteSource as u8;

/// How many priority tags are taken off a frame that is redirected: two are what 802.1ad allows, and the rest is margin. Only
/// a sender on AF_PACKET has tags in the frame at all.
const TAKEN_OFF: usize = 4;

/// A packet that is to leave otherwise than it would.
struct Case<'a> {
    skb: *mut __sk_buff,
    iface: &'a Iface,
    /// Where the network layer's header starts, in bytes from the start of the frame.
    offset: usize,
    /// What that header is, in host byte order.
    ethertype: u16,
}

impl Case<'_> {
    /// An own sender address or nothing: a request that can't be rewritten must not leave.
    #[inline(always)]
    fn rewrite_sender(&self, address: u32) -> Outcome {
        let offset = (self.offset + ARP_SENDER_OFFSET) as u32;
        if self.store(offset, &address.to_ne_bytes()) { Outcome::Pass } else { Outcome::Drop }
    }

    /// Another source address in the IPv4 header, and its checksum with it.
    #[inline(always)]
    fn rewrite_source(&self, address: u32) -> Outcome {
        let offset = self.offset + IPV4_SOURCE_OFFSET;
        let Some([before]) = SkbBytes(self.skb).read_words::<1>(offset) else { return Outcome::Drop };
        let checksum = (self.offset + IPV4_CHECKSUM_OFFSET) as u32;
        // SAFETY: a valid context. The last argument is the size of what is replaced.
        let replaced = unsafe { bpf_l3_csum_replace(self.skb, checksum, before.into(), address.into(), 4) };
        if replaced == 0 && self.store(offset as u32, &address.to_ne_bytes()) {
            Outcome::Pass
        } else {
            Outcome::Drop
        }
    }

    /// Another source address in the header of an ICMPv6 message, and in the message's checksum (RFC 4443 section 2.3).
    #[inline(always)]
    fn rewrite_source6(&self, mut address: [u32; 4]) -> Outcome {
        let offset = self.offset + IPV6_SOURCE_OFFSET;
        let Some(mut before) = SkbBytes(self.skb).read_words::<4>(offset) else { return Outcome::Drop };
        let checksum = (self.offset + Ipv6Hdr::LEN + ICMPV6_CHECKSUM_OFFSET) as u32;
        let length = size_of_val(&address) as u32;
        // SAFETY: pointers to initialised words with their sizes, and a valid context.
        let replaced = unsafe {
            let difference = bpf_csum_diff(before.as_mut_ptr(), length, address.as_mut_ptr(), length, 0);
            bpf_l4_csum_replace(self.skb, checksum, 0, difference as u64, BPF_F_PSEUDO_HDR.into())
        };
        if replaced == 0 && self.store_words(offset as u32, &address) { Outcome::Pass } else { Outcome::Drop }
    }

    /// The owner's program sees the packet again and lets it pass. If the tables change in between it could
    /// be sent back and forth, hence the mark: no packet is redirected twice.
    ///
    /// With the outcome goes the reason that it is counted under, where that is another than the ruling's.
    #[inline(always)]
    fn redirect_once(
        &self,
        owner: u32,
        redirect: impl FnOnce() -> (Outcome, Option<Reason>),
    ) -> (Outcome, Option<Reason>) {
        // SAFETY: the kernel passes a valid context, whose `cb` is ours to read and write.
        unsafe {
            if (*self.skb).cb[MARK_WORD] == REDIRECTED {
                report(Event::Loop, frame::ifindex(self.skb), owner, 0);
                return (Outcome::Drop, Some(Reason::Loop));
            }
            (*self.skb).cb[MARK_WORD] = REDIRECTED;
        }
        match redirect() {
            (Outcome::Redirect, reason) => (Outcome::Redirect, reason),
            _ => {
                report(Event::Redirect, frame::ifindex(self.skb), owner, 0);
                (Outcome::Drop, Some(Reason::RedirectFailed))
            }
        }
    }

    #[inline(always)]
    fn to_neighbour(&self, owner: u32, neighbour: Neighbour) -> (Outcome, Option<Reason>) {
        let Some(to) = BpfTables.find(owner) else { return (Outcome::Drop, None) };
        if !self.take_off_tags() {
            return (Outcome::Drop, None);
        }
        // The sender has kept to the MTU of this interface, so only a smaller one is of interest.
        if to.mtu < self.iface.mtu && too_big::is_too_big(self.skb, self.iface, self.ethertype, to.mtu) {
            let outcome = match self.ethertype {
                ETHERTYPE_IPV4 => too_big::answer_ipv4(self.skb, self.iface, owner, to),
                _ => too_big::answer_ipv6(self.skb, self.iface, owner, to),
            };
            return (outcome, Some(Reason::TooBig));
        }
        if !to.has_ethernet() {
            // There is one way through such a device. The kernel takes the Ethernet header off for it.
            return (redirect(owner), None);
        }
        if !self.iface.has_ethernet() && !self.put_on_ethernet() {
            return (Outcome::Drop, None);
        }
        (self.resolve_and_send(owner, neighbour), None)
    }

    #[inline(always)]
    fn resolve_and_send(&self, owner: u32, mut neighbour: Neighbour) -> Outcome {
        // SAFETY: a valid context, and pointers to initialised memory of the sizes that are given.
        unsafe {
            // The packet carries the route by which it came here. Were its neighbour unresolved, it would
            // wait for it and then find "its" neighbour again through that route, and leave with the wrong
            // interface's hardware address (`neigh_resolve_output` by way of `skb_dst`). Tunnel metadata
            // takes the route's place.
            let any_key =
                |length| bpf_skb_set_tunnel_key(self.skb, TUNNEL_KEY.as_ptr().cast_mut().cast(), length, 0);
            let mut replaced = any_key(TUNNEL_KEY_LENGTH);
            if replaced != 0 {
                replaced = any_key(OLD_TUNNEL_KEY_LENGTH);
            }
            if replaced != 0 {
                report(Event::Route, frame::ifindex(self.skb), owner, replaced);
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
        const { assert!(TAKEN_OFF == 4) };
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
        let made = unsafe { bpf_skb_change_head(self.skb, EthHdr::LEN as u32, 0) };
        if made != 0 {
            report(Event::Header, frame::ifindex(self.skb), 0, made);
        }
        made == 0
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

    #[inline(always)]
    fn store_words(&self, offset: u32, words: &[u32; 4]) -> bool {
        // SAFETY: as many bytes, of which each is right.
        self.store(offset, unsafe { &*ptr::from_ref(words).cast::<[u8; 16]>() })
    }

    /// Writes through the helper: a direct write would have the kernel copy every packet that enters the
    /// program.
    #[inline(always)]
    fn store<const N: usize>(&self, offset: u32, bytes: &[u8; N]) -> bool {
        // SAFETY: a valid context, and a pointer to `N` initialised bytes.
        let stored = unsafe { bpf_skb_store_bytes(self.skb, offset, bytes.as_ptr().cast(), N as u32, 0) };
        if stored != 0 {
            report(Event::Store, frame::ifindex(self.skb), 0, stored);
        }
        stored == 0
    }
}

#[inline(always)]
fn redirect(owner: u32) -> Outcome {
    // SAFETY: no pointers are involved.
    Outcome::from_helper(unsafe { bpf_redirect(owner, 0) })
}
