//! What the operator can say: each switch by itself, what is foreign, what is allowed, and loopback.

use std::net::Ipv6Addr;

use super::{FAMILIES, PASSES, Row, crossing, expect, frame, frame_to_all};
use crate::{
    frames::{REPLY, REQUEST, advertisement, arp, ip, solicitation},
    oracle::{
        Action, Address, Announce, Crossing,
        Direction::{Egress, Ingress},
        Host, Policy, Prefix, Receive, Send, Unknown,
        example::{
            ETH0, ETH1, NEIGHBOUR, OF_ETH0, OF_ETH0_6, OF_ETH1, OF_ETH1_6, OF_STORAGE, RED0, REMOTE, STORAGE,
            VIP, example,
        },
    },
};

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Which switch it is that prevents a violation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Switch {
    Send,
    Receive,
    Announce,
}

/// Violations by which switch prevents them.
fn violations() -> Vec<(Switch, Crossing, Row)> {
    let mut violations = Vec::new();
    for family in FAMILIES {
        let sent = frame(&ip(family.of_eth1, family.remote));
        violations.push((Switch::Send, crossing(Egress, ETH0, sent), family.sent(ETH1, family.gateway)));
        let received = frame(&ip(family.remote, family.of_eth1));
        let wrong = family.drop("wrong_destination");
        violations.push((Switch::Receive, crossing(Ingress, ETH0, received), wrong));
    }
    let drop = |family, reason| Some((family, reason, Action::Drop));
    let asks = frame_to_all(&arp(REQUEST, OF_ETH1, NEIGHBOUR));
    let asks_as = Some(("arp", "arp_rewritten", Action::AskAs(OF_ETH0)));
    violations.push((Switch::Announce, crossing(Egress, ETH0, asks), asks_as));
    for (direction, packet, row) in [
        (Egress, arp(REPLY, OF_ETH1, NEIGHBOUR), drop("arp", "arp_sender")),
        (Ingress, arp(REQUEST, NEIGHBOUR, OF_ETH1), drop("arp", "arp_target")),
        (Egress, advertisement(OF_ETH0_6, ALL_NODES, OF_ETH1_6), drop("ndp", "ndp_sender")),
        (Ingress, solicitation(OF_ETH0_6, ALL_NODES, OF_ETH1_6), drop("ndp", "ndp_target")),
    ] {
        violations.push((Switch::Announce, crossing(direction, ETH0, frame_to_all(&packet)), row));
    }
    violations
}

#[test]
fn each_switch_is_by_itself() {
    for (switch, crossing, row) in violations() {
        for send in [Send::Redirect, Send::Observe, Send::Off] {
            for receive in [Receive::Drop, Receive::Observe, Receive::Off] {
                for announce in [Announce::Enforce, Announce::Observe, Announce::Off] {
                    let host = example(&Policy { send, receive, announce, ..Policy::STRONG });
                    let (off, enforced) = match switch {
                        Switch::Send => (send == Send::Off, send == Send::Redirect),
                        Switch::Receive => (receive == Receive::Off, receive == Receive::Drop),
                        Switch::Announce => (announce == Announce::Off, announce == Announce::Enforce),
                    };
                    expect(&host, &crossing, if off { PASSES } else { row }, enforced);
                }
            }
        }
    }
}

/// The one that is found first is the one that counts.
#[test]
fn one_violation_is_reported_of_a_packet_that_has_two() {
    let [_, ipv6] = FAMILIES;
    let advertised = advertisement(OF_ETH1_6, ALL_NODES, OF_ETH1_6);
    let advertised = crossing(Egress, ETH0, frame_to_all(&advertised));
    let target = Some(("ndp", "ndp_sender", Action::Drop));
    for (announce, row, enforced) in [
        (Announce::Enforce, target, true),
        (Announce::Observe, target, false),
        (Announce::Off, ipv6.to_group(ETH1), true),
    ] {
        expect(&example(&Policy { announce, ..Policy::STRONG }), &advertised, row, enforced);
    }
    let solicited = crossing(Ingress, ETH0, frame(&solicitation(OF_ETH0_6, OF_ETH1_6, OF_ETH1_6)));
    let wrong = ipv6.drop("wrong_destination");
    for (receive, row, enforced) in [
        (Receive::Drop, wrong, true),
        (Receive::Observe, wrong, false),
        (Receive::Off, Some(("ndp", "ndp_target", Action::Drop)), true),
    ] {
        expect(&example(&Policy { receive, ..Policy::STRONG }), &solicited, row, enforced);
    }
}

