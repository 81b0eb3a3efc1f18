//! What leaves.

use std::net::Ipv4Addr;

use super::{FAMILIES, PASSES, Row, bare, crossing, expect, expect_in_all_modes, frame, frame_to_all};
use crate::{
    frames::{MACS, PRIORITY_TAG, REPLY, REQUEST, arp, ethernet, ip},
    oracle::{
        Action,
        Direction::Egress,
        Policy,
        example::{
            ADDRESSLESS, ETH0, ETH1, NEIGHBOUR, OF_ETH0, OF_ETH1, OF_RED1, OF_STORAGE, RED0, RED1, REMOTE,
            STORAGE, TUNNEL, example,
        },
    },
};

/// A tag of VLAN 7.
const OF_VLAN_7: [u8; 4] = [0x81, 0x00, 0x00, 0x07];

#[test]
fn datagrams_leave_by_the_interface_of_their_source() {
    for family in FAMILIES {
        let f = &family;
        let wrong = f.drop("wrong_source");
        for (source, destination, redirecting, dropping) in [
            (f.of_eth0, f.remote, PASSES, PASSES),
            (f.vip, f.remote, PASSES, PASSES),
            (f.routed_to_lo, f.remote, PASSES, PASSES),
            (f.remote, f.neighbour, PASSES, PASSES),
            // Of another world.
            (f.of_red1, f.neighbour, PASSES, PASSES),
            (f.nobody, f.neighbour, PASSES, PASSES),
            (f.of_eth1, f.neighbour, f.sent(ETH1, f.neighbour), wrong),
            (f.of_eth1, f.remote, f.sent(ETH1, f.gateway), wrong),
            (f.routed_to_eth1, f.remote, f.sent(ETH1, f.gateway), wrong),
            (f.of_tunnel, f.of_tunnel, f.sent(TUNNEL, f.of_tunnel), wrong),
            (f.of_tunnel, f.remote, f.drop("no_route"), wrong),
            (f.of_storage, f.remote, f.drop("no_route"), wrong),
            (f.of_unplugged, f.remote, f.drop("owner_down"), wrong),
            (f.loopback, f.remote, f.drop("loopback"), f.drop("loopback")),
        ] {
            let packet = ip(source, destination);
            expect_in_all_modes(&crossing(Egress, ETH0, frame(&packet)), redirecting, dropping);
            let tagged = ethernet(&MACS, &[PRIORITY_TAG], &packet);
            expect_in_all_modes(&crossing(Egress, ETH0, tagged), redirecting, dropping);
            let of_a_vlan = ethernet(&MACS, &[OF_VLAN_7], &packet);
            expect_in_all_modes(&crossing(Egress, ETH0, of_a_vlan), PASSES, PASSES);
        }
    }
}

#[test]
fn datagrams_for_a_group_leave_by_the_interface_of_their_source() {
    for family in FAMILIES {
        let f = &family;
        let wrong = f.drop("wrong_source");
        for (source, redirecting, dropping) in [
            (f.nobody, PASSES, PASSES),
            (f.of_eth0, PASSES, PASSES),
            (f.remote, PASSES, PASSES),
            (f.of_eth1, f.to_group(ETH1), wrong),
            // Without a route, too.
            (f.of_storage, f.to_group(STORAGE), wrong),
            (f.of_unplugged, f.drop("owner_down"), wrong),
            (f.loopback, f.drop("loopback"), f.drop("loopback")),
        ] {
            let packet = frame_to_all(&ip(source, f.group));
            expect_in_all_modes(&crossing(Egress, ETH0, packet), redirecting, dropping);
        }
    }
    let to_all = frame_to_all(&ip(OF_ETH1, Ipv4Addr::BROADCAST));
    let [ipv4, _] = FAMILIES;
    expect_in_all_modes(&crossing(Egress, ETH0, to_all), ipv4.to_group(ETH1), ipv4.drop("wrong_source"));
}

