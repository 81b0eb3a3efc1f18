//! What arrives.

use std::net::Ipv4Addr;

use super::{FAMILIES, PASSES, bare, crossing, expect, expect_in_all_modes, frame, frame_to_all};
use crate::{
    frames::{REPLY, REQUEST, arp, ip},
    oracle::{
        Action,
        Direction::Ingress,
        LocalRoute, Policy, Prefix,
        example::{
            ETH0, ETH1, NEIGHBOUR, OF_ETH0, OF_ETH1, OF_RED1, RED0, RED1, REMOTE, ROUTED_TO_ETH1, STORAGE,
            example,
        },
        host::LOCAL,
    },
};

#[test]
fn datagrams_are_received_on_the_interface_of_their_destination() {
    for family in FAMILIES {
        let f = &family;
        let wrong = f.drop("wrong_destination");
        for (interface, destination, row) in [
            (ETH0, f.of_eth0, PASSES),
            (ETH0, f.vip, PASSES),
            (ETH0, f.routed_to_lo, PASSES),
            (ETH0, f.neighbour, PASSES),
            (ETH0, f.group, PASSES),
            (ETH0, f.nobody, PASSES),
            (ETH0, f.of_eth1, wrong),
            (ETH0, f.routed_to_eth1, wrong),
            (ETH1, f.routed_to_eth1, PASSES),
            (ETH0, f.of_unplugged, wrong),
            (ETH0, f.of_tunnel, wrong),
            (ETH0, f.loopback, f.drop("loopback")),
            // Of another world.
            (ETH0, f.of_red1, PASSES),
            (RED0, f.of_eth0, PASSES),
            (RED0, f.of_eth1, PASSES),
            (RED1, f.of_eth1, wrong),
            (RED0, f.of_red1, wrong),
            (RED0, f.of_red, PASSES),
            (RED1, f.of_red, PASSES),
        ] {
            let packet = frame(&ip(f.remote, destination));
            expect_in_all_modes(&crossing(Ingress, interface, packet), row, row);
        }
        // Whose source it is makes no difference.
        let packet = frame_to_all(&ip(f.of_eth1, f.group));
        expect_in_all_modes(&crossing(Ingress, ETH0, packet), PASSES, PASSES);
    }
    let to_all = frame_to_all(&ip(REMOTE, Ipv4Addr::BROADCAST));
    expect_in_all_modes(&crossing(Ingress, ETH0, to_all), PASSES, PASSES);
}

#[test]
fn datagrams_without_an_ethernet_header_are_received_on_the_interface_of_their_destination() {
    for family in FAMILIES {
        let f = &family;
        for (destination, row) in [
            (f.of_tunnel, PASSES),
            (f.vip, PASSES),
            (f.remote, PASSES),
            (f.group, PASSES),
            (f.of_eth1, f.drop("wrong_destination")),
            (f.loopback, f.drop("loopback")),
        ] {
            expect_in_all_modes(&bare(Ingress, &ip(f.remote, destination)), row, row);
        }
    }
}

/// A transparent proxy's route: every address is local on ETH1.
#[test]
fn a_group_is_nobodys_where_every_address_is_local() {
    let mut host = example(&Policy::STRONG);
    for family in FAMILIES {
        host.local_routes.push(LocalRoute {
            table: LOCAL,
            destination: Prefix::new(family.nobody, 0),
            interface: ETH1,
            by_kernel: false,
        });
    }
    for family in FAMILIES {
        for (interface, destination, row) in [
            (ETH0, family.group, PASSES),
            (ETH0, family.remote, family.drop("wrong_destination")),
            (ETH1, family.remote, PASSES),
            (ETH0, family.vip, PASSES),
        ] {
            let packet = frame(&ip(family.remote, destination));
            expect(&host, &crossing(Ingress, interface, packet), row, true);
        }
    }
    let to_all = frame_to_all(&ip(REMOTE, Ipv4Addr::BROADCAST));
    expect(&host, &crossing(Ingress, ETH0, to_all), PASSES, true);
}

/// An address in a tunnel belongs to no interface that the tunnel's packets come in by.
#[test]
fn datagrams_that_ipsec_has_unwrapped_are_received_on_any_interface() {
    for family in FAMILIES {
        for (destination, row) in [
            (family.of_eth0, PASSES),
            (family.of_eth1, PASSES),
            (family.of_unplugged, PASSES),
            (family.remote, PASSES),
            (family.loopback, family.drop("loopback")),
        ] {
            let mut unwrapped = crossing(Ingress, ETH0, frame(&ip(family.remote, destination)));
            unwrapped.decapsulated = true;
            expect_in_all_modes(&unwrapped, row, row);
            let mut unwrapped = bare(Ingress, &ip(family.remote, destination));
            unwrapped.decapsulated = true;
            expect_in_all_modes(&unwrapped, row, row);
        }
    }
}

#[test]
fn arp_is_received_on_the_interface_of_its_target() {
    let drop = |reason| Some(("arp", reason, Action::Drop));
    for (interface, operation, target, row) in [
        (ETH0, REQUEST, OF_ETH0, PASSES),
        (ETH0, REQUEST, REMOTE, PASSES),
        (ETH0, REQUEST, OF_ETH1, drop("arp_target")),
        (ETH0, REQUEST, ROUTED_TO_ETH1, drop("arp_target")),
        (ETH1, REQUEST, ROUTED_TO_ETH1, PASSES),
        (STORAGE, REQUEST, OF_ETH0, drop("arp_target")),
        (ETH0, REPLY, OF_ETH1, drop("arp_target")),
        (ETH0, REQUEST, Ipv4Addr::LOCALHOST, drop("loopback")),
        (ETH0, REQUEST, OF_RED1, PASSES),
        (RED0, REQUEST, OF_ETH1, PASSES),
        (RED0, REQUEST, OF_RED1, drop("arp_target")),
        (RED1, REQUEST, OF_ETH1, drop("arp_target")),
    ] {
        let packet = frame_to_all(&arp(operation, NEIGHBOUR, target));
        expect_in_all_modes(&crossing(Ingress, interface, packet), row, row);
    }
}
