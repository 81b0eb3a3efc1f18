//! What the first bytes of a packet say.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use etherparse::{IpNumber, LaxIpSlice, ip_number};
use mhebpf_ebpf::{ArpOperation, DiscoveryKind, Location, Network, packet};
use serde::Serialize;

use crate::{
    control::protocol::{Seen, from_hex},
    netlink::conntrack,
};

/// What the first bytes of a packet say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(super) enum Packet {
    /// An IP datagram or fragment.
    Datagram {
        /// The name of the protocol, or its number.
        protocol: String,
        source: IpAddr,
        destination: IpAddr,
        /// Of TCP, UDP, UDP-Lite, SCTP and DCCP; not in fragments.
        source_port: Option<u16>,
        destination_port: Option<u16>,
    },
    /// An ARP packet.
    Arp {
        /// `request` or `reply`.
        operation: &'static str,
        sender: IpAddr,
        target: IpAddr,
    },
    /// Neighbour discovery.
    Ndp {
        /// `solicitation` or `advertisement`.
        message: &'static str,
        source: IpAddr,
        destination: IpAddr,
        target: IpAddr,
    },
    /// Something else.
    Unreadable,
}

impl Packet {
    /// What is known of a packet that was seen.
    pub(super) fn of(seen: &Seen) -> Self {
        Self::read(&from_hex(&seen.bytes).unwrap_or_default(), &seen.family)
    }

    /// Reads as much as is there.
    pub(super) fn read(bytes: &[u8], family: &str) -> Self {
        let ethertype = match family {
            "ipv4" => packet::ETHERTYPE_IPV4,
            "arp" => packet::ETHERTYPE_ARP,
            _ => packet::ETHERTYPE_IPV6,
        };
        let v6 = |address: mhebpf_ebpf::Ipv6| IpAddr::from(Ipv6Addr::from(address.octets()));
        let v4 = |address: mhebpf_ebpf::Ipv4| IpAddr::from(Ipv4Addr::from(address.octets()));
        let location = Location { ethertype, offset: 0, group: None };
        match packet::parse_at(bytes, location).map(|packet| packet.network) {
            Some(Network::Arp(arp)) => Self::Arp {
                operation: match arp.operation {
                    ArpOperation::Request => "request",
                    ArpOperation::Reply => "reply",
                },
                sender: v4(arp.sender),
                target: v4(arp.target),
            },
            Some(Network::Ipv4(datagram)) => {
                datagram_of(bytes, v4(datagram.source), v4(datagram.destination))
            }
            Some(Network::Ipv6(datagram, discovery)) => {
                let (source, destination) = (v6(datagram.source), v6(datagram.destination));
                let message = match discovery.kind {
                    DiscoveryKind::None => return datagram_of(bytes, source, destination),
                    DiscoveryKind::Solicitation => "solicitation",
                    DiscoveryKind::Advertisement => "advertisement",
                };
                Self::Ndp { message, source, destination, target: v6(discovery.target) }
            }
            None => Self::Unreadable,
        }
    }
}

impl Packet {
    /// The packet without the port that is made up for each connection.
    pub(super) fn flow(&self) -> String {
        match self {
            Self::Datagram {
                protocol,
                source,
                destination,
                source_port: Some(source_port),
                destination_port: Some(destination_port),
            } => format!("{protocol} {source} > {destination} port {}", source_port.min(destination_port)),
            other => other.to_string(),
        }
    }
}

fn datagram_of(bytes: &[u8], source: IpAddr, destination: IpAddr) -> Packet {
    let (protocol, ports) = protocol_and_ports(bytes)
        .map_or_else(|| ("ip".to_owned(), None), |(protocol, ports)| (name(protocol), ports));
    let [source_port, destination_port] = ports.map_or([None; 2], |ports| ports.map(Some));
    Packet::Datagram { protocol, source, destination, source_port, destination_port }
}

/// A packet as the host tracks it; `None` for one without ports.
pub(crate) fn tracked(bytes: &[u8]) -> Option<conntrack::Packet> {
    let (ip, _) = LaxIpSlice::from_slice(bytes).ok()?;
    let (protocol, ports) = protocol_and_ports(bytes)?;
    let [source, destination] = ports?;
    let (from, to) = match &ip {
        LaxIpSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        LaxIpSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
    };
    Some(conntrack::Packet {
        protocol: protocol.0,
        source: SocketAddr::new(from, source),
        destination: SocketAddr::new(to, destination),
    })
}

