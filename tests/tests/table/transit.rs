//! What this host sends for others, as a router or a switch, and for groups of its own.

use std::net::{IpAddr, Ipv4Addr};

use super::{FAMILIES, PASSES, Row, bare, crossing, expect, frame, frame_to_all, sign};
use crate::{
    frames::{MACS, PRIORITY_TAG, REPLY, REQUEST, advertisement, arp, ethernet, icmp_error, ip},
    oracle::{
        Action, Crossing,
        Direction::{Egress, Ingress},
        Forwarded, Policy, Send, Unknown,
        example::{
            ADDRESSLESS, ETH0, ETH1, NEIGHBOUR, OF_ETH0, OF_ETH0_6, OF_ETH1, OF_ETH1_6, REMOTE, STORAGE, VIP,
            example,
        },
        frame::IGMP,
    },
};

/// The hardware address of another station.
const ELSEWHERE: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn arrived(crossing: Crossing) -> Crossing {
    Crossing { arrived: true, ..crossing }
}

fn from_elsewhere(mut crossing: Crossing) -> Crossing {
    sign(&mut crossing.frame, ELSEWHERE);
    crossing
}

/// Its source has been translated, and is of another interface.
#[test]
fn what_is_forwarded_is_judged_by_its_source_but_what_is_foreign_passes() {
    for unknown in [Unknown::Pass, Unknown::Drop] {
        let host = example(&Policy { unknown, ..Policy::STRONG });
        for family in FAMILIES {
            let f = &family;
            for (source, row) in [
                (f.of_eth0, PASSES),
                (f.vip, PASSES),
                (f.remote, PASSES),
                (f.of_red1, PASSES),
                (f.of_eth1, f.sent(ETH1, f.gateway)),
                (f.of_unplugged, f.drop("owner_down")),
                (f.loopback, f.drop("loopback")),
            ] {
                let packet = ip(source, f.remote);
                expect(&host, &arrived(crossing(Egress, ETH0, frame(&packet))), row, true);
                let tagged = ethernet(&MACS, &[PRIORITY_TAG], &packet);
                expect(&host, &arrived(crossing(Egress, ETH0, tagged)), row, true);
            }
            // Without hardware addresses nothing is bridged.
            let translated = arrived(bare(Egress, &ip(f.of_eth1, f.remote)));
            expect(&host, &translated, f.sent(ETH1, f.gateway), true);
            expect(&host, &arrived(bare(Egress, &ip(f.remote, f.remote))), PASSES, true);
        }
    }
}

#[test]
fn what_is_forwarded_has_a_switch_of_its_own_that_is_never_stricter_than_that_for_all() {
    let [ipv4, _] = FAMILIES;
    let redirected = ipv4.sent(ETH1, ipv4.gateway);
    let wrong = ipv4.drop("wrong_source");
    for (send, forwarded, row, enforced) in [
        (Send::Redirect, Forwarded::Enforce, redirected, true),
        (Send::Redirect, Forwarded::Observe, redirected, false),
        (Send::Redirect, Forwarded::Off, PASSES, true),
        (Send::Drop, Forwarded::Enforce, wrong, true),
        // What would be done is redirecting.
        (Send::Drop, Forwarded::Observe, redirected, false),
        (Send::Drop, Forwarded::Off, PASSES, true),
        (Send::Observe, Forwarded::Enforce, redirected, false),
        (Send::Observe, Forwarded::Off, PASSES, true),
        (Send::Off, Forwarded::Enforce, PASSES, true),
        (Send::Off, Forwarded::Observe, PASSES, true),
    ] {
        let host = example(&Policy { send, forwarded, ..Policy::STRONG });
        let translated = arrived(crossing(Egress, ETH0, frame(&ip(OF_ETH1, REMOTE))));
        expect(&host, &translated, row, enforced);
    }
}

