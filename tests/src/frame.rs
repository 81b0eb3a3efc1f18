//! What was in a captured frame, read independently of mhebpf's own parser.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::mac::Mac;

/// Ethernet's type of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// Ethernet's type of ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// Ethernet's type of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// Ethernet's type of an 802.1Q tag.
pub const ETHERTYPE_VLAN: u16 = 0x8100;
/// Ethernet's type of an 802.1ad tag.
pub const ETHERTYPE_QINQ: u16 = 0x88a8;

/// An ARP request.
pub const ARP_REQUEST: u16 = 1;
/// An ARP reply.
pub const ARP_REPLY: u16 = 2;

/// ICMPv6's type of a router advertisement.
pub const ROUTER_ADVERTISEMENT: u8 = 134;
/// ICMPv6's type of a neighbour solicitation.
pub const SOLICITATION: u8 = 135;
/// ICMPv6's type of a neighbour advertisement.
pub const ADVERTISEMENT: u8 = 136;

/// The number of ICMPv6 as IPv6's next header.
pub const ICMPV6: u8 = 58;
/// The number of the fragment header as IPv6's next header.
pub const FRAGMENT: u8 = 44;

/// An Ethernet frame without its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The sending station.
    pub source: Mac,
    /// The receiving station or group.
    pub destination: Mac,
    /// Each VLAN tag's type and contents, the outer one first.
    pub tags: Vec<(u16, u16)>,
    /// What follows.
    pub packet: Packet,
}

/// The packet in a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// ARP for IPv4, whatever the hardware type.
    Arp(Arp),
    /// An IPv4 datagram.
    Ipv4(Ipv4),
    /// An IPv6 datagram.
    Ipv6(Ipv6),
    /// Anything else, by its Ethernet type.
    Other(u16),
}

/// An ARP packet (RFC 826).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// [`ARP_REQUEST`], [`ARP_REPLY`] or another.
    pub operation: u16,
    /// The sender's hardware address.
    pub sender_mac: Mac,
    /// The sender protocol address.
    pub sender: Ipv4Addr,
    /// The target's hardware address.
    pub target_mac: Mac,
    /// The target protocol address.
    pub target: Ipv4Addr,
}

/// An IPv4 header and what is known of the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4 {
    /// The source address.
    pub source: Ipv4Addr,
    /// The destination address.
    pub destination: Ipv4Addr,
    /// The protocol's number: 1 ICMP, 6 TCP, 17 UDP.
    pub protocol: u8,
    /// Where a fragment belongs, in bytes; 0 in a whole datagram.
    pub fragment_offset: u16,
    /// Whether further fragments follow.
    pub more_fragments: bool,
    /// Source and destination port, in a datagram that begins with them.
    pub ports: Option<(u16, u16)>,
    /// TCP's flags, or 0.
    pub tcp_flags: u8,
    /// ICMP's type, or 0.
    pub icmp_type: u8,
    /// Whether the header's checksum is right.
    pub is_sound: bool,
}

/// An IPv6 header and what is known of the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6 {
    /// The source address.
    pub source: Ipv6Addr,
    /// The destination address.
    pub destination: Ipv6Addr,
    /// The payload's protocol, that of a fragment's whole included: 6 TCP, 17 UDP, 58 ICMPv6.
    pub protocol: u8,
    /// Whether there is a fragment header.
    pub is_fragment: bool,
    /// Source and destination port, in a datagram that begins with them.
    pub ports: Option<(u16, u16)>,
    /// ICMPv6's type, or 0.
    pub icmp_type: u8,
    /// The target of a neighbour solicitation or advertisement.
    pub target: Option<Ipv6Addr>,
}