#[test]
fn what_is_foreign_is_dropped_where_the_operator_says_so() {
    let host = example(&Policy { unknown: Unknown::Drop, ..Policy::STRONG });
    for family in FAMILIES {
        let f = &family;
        let unknown = f.drop("unknown_source");
        for (interface, source, row) in [
            (ETH0, f.remote, unknown),
            (ETH0, f.neighbour, unknown),
            (ETH0, f.of_red1, unknown),
            (RED0, f.of_storage, unknown),
            // Loopback is of no VRF, and neither are the routes by it.
            (RED0, f.vip, unknown),
            (RED0, f.routed_to_lo, unknown),
            (RED0, f.routed_to_eth1, unknown),
            (ETH0, f.nobody, PASSES),
            (ETH0, f.vip, PASSES),
            (ETH0, f.routed_to_lo, PASSES),
            (RED0, f.of_red, PASSES),
            (ETH0, f.of_eth1, f.sent(ETH1, f.gateway)),
        ] {
            expect(&host, &crossing(Egress, interface, frame(&ip(source, f.remote))), row, true);
        }
        for destination in [f.remote, f.of_red1] {
            expect(&host, &crossing(Ingress, ETH0, frame(&ip(f.remote, destination))), PASSES, true);
        }
    }
    let unknown = Some(("arp", "unknown_source", Action::Drop));
    for (operation, sender, row) in
        [(REQUEST, REMOTE, unknown), (REPLY, REMOTE, unknown), (REPLY, OF_ETH0, PASSES), (REPLY, VIP, PASSES)]
    {
        let packet = frame_to_all(&arp(operation, sender, NEIGHBOUR));
        expect(&host, &crossing(Egress, ETH0, packet), row, true);
    }
    // An advertisement for another is a proxy's: nobody is asked whether it is known.
    let proxy = advertisement(OF_ETH0_6, ALL_NODES, Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 9));
    expect(&host, &crossing(Egress, ETH0, frame_to_all(&proxy)), PASSES, true);
}

/// The example host, but ETH0 may use these addresses too.
fn allowing(prefixes: &[Prefix], unknown: Unknown) -> Host {
    let mut host = example(&Policy { unknown, ..Policy::STRONG });
    for policy in host.interfaces.iter_mut().filter(|i| i.index == ETH0).filter_map(|i| i.policy.as_mut()) {
        policy.allow = prefixes.to_vec();
    }
    host
}

#[test]
fn what_an_interface_is_allowed_to_use_is_its_own() {
    for family in FAMILIES {
        let f = &family;
        let host = allowing(&[Prefix::exact(f.of_eth1), Prefix::exact(f.of_red1)], Unknown::Drop);
        for (interface, source, row) in [
            (ETH0, f.of_eth1, PASSES),
            (ETH0, f.of_storage, f.drop("no_route")),
            (ETH0, f.of_red1, PASSES),
            (ETH0, f.remote, f.drop("unknown_source")),
            (ETH1, f.of_eth1, PASSES),
            // Of no one here: to be allowed on ETH0 doesn't make it local.
            (ETH1, f.of_red1, f.drop("unknown_source")),
            (STORAGE, f.of_red1, f.drop("unknown_source")),
            // It is first of all that of ETH1.
            (STORAGE, f.of_eth1, f.sent(ETH1, f.gateway)),
        ] {
            expect(&host, &crossing(Egress, interface, frame(&ip(source, f.remote))), row, true);
        }
        for (destination, row) in [(f.of_eth1, PASSES), (f.of_storage, f.drop("wrong_destination"))] {
            expect(&host, &crossing(Ingress, ETH0, frame(&ip(f.remote, destination))), row, true);
        }
    }
}