fn protocol_and_ports(bytes: &[u8]) -> Option<(IpNumber, Option<[u16; 2]>)> {
    let (ip, _) = LaxIpSlice::from_slice(bytes).ok()?;
    let payload = ip.payload();
    let has_ports = [ip_number::TCP, ip_number::UDP, ip_number::UDP_LITE, ip_number::SCTP, ip_number::DCCP]
        .contains(&payload.ip_number);
    let ports = payload.payload.first_chunk().filter(|_| has_ports && !payload.fragmented);
    let ports =
        ports.map(|[a, b, c, d]: &[u8; 4]| [u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])]);
    Some((payload.ip_number, ports))
}

fn name(protocol: IpNumber) -> String {
    let name = protocol.keyword_str().map(str::to_ascii_lowercase);
    name.unwrap_or_else(|| format!("protocol {}", protocol.0))
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Datagram { protocol, source, destination, source_port, destination_port } => {
                let (source, destination) = (At(*source, *source_port), At(*destination, *destination_port));
                write!(f, "{protocol} {source} > {destination}")
            }
            Self::Arp { operation: "request", sender, target } => {
                write!(f, "arp who-has {target} tell {sender}")
            }
            Self::Arp { operation, sender, target } => write!(f, "arp {operation} {sender} to {target}"),
            Self::Ndp { message, source, destination, target } => {
                write!(f, "ndp {message} of {target}, {source} > {destination}")
            }
            Self::Unreadable => f.write_str("a packet that can't be read"),
        }
    }
}

/// An address with a port, if there is one.
struct At(IpAddr, Option<u16>);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.1) {
            (address, None) => address.fmt(f),
            (IpAddr::V4(address), Some(port)) => write!(f, "{address}:{port}"),
            (IpAddr::V6(address), Some(port)) => write!(f, "[{address}]:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    use super::*;

    fn udp4() -> Vec<u8> {
        let mut bytes = Vec::new();
        let builder = PacketBuilder::ipv4([192, 168, 0, 101], [192, 168, 0, 1], 64).udp(5000, 53);
        builder.write(&mut bytes, b"?").expect("a packet");
        bytes
    }

    #[test]
    fn flows_have_five_parts() {
        assert_eq!(Packet::read(&udp4(), "ipv4").to_string(), "udp 192.168.0.101:5000 > 192.168.0.1:53");
    }

    #[test]
    fn ports_are_read_though_the_header_of_tcp_is_cut_off() {
        let mut bytes = Vec::new();
        let [source, destination] = ["2001:db8::1", "2001:db8::2"].map(|text| match text.parse() {
            Ok(IpAddr::V6(address)) => address.octets(),
            _ => [0; 16],
        });
        let options = [0_u8; 40];
        let builder = PacketBuilder::ipv6(source, destination, 64).tcp(40000, 443, 1, 1000).syn();
        let builder = builder.options_raw(&options).expect("options");
        builder.write(&mut bytes, &[]).expect("a packet");
        let text = Packet::read(&bytes[..mhebpf_ebpf::SAMPLED], "ipv6").to_string();
        assert_eq!(text, "tcp [2001:db8::1]:40000 > [2001:db8::2]:443");
    }

    #[test]
    fn what_has_ports_may_be_tracked() {
        let packet = tracked(&udp4()).map(|packet| (packet.protocol, packet.source, packet.destination));
        let parse = |text: &str| text.parse::<SocketAddr>().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(packet, Some((17, parse("192.168.0.101:5000"), parse("192.168.0.1:53"))));
        assert_eq!(tracked(&udp4()[..20]), None);
    }

    #[test]
    fn a_later_fragment_has_no_ports() {
        let mut bytes = udp4();
        bytes[7] = 9;
        assert_eq!(Packet::read(&bytes, "ipv4").to_string(), "udp 192.168.0.101 > 192.168.0.1");
    }

    proptest! {
        #[test]
        fn whatever_the_bytes_are_something_is_said(
            bytes in prop::collection::vec(any::<u8>(), 0..=80),
            first in prop::sample::select(vec![0x00_u8, 0x45, 0x46, 0x4f, 0x60, 0x6f]),
            next in prop::sample::select(vec![0_u8, 6, 17, 43, 44, 51, 58, 60, 135]),
            family in prop::sample::select(vec!["ipv4", "arp", "ipv6", "ndp", ""]),
        ) {
            let mut bytes = bytes;
            for (place, byte) in [(0, first), (6, next), (9, next)] {
                if let Some(slot) = bytes.get_mut(place) {
                    *slot = byte;
                }
            }
            prop_assert!(!Packet::read(&bytes, family).to_string().is_empty());
        }

        #[test]
        fn what_is_cut_off_is_read_as_far_as_it_goes(length in 0..29_usize) {
            let whole = udp4();
            let read = Packet::read(&whole[..length], "ipv4");
            prop_assert_eq!(read == Packet::Unreadable, length < 20);
            prop_assert_eq!(read == Packet::read(&whole, "ipv4"), length >= 24);
        }
    }
}
