//! Parsing: from a frame to the addresses that are judged.

use network_types::{
    arp::ArpHdr,
    eth::EthHdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
    vlan::VlanHdr,
};

use crate::{Ipv4, Ipv6, Mac};

/// How many VLAN tags are looked through in the frame itself, besides the one that the kernel keeps beside
/// it.
///
/// `__netif_receive_skb_core` (Linux 6.18) strips any number of priority tags; two are what 802.1ad allows, and the rest is
/// margin. What has more is for [`crate::decide::behind_tags`].
pub const MAX_TAGS: usize = 16;

/// A neighbour solicitation or advertisement (RFC 4861 sections 4.3 and 4.4) up to its options, with its IPv6
/// header.
pub const DISCOVERY_LEN: usize = Ipv6Hdr::LEN + 24;

/// The most bytes that [`parse`] reads.
pub const MAX_HEADERS: usize = EthHdr::LEN + MAX_TAGS * VlanHdr::LEN + DISCOVERY_LEN;

/// The EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// The EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// The EtherType of ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// The EtherType of a tag (IEEE 802.1Q).
pub const ETHERTYPE_8021Q: u16 = 0x8100;
/// The EtherType of a service tag (IEEE 802.1ad).
pub const ETHERTYPE_8021AD: u16 = 0x88a8;

/// Where the next header's number stands in an IPv6 header.
pub const IPV6_NEXT_HEADER_OFFSET: usize = 6;
/// The next header's number of ICMPv6.
pub const NEXT_HEADER_ICMPV6: u8 = 58;
/// The protocol number of ICMP.
pub const PROTOCOL_ICMP: u8 = 1;
/// The protocol number of IGMP.
pub const PROTOCOL_IGMP: u8 = 2;
/// Where the protocol's number stands in an IPv4 header.
pub const IPV4_PROTOCOL_OFFSET: usize = 9;
/// Where the source address stands in an IPv4 header.
pub const IPV4_SOURCE_OFFSET: usize = 12;
/// Where the source address stands in an IPv6 header.
pub const IPV6_SOURCE_OFFSET: usize = 8;
/// Where the checksum stands in an ICMPv6 message.
pub const ICMPV6_CHECKSUM_OFFSET: usize = 2;
/// Where the header's checksum stands in an IPv4 header.
pub const IPV4_CHECKSUM_OFFSET: usize = 10;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// The VLAN identifier's bits in a tag control information field.
pub const VLAN_ID_MASK: u16 = 0x0fff;

/// The offset of the sender protocol address in an Ethernet/IPv4 ARP packet (RFC 826).
pub const ARP_SENDER_OFFSET: usize = 14;

/// `ARPHRD_ETHER`.
const HARDWARE_ETHERNET: u16 = 1;
/// `ARPHRD_IEEE802`, which `arp_process` (Linux 6.18) takes for Ethernet too.
const HARDWARE_IEEE802: u16 = 6;

/// Bytes of a frame, from its Ethernet header on where it has one.
pub trait Frame {
    /// Copies `N` bytes from `offset`; `None` where the frame ends before.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// Copies `N` words of four bytes from `offset`, as they lie in memory; `None` where the frame ends before.
    fn read_words<const N: usize>(&self, offset: usize) -> Option<[u32; N]>;
}

impl Frame for [u8] {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }

    fn read_words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        let bytes = self.get(offset..offset.checked_add(4 * N)?)?;
        let mut words = [0; N];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_ne_bytes(chunk.try_into().ok()?);
        }
        Some(words)
    }
}

/// Where in a frame the network layer's header starts, and what it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Location {
    /// The EtherType, in host byte order, behind all tags that are looked through.
    pub ethertype: u16,
    /// In bytes from the start of the frame.
    pub offset: usize,
    /// Whether the destination MAC address is that of a group, broadcast or multicast; `None` where there is no
    /// Ethernet header to say it.
    pub group: Option<bool>,
}

/// A parsed frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// Whether it is for a group: by the destination MAC address, or by the destination address where there is no
    /// Ethernet header.
    pub group: bool,
    /// Where the network layer's header starts, in bytes from the start of the frame.
    pub offset: usize,
    /// What is judged.
    pub network: Network,
}

/// The network layer's part of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Network {
    /// An IPv4 datagram or fragment (RFC 791).
    Ipv4(Datagram<Ipv4>),
    /// An IPv6 datagram or fragment (RFC 8200), and what it asks or says of a neighbour.
    Ipv6(Datagram<Ipv6>, Discovery),
    /// An ARP packet.
    Arp(Arp),
}

/// The judged fields of an IP header. Extension headers need no walk: the fixed header decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Datagram<A> {
    /// The source address.
    pub source: A,
    /// The destination address.
    pub destination: A,
    /// The number of the protocol that it carries: the one that the fixed header names.
    pub protocol: u8,
}

/// The judged field of NDP (RFC 4861): the target of a solicitation or an advertisement.
///
/// Always all set: the kernel's verifier refuses what an `Option` leaves open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Discovery {
    /// What the datagram does.
    pub kind: DiscoveryKind,
    /// The address that it is about; `::` for [`DiscoveryKind::None`].
    pub target: Ipv6,
}

