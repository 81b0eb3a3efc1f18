//! Judging what is known to be IPv4, IPv6 or ARP.
//!
//! Each protocol has a function of its own for the kernel too: with one for all, the compiler merges their ways and
//! reads what is set in only one of them, which the verifier refuses; and their stacks don't add up. What an action
//! needs besides the [`Ruling`] is left in `address`: [`mhebpf_ebpf::Action::address`].

use core::mem::MaybeUninit;

use super::{
    flows,
    frame::{self, SkbBytes, SkbFrame, SkbMetadata, SkbNetwork},
    maps::BpfTables,
    report::{Event, report},
    ruling::{Ruling, opaque},
};
use aya_ebpf::bindings::__sk_buff;
use mhebpf_ebpf::{
    Act, Direction, Family, Iface, Location, Metadata as _, Neighbour, Network, Origin, Packet, Reason, Send,
    Verdict,
    decide::{self, decide},
    packet::{
        self, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, PROTOCOL_ICMP, PROTOCOL_IGMP, parse_at,
        parse_ipv6_without_discovery,
    },
};
use network_types::eth::EthHdr;

/// [`Direction::Egress`] as a parameter of functions.
pub(super) const EGRESS: u8 = Direction::Egress as u8;
/// [`Direction::Ingress`] as a parameter of functions.
pub(super) const INGRESS: u8 = Direction::Ingress as u8;

/// Judges an untagged Ethernet frame with IPv4, whose header is in the linear part and was glanced at.
#[inline(never)]
pub(super) fn ipv4<const DIRECTION: u8>(
    skb: *mut __sk_buff,
    iface: &Iface,
    address: &mut MaybeUninit<Neighbour>,
) -> Ruling {
    let frame = SkbFrame::of(skb);
    judge::<DIRECTION, ETHERTYPE_IPV4>(skb, iface, address, frame.location(ETHERTYPE_IPV4), true, |at| {
        parse_at(&frame, at)
    })
}

/// Judges an untagged Ethernet frame with IPv6, but not ICMPv6, whose header is in the linear part and was glanced at.
#[inline(never)]
pub(super) fn ipv6<const DIRECTION: u8>(
    skb: *mut __sk_buff,
    iface: &Iface,
    address: &mut MaybeUninit<Neighbour>,
) -> Ruling {
    let frame = SkbFrame::of(skb);
    judge::<DIRECTION, ETHERTYPE_IPV6>(skb, iface, address, frame.location(ETHERTYPE_IPV6), true, |at| {
        parse_ipv6_without_discovery(&frame, at)
    })
}

/// A [`Location`] as a number of which the verifier knows nothing: it would follow the functions below anew for every
/// number of tags.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Place(u64);

impl Place {
    /// Finds the network layer's header behind tags, or where there is no Ethernet header.
    #[inline(never)]
    pub(super) fn find(skb: *mut __sk_buff, has_ethernet: bool, tag_beside: u16) -> Self {
        let location = if has_ethernet {
            packet::locate(&SkbBytes(skb), tag_beside)
        } else {
            Some(Location::without_ethernet(frame::protocol(skb)))
        };
        let Some(Location { ethertype, offset, group }) = location else { return Self(0) };
        let group = match group {
            Some(group) => u64::from(group),
            None => 2,
        };
        Self(opaque(u64::from(ethertype) << 32 | (offset as u64) << 8 | group))
    }

    /// In host byte order; 0 where there is nothing to judge.
    #[inline(always)]
    pub(super) fn ethertype(self) -> u16 {
        (self.0 >> 32) as u16
    }

    #[inline(always)]
    fn location(self, ethertype: u16) -> Location {
        let group = match self.0 & 3 {
            2 => None,
            group => Some(group != 0),
        };
        Location { ethertype, offset: usize::from((self.0 >> 8) as u16), group }
    }
}

/// Judges IPv4 anywhere in a frame.
#[inline(never)]
pub(super) fn ipv4_at<const DIRECTION: u8>(
    skb: *mut __sk_buff,
    iface: &Iface,
    place: Place,
    address: &mut MaybeUninit<Neighbour>,
) -> Ruling {
    judge::<DIRECTION, ETHERTYPE_IPV4>(
        skb,
        iface,
        address,
        Some(place.location(ETHERTYPE_IPV4)),
        false,
        |at| parse_anywhere::<DIRECTION>(skb, iface, at),
    )
}

/// Judges IPv6 anywhere in a frame.
#[inline(never)]
pub(super) fn ipv6_at<const DIRECTION: u8>(
    skb: *mut __sk_buff,
    iface: &Iface,
    place: Place,
    address: &mut MaybeUninit<Neighbour>,
) -> Ruling {
    judge::<DIRECTION, ETHERTYPE_IPV6>(
        skb,
        iface,
        address,
        Some(place.location(ETHERTYPE_IPV6)),
        false,
        |at| parse_anywhere::<DIRECTION>(skb, iface, at),
    )
}

