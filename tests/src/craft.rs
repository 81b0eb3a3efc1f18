//! Frames and packets made by hand, to be sent as they are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result, bail};
use etherparse::{IcmpEchoHeader, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, PacketBuilder};

use crate::{
    family::Family,
    frame::{
        ADVERTISEMENT, ARP_REPLY, ARP_REQUEST, Arp, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, FRAGMENT,
        ICMPV6, ROUTER_ADVERTISEMENT, SOLICITATION,
    },
    mac::Mac,
};

/// Ethernet's hardware type in ARP.
pub const HARDWARE_ETHERNET: u16 = 1;
/// IEEE 802's hardware type in ARP, which Linux accepts just as well.
pub const HARDWARE_IEEE802: u16 = 6;

/// From whom to whom a frame goes.
#[derive(Clone, Copy, Debug)]
pub struct Stations {
    /// The sending station.
    pub source: Mac,
    /// The receiving station or group.
    pub destination: Mac,
}

impl Arp {
    /// "Who has `target`? Tell `sender`."
    pub const fn request(sender_mac: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Self {
        Self { operation: ARP_REQUEST, sender_mac, sender, target_mac: Mac::ZERO, target }
    }

    /// "`sender` is at `sender_mac`", said to the target.
    pub const fn reply(sender_mac: Mac, sender: Ipv4Addr, target_mac: Mac, target: Ipv4Addr) -> Self {
        Self { operation: ARP_REPLY, sender_mac, sender, target_mac, target }
    }

    /// Announces `address` by a request for itself (RFC 5227 section 3).
    pub const fn announcement(mac: Mac, address: Ipv4Addr) -> Self {
        Self::request(mac, address, address)
    }

    /// The packet in a frame from its sender to `destination`.
    pub fn frame(&self, destination: Mac) -> Vec<u8> {
        self.frame_with_hardware_type(destination, HARDWARE_ETHERNET)
    }

    /// The same with another hardware type.
    pub fn frame_with_hardware_type(&self, destination: Mac, hardware_type: u16) -> Vec<u8> {
        let stations = Stations { source: self.sender_mac, destination };
        let mut body = Vec::with_capacity(28);
        body.extend(hardware_type.to_be_bytes());
        body.extend(ETHERTYPE_IPV4.to_be_bytes());
        body.extend([6, 4]);
        body.extend(self.operation.to_be_bytes());
        body.extend(self.sender_mac.0);
        body.extend(self.sender.octets());
        body.extend(self.target_mac.0);
        body.extend(self.target.octets());
        ethernet(stations, ETHERTYPE_ARP, &body)
    }
}

/// A frame of any kind.
pub fn ethernet(stations: Stations, ethertype: u16, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(14 + body.len());
    frame.extend(stations.destination.0);
    frame.extend(stations.source.0);
    frame.extend(ethertype.to_be_bytes());
    frame.extend(body);
    frame
}

/// The same frame with VLAN tags, each a type and contents, the outer one first.
pub fn tagged(frame: &[u8], tags: &[(u16, u16)]) -> Vec<u8> {
    let (stations, rest) = frame.split_at(frame.len().min(12));
    let mut tagged = stations.to_vec();
    for (ethertype, contents) in tags {
        tagged.extend(ethertype.to_be_bytes());
        tagged.extend(contents.to_be_bytes());
    }
    tagged.extend(rest);
    tagged
}

/// A UDP datagram of either family in a frame, with right checksums.
///
/// # Errors
///
/// When the payload is too long, or when the addresses are of different families.
pub fn udp(
    stations: Stations,
    from: impl Into<SocketAddr>,
    to: impl Into<SocketAddr>,
    payload: &[u8],
) -> Result<Vec<u8>> {
    let (from, to) = (from.into(), to.into());
    let builder = PacketBuilder::ethernet2(stations.source.0, stations.destination.0);
    let builder = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => builder.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => builder.ipv6(from.octets(), to.octets(), 64),
        _ => bail!("{from} and {to} are of different families"),
    };
    let builder = builder.udp(from.port(), to.port());
    let mut frame = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut frame, payload).context("writing a UDP datagram")?;
    Ok(frame)
}