#[test]
fn an_owner_that_is_down_is_replaced_by_one_that_is_allowed() {
    for family in FAMILIES {
        let f = &family;
        let mut allow = vec![Prefix::exact(f.of_unplugged)];
        let sent = crossing(Egress, STORAGE, frame(&ip(f.of_unplugged, f.remote)));
        expect(&allowing(&allow, Unknown::Pass), &sent, f.sent(ETH0, f.gateway), true);
        // Overlapping prefixes, and those that are all there is.
        allow.push(Prefix::new(f.of_unplugged, 8));
        expect(&allowing(&allow, Unknown::Pass), &sent, f.sent(ETH0, f.gateway), true);
        let all = [Prefix::new(f.nobody, 0)];
        expect(&allowing(&all, Unknown::Pass), &sent, f.sent(ETH0, f.gateway), true);
    }
}

#[test]
fn arp_and_discovery_are_about_allowed_addresses_too() {
    let host = allowing(&[Prefix::new(OF_ETH1, 32), Prefix::new(OF_ETH1_6, 64)], Unknown::Drop);
    let drop = |family, reason| Some((family, reason, Action::Drop));
    for (interface, direction, packet, row) in [
        (ETH0, Egress, arp(REQUEST, OF_ETH1, NEIGHBOUR), PASSES),
        (ETH0, Egress, arp(REPLY, OF_ETH1, NEIGHBOUR), PASSES),
        (ETH0, Egress, arp(REPLY, OF_STORAGE, NEIGHBOUR), drop("arp", "arp_sender")),
        (ETH0, Ingress, arp(REQUEST, NEIGHBOUR, OF_ETH1), PASSES),
        (STORAGE, Ingress, arp(REQUEST, NEIGHBOUR, OF_ETH1), drop("arp", "arp_target")),
        (ETH0, Egress, advertisement(OF_ETH0_6, ALL_NODES, OF_ETH1_6), PASSES),
        (ETH0, Ingress, solicitation(OF_ETH0_6, ALL_NODES, OF_ETH1_6), PASSES),
        (STORAGE, Ingress, solicitation(OF_ETH0_6, ALL_NODES, OF_ETH1_6), drop("ndp", "ndp_target")),
    ] {
        expect(&host, &crossing(direction, interface, frame_to_all(&packet)), row, true);
    }
}

/// It is asked about before owners and what is allowed: an address of 127/8 on an interface changes nothing.
#[test]
fn loopback_is_on_the_wire_only_where_the_interface_says_so() {
    for family in FAMILIES {
        let f = &family;
        let loopback = f.drop("loopback");
        for (route_localnet, row) in [(false, loopback), (true, PASSES)] {
            let mut host = allowing(&[Prefix::new(f.loopback, 8)], Unknown::Drop);
            for interface in host.interfaces.iter_mut().filter(|i| [ETH0, ETH1].contains(&i.index)) {
                interface.route_localnet = route_localnet && interface.index == ETH0;
                let local = Address { local: f.loopback, peer: None, length: 8 };
                interface.addresses.push(local);
            }
            expect(&host, &crossing(Egress, ETH0, frame(&ip(f.loopback, f.remote))), row, true);
            expect(&host, &crossing(Ingress, ETH0, frame(&ip(f.remote, f.loopback))), row, true);
            expect(&host, &crossing(Egress, ETH1, frame(&ip(f.loopback, f.remote))), loopback, true);
            expect(&host, &crossing(Ingress, ETH1, frame(&ip(f.remote, f.loopback))), loopback, true);
        }
    }
}
