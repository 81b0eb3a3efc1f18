//! Neighbour discovery.

use std::net::Ipv6Addr;

use super::{FAMILIES, PASSES, Row, bare, crossing, expect_in_all_modes, frame, frame_to_all};
use crate::{
    frames::{advertisement, solicitation},
    oracle::{
        Action,
        Direction::{Egress, Ingress},
        example::{
            ETH0, ETH1, LINK_LOCAL, LINK_LOCAL_OF_ETH1, NEIGHBOUR_6, OF_ETH0_6, OF_ETH1_6, OF_RED_6,
            OF_RED1_6, OF_STORAGE_6, RED0, RED1, REMOTE_6, ROUTED_TO_ETH1_6, ROUTED_TO_LO_6, STORAGE, VIP_6,
        },
    },
};

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

fn drop(reason: &'static str) -> Row {
    Some(("ndp", reason, Action::Drop))
}

#[test]
fn advertisements_leave_by_the_interface_of_their_target() {
    for (interface, target, row) in [
        (ETH0, OF_ETH0_6, PASSES),
        (ETH0, LINK_LOCAL, PASSES),
        (STORAGE, LINK_LOCAL, PASSES),
        (ETH0, VIP_6, PASSES),
        (ETH0, ROUTED_TO_LO_6, PASSES),
        // For a neighbour, as a proxy.
        (ETH0, REMOTE_6, PASSES),
        (ETH0, OF_RED1_6, PASSES),
        (RED0, OF_ETH1_6, PASSES),
        (RED1, OF_RED_6, PASSES),
        (ETH0, Ipv6Addr::UNSPECIFIED, PASSES),
        (ETH0, OF_ETH1_6, drop("ndp_sender")),
        (ETH0, LINK_LOCAL_OF_ETH1, drop("ndp_sender")),
        (ETH1, LINK_LOCAL, drop("ndp_sender")),
        (ETH0, ROUTED_TO_ETH1_6, drop("ndp_sender")),
        (RED1, OF_ETH1_6, drop("ndp_sender")),
        (ETH0, Ipv6Addr::LOCALHOST, drop("loopback")),
    ] {
        for to_all in [false, true] {
            let packet = advertisement(Ipv6Addr::UNSPECIFIED, ALL_NODES, target);
            let packet = if to_all { frame_to_all(&packet) } else { frame(&packet) };
            expect_in_all_modes(&crossing(Egress, interface, packet), row, row);
        }
    }
}

#[test]
fn an_advertisement_with_a_right_target_is_a_datagram_like_others() {
    let [_, ipv6] = FAMILIES;
    let wrong = ipv6.drop("wrong_source");
    for (source, target, redirecting, dropping) in [
        (OF_ETH0_6, OF_ETH0_6, PASSES, PASSES),
        (OF_ETH1_6, OF_ETH0_6, ipv6.to_group(ETH1), wrong),
        (OF_ETH1_6, REMOTE_6, ipv6.to_group(ETH1), wrong),
        (Ipv6Addr::LOCALHOST, OF_ETH0_6, ipv6.drop("loopback"), ipv6.drop("loopback")),
        // Its target is asked about first.
        (OF_ETH1_6, OF_ETH1_6, drop("ndp_sender"), drop("ndp_sender")),
        (Ipv6Addr::LOCALHOST, OF_STORAGE_6, drop("ndp_sender"), drop("ndp_sender")),
    ] {
        let packet = frame_to_all(&advertisement(source, ALL_NODES, target));
        expect_in_all_modes(&crossing(Egress, ETH0, packet), redirecting, dropping);
        let packet = bare(Egress, &advertisement(OF_ETH1_6, REMOTE_6, OF_STORAGE_6));
        expect_in_all_modes(&packet, drop("ndp_sender"), drop("ndp_sender"));
    }
}

