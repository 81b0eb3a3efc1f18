//! What is read in a frame.

use std::net::IpAddr;

use anyhow::Result;
use mhebpf_ebpf::{
    ArpOperation, Mac, Network, Packet, icmp,
    packet::{DiscoveryKind, NEXT_HEADER_ICMPV6, PROTOCOL_ICMP, locate, parse, parse_without_ethernet},
};
use proptest::{collection::vec, prelude::*};

use crate::{
    oracle::{
        Crossing,
        frame::{Content, Discovery, Operation, read, read_bare},
    },
    random::{Landmarks, check, hosts, packets},
};

#[test]
fn random_bytes_are_read_as_the_oracle_reads_them() -> Result<()> {
    let tag = prop_oneof![Just(0), any::<u16>()];
    let protocol = prop_oneof![Just(0x0800), Just(0x86dd), any::<u16>()];
    check(4000, &(vec(any::<u8>(), 0..80), tag, protocol), |(bytes, tag, protocol)| {
        prop_assert_eq!(content(&bytes, tag), read(&bytes, tag));
        prop_assert_eq!(bare_content(&bytes, protocol), read_bare(&bytes, protocol));
        Ok(())
    })
}

#[test]
fn frames_cut_anywhere_are_read_as_the_oracle_reads_them() -> Result<()> {
    check(500, &(hosts(), packets()), |(host, recipe)| {
        let Crossing { frame, tag_beside, protocol, .. } = recipe.build(&Landmarks::new(&host));
        for length in 0..=frame.len().min(150) {
            let (cut, behind) = (&frame[..length], &frame[(frame.len() - length).min(14)..]);
            prop_assert_eq!(content(cut, tag_beside), read(cut, tag_beside));
            prop_assert_eq!(bare_content(cut, protocol), read_bare(cut, protocol));
            prop_assert_eq!(bare_content(behind, protocol), read_bare(behind, protocol));
        }
        Ok(())
    })
}

#[test]
fn every_ethertype_but_ip_arp_and_tags_passes() {
    let ipv4 = [&[0x45][..], &[0; 19]].concat();
    let ipv6 = [&[0x60][..], &[0; 39]].concat();
    let arp = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &[0; 20]].concat();
    for tags in [&[][..], &[0x81, 0, 0, 0]] {
        let judged: Vec<u16> = (0..=u16::MAX)
            .filter(|ethertype| {
                let frame = |network: &[u8]| [&[2; 12], tags, &ethertype.to_be_bytes(), network].concat();
                // A tag in front of an IP header's first bytes is one of a VLAN, or of no known protocol.
                [&ipv4, &ipv6, &arp].iter().any(|network| parse(frame(network).as_slice(), 0).is_some())
            })
            .collect();
        assert_eq!(judged, [0x0800, 0x0806, 0x86dd]);
    }
    let is_judged = |protocol: &u16| {
        [&ipv4, &ipv6, &arp].iter().any(|network| bare_content(network, *protocol).is_some())
    };
    assert_eq!((0..=u16::MAX).filter(is_judged).collect::<Vec<u16>>(), [0x0800, 0x86dd]);
}

#[test]
fn every_vlan_but_number_0_passes() {
    let ipv4 = [&[8, 0, 0x45][..], &[0; 19]].concat();
    let ipv6 = [&[0x86, 0xdd, 0x60][..], &[0; 39]].concat();
    for (tag, ip) in (0..=u16::MAX).flat_map(|tag| [(tag, &ipv4), (tag, &ipv6)]) {
        let untagged = [&[2; 12][..], ip].concat();
        let tagged = [&[2; 12][..], &[0x81, 0], &tag.to_be_bytes(), ip].concat();
        let twice = [&[2; 12][..], &[0x88, 0xa8, 0, 0, 0x81, 0], &tag.to_be_bytes(), ip].concat();
        let judged = tag & 0x0fff == 0;
        assert_eq!(parse(untagged.as_slice(), tag).is_some(), judged, "{tag:#x} beside the frame");
        assert_eq!(parse(tagged.as_slice(), 0).is_some(), judged, "{tag:#x}");
        assert_eq!(parse(twice.as_slice(), 0).is_some(), judged, "{tag:#x} in a priority tag");
    }
}

/// What is read in an Ethernet frame, and the tag beside it.
fn content(frame: &[u8], tag_beside: u16) -> Option<Content> {
    if locate(frame, tag_beside)?.is_tagged() {
        return Some(Content::TooManyTags);
    }
    let packet = parse(frame, tag_beside)?;
    assert_eq!(packet.group, frame[0] & 1 == 1);
    Some(content_of(frame, &packet))
}

/// What is read in a packet of this protocol without an Ethernet header.
fn bare_content(frame: &[u8], protocol: u16) -> Option<Content> {
    parse_without_ethernet(frame, protocol).map(|packet| content_of(frame, &packet))
}

fn content_of(frame: &[u8], packet: &Packet) -> Content {
    match packet.network {
        Network::Ipv4(datagram) => Content::Ip {
            source: IpAddr::V4(datagram.source.into()),
            destination: IpAddr::V4(datagram.destination.into()),
            protocol: datagram.protocol,
            discovery: None,
            cause: (datagram.protocol == PROTOCOL_ICMP)
                .then(|| icmp::ipv4_destination(frame, packet.offset))
                .flatten()
                .map(|cause| IpAddr::V4(cause.into())),
        },
        Network::Ipv6(datagram, discovery) => Content::Ip {
            source: IpAddr::V6(datagram.source.into()),
            destination: IpAddr::V6(datagram.destination.into()),
            protocol: datagram.protocol,
            discovery: match discovery.kind {
                DiscoveryKind::None => None,
                DiscoveryKind::Solicitation => {
                    Some(Discovery::Solicitation { target: discovery.target.into() })
                }
                DiscoveryKind::Advertisement => {
                    Some(Discovery::Advertisement { target: discovery.target.into() })
                }
            },
            cause: (datagram.protocol == NEXT_HEADER_ICMPV6)
                .then(|| icmp::ipv6_destination(frame, packet.offset))
                .flatten()
                .map(|cause| IpAddr::V6(cause.into())),
        },
        Network::Arp(arp) => Content::Arp {
            operation: match arp.operation {
                ArpOperation::Request => Operation::Request,
                ArpOperation::Reply => Operation::Reply,
            },
            hardware: octets(arp.hardware),
            sender: arp.sender.into(),
            target: arp.target.into(),
        },
    }
}

fn octets(mac: Mac) -> [u8; 6] {
    let [a, b, c, d, e, f, ..] = mac.to_number().to_le_bytes();
    [a, b, c, d, e, f]
}
