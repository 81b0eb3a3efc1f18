//! Parsing: from a frame to the addresses that are judged.

use network_types::{arp::ArpHdr, eth::EthHdr, ip::Ipv4Hdr, vlan::VlanHdr};

use crate::Ipv4;

/// How many VLAN tags are looked through in the frame itself, besides the one that the kernel keeps beside
/// it.
///
/// `__netif_receive_skb_core` (Linux 6.18) strips any number of priority tags; two are what 802.1ad allows,
/// and the rest is margin.
pub const MAX_TAGS: usize = 4;

/// The most bytes that [`parse`] reads.
pub const MAX_HEADERS: usize = EthHdr::LEN + MAX_TAGS * VlanHdr::LEN + ArpHdr::LEN;

/// The EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_8021Q: u16 = 0x8100;
const ETHERTYPE_8021AD: u16 = 0x88a8;

/// The VLAN identifier's bits in a tag control information field.
pub const VLAN_ID_MASK: u16 = 0x0fff;

/// The offset of the sender protocol address in an Ethernet/IPv4 ARP packet (RFC 826).
pub const ARP_SENDER_OFFSET: usize = 14;

/// `ARPHRD_ETHER`.
const HARDWARE_ETHERNET: u16 = 1;
/// `ARPHRD_IEEE802`, which `arp_process` (Linux 6.18) takes for Ethernet too.
const HARDWARE_IEEE802: u16 = 6;

/// Bytes of a frame, from its Ethernet header on.
pub trait Frame {
    /// Copies `N` bytes from `offset`; `None` where the frame ends before.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
}

impl Frame for [u8] {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }
}

/// A parsed frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// Whether the destination MAC address is a group address: broadcast or multicast.
    pub group: bool,
    /// Where the network layer's header starts, in bytes from the Ethernet header.
    pub offset: usize,
    /// What is judged.
    pub network: Network,
}

/// The network layer's part of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Network {
    /// An IPv4 datagram or fragment.
    Ipv4(Ipv4Datagram),
    /// An ARP packet.
    Arp(Arp),
}

/// The judged fields of an IPv4 header (RFC 791).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ipv4Datagram {
    /// The source address.
    pub source: Ipv4,
    /// The destination address.
    pub destination: Ipv4,
}

/// The judged fields of an ARP packet (RFC 826) for IPv4 over Ethernet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arp {
    /// Request or reply.
    pub operation: ArpOperation,
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
/// That is: neither IPv4 nor ARP; tagged for a VLAN (the VLAN device's programs judge); truncated or
/// malformed (the kernel is the judge of that). Priority tags (VLAN identifier 0) are looked through, as the
/// kernel does. `tag_beside` is the control information of the tag that the kernel keeps beside the frame
/// (`skb->vlan_tci`), 0 when there is none.
#[inline(always)]
pub fn parse<F: Frame + ?Sized>(frame: &F, tag_beside: u16) -> Option<Packet> {
    if tag_beside & VLAN_ID_MASK != 0 {
        return None;
    }
    let ethernet: [u8; EthHdr::LEN] = frame.read(0)?;
    let group = ethernet[0] & 1 != 0;
    match u16::from_be_bytes([ethernet[12], ethernet[13]]) {
        ETHERTYPE_IPV4 => parse_ipv4(frame, group, EthHdr::LEN),
        ETHERTYPE_ARP => parse_arp(frame, group, EthHdr::LEN),
        ETHERTYPE_8021Q | ETHERTYPE_8021AD => parse_tagged(frame, group),
        _ => None,
    }
}

#[inline(always)]
fn parse_tagged<F: Frame + ?Sized>(frame: &F, group: bool) -> Option<Packet> {
    let mut offset = EthHdr::LEN;
    let mut tags = 0;
    while tags < MAX_TAGS {
        let tag: [u8; VlanHdr::LEN] = frame.read(offset)?;
        if u16::from_be_bytes([tag[0], tag[1]]) & VLAN_ID_MASK != 0 {
            return None;
        }
        offset += VlanHdr::LEN;
        match u16::from_be_bytes([tag[2], tag[3]]) {
            ETHERTYPE_IPV4 => return parse_ipv4(frame, group, offset),
            ETHERTYPE_ARP => return parse_arp(frame, group, offset),
            ETHERTYPE_8021Q | ETHERTYPE_8021AD => {}
            _ => return None,
        }
        tags += 1;
    }
    None
}

#[inline(always)]
fn parse_ipv4<F: Frame + ?Sized>(frame: &F, group: bool, offset: usize) -> Option<Packet> {
    let header: [u8; Ipv4Hdr::LEN] = frame.read(offset)?;
    let [version_and_length, ..] = header;
    // A header of less than five 32-bit words, or of another version, is no IPv4 header (`ip_rcv_core`).
    if version_and_length >> 4 != 4 || version_and_length & 0xf < 5 {
        return None;
    }
    let source = Ipv4::new([header[12], header[13], header[14], header[15]]);
    let destination = Ipv4::new([header[16], header[17], header[18], header[19]]);
    Some(Packet { group, offset, network: Network::Ipv4(Ipv4Datagram { source, destination }) })
}

#[inline(always)]
fn parse_arp<F: Frame + ?Sized>(frame: &F, group: bool, offset: usize) -> Option<Packet> {
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
    let sender = Ipv4::new([arp[14], arp[15], arp[16], arp[17]]);
    let target = Ipv4::new([arp[24], arp[25], arp[26], arp[27]]);
    Some(Packet { group, offset, network: Network::Arp(Arp { operation, sender, target }) })
}