#[test]
fn datagrams_without_an_ethernet_header_leave_by_the_interface_of_their_source() {
    for family in FAMILIES {
        let f = &family;
        let wrong = f.drop("wrong_source");
        for (source, destination, redirecting, dropping) in [
            (f.of_tunnel, f.remote, PASSES, PASSES),
            (f.remote, f.remote, PASSES, PASSES),
            (f.of_eth1, f.remote, f.sent(ETH1, f.gateway), wrong),
            (f.of_eth1, f.group, f.to_group(ETH1), wrong),
            (f.of_unplugged, f.remote, f.drop("owner_down"), wrong),
            (f.loopback, f.remote, f.drop("loopback"), f.drop("loopback")),
        ] {
            expect_in_all_modes(&bare(Egress, &ip(source, destination)), redirecting, dropping);
        }
        // The protocol says how to read the packet, and its first byte must agree.
        let other_version = if f.of_eth1.is_ipv4() { 0x86dd } else { 0x0800 };
        for protocol in [0x0806, 0x8100, other_version] {
            let mut other = bare(Egress, &ip(f.of_eth1, f.remote));
            other.protocol = protocol;
            expect_in_all_modes(&other, PASSES, PASSES);
        }
    }
    let [ipv4, _] = FAMILIES;
    let to_all = bare(Egress, &ip(OF_ETH1, Ipv4Addr::BROADCAST));
    expect_in_all_modes(&to_all, ipv4.to_group(ETH1), ipv4.drop("wrong_source"));
}

#[test]
fn datagrams_of_a_vrf_leave_by_the_port_of_their_source() {
    for family in FAMILIES {
        let f = &family;
        for (interface, source, redirecting) in [
            // RED0 has the address of ETH1.
            (RED0, f.of_eth1, PASSES),
            (RED1, f.of_eth1, f.sent(RED0, f.gateway)),
            (RED0, f.of_red1, f.sent(RED1, f.gateway)),
            (RED0, f.of_red, PASSES),
            (RED1, f.of_red, PASSES),
            (RED0, f.of_eth0, PASSES),
            (RED0, f.of_storage, PASSES),
            (RED0, f.loopback, f.drop("loopback")),
            (ETH0, f.of_eth1, f.sent(ETH1, f.gateway)),
        ] {
            let crossing = crossing(Egress, interface, frame(&ip(source, f.remote)));
            expect(&example(&Policy::STRONG), &crossing, redirecting, true);
        }
    }
}

#[test]
fn arp_is_sent_in_the_name_of_the_interface_itself() {
    let drop = |reason| Some(("arp", reason, Action::Drop));
    let rewritten = |sender| Some(("arp", "arp_rewritten", Action::AskAs(sender)));
    let nobody = Ipv4Addr::UNSPECIFIED;
    let rows: [(u32, u8, Ipv4Addr, Ipv4Addr, Row, Row); 17] = [
        (ETH0, REQUEST, OF_ETH0, NEIGHBOUR, PASSES, PASSES),
        (ETH0, REQUEST, nobody, OF_ETH1, PASSES, PASSES),
        (ETH0, REQUEST, REMOTE, NEIGHBOUR, PASSES, PASSES),
        (ETH0, REQUEST, OF_RED1, NEIGHBOUR, PASSES, PASSES),
        (ETH0, REQUEST, OF_ETH1, NEIGHBOUR, rewritten(OF_ETH0), rewritten(OF_ETH0)),
        (RED0, REQUEST, OF_RED1, NEIGHBOUR, rewritten(OF_ETH1), rewritten(OF_ETH1)),
        (RED1, REQUEST, OF_ETH1, NEIGHBOUR, rewritten(OF_RED1), rewritten(OF_RED1)),
        (STORAGE, REQUEST, OF_ETH1, REMOTE, rewritten(OF_STORAGE), rewritten(OF_STORAGE)),
        (ADDRESSLESS, REQUEST, OF_ETH1, NEIGHBOUR, rewritten(nobody), drop("arp_sender")),
        (ETH0, REQUEST, Ipv4Addr::LOCALHOST, NEIGHBOUR, drop("loopback"), drop("loopback")),
        (ETH0, REPLY, OF_ETH0, NEIGHBOUR, PASSES, PASSES),
        (ETH0, REPLY, OF_ETH1, NEIGHBOUR, drop("arp_sender"), drop("arp_sender")),
        (ETH0, REPLY, REMOTE, NEIGHBOUR, PASSES, PASSES),
        (RED1, REPLY, OF_ETH1, NEIGHBOUR, drop("arp_sender"), drop("arp_sender")),
        // Announcements.
        (ETH0, REQUEST, OF_ETH1, OF_ETH1, drop("arp_sender"), drop("arp_sender")),
        (ETH0, REQUEST, REMOTE, REMOTE, PASSES, PASSES),
        (RED0, REQUEST, OF_ETH1, OF_ETH1, PASSES, PASSES),
    ];
    for (interface, operation, sender, target, redirecting, dropping) in rows {
        let packet = frame_to_all(&arp(operation, sender, target));
        expect_in_all_modes(&crossing(Egress, interface, packet), redirecting, dropping);
    }
}