#[test]
fn what_is_bridged_passes() {
    let host = example(&Policy { unknown: Unknown::Drop, ..Policy::STRONG });
    let sent = FAMILIES.into_iter().flat_map(|f| {
        [f.of_eth1, f.loopback, f.remote, f.of_unplugged].map(|source| frame(&ip(source, f.remote)))
    });
    let announced = [
        frame_to_all(&arp(REQUEST, OF_ETH1, NEIGHBOUR)),
        frame_to_all(&arp(REPLY, OF_ETH1, NEIGHBOUR)),
        frame_to_all(&arp(REPLY, Ipv4Addr::LOCALHOST, NEIGHBOUR)),
        frame_to_all(&advertisement(OF_ETH0_6, OF_ETH1_6, OF_ETH1_6)),
        frame_to_all(&advertisement(OF_ETH0_6, OF_ETH1_6, std::net::Ipv6Addr::LOCALHOST)),
    ];
    for packet in sent.chain(announced) {
        let bridged = arrived(from_elsewhere(crossing(Egress, ETH0, packet)));
        expect(&host, &bridged, PASSES, true);
    }
}

/// Guests of a macvtap are other hosts.
#[test]
fn what_is_foreign_is_dropped_only_from_the_hardware_address_of_the_interface() {
    let host = example(&Policy { unknown: Unknown::Drop, ..Policy::STRONG });
    for f in FAMILIES {
        let packet = crossing(Egress, ETH0, frame(&ip(f.remote, f.remote)));
        expect(&host, &packet, f.drop("unknown_source"), true);
        expect(&host, &from_elsewhere(packet), PASSES, true);
        // But it is not with another hardware address that an address becomes another's.
        let wrong = from_elsewhere(crossing(Egress, ETH0, frame(&ip(f.of_eth1, f.remote))));
        expect(&host, &wrong, f.sent(ETH1, f.gateway), true);
        expect(&host, &bare(Egress, &ip(f.remote, f.remote)), f.drop("unknown_source"), true);
    }
    let proxy = crossing(Egress, ETH0, frame(&arp(REPLY, REMOTE, NEIGHBOUR)));
    expect(&host, &proxy, Some(("arp", "unknown_source", Action::Drop)), true);
    expect(&host, &from_elsewhere(proxy), PASSES, true);
}

/// A datagram of IGMP to all routers that speak it, with the EtherType before it.
fn igmp(source: Ipv4Addr) -> Vec<u8> {
    let mut report = ip(source, Ipv4Addr::new(224, 0, 0, 22));
    report[2 + 9] = IGMP;
    report
}

/// A membership is of a link.
#[test]
fn igmp_stays_on_its_link_with_an_address_of_the_interface() {
    let rewritten = |source| Some(("ipv4", "igmp_rewritten", Action::SpeakAs(IpAddr::from(source))));
    let nobody = Ipv4Addr::UNSPECIFIED;
    let [ipv4, _] = FAMILIES;
    let rows: [(u32, Ipv4Addr, Row); 7] = [
        (ETH0, OF_ETH0, PASSES),
        (ETH0, VIP, PASSES),
        (ETH0, nobody, PASSES),
        (ETH0, REMOTE, PASSES),
        (ETH0, OF_ETH1, rewritten(OF_ETH0)),
        (ADDRESSLESS, OF_ETH1, rewritten(nobody)),
        (ETH0, Ipv4Addr::LOCALHOST, ipv4.drop("loopback")),
    ];
    for (interface, source, row) in rows {
        let report = crossing(Egress, interface, frame_to_all(&igmp(source)));
        for (send, enforced) in [(Send::Redirect, true), (Send::Drop, true), (Send::Observe, false)] {
            expect(&example(&Policy { send, ..Policy::STRONG }), &report, row, enforced);
        }
        expect(&example(&Policy { send: Send::Off, ..Policy::STRONG }), &report, PASSES, true);
    }
    let received = crossing(Ingress, STORAGE, frame_to_all(&igmp(OF_ETH1)));
    expect(&example(&Policy::STRONG), &received, PASSES, true);
}

