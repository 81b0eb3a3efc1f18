//! Judging what is known to be IPv4, IPv6 or ARP.
//!
//! Each protocol has a function of its own for the kernel too: with one for all, the compiler merges their ways and
//! reads what is set in only one of them, which the verifier refuses; and their stacks don't add up.

use core::ptr;

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_csum_diff};
use mhebpf_ebpf::{
    Direction, Frame, Iface, Location, Verdict,
    decide::decide,
    packet::{DISCOVERY_LEN, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, parse_at},
};
use network_types::{
    arp::ArpHdr,
    eth::EthHdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
};

use super::{
    act::{Case, Outcome},
    frame::{SkbBytes, SkbFrame},
    maps::BpfTables,
    xfrm,
};

/// [`Direction::Egress`] as a parameter of functions.
pub(super) const EGRESS: u8 = Direction::Egress as u8;
/// [`Direction::Ingress`] as a parameter of functions.
pub(super) const INGRESS: u8 = Direction::Ingress as u8;

/// Judges an untagged Ethernet frame with IPv4.
#[inline(never)]
pub(super) fn ipv4<const DIRECTION: u8>(skb: *mut __sk_buff, iface: &Iface) -> Outcome {
    let frame = SkbFrame::with::<{ EthHdr::LEN + Ipv4Hdr::LEN }>(skb);
    judge_frame::<DIRECTION>(skb, iface, &frame, ETHERTYPE_IPV4)
}

/// Judges an untagged Ethernet frame with IPv6.
#[inline(never)]
pub(super) fn ipv6<const DIRECTION: u8>(skb: *mut __sk_buff, iface: &Iface) -> Outcome {
    let mut frame = SkbFrame::with::<{ EthHdr::LEN + Ipv6Hdr::LEN }>(skb);
    if frame.is_icmpv6() {
        frame = SkbFrame::with::<{ EthHdr::LEN + DISCOVERY_LEN }>(skb);
    }
    judge_frame::<DIRECTION>(skb, iface, &frame, ETHERTYPE_IPV6)
}

/// Judges an untagged Ethernet frame with ARP.
#[inline(never)]
pub(super) fn arp<const DIRECTION: u8>(skb: *mut __sk_buff, iface: &Iface) -> Outcome {
    let frame = SkbFrame::with::<{ EthHdr::LEN + ArpHdr::LEN }>(skb);
    judge_frame::<DIRECTION>(skb, iface, &frame, ETHERTYPE_ARP)
}

/// Where in a frame something is, as a number of which the verifier knows nothing: it would follow the functions
/// below anew for every number of tags.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Place(u32);

impl Place {
    #[inline(always)]
    pub(super) fn new(offset: usize, group: Option<bool>) -> Self {
        let group = match group {
            Some(group) => u32::from(group),
            None => 2,
        };
        let mut number = (offset as u32) << 2 | group;
        // SAFETY: a pointer to four initialised bytes, whose sum is the number that they are.
        Self(unsafe { bpf_csum_diff(ptr::null_mut(), 0, &raw mut number, size_of::<u32>() as u32, 0) as u32 })
    }

    #[inline(always)]
    fn location(self, ethertype: u16) -> Location {
        let group = match self.0 & 3 {
            2 => None,
            group => Some(group != 0),
        };
        Location { ethertype, offset: (self.0 >> 2) as usize, group }
    }
}

/// Judges IPv4 anywhere in a frame.
#[inline(never)]
pub(super) fn ipv4_at<const DIRECTION: u8>(skb: *mut __sk_buff, iface: &Iface, place: Place) -> Outcome {
    judge::<DIRECTION>(skb, iface, &SkbBytes(skb), place.location(ETHERTYPE_IPV4))
}

/// Judges IPv6 anywhere in a frame.
#[inline(never)]
pub(super) fn ipv6_at<const DIRECTION: u8>(skb: *mut __sk_buff, iface: &Iface, place: Place) -> Outcome {
    judge::<DIRECTION>(skb, iface, &SkbBytes(skb), place.location(ETHERTYPE_IPV6))
}

/// Judges ARP anywhere in a frame.
#[inline(never)]
pub(super) fn arp_at<const DIRECTION: u8>(skb: *mut __sk_buff, iface: &Iface, place: Place) -> Outcome {
    judge::<DIRECTION>(skb, iface, &SkbBytes(skb), place.location(ETHERTYPE_ARP))
}

#[inline(always)]
fn judge_frame<const DIRECTION: u8>(
    skb: *mut __sk_buff,
    iface: &Iface,
    frame: &SkbFrame,
    ethertype: u16,
) -> Outcome {
    let Some([first_octet]) = frame.read(0) else { return Outcome::Pass };
    judge::<DIRECTION>(skb, iface, frame, Location::in_ethernet(ethertype, first_octet))
}

#[inline(always)]
fn judge<const DIRECTION: u8>(
    skb: *mut __sk_buff,
    iface: &Iface,
    frame: &impl Frame,
    location: Location,
) -> Outcome {
    let direction = if DIRECTION == EGRESS { Direction::Egress } else { Direction::Ingress };
    // SAFETY: the kernel passes a valid context, whose fields the verifier knows.
    let ifindex = unsafe { (*skb).ifindex };
    let Some(packet) = parse_at(frame, location) else { return Outcome::Pass };
    let Location { offset, ethertype, .. } = location;
    match decide(&BpfTables, direction, ifindex, iface, &packet, || xfrm::is_decapsulated(skb)) {
        Verdict::Pass => Outcome::Pass,
        Verdict::Act { family, reason, action, enforced } => {
            let case = Case { skb, direction, ifindex, iface, offset, ethertype, family, reason };
            if enforced { case.carry_out(&action) } else { case.observe() }
        }
    }
}