/// What a datagram does to find neighbours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum DiscoveryKind {
    /// Nothing: it is not NDP.
    None,
    /// "Who has the target?"
    Solicitation,
    /// "The target is here."
    Advertisement,
}

impl Discovery {
    /// Not NDP.
    pub const NONE: Self = Self { kind: DiscoveryKind::None, target: Ipv6::UNSPECIFIED };
}

/// The judged fields of an ARP packet (RFC 826) for IPv4 over Ethernet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arp {
    /// Request or reply.
    pub operation: ArpOperation,
    /// The sender hardware address.
    pub hardware: Mac,
    /// The sender protocol address.
    pub sender: Ipv4,
    /// The target protocol address.
    pub target: Ipv4,
}

/// The operations of ARP that the kernel acts upon (`arp_process`, Linux 6.18).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ArpOperation {
    /// "Who has the target protocol address?"
    Request,
    /// "The sender has it."
    Reply,
}

impl Arp {
    /// Whether it announces its sender rather than asks or answers: "gratuitous ARP", the announcement of RFC
    /// 5227.
    #[inline(always)]
    pub fn is_gratuitous(&self) -> bool {
        self.sender.to_wire() == self.target.to_wire()
    }
}

/// Parses an Ethernet frame; `None` where there is nothing to judge.
///
/// That is: neither IP nor ARP; tagged for a VLAN (the VLAN device's programs judge); truncated or malformed
/// (the kernel is the judge of that). Priority tags (VLAN identifier 0) are looked through, as the kernel does.
/// `tag_beside` is the control information of the tag that the kernel keeps beside the frame
/// (`skb->vlan_tci`), 0 when there is none.
#[inline(always)]
pub fn parse<F: Frame + ?Sized>(frame: &F, tag_beside: u16) -> Option<Packet> {
    parse_at(frame, locate(frame, tag_beside)?)
}

/// Parses a packet without an Ethernet header, as they cross tun, WireGuard and PPP devices; `None` where
/// there is nothing to judge. The kernel knows the protocol by `ethertype`, in host byte order
/// (`skb->protocol`).
#[inline(always)]
pub fn parse_without_ethernet<F: Frame + ?Sized>(frame: &F, ethertype: u16) -> Option<Packet> {
    parse_at(frame, Location::without_ethernet(ethertype))
}

impl Location {
    /// In an Ethernet frame without a tag, with the first octet of its destination MAC address.
    #[inline(always)]
    pub const fn in_ethernet(ethertype: u16, first_octet: u8) -> Self {
        Self { ethertype, offset: EthHdr::LEN, group: Some(first_octet & 1 != 0) }
    }

    /// Whether there is a tag here.
    #[inline(always)]
    pub const fn is_tagged(&self) -> bool {
        self.ethertype == ETHERTYPE_8021Q || self.ethertype == ETHERTYPE_8021AD
    }

    /// What is behind the tag that is here; `None` where that is for a VLAN, or the frame ends.
    #[inline(always)]
    fn behind_tag<F: Frame + ?Sized>(self, frame: &F) -> Option<Self> {
        let tag: [u8; VlanHdr::LEN] = frame.read(self.offset)?;
        if u16::from_be_bytes([tag[0], tag[1]]) & VLAN_ID_MASK != 0 {
            return None;
        }
        let ethertype = u16::from_be_bytes([tag[2], tag[3]]);
        Some(Self { ethertype, offset: self.offset + VlanHdr::LEN, group: self.group })
    }

    /// At the start of a frame without an Ethernet header, where there is no ARP either.
    #[inline(always)]
    pub const fn without_ethernet(ethertype: u16) -> Self {
        let ethertype = if ethertype == ETHERTYPE_ARP { 0 } else { ethertype };
        Self { ethertype, offset: 0, group: None }
    }
}

/// Finds the network layer's header in an Ethernet frame; `None` where that is not to be judged: see [`parse`].
#[inline(always)]
pub fn locate<F: Frame + ?Sized>(frame: &F, tag_beside: u16) -> Option<Location> {
    if tag_beside & VLAN_ID_MASK != 0 {
        return None;
    }
    let ethernet: [u8; EthHdr::LEN] = frame.read(0)?;
    let mut location = Location::in_ethernet(u16::from_be_bytes([ethernet[12], ethernet[13]]), ethernet[0]);
    // Written out: without CAP_PERFMON the verifier follows a loop past its end, as a processor may that guesses.
    const { assert!(MAX_TAGS == 16) };
    macro_rules! look_through {
        ($($tag:literal)+) => {$(
            let _ = $tag;
            if !location.is_tagged() {
                return Some(location);
            }
            location = location.behind_tag(frame)?;
        )+};
    }
    look_through!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);
    Some(location)
}

