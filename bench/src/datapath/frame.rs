//! The frames that the programs are run on, each as long as the shortest one on a wire.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::host::{ETH1, NEIGHBOUR, NEIGHBOUR6};

/// The addresses that an ARP packet or a datagram carries.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Content {
    Datagram { source: IpAddr, destination: IpAddr },
    ArpRequest { sender: Ipv4Addr, target: Ipv4Addr },
    ArpReply { sender: Ipv4Addr, target: Ipv4Addr },
    Solicitation { source: Ipv6Addr, target: Ipv6Addr },
}

/// Where the addresses stand in the frames.
pub(crate) const IPV4_SOURCE: i16 = 14 + 12;
pub(crate) const IPV4_DESTINATION: i16 = 14 + 16;
pub(crate) const IPV6_SOURCE: i16 = 14 + 8;
pub(crate) const IPV6_DESTINATION: i16 = 14 + 24;
pub(crate) const ARP_SENDER: i16 = 14 + 14;

/// Without the checksum of Ethernet, which no program sees.
const SHORTEST: usize = 60;

/// An untagged Ethernet frame.
pub(crate) fn frame(content: Content) -> Vec<u8> {
    let (ethertype, network) = match content {
        Content::Datagram { source: IpAddr::V4(source), destination: IpAddr::V4(destination) } => {
            let fixed = [0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 17, 0, 0];
            (0x0800, [&fixed[..], &source.octets(), &destination.octets()].concat())
        }
        Content::Datagram { source, destination } => {
            (0x86dd, ipv6(17, &octets(source), &octets(destination), &[0; 20]))
        }
        Content::ArpRequest { sender, target } => (0x0806, arp(1, sender, target)),
        Content::ArpReply { sender, target } => (0x0806, arp(2, sender, target)),
        Content::Solicitation { source, target } => {
            let solicitation = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target.octets()].concat();
            (0x86dd, ipv6(58, &source.octets(), &target.octets(), &solicitation))
        }
    };
    // What is a violation crosses ETH1.
    let macs = [2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, ETH1 as u8];
    let mut frame = [&macs[..], &u16::to_be_bytes(ethertype), &network].concat();
    frame.resize(frame.len().max(SHORTEST), 0);
    frame
}

/// A datagram to the neighbour of the same family.
pub(crate) fn from(source: impl Into<IpAddr>) -> Content {
    let source = source.into();
    Content::Datagram { source, destination: neighbour(source) }
}

/// A datagram from the neighbour of the same family.
pub(crate) fn to(destination: impl Into<IpAddr>) -> Content {
    let destination = destination.into();
    Content::Datagram { source: neighbour(destination), destination }
}

fn neighbour(of: IpAddr) -> IpAddr {
    if of.is_ipv4() { NEIGHBOUR.into() } else { NEIGHBOUR6.into() }
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

fn ipv6(next_header: u8, source: &[u8; 16], destination: &[u8; 16], payload: &[u8]) -> Vec<u8> {
    let fixed = [0x60, 0, 0, 0, 0, payload.len() as u8, next_header, 255];
    [&fixed[..], source, destination, payload].concat()
}

fn arp(operation: u8, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let fixed = [0, 1, 0x08, 0x00, 6, 4, 0, operation, 2, 0, 0, 0, 0, ETH1 as u8];
    [&fixed[..], &sender.octets(), &[0; 6], &target.octets()].concat()
}
