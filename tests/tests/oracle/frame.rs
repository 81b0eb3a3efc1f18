//! Reading a frame by hand.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What of a frame is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// A datagram of IPv4 (RFC 791) or IPv6 (RFC 8200).
    Ip {
        source: IpAddr,
        destination: IpAddr,
        protocol: u8,
        discovery: Option<Discovery>,
        /// Of an ICMP error, the destination of the packet that has caused it.
        cause: Option<IpAddr>,
    },
    /// An ARP packet for IPv4 over Ethernet (RFC 826).
    Arp { operation: Operation, hardware: [u8; 6], sender: Ipv4Addr, target: Ipv4Addr },
    /// More tags than are looked through, and whatever is behind them.
    TooManyTags,
}

/// What an ARP packet does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Request,
    Reply,
}

/// What a datagram says about a neighbour (RFC 4861).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Discovery {
    Solicitation { target: Ipv6Addr },
    Advertisement { target: Ipv6Addr },
}

/// How many tags are looked through.
const TAGS: usize = 16;

/// The number of ICMP in an IPv4 header, and of ICMPv6 in one of IPv6.
pub(crate) const ICMP: u8 = 1;
pub(crate) const ICMPV6: u8 = 58;
/// The number of IGMP in an IPv4 header.
pub(crate) const IGMP: u8 = 2;

/// Reads an Ethernet frame and the tag that the kernel holds beside it; `None` for all that is not judged:
/// other protocols, frames of a VLAN, frames cut off or out of shape.
pub(crate) fn read(frame: &[u8], tag_beside: u16) -> Option<Content> {
    if vlan(tag_beside) != 0 {
        return None;
    }
    let mut protocol = number(frame, 12)?;
    let mut rest = frame.get(14..)?;
    let mut tags = 0;
    while protocol == 0x8100 || protocol == 0x88a8 {
        tags += 1;
        if tags > TAGS {
            return Some(Content::TooManyTags);
        }
        if vlan(number(rest, 0)?) != 0 {
            return None;
        }
        protocol = number(rest, 2)?;
        rest = &rest[4..];
    }
    if protocol == 0x0806 { arp(rest) } else { read_bare(rest, protocol) }
}

/// Reads a packet that has no header before that of IP, of a protocol that is known from elsewhere.
pub(crate) fn read_bare(packet: &[u8], protocol: u16) -> Option<Content> {
    match protocol {
        0x0800 => ipv4(packet),
        0x86dd => ipv6(packet),
        _ => None,
    }
}

fn ipv4(bytes: &[u8]) -> Option<Content> {
    let version = bytes.first()? / 16;
    let words_of_header = bytes.first()? % 16;
    if version != 4 || words_of_header < 5 || bytes.len() < 20 {
        return None;
    }
    let [source, destination] = [address(bytes, 12)?, address(bytes, 16)?];
    Some(Content::Ip {
        source: source.into(),
        destination: destination.into(),
        protocol: bytes[9],
        discovery: None,
        cause: if bytes[9] == ICMP && !is_fragment(bytes) {
            bytes.get(4 * usize::from(words_of_header)..).and_then(cause_of_error).map(IpAddr::from)
        } else {
            None
        },
    })
}

fn ipv6(bytes: &[u8]) -> Option<Content> {
    if bytes.first()? / 16 != 6 || bytes.len() < 40 {
        return None;
    }
    let [source, destination] = [address6(bytes, 8)?, address6(bytes, 24)?];
    Some(Content::Ip {
        source: source.into(),
        destination: destination.into(),
        protocol: bytes[6],
        // Behind an extension header it is not looked for, and a node must not listen to it (RFC 6980).
        discovery: if bytes[6] == ICMPV6 { discovery(&bytes[40..]) } else { None },
        cause: if bytes[6] == ICMPV6 { cause_of_error6(&bytes[40..]).map(IpAddr::from) } else { None },
    })
}

/// Whether the rest of an IPv4 datagram, or what comes before, is in others.
fn is_fragment(header: &[u8]) -> bool {
    number(header, 6).is_some_and(|word| word & 0x3fff != 0 || word >= 0x8000)
}

/// The errors of RFC 792 quote the header of what has caused them.
fn cause_of_error(icmp: &[u8]) -> Option<Ipv4Addr> {
    [3, 4, 5, 11, 12].contains(icmp.first()?).then(|| address(icmp, 8 + 16)).flatten()
}

/// And so do those of RFC 4443.
fn cause_of_error6(icmp: &[u8]) -> Option<Ipv6Addr> {
    if *icmp.first()? < 128 { address6(icmp, 8 + 24) } else { None }
}

fn discovery(icmp: &[u8]) -> Option<Discovery> {
    let target = address6(icmp, 8)?;
    match icmp[0] {
        135 => Some(Discovery::Solicitation { target }),
        136 => Some(Discovery::Advertisement { target }),
        _ => None,
    }
}

fn arp(bytes: &[u8]) -> Option<Content> {
    let hardware_is_ethernet = [1, 6].contains(&number(bytes, 0)?);
    let protocol_is_ipv4 = number(bytes, 2)? == 0x0800;
    let lengths = (*bytes.get(4)?, *bytes.get(5)?);
    if !hardware_is_ethernet || !protocol_is_ipv4 || lengths != (6, 4) || bytes.len() < 28 {
        return None;
    }
    let operation = match number(bytes, 6)? {
        1 => Operation::Request,
        2 => Operation::Reply,
        _ => return None,
    };
    let hardware = mac(bytes, 8)?;
    Some(Content::Arp { operation, hardware, sender: address(bytes, 14)?, target: address(bytes, 24)? })
}

fn vlan(tag: u16) -> u16 {
    tag % 4096
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from(*bytes.get(at)?) * 256 + u16::from(*bytes.get(at + 1)?))
}

/// The source of an Ethernet header.
pub(super) fn source_mac(frame: &[u8]) -> Option<[u8; 6]> {
    mac(frame, 6)
}

/// The destination of an Ethernet header.
pub(super) fn destination_mac(frame: &[u8]) -> Option<[u8; 6]> {
    mac(frame, 0)
}

fn mac(bytes: &[u8], at: usize) -> Option<[u8; 6]> {
    match bytes.get(at..at + 6)? {
        [a, b, c, d, e, f] => Some([*a, *b, *c, *d, *e, *f]),
        _ => None,
    }
}

fn address(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    match bytes.get(at..at + 4)? {
        [a, b, c, d] => Some(Ipv4Addr::new(*a, *b, *c, *d)),
        _ => None,
    }
}

fn address6(bytes: &[u8], at: usize) -> Option<Ipv6Addr> {
    let mut groups = [0; 8];
    for (position, group) in groups.iter_mut().enumerate() {
        *group = number(bytes, at + 2 * position)?;
    }
    Some(Ipv6Addr::from(groups))
}