/// Parses the network layer's header; `None` where there is nothing to judge: see [`parse`].
#[inline(always)]
pub fn parse_at<F: Frame + ?Sized>(frame: &F, location: Location) -> Option<Packet> {
    let Location { ethertype, offset, group } = location;
    let (network, group_address) = match ethertype {
        ETHERTYPE_IPV4 => {
            let datagram = parse_ipv4(frame, offset)?;
            (Network::Ipv4(datagram), datagram.destination.is_group())
        }
        ETHERTYPE_IPV6 => {
            let (datagram, discovery) = parse_ipv6(frame, offset)?;
            (Network::Ipv6(datagram, discovery), datagram.destination.is_group())
        }
        ETHERTYPE_ARP => (Network::Arp(parse_arp(frame, offset)?), false),
        _ => return None,
    };
    Some(Packet { group: group.unwrap_or(group_address), offset, network })
}

#[inline(always)]
fn parse_ipv4<F: Frame + ?Sized>(frame: &F, offset: usize) -> Option<Datagram<Ipv4>> {
    let [first, _, third, source, destination] = frame.read_words::<{ Ipv4Hdr::LEN / 4 }>(offset)?;
    let [version_and_length, ..] = first.to_ne_bytes();
    // A header of less than five 32-bit words, or of another version, is no IPv4 header (`ip_rcv_core`).
    if version_and_length >> 4 != 4 || version_and_length & 0xf < 5 {
        return None;
    }
    Some(Datagram {
        source: Ipv4::from_wire(source),
        destination: Ipv4::from_wire(destination),
        protocol: third.to_ne_bytes()[IPV4_PROTOCOL_OFFSET - 8],
    })
}

/// Parses IPv6 that is known not to carry ICMPv6: what [`parse_at`] gives, with less to look at.
#[inline(always)]
pub fn parse_ipv6_without_discovery<F: Frame + ?Sized>(frame: &F, location: Location) -> Option<Packet> {
    let datagram = parse_ipv6_header(frame, location.offset)?;
    let group = location.group.unwrap_or(datagram.destination.is_group());
    Some(Packet { group, offset: location.offset, network: Network::Ipv6(datagram, Discovery::NONE) })
}

#[inline(always)]
fn parse_ipv6<F: Frame + ?Sized>(frame: &F, offset: usize) -> Option<(Datagram<Ipv6>, Discovery)> {
    let datagram = parse_ipv6_header(frame, offset)?;
    let discovery = if datagram.protocol == NEXT_HEADER_ICMPV6 {
        parse_discovery(frame, offset + Ipv6Hdr::LEN)
    } else {
        Discovery::NONE
    };
    Some((datagram, discovery))
}

#[inline(always)]
fn parse_ipv6_header<F: Frame + ?Sized>(frame: &F, offset: usize) -> Option<Datagram<Ipv6>> {
    let header: [u32; Ipv6Hdr::LEN / 4] = frame.read_words(offset)?;
    let [first, second, ..] = header;
    if first.to_ne_bytes()[0] >> 4 != 6 {
        return None;
    }
    let source = Ipv6::from_wire([header[2], header[3], header[4], header[5]]);
    let destination = Ipv6::from_wire([header[6], header[7], header[8], header[9]]);
    let protocol = second.to_ne_bytes()[IPV6_NEXT_HEADER_OFFSET - 4];
    Some(Datagram { source, destination, protocol })
}

/// A truncated message is nobody's: the kernel does not take it (`ndisc_recv_ns`, Linux 6.18).
#[inline(always)]
fn parse_discovery<F: Frame + ?Sized>(frame: &F, offset: usize) -> Discovery {
    let Some(message) = frame.read_words::<6>(offset) else { return Discovery::NONE };
    let kind = match message[0].to_ne_bytes()[0] {
        NEIGHBOUR_SOLICITATION => DiscoveryKind::Solicitation,
        NEIGHBOUR_ADVERTISEMENT => DiscoveryKind::Advertisement,
        _ => return Discovery::NONE,
    };
    let target = Ipv6::from_wire([message[2], message[3], message[4], message[5]]);
    Discovery { kind, target }
}

#[inline(always)]
fn parse_arp<F: Frame + ?Sized>(frame: &F, offset: usize) -> Option<Arp> {
    let arp: [u8; ArpHdr::LEN] = frame.read(offset)?;
    let hardware = u16::from_be_bytes([arp[0], arp[1]]);
    let protocol = u16::from_be_bytes([arp[2], arp[3]]);
    let (hardware_length, protocol_length) = (arp[4], arp[5]);
    if (hardware != HARDWARE_ETHERNET && hardware != HARDWARE_IEEE802)
        || protocol != ETHERTYPE_IPV4
        || hardware_length != 6
        || protocol_length != 4
    {
        return None;
    }
    let operation = match u16::from_be_bytes([arp[6], arp[7]]) {
        1 => ArpOperation::Request,
        2 => ArpOperation::Reply,
        _ => return None,
    };
    let hardware = Mac::new([arp[8], arp[9], arp[10], arp[11], arp[12], arp[13]]);
    let sender = Ipv4::new([arp[14], arp[15], arp[16], arp[17]]);
    let target = Ipv4::new([arp[24], arp[25], arp[26], arp[27]]);
    Some(Arp { operation, hardware, sender, target })
}