impl Frame {
    /// Reads a frame of which at least the headers are there; `None` when not even Ethernet's is.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let destination = Mac(bytes.get(0..6)?.try_into().ok()?);
        let source = Mac(bytes.get(6..12)?.try_into().ok()?);
        let mut tags = Vec::new();
        let mut at = 12;
        let ethertype = loop {
            let ethertype = word(bytes, at)?;
            if ethertype != ETHERTYPE_VLAN && ethertype != ETHERTYPE_QINQ {
                break ethertype;
            }
            let Some(contents) = word(bytes, at + 2) else { break ethertype };
            tags.push((ethertype, contents));
            at += 4;
        };
        let body = bytes.get(at + 2..).unwrap_or_default();
        let packet = match ethertype {
            ETHERTYPE_ARP => Arp::parse(body).map(Packet::Arp),
            ETHERTYPE_IPV4 => Ipv4::parse(body).map(Packet::Ipv4),
            ETHERTYPE_IPV6 => Ipv6::parse(body).map(Packet::Ipv6),
            _ => None,
        };
        Some(Self { source, destination, tags, packet: packet.unwrap_or(Packet::Other(ethertype)) })
    }

    /// Whether the frame belongs to no VLAN: untagged, or tagged for its priority only.
    pub fn is_untagged_or_priority_tagged(&self) -> bool {
        self.tags.iter().all(|(_, contents)| contents & 0x0fff == 0)
    }

    /// The ARP packet inside.
    pub fn arp(&self) -> Option<&Arp> {
        match &self.packet {
            Packet::Arp(arp) => Some(arp),
            _ => None,
        }
    }

    /// The IPv4 datagram inside.
    pub fn ipv4(&self) -> Option<&Ipv4> {
        match &self.packet {
            Packet::Ipv4(ipv4) => Some(ipv4),
            _ => None,
        }
    }

    /// The IPv6 datagram inside.
    pub fn ipv6(&self) -> Option<&Ipv6> {
        match &self.packet {
            Packet::Ipv6(ipv6) => Some(ipv6),
            _ => None,
        }
    }

    /// The source of an IP datagram that somebody wanted sent: not one in which the kernel looks after its
    /// neighbours and groups whenever it likes.
    pub fn datagram_source(&self) -> Option<IpAddr> {
        match &self.packet {
            Packet::Ipv4(ipv4) => Some(ipv4.source.into()),
            Packet::Ipv6(ipv6) if !ipv6.is_housekeeping() => Some(ipv6.source.into()),
            _ => None,
        }
    }

    /// The target of a neighbour advertisement: it says where that is.
    pub fn advertised(&self) -> Option<Ipv6Addr> {
        self.ipv6().filter(|ipv6| ipv6.icmp_type == ADVERTISEMENT)?.target
    }

    /// The address of which this says where it is, be it asked or not: the sender of an ARP reply, or the target of a neighbour
    /// advertisement.
    pub fn answered(&self) -> Option<IpAddr> {
        match &self.packet {
            Packet::Arp(arp) if arp.operation == ARP_REPLY => Some(arp.sender.into()),
            _ => self.advertised().map(IpAddr::from),
        }
    }

    /// The address that speaks: IP's source, ARP's sender protocol address.
    pub fn speaker(&self) -> Option<IpAddr> {
        match &self.packet {
            Packet::Arp(arp) => Some(arp.sender.into()),
            Packet::Ipv4(ipv4) => Some(ipv4.source.into()),
            Packet::Ipv6(ipv6) => Some(ipv6.source.into()),
            Packet::Other(_) => None,
        }
    }
}

impl Arp {
    fn parse(body: &[u8]) -> Option<Self> {
        // The kernel accepts hardware type 6 (IEEE 802) like 1, and so does this: only the sizes matter.
        if word(body, 2)? != ETHERTYPE_IPV4 || body.get(4..6)? != [6, 4] {
            return None;
        }
        Some(Self {
            operation: word(body, 6)?,
            sender_mac: Mac(body.get(8..14)?.try_into().ok()?),
            sender: address(body, 14)?,
            target_mac: Mac(body.get(18..24)?.try_into().ok()?),
            target: address(body, 24)?,
        })
    }
}

impl Ipv4 {
    fn parse(body: &[u8]) -> Option<Self> {
        let first = *body.first()?;
        let header_length = usize::from(first & 0x0f) * 4;
        if first >> 4 != 4 || header_length < 20 {
            return None;
        }
        let fragment = word(body, 6)?;
        let protocol = *body.get(9)?;
        let fragment_offset = (fragment & 0x1fff) * 8;
        let payload = if fragment_offset == 0 { body.get(header_length..).unwrap_or_default() } else { &[] };
        let ports = match protocol {
            6 | 17 => word(payload, 0).zip(word(payload, 2)),
            _ => None,
        };
        Some(Self {
            source: address(body, 12)?,
            destination: address(body, 16)?,
            protocol,
            fragment_offset,
            more_fragments: fragment & 0x2000 != 0,
            ports,
            tcp_flags: if protocol == 6 { payload.get(13).copied().unwrap_or_default() } else { 0 },
            icmp_type: if protocol == 1 { payload.first().copied().unwrap_or_default() } else { 0 },
            is_sound: body.get(..header_length).is_some_and(is_sound),
        })
    }

    /// Whether this is a part of a datagram only.
    pub const fn is_fragment(&self) -> bool {
        self.fragment_offset != 0 || self.more_fragments
    }
}

