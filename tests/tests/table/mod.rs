//! The documented table of decisions, row by row, on the example host.
//!
//! The oracle and the decision must both agree with what is written here: the oracle could be wrong where the
//! decision is. Rows about datagrams are written once for both families.

mod discovery;
mod received;
mod sent;
mod stacked;
mod switches;
mod transit;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{
    frames::{MACS, TO_ALL, ethernet, ip},
    oracle::{
        Action, Crossing, Direction, Host, Policy, Verdict,
        example::{
            BEYOND_TUNNEL, END_OF_TUNNEL_6, ETH1, GATEWAY, GATEWAY_6, NEIGHBOUR, NEIGHBOUR_6, OF_ETH0,
            OF_ETH0_6, OF_ETH1, OF_ETH1_6, OF_RED, OF_RED_6, OF_RED1, OF_RED1_6, OF_STORAGE, OF_STORAGE_6,
            OF_TUNNEL, OF_TUNNEL_6, OF_UNPLUGGED, OF_UNPLUGGED_6, REMOTE, REMOTE_6, ROUTED_TO_ETH1,
            ROUTED_TO_ETH1_6, ROUTED_TO_LO, ROUTED_TO_LO_6, TUNNEL, VIP, VIP_6, example, mac,
        },
        judge,
    },
    subject,
};

/// The addresses of the example host and others, in one family.
struct Family {
    name: &'static str,
    nobody: IpAddr,
    loopback: IpAddr,
    group: IpAddr,
    of_eth0: IpAddr,
    of_eth1: IpAddr,
    of_storage: IpAddr,
    of_unplugged: IpAddr,
    of_tunnel: IpAddr,
    of_red: IpAddr,
    of_red1: IpAddr,
    vip: IpAddr,
    routed_to_eth1: IpAddr,
    routed_to_lo: IpAddr,
    gateway: IpAddr,
    neighbour: IpAddr,
    remote: IpAddr,
}

const FAMILIES: [Family; 2] = [
    Family {
        name: "ipv4",
        nobody: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        loopback: IpAddr::V4(Ipv4Addr::LOCALHOST),
        group: IpAddr::V4(Ipv4Addr::new(224, 0, 0, 251)),
        of_eth0: IpAddr::V4(OF_ETH0),
        of_eth1: IpAddr::V4(OF_ETH1),
        of_storage: IpAddr::V4(OF_STORAGE),
        of_unplugged: IpAddr::V4(OF_UNPLUGGED),
        of_tunnel: IpAddr::V4(OF_TUNNEL),
        of_red: IpAddr::V4(OF_RED),
        of_red1: IpAddr::V4(OF_RED1),
        vip: IpAddr::V4(VIP),
        routed_to_eth1: IpAddr::V4(ROUTED_TO_ETH1),
        routed_to_lo: IpAddr::V4(ROUTED_TO_LO),
        gateway: IpAddr::V4(GATEWAY),
        neighbour: IpAddr::V4(NEIGHBOUR),
        remote: IpAddr::V4(REMOTE),
    },
    Family {
        name: "ipv6",
        nobody: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        loopback: IpAddr::V6(Ipv6Addr::LOCALHOST),
        group: IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb)),
        of_eth0: IpAddr::V6(OF_ETH0_6),
        of_eth1: IpAddr::V6(OF_ETH1_6),
        of_storage: IpAddr::V6(OF_STORAGE_6),
        of_unplugged: IpAddr::V6(OF_UNPLUGGED_6),
        of_tunnel: IpAddr::V6(OF_TUNNEL_6),
        of_red: IpAddr::V6(OF_RED_6),
        of_red1: IpAddr::V6(OF_RED1_6),
        vip: IpAddr::V6(VIP_6),
        routed_to_eth1: IpAddr::V6(ROUTED_TO_ETH1_6),
        routed_to_lo: IpAddr::V6(ROUTED_TO_LO_6),
        gateway: IpAddr::V6(GATEWAY_6),
        neighbour: IpAddr::V6(NEIGHBOUR_6),
        remote: IpAddr::V6(REMOTE_6),
    },
];

