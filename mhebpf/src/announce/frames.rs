//! The frames that announce an address.

use std::net::{Ipv4Addr, Ipv6Addr};

use mhebpf_ebpf::packet::{ETHERTYPE_ARP, ETHERTYPE_IPV6, NEXT_HEADER_ICMPV6};
use network_types::{arp::ArpHdr, eth::EthHdr, ip::Ipv6Hdr};

/// An ICMPv6 neighbour advertisement with its one option, the target's link-layer address (RFC 4861).
const ADVERTISEMENT_LEN: usize = 24 + 8;

/// All nodes of the link (RFC 4291 section 2.7.1), and the hardware address of that group.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

/// The flags of an advertisement: from a router, and to override what is cached.
const ROUTER: u8 = 0x80;
const OVERRIDE: u8 = 0x20;

/// An ARP announcement (RFC 5227 section 2.3): a broadcast request whose sender and target protocol addresses
/// are the same.
pub(super) fn arp_announcement(address: Ipv4Addr, mac: [u8; 6]) -> [u8; EthHdr::LEN + ArpHdr::LEN] {
    let mut frame = [0; EthHdr::LEN + ArpHdr::LEN];
    let (ethernet, arp) = frame.split_at_mut(EthHdr::LEN);
    ethernet_header(ethernet, [0xff; 6], mac, ETHERTYPE_ARP);
    // Hardware Ethernet, protocol IPv4, lengths 6 and 4, operation request.
    arp[..8].copy_from_slice(&[0, 1, 0x08, 0, 6, 4, 0, 1]);
    arp[8..14].copy_from_slice(&mac);
    arp[14..18].copy_from_slice(&address.octets());
    arp[24..].copy_from_slice(&address.octets());
    frame
}

/// An unsolicited neighbour advertisement (RFC 4861 section 7.2.6) to all nodes.
pub(super) fn unsolicited_advertisement(
    address: Ipv6Addr,
    mac: [u8; 6],
    router: bool,
) -> [u8; EthHdr::LEN + Ipv6Hdr::LEN + ADVERTISEMENT_LEN] {
    let mut frame = [0; EthHdr::LEN + Ipv6Hdr::LEN + ADVERTISEMENT_LEN];
    let (ethernet, ip) = frame.split_at_mut(EthHdr::LEN);
    ethernet_header(ethernet, ALL_NODES_MAC, mac, ETHERTYPE_IPV6);
    let (header, icmp) = ip.split_at_mut(Ipv6Hdr::LEN);
    header[0] = 0x60;
    header[5] = ADVERTISEMENT_LEN as u8;
    header[6] = NEXT_HEADER_ICMPV6;
    // Proof that no router has forwarded it.
    header[7] = 255;
    header[8..24].copy_from_slice(&address.octets());
    header[24..].copy_from_slice(&ALL_NODES.octets());
    icmp[0] = 136;
    icmp[4] = OVERRIDE | if router { ROUTER } else { 0 };
    icmp[8..24].copy_from_slice(&address.octets());
    // The option: the target's link-layer address, of one unit of eight bytes.
    icmp[24..26].copy_from_slice(&[2, 1]);
    icmp[26..].copy_from_slice(&mac);
    let pseudo_header = [0, 0, 0, ADVERTISEMENT_LEN as u8, 0, 0, 0, NEXT_HEADER_ICMPV6];
    let checksum = checksum(&[&header[8..], &pseudo_header, icmp]);
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
    frame
}

fn ethernet_header(to: &mut [u8], destination: [u8; 6], source: [u8; 6], ethertype: u16) {
    to[..6].copy_from_slice(&destination);
    to[6..12].copy_from_slice(&source);
    to[12..].copy_from_slice(&ethertype.to_be_bytes());
}

/// The checksum of RFC 1071 over parts of even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks_exact(2));
    let sum: u32 = words.map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use mhebpf_ebpf::{DiscoveryKind, Ipv4, Ipv6, Network, packet::parse};

    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    #[test]
    fn an_arp_announcement_is_a_gratuitous_request() {
        let address = Ipv4Addr::new(192, 168, 0, 100);
        let packet = parse(&arp_announcement(address, MAC)[..], 0).expect("an ARP packet");
        assert!(packet.group);
        let Network::Arp(arp) = packet.network else { panic!("{packet:?}") };
        assert!(arp.is_gratuitous());
        assert_eq!(arp.sender, Ipv4::from(address));
    }

    #[test]
    fn an_advertisement_is_for_all_nodes_and_names_its_sender() {
        let address: Ipv6Addr = "2001:db8::100".parse().expect("an address");
        let frame = unsolicited_advertisement(address, MAC, false);
        let packet = parse(&frame[..], 0).expect("an IPv6 packet");
        assert!(packet.group);
        let Network::Ipv6(datagram, discovery) = packet.network else { panic!("{packet:?}") };
        assert_eq!(discovery.kind, DiscoveryKind::Advertisement);
        assert_eq!((datagram.source, discovery.target), (Ipv6::from(address), Ipv6::from(address)));
        // A sum over all of it, the checksum included, is nothing but ones.
        let pseudo_header = [0, 0, 0, 32, 0, 0, 0, 58];
        assert_eq!(checksum(&[&frame[22..54], &pseudo_header, &frame[54..]]), 0);
    }
}