impl Ipv6 {
    fn parse(body: &[u8]) -> Option<Self> {
        if body.first()? >> 4 != 6 {
            return None;
        }
        let mut next_header = *body.get(6)?;
        let (source, destination) = (address6(body, 8)?, address6(body, 24)?);
        let mut rest = body.get(40..).unwrap_or_default();
        // Hop-by-hop options: listener reports carry a router alert.
        if next_header == 0 && rest.len() >= 8 {
            next_header = rest[0];
            rest = rest.get((usize::from(rest[1]) + 1) * 8..).unwrap_or_default();
        }
        let is_fragment = next_header == FRAGMENT;
        let (protocol, payload): (u8, &[u8]) = match is_fragment {
            false => (next_header, rest),
            // A later fragment does not begin with ports or a type.
            true if word(rest, 2)? >> 3 != 0 => (*rest.first()?, &[]),
            true => (*rest.first()?, rest.get(8..).unwrap_or_default()),
        };
        let ports = match protocol {
            6 | 17 => word(payload, 0).zip(word(payload, 2)),
            _ => None,
        };
        let icmp_type = if protocol == ICMPV6 { payload.first().copied().unwrap_or_default() } else { 0 };
        let target = match icmp_type {
            SOLICITATION | ADVERTISEMENT => address6(payload, 8),
            _ => None,
        };
        Some(Self { source, destination, protocol, is_fragment, ports, icmp_type, target })
    }

    /// Whether this is a message about groups (RFC 2710, RFC 3810), routers or neighbours (RFC 4861).
    pub const fn is_housekeeping(&self) -> bool {
        matches!(self.icmp_type, 130..=137 | 143)
    }
}

fn address6(bytes: &[u8], at: usize) -> Option<Ipv6Addr> {
    let octets: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
    Some(octets.into())
}

/// Whether the sum of a header's words, its checksum included, is as RFC 1071 wants it.
fn is_sound(header: &[u8]) -> bool {
    let words = header.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u32 = words.sum();
    (sum & 0xffff) + (sum >> 16) == 0xffff
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn address(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(octets.into())
}

/// Like tcpdump's lines with `-ne`, but shorter.
impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} > {} ", self.source, self.destination)?;
        for (_, contents) in &self.tags {
            write!(f, "vlan {} ", contents & 0x0fff)?;
        }
        match &self.packet {
            Packet::Arp(arp) => arp.fmt(f),
            Packet::Ipv4(ipv4) => ipv4.fmt(f),
            Packet::Ipv6(ipv6) => ipv6.fmt(f),
            Packet::Other(ethertype) => write!(f, "ethertype {ethertype:#06x}"),
        }
    }
}

impl fmt::Display for Arp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operation, sender_mac, sender, target, .. } = self;
        match *operation {
            ARP_REQUEST => write!(f, "ARP who-has {target} tell {sender}"),
            ARP_REPLY => write!(f, "ARP {sender} is-at {sender_mac}"),
            _ => write!(f, "ARP operation {operation} {sender} to {target}"),
        }
    }
}

impl fmt::Display for Ipv4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ports {
            Some((from, to)) => write!(f, "{}.{from} > {}.{to}", self.source, self.destination)?,
            None => write!(f, "{} > {}", self.source, self.destination)?,
        }
        match (self.protocol, self.icmp_type) {
            (1, 0) => f.write_str(" ICMP echo reply")?,
            (1, 8) => f.write_str(" ICMP echo request")?,
            (1, kind) => write!(f, " ICMP type {kind}")?,
            (6, _) => write!(f, " TCP [{}]", tcp_flags(self.tcp_flags))?,
            (17, _) => f.write_str(" UDP")?,
            (other, _) => write!(f, " protocol {other}")?,
        }
        if self.is_fragment() {
            write!(f, " fragment at {}", self.fragment_offset)?;
        }
        Ok(())
    }
}

impl fmt::Display for Ipv6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ports {
            Some((from, to)) => write!(f, "[{}].{from} > [{}].{to}", self.source, self.destination)?,
            None => write!(f, "{} > {}", self.source, self.destination)?,
        }
        match (self.icmp_type, self.target) {
            (SOLICITATION, Some(target)) => write!(f, " NS who has {target}")?,
            (ADVERTISEMENT, Some(target)) => write!(f, " NA of {target}")?,
            (0, _) => write!(f, " protocol {}", self.protocol)?,
            (kind, _) => write!(f, " ICMPv6 type {kind}")?,
        }
        if self.is_fragment {
            f.write_str(" fragment")?;
        }
        Ok(())
    }
}

/// The flags in tcpdump's letters.
fn tcp_flags(flags: u8) -> String {
    [(0x01, 'F'), (0x02, 'S'), (0x04, 'R'), (0x08, 'P'), (0x10, '.')]
        .into_iter()
        .filter_map(|(bit, letter)| (flags & bit != 0).then_some(letter))
        .collect()
}