/// What a router says of packets for others, whose sender may be behind another interface than they came in by.
#[test]
fn an_error_about_what_is_forwarded_leaves_with_an_address_of_the_interface() {
    let of_eth0 = [IpAddr::from(OF_ETH0), OF_ETH0_6.into()];
    for (f, own) in FAMILIES.into_iter().zip(of_eth0) {
        let rewritten = Some((f.name, "icmp_rewritten", Action::SpeakAs(own)));
        let redirected = f.sent(ETH1, f.gateway);
        let rows = [
            (ETH0, f.of_eth1, f.neighbour, rewritten),
            // To the sender of what this host was sent itself its own address must answer.
            (ETH0, f.of_eth1, f.of_eth1, redirected),
            (ETH0, f.of_eth0, f.neighbour, PASSES),
            (ETH0, f.remote, f.neighbour, PASSES),
            (ETH0, f.loopback, f.neighbour, f.drop("loopback")),
            // It has no address of its own.
            (ADDRESSLESS, f.of_eth1, f.neighbour, redirected),
        ];
        for (interface, source, invoking, row) in rows {
            let error = crossing(Egress, interface, frame(&icmp_error(source, f.remote, invoking)));
            expect(&example(&Policy::STRONG), &error, row, true);
            expect(&example(&Policy { send: Send::Observe, ..Policy::STRONG }), &error, row, false);
            expect(&example(&Policy { send: Send::Off, ..Policy::STRONG }), &error, PASSES, true);
        }
        let error = || icmp_error(f.of_eth1, f.remote, f.neighbour);
        let dropping = example(&Policy { send: Send::Drop, ..Policy::STRONG });
        expect(&dropping, &crossing(Egress, ETH0, frame(&error())), rewritten, true);
        let strong = example(&Policy::STRONG);
        // Another host's, translated.
        expect(&strong, &arrived(crossing(Egress, ETH0, frame(&error()))), redirected, true);
        // An echo, and an error that is cut off.
        let mut other = error();
        let (kind, echo) = if f.name == "ipv4" { (2 + 20, 8) } else { (2 + 40, 128) };
        other[kind] = echo;
        expect(&strong, &crossing(Egress, ETH0, frame(&other)), redirected, true);
        let cut = &error()[..kind + 20];
        expect(&strong, &crossing(Egress, ETH0, frame(cut)), redirected, true);
    }
    let mut fragment = icmp_error(OF_ETH1.into(), REMOTE.into(), NEIGHBOUR.into());
    fragment[2 + 7] = 1;
    let [ipv4, _] = FAMILIES;
    let fragment = crossing(Egress, ETH0, frame(&fragment));
    expect(&example(&Policy::STRONG), &fragment, ipv4.sent(ETH1, ipv4.gateway), true);
}

/// The kernel would look through them all.
#[test]
fn frames_with_more_tags_than_are_looked_through_are_dropped() {
    let [ipv4, _] = FAMILIES;
    let too_many = ipv4.drop("priority_tags");
    let tagged = |tags: usize| ethernet(&MACS, &vec![PRIORITY_TAG; tags], &ip(OF_ETH1, OF_ETH0));
    for (send, row, enforced) in [
        (Send::Redirect, too_many, true),
        (Send::Drop, too_many, true),
        (Send::Observe, too_many, false),
        (Send::Off, PASSES, true),
    ] {
        let host = example(&Policy { send, ..Policy::STRONG });
        let sent = crossing(Egress, ETH0, tagged(17));
        expect(&host, &sent, row, enforced);
        expect(&host, &from_elsewhere(sent), PASSES, true);
    }
    let host = example(&Policy::STRONG);
    let looked_through = crossing(Egress, ETH0, tagged(16));
    expect(&host, &looked_through, ipv4.sent(ETH1, OF_ETH0.into()), true);
    let received = crossing(Ingress, ETH0, tagged(17));
    expect(&host, &received, too_many, true);
    let for_another = Crossing { frame: tagged(17), ..received };
    expect(&host, &for_another, PASSES, true);
}