/// Judges ARP anywhere in a frame.
#[inline(never)]
pub(super) fn arp_at<const DIRECTION: u8>(
    skb: *mut __sk_buff,
    iface: &Iface,
    place: Place,
    address: &mut MaybeUninit<Neighbour>,
) -> Ruling {
    judge::<DIRECTION, ETHERTYPE_ARP>(skb, iface, address, Some(place.location(ETHERTYPE_ARP)), false, |at| {
        parse_at(&SkbBytes(skb), at)
    })
}

/// Judges a frame with more priority tags than are looked through.
#[inline(never)]
pub(super) fn behind_tags<const DIRECTION: u8>(
    skb: *mut __sk_buff,
    iface: &Iface,
    address: &mut MaybeUninit<Neighbour>,
) -> Ruling {
    match decide::behind_tags(direction(DIRECTION), iface, &SkbMetadata(skb)) {
        Verdict::Pass => Ruling::PASS,
        Verdict::Act { family, reason, action, enforced } => {
            address.write(action.address);
            Ruling::new(family, reason, action.act, action.owner, enforced, EthHdr::LEN)
        }
    }
}

#[inline(always)]
fn parse_anywhere<const DIRECTION: u8>(
    skb: *mut __sk_buff,
    iface: &Iface,
    location: Location,
) -> Option<Packet> {
    if DIRECTION == INGRESS && !iface.has_ethernet() {
        parse_at(&SkbNetwork(skb), location)
    } else {
        parse_at(&SkbBytes(skb), location)
    }
}

#[inline(always)]
fn judge<const DIRECTION: u8, const ETHERTYPE: u16>(
    skb: *mut __sk_buff,
    iface: &Iface,
    address: &mut MaybeUninit<Neighbour>,
    location: Option<Location>,
    glanced: bool,
    parse: impl FnOnce(Location) -> Option<Packet>,
) -> Ruling {
    let ifindex = frame::ifindex(skb);
    let Some(packet) = location.and_then(parse) else {
        report(Event::Malformed, ifindex, ETHERTYPE.into(), 0);
        return Ruling::PASS;
    };
    let metadata = SkbMetadata(skb);
    // What goes to no group by the wrong interface, as the glance has found, and so is redirected: sent or forwarded by the host
    // whose interface this is, by its hardware address.
    let is_flow = DIRECTION != INGRESS
        && glanced
        && !packet.group
        && !is_judged_by_more_than_addresses(&packet)
        && metadata.source_mac() == iface.mac()
        && Origin::of(iface, &metadata).send(iface) == Send::Redirect;
    if is_flow
        && let Some(flow) = flow(ifindex, &packet)
        && let Some((owner, next_hop)) = flow.recall()
    {
        address.write(next_hop);
        let family = if ETHERTYPE == ETHERTYPE_IPV4 { Family::Ipv4 } else { Family::Ipv6 };
        return Ruling::new(family, Reason::Redirected, Act::Redirect, owner, true, packet.offset);
    }
    match decide(&BpfTables, direction(DIRECTION), ifindex, iface, &packet, glanced, &metadata) {
        Verdict::Pass => Ruling::PASS,
        Verdict::Act { family, reason, action, enforced } => {
            // Looked up again: what is kept over the decision is more than the stack and the verifier bear.
            if is_flow
                && action.act == Act::Redirect
                && let Some(flow) = flow(ifindex, &packet)
            {
                flow.keep(&action);
            }
            address.write(action.address);
            Ruling::new(family, reason, action.act, action.owner, enforced, packet.offset)
        }
    }
}

/// Whether another datagram between the same addresses may be judged otherwise.
#[inline(always)]
fn is_judged_by_more_than_addresses(packet: &Packet) -> bool {
    match packet.network {
        Network::Ipv4(datagram) => matches!(datagram.protocol, PROTOCOL_ICMP | PROTOCOL_IGMP),
        // ICMPv6 is not glanced at.
        _ => false,
    }
}

/// The flow of a datagram among those that this CPU remembers.
#[inline(always)]
fn flow(ifindex: u32, packet: &Packet) -> Option<flows::Entry> {
    match &packet.network {
        Network::Ipv4(datagram) => flows::Entry::of(ifindex, datagram),
        Network::Ipv6(datagram, _) => flows::Entry::of(ifindex, datagram),
        Network::Arp(_) => None,
    }
}

/// The direction that a parameter of functions means.
#[inline(always)]
pub(super) const fn direction(parameter: u8) -> Direction {
    if parameter == EGRESS { Direction::Egress } else { Direction::Ingress }
}