/// An ICMP echo request in a frame.
///
/// # Errors
///
/// When the payload is too long.
pub fn echo_request(stations: Stations, from: Ipv4Addr, to: Ipv4Addr, id: u16) -> Result<Vec<u8>> {
    let builder = PacketBuilder::ethernet2(stations.source.0, stations.destination.0)
        .ipv4(from.octets(), to.octets(), 64)
        .icmpv4_echo_request(id, 1);
    let mut frame = Vec::with_capacity(builder.size(0));
    builder.write(&mut frame, &[]).context("writing an ICMP echo request")?;
    Ok(frame)
}

/// An ICMP echo request of a family without an IP header, as a raw socket takes it: the kernel fills in the checksum of ICMPv6.
pub fn echo_message(family: Family, id: u16, sequence: u16, payload: &[u8]) -> Vec<u8> {
    let echo = IcmpEchoHeader { id, seq: sequence };
    let mut message = match family {
        Family::V4 => Icmpv4Header::with_checksum(Icmpv4Type::EchoRequest(echo), payload).to_bytes().to_vec(),
        Family::V6 => Icmpv6Header::new(Icmpv6Type::EchoRequest(echo)).to_bytes().to_vec(),
    };
    message.extend(payload);
    message
}

/// A fragment of an IPv6 datagram of UDP: this part of its payload, `offset` bytes from its start.
pub fn fragment6(
    stations: Stations,
    (from, to): (Ipv6Addr, Ipv6Addr),
    offset: u16,
    more: bool,
    part: &[u8],
) -> Vec<u8> {
    let mut body = vec![17, 0];
    body.extend((offset & !7 | u16::from(more)).to_be_bytes());
    body.extend(0x4242_4242_u32.to_be_bytes());
    body.extend(part);
    ipv6(stations, (from, to), FRAGMENT, 64, &body)
}

/// "Who has `target`?", with the asker's hardware address unless it has no address yet.
pub fn solicitation(stations: Stations, (from, to): (Ipv6Addr, Ipv6Addr), target: Ipv6Addr) -> Vec<u8> {
    // The options: 1 the source's hardware address, 2 the target's.
    let option = (!from.is_unspecified()).then_some((1, stations.source));
    discovery(stations, (from, to), SOLICITATION, 0, target, option)
}

/// "`target` is at the frame's source": unsolicited, to override what is known.
pub fn advertisement(stations: Stations, (from, to): (Ipv6Addr, Ipv6Addr), target: Ipv6Addr) -> Vec<u8> {
    discovery(stations, (from, to), ADVERTISEMENT, 0x20, target, Some((2, stations.source)))
}

fn discovery(
    stations: Stations,
    (from, to): (Ipv6Addr, Ipv6Addr),
    kind: u8,
    flags: u8,
    target: Ipv6Addr,
    option: Option<(u8, Mac)>,
) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    message.extend(target.octets());
    if let Some((option, mac)) = option {
        message.extend([option, 1]);
        message.extend(mac.0);
    }
    discovery_message(stations, (from, to), message)
}

/// How much a router wants to be the default one (RFC 4191 section 2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preference {
    /// Before others.
    High = 0x08,
    /// As those say that say nothing.
    Medium = 0,
    /// After others.
    Low = 0x18,
}

/// "I am a default router for so many seconds", said to all nodes; 0 seconds: no longer.
pub fn router_advertisement(router: Mac, from: Ipv6Addr, preference: Preference, lifetime: u16) -> Vec<u8> {
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let stations = Stations { source: router, destination: group_mac(all_nodes) };
    // Hop limit and the times that neighbours are looked after stay as they are: 0.
    let mut message = vec![ROUTER_ADVERTISEMENT, 0, 0, 0, 0, preference as u8];
    message.extend(lifetime.to_be_bytes());
    message.extend([0; 8]);
    // The option 1: the source's hardware address.
    message.extend([1, 1]);
    message.extend(router.0);
    discovery_message(stations, (from, all_nodes), message)
}

fn discovery_message(stations: Stations, (from, to): (Ipv6Addr, Ipv6Addr), mut message: Vec<u8>) -> Vec<u8> {
    let length = message.len() as u8;
    let pseudo_header = [&from.octets()[..], &to.octets(), &[0, 0, 0, length, 0, 0, 0, ICMPV6]].concat();
    let words = |bytes: &[u8]| -> u32 {
        bytes.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum()
    };
    let sum = words(&pseudo_header) + words(&message);
    let sum = (sum & 0xffff) + (sum >> 16);
    let checksum = !(((sum & 0xffff) + (sum >> 16)) as u16);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    // A neighbour believes nothing that a router may have forwarded.
    ipv6(stations, (from, to), ICMPV6, 255, &message)
}