/// Who is asked for is nobody's secret.
#[test]
fn solicitations_leave_by_the_interface_of_their_source() {
    let [_, ipv6] = FAMILIES;
    let wrong = ipv6.drop("wrong_source");
    for (source, target, redirecting, dropping) in [
        (OF_ETH0_6, NEIGHBOUR_6, PASSES, PASSES),
        (OF_ETH0_6, OF_ETH1_6, PASSES, PASSES),
        (OF_ETH0_6, Ipv6Addr::LOCALHOST, PASSES, PASSES),
        // Duplicate address detection.
        (Ipv6Addr::UNSPECIFIED, OF_ETH0_6, PASSES, PASSES),
        (OF_ETH1_6, NEIGHBOUR_6, ipv6.to_group(ETH1), wrong),
    ] {
        let packet = frame_to_all(&solicitation(source, ALL_NODES, target));
        expect_in_all_modes(&crossing(Egress, ETH0, packet), redirecting, dropping);
    }
}

#[test]
fn solicitations_are_received_on_the_interface_of_their_target() {
    for (interface, target, row) in [
        (ETH0, OF_ETH0_6, PASSES),
        (ETH0, LINK_LOCAL, PASSES),
        (ETH0, VIP_6, PASSES),
        (ETH0, REMOTE_6, PASSES),
        (ETH0, OF_RED1_6, PASSES),
        (RED0, OF_ETH1_6, PASSES),
        (ETH1, ROUTED_TO_ETH1_6, PASSES),
        (ETH0, OF_ETH1_6, drop("ndp_target")),
        (ETH1, LINK_LOCAL, drop("ndp_target")),
        (ETH0, ROUTED_TO_ETH1_6, drop("ndp_target")),
        (RED1, OF_ETH1_6, drop("ndp_target")),
        (ETH0, Ipv6Addr::LOCALHOST, drop("loopback")),
    ] {
        let packet = frame_to_all(&solicitation(NEIGHBOUR_6, ALL_NODES, target));
        expect_in_all_modes(&crossing(Ingress, interface, packet), row, row);
        // Of an advertisement only the destination counts.
        let packet = frame_to_all(&advertisement(NEIGHBOUR_6, ALL_NODES, target));
        expect_in_all_modes(&crossing(Ingress, interface, packet), PASSES, PASSES);
    }
}

#[test]
fn a_solicitation_is_a_datagram_like_others() {
    let [_, ipv6] = FAMILIES;
    let wrong = ipv6.drop("wrong_destination");
    for (destination, target, row) in [
        (OF_ETH0_6, OF_ETH0_6, PASSES),
        (OF_ETH1_6, OF_ETH0_6, wrong),
        // Its destination is asked about first.
        (OF_ETH1_6, OF_ETH1_6, wrong),
        (OF_ETH0_6, OF_ETH1_6, drop("ndp_target")),
        (REMOTE_6, OF_ETH1_6, drop("ndp_target")),
    ] {
        let packet = solicitation(NEIGHBOUR_6, destination, target);
        expect_in_all_modes(&crossing(Ingress, ETH0, frame(&packet)), row, row);
    }
    let bare = bare(Ingress, &solicitation(NEIGHBOUR_6, ALL_NODES, OF_ETH1_6));
    expect_in_all_modes(&bare, drop("ndp_target"), drop("ndp_target"));
}

/// Without its last byte there is no target: what is left is an IPv6 packet like others.
#[test]
fn what_is_cut_off_is_no_discovery() {
    let [_, ipv6] = FAMILIES;
    for (source, row) in [(OF_ETH0_6, PASSES), (OF_ETH1_6, ipv6.to_group(ETH1))] {
        let mut packet = frame_to_all(&advertisement(source, ALL_NODES, OF_STORAGE_6));
        packet.pop();
        let dropping = if row == PASSES { PASSES } else { ipv6.drop("wrong_source") };
        expect_in_all_modes(&crossing(Egress, ETH0, packet), row, dropping);
    }
    let mut packet = frame_to_all(&solicitation(NEIGHBOUR_6, ALL_NODES, OF_ETH1_6));
    packet.pop();
    expect_in_all_modes(&crossing(Ingress, ETH0, packet), PASSES, PASSES);
}