/// The family, reason and action of a violation; `None` where a packet passes.
type Row = Option<(&'static str, &'static str, Action)>;

const PASSES: Row = None;

impl Family {
    fn drop(&self, reason: &'static str) -> Row {
        Some((self.name, reason, Action::Drop))
    }

    fn sent(&self, owner: u32, neighbour: IpAddr) -> Row {
        Some((self.name, "redirected", Action::SendBy { owner, neighbour }))
    }

    fn to_group(&self, owner: u32) -> Row {
        Some((self.name, "redirected", Action::SendToGroupBy { owner, source: mac(owner) }))
    }
}

/// A frame for one station, with what is in it from the EtherType on.
fn frame(network: &[u8]) -> Vec<u8> {
    ethernet(&MACS, &[], network)
}

/// A frame for all.
fn frame_to_all(network: &[u8]) -> Vec<u8> {
    ethernet(&TO_ALL, &[], network)
}

/// A packet across an interface that has Ethernet headers: from its hardware address or, if it is not for a group, to it.
fn crossing(direction: Direction, interface: u32, mut frame: Vec<u8>) -> Crossing {
    match direction {
        Direction::Egress => sign(&mut frame, mac(interface)),
        Direction::Ingress if frame[0].is_multiple_of(2) => frame[..6].copy_from_slice(&mac(interface)),
        Direction::Ingress => {}
    }
    let protocol = u16::from_be_bytes([frame[12], frame[13]]);
    Crossing { direction, interface, arrived: false, decapsulated: false, tag_beside: 0, protocol, frame }
}

/// Puts a hardware address in as the source, of the frame and of ARP.
fn sign(frame: &mut [u8], mac: [u8; 6]) {
    frame[6..12].copy_from_slice(&mac);
    if frame[12..14] == [0x08, 0x06] {
        frame[22..28].copy_from_slice(&mac);
    }
}

/// A packet across an interface that has none, with its protocol before it.
fn bare(direction: Direction, network: &[u8]) -> Crossing {
    let (protocol, frame) = (u16::from_be_bytes([network[0], network[1]]), network[2..].to_vec());
    let interface = TUNNEL;
    Crossing { direction, interface, arrived: false, decapsulated: false, tag_beside: 0, protocol, frame }
}

/// What becomes of a packet where all is enforced, where nothing is redirected, and where nothing is
/// enforced: there it is redirect mode, but for doing it.
fn expect_in_all_modes(crossing: &Crossing, redirecting: Row, dropping: Row) {
    expect(&example(&Policy::STRONG), crossing, redirecting, true);
    expect(&example(&Policy::DROPPING), crossing, dropping, true);
    expect(&example(&Policy::OBSERVING), crossing, redirecting, false);
}

/// What becomes of a packet on a host, by the oracle and by the decision.
fn expect(host: &Host, crossing: &Crossing, row: Row, enforced: bool) {
    let expected = row.map_or(Verdict::Pass, |(family, reason, action)| Verdict::Violation {
        family,
        reason,
        action,
        enforced,
    });
    let policy = host.interface(crossing.interface).map(|interface| &interface.policy);
    assert_eq!(judge(host, crossing), expected, "the oracle with {policy:?} on {crossing:?}");
    let decided = subject::verdict(&subject::tables(host), crossing);
    assert_eq!(decided, expected, "the decision with {policy:?} on {crossing:?}");
}

/// The route to it is one of IPv4, by a gateway of IPv6.
#[test]
fn a_gateway_of_ipv6_serves_a_route_of_ipv4() {
    let packet = ip(OF_TUNNEL, BEYOND_TUNNEL);
    let by_tunnel = Action::SendBy { owner: TUNNEL, neighbour: END_OF_TUNNEL_6.into() };
    let crossing = crossing(Direction::Egress, ETH1, frame(&packet));
    expect(&example(&Policy::STRONG), &crossing, Some(("ipv4", "redirected", by_tunnel)), true);
}