fn ipv6(
    stations: Stations,
    (from, to): (Ipv6Addr, Ipv6Addr),
    next_header: u8,
    hop_limit: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut body = vec![0x60, 0, 0, 0];
    body.extend((payload.len() as u16).to_be_bytes());
    body.extend([next_header, hop_limit]);
    body.extend(from.octets());
    body.extend(to.octets());
    body.extend(payload);
    ethernet(stations, ETHERTYPE_IPV6, &body)
}

/// The group to which a solicitation for this address goes (RFC 4291 section 2.7.1).
pub const fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b] = address.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | (a & 0xff), b)
}

/// The hardware address of an IPv6 group (RFC 2464 section 7).
pub const fn group_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    Mac([0x33, 0x33, a, b, c, d])
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddrV4, SocketAddrV6};

    use super::*;
    use crate::frame::{ETHERTYPE_QINQ, ETHERTYPE_VLAN, Frame};

    const HERE: Stations = Stations { source: Mac::lab(1), destination: Mac::lab(2) };

    #[test]
    fn what_is_crafted_is_read_back() {
        let arp = Arp::request(Mac::lab(1), [10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let frame = Frame::parse(&arp.frame(Mac::BROADCAST)).unwrap();
        assert_eq!(frame.arp(), Some(&arp));
        assert_eq!((frame.source, frame.destination), (Mac::lab(1), Mac::BROADCAST));

        let (from, to): (SocketAddrV4, SocketAddrV4) =
            ("10.0.0.1:1000".parse().unwrap(), "10.0.0.2:2000".parse().unwrap());
        let frame = Frame::parse(&udp(HERE, from, to, b"hello").unwrap()).unwrap();
        assert_eq!(frame.ipv4().unwrap().ports, Some((1000, 2000)));
        assert_eq!(frame.speaker(), Some((*from.ip()).into()));
        assert!(!frame.ipv4().unwrap().is_fragment());
    }

    #[test]
    fn what_is_crafted_of_ipv6_is_read_back() {
        let (from, to): (SocketAddrV6, SocketAddrV6) =
            ("[fe80::1]:1000".parse().unwrap(), "[2001:db8::2]:2000".parse().unwrap());
        assert!(udp(HERE, from, SocketAddr::from(([10, 0, 0, 2], 1)), &[]).is_err());
        let frame = Frame::parse(&udp(HERE, from, to, b"hello").unwrap()).unwrap();
        assert_eq!(frame.ipv6().unwrap().ports, Some((1000, 2000)));
        assert_eq!(frame.speaker(), Some((*from.ip()).into()));

        let addresses = (*from.ip(), solicited_node(*to.ip()));
        assert_eq!(addresses.1, "ff02::1:ff00:2".parse::<Ipv6Addr>().unwrap());
        let frame = Frame::parse(&solicitation(HERE, addresses, *to.ip())).unwrap();
        let read = frame.ipv6().unwrap();
        assert_eq!((read.icmp_type, read.target), (SOLICITATION, Some(*to.ip())));
        assert_eq!(frame.advertised(), None);
        let frame = Frame::parse(&advertisement(HERE, addresses, *to.ip())).unwrap();
        assert_eq!(frame.advertised(), Some(*to.ip()));

        let frame = Frame::parse(&fragment6(HERE, addresses, 8, false, b"rest")).unwrap();
        let read = frame.ipv6().unwrap();
        assert_eq!((read.is_fragment, read.protocol, read.ports), (true, 17, None));
    }

    #[test]
    fn tags_are_read_from_the_outside_in() {
        let arp = Arp::announcement(Mac::lab(1), [10, 0, 0, 1].into());
        let tags = [(ETHERTYPE_QINQ, 0), (ETHERTYPE_VLAN, 0x2000)];
        let frame = Frame::parse(&tagged(&arp.frame(Mac::BROADCAST), &tags)).unwrap();
        assert_eq!(frame.tags, tags);
        assert_eq!(frame.arp(), Some(&arp));
        assert!(frame.is_untagged_or_priority_tagged());
    }

    #[test]
    fn no_length_of_a_frame_is_too_short_to_be_read() {
        let echo = echo_request(HERE, [10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 7).unwrap();
        for length in 0..echo.len() {
            let frame = Frame::parse(&echo[..length]);
            assert_eq!(frame.is_some(), length >= 14, "{length}");
        }
    }
}
