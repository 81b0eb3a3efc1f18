//! Frames made by hand.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The destination and the source of all of them: not a group.
pub(crate) const MACS: [u8; 12] = [2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1];

/// Broadcast, and the same source.
pub(crate) const TO_ALL: [u8; 12] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1];

/// A tag of 802.1Q with a priority and no VLAN.
pub(crate) const PRIORITY_TAG: [u8; 4] = [0x81, 0x00, 0xa0, 0x00];

/// An Ethernet frame, and what is in it from the EtherType on.
pub(crate) fn ethernet(macs: &[u8; 12], tags: &[[u8; 4]], network: &[u8]) -> Vec<u8> {
    [&macs[..], &tags.concat(), network].concat()
}

/// A datagram of eight bytes, with the EtherType before it. Nothing looks at its checksum.
pub(crate) fn ip(source: impl Into<IpAddr>, destination: impl Into<IpAddr>) -> Vec<u8> {
    match (source.into(), destination.into()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => ipv4(source, destination),
        (IpAddr::V6(source), IpAddr::V6(destination)) => ipv6(17, source, destination, b"datagram"),
        (source, destination) => unreachable!("a datagram from {source} to {destination}"),
    }
}

/// The same of IPv4.
pub(crate) fn ipv4(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    let fixed = [0x08, 0x00, 0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0];
    [&fixed[..], &source.octets(), &destination.octets(), b"datagram"].concat()
}

/// A packet of IPv6, with the EtherType before it.
pub(crate) fn ipv6(next_header: u8, source: Ipv6Addr, destination: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
    let fixed = [0x86, 0xdd, 0x60, 0, 0, 0, 0, payload.len() as u8, next_header, 255];
    [&fixed[..], &source.octets(), &destination.octets(), payload].concat()
}

/// "Time exceeded" about a packet for someone, from one address to another, with the EtherType before it.
pub(crate) fn icmp_error(source: IpAddr, destination: IpAddr, invoking: IpAddr) -> Vec<u8> {
    let invoking = ip(destination, invoking);
    let (kind, protocol) = if source.is_ipv4() { (11, 1) } else { (3, 58) };
    let mut error = ip(source, destination);
    let (header, at) = if source.is_ipv4() { (2 + 20, 2 + 9) } else { (2 + 40, 2 + 6) };
    error.truncate(header);
    error[at] = protocol;
    error.extend([kind, 0, 0, 0, 0, 0, 0, 0]);
    error.extend(&invoking[2..]);
    error
}

/// A neighbour solicitation (RFC 4861 section 4.3), with the EtherType before it.
pub(crate) fn solicitation(source: Ipv6Addr, destination: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    ipv6(58, source, destination, &discovery(135, target))
}

/// A neighbour advertisement (RFC 4861 section 4.4), with the EtherType before it.
pub(crate) fn advertisement(source: Ipv6Addr, destination: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    ipv6(58, source, destination, &discovery(136, target))
}

fn discovery(kind: u8, target: Ipv6Addr) -> Vec<u8> {
    [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &target.octets()].concat()
}

/// What an ARP packet does.
pub(crate) const REQUEST: u8 = 1;
/// What an ARP packet does.
pub(crate) const REPLY: u8 = 2;

/// An ARP packet, with the EtherType before it.
pub(crate) fn arp(operation: u8, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let fixed = [0x08, 0x06, 0, 1, 0x08, 0x00, 6, 4, 0, operation];
    [&fixed[..], &MACS[6..], &sender.octets(), &[0; 6], &target.octets()].concat()
}
