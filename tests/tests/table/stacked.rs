//! Devices on other devices, and what is everyone's because it is on no uplink.

use std::net::{IpAddr, Ipv4Addr};

use super::{FAMILIES, PASSES, crossing, expect, frame, frame_to_all, sign};
use crate::{
    frames::{REPLY, REQUEST, advertisement, arp, ip, solicitation},
    oracle::{
        Action, Address, Crossing,
        Direction::{Egress, Ingress},
        Forwarding, Hop, Host, Interface, Kind, Link, Policy, Prefix, Route, Rule,
        example::{
            ETH0, ETH1, GATEWAY, NEIGHBOUR, NEIGHBOUR_6, OF_ETH0, OF_ETH0_6, OF_ETH1, OF_STORAGE, REMOTE,
            STORAGE, TUNNEL, example,
        },
        host::OWN_PROTOCOL,
    },
};

/// The device that is added to the example host.
const ADDED: u32 = 20;
const MAC_OF_ADDED: [u8; 6] = [2, 0, 0, 2, 0, 20];
const OF_ADDED: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 20, 0, 1)),
    IpAddr::V6(std::net::Ipv6Addr::new(0xfd20, 0, 0, 0, 0, 0, 0, 1)),
];

/// The example host with one more device.
fn with(kind: Kind, link: Link, policy: Option<Policy>) -> Host {
    let mut host = example(&Policy::STRONG);
    let addresses =
        OF_ADDED.map(|local| Address { local, peer: None, length: if local.is_ipv4() { 24 } else { 64 } });
    host.interfaces.push(Interface {
        index: ADDED,
        kind,
        master: None,
        link,
        outer: None,
        is_ethernet: true,
        mac: MAC_OF_ADDED,
        mtu: 1500,
        up: true,
        route_localnet: false,
        forwarding: Forwarding::default(),
        addresses: addresses.to_vec(),
        policy,
    });
    host.interfaces.sort_by_key(|interface| interface.index);
    host
}

fn change(host: &mut Host, index: u32, change: impl Fn(&mut Interface)) {
    host.interfaces.iter_mut().filter(|interface| interface.index == index).for_each(change);
}

/// Whether the addresses of the added device are owned by the interface, everyone's or another's there.
fn expect_owned(host: &Host, interface: u32, owned: bool) {
    for (f, address) in FAMILIES.into_iter().zip(OF_ADDED) {
        let received = crossing(Ingress, interface, frame(&ip(f.remote, address)));
        expect(host, &received, if owned { PASSES } else { f.drop("wrong_destination") }, true);
    }
}

/// Whose are the addresses of a device that lies on ETH0?
#[test]
fn what_a_device_lies_on_owns_its_addresses_where_its_packets_cross_that_as_they_are() {
    let on_eth0 = Link::To(ETH0);
    for (kind, owned_below, everyones) in [
        (Kind::Vlan(7), false, false),
        (Kind::Vlan(0), true, false),
        (Kind::Macvlan, false, false),
        (Kind::Ipvlan, true, false),
        // Nobody knows what it is; it is no uplink.
        (Kind::Other, true, true),
        (Kind::Tunnel, true, true),
    ] {
        let host = with(kind, on_eth0, None);
        expect_owned(&host, ETH0, owned_below);
        expect_owned(&host, ETH1, everyones);
        let enforced = with(kind, on_eth0, Some(Policy::STRONG));
        expect_owned(&enforced, ADDED, true);
        expect_owned(&enforced, ETH1, false);
        expect_owned(&enforced, ETH0, !matches!(kind, Kind::Vlan(7) | Kind::Macvlan | Kind::Tunnel));
    }
}

#[test]
fn ports_own_what_their_master_has_whatever_it_is() {
    for kind in [Kind::Bridge, Kind::Bond, Kind::Other] {
        let mut host = with(kind, Link::None, Some(Policy::STRONG));
        change(&mut host, ETH0, |eth0| eth0.master = Some(ADDED));
        expect_owned(&host, ETH0, true);
        expect_owned(&host, ETH1, false);
    }
}

/// The two ends of a pair are apart, though each is the other's link.
#[test]
fn an_end_of_a_pair_owns_nothing_of_the_other() {
    let mut host = with(Kind::Other, Link::To(ETH1), Some(Policy::STRONG));
    change(&mut host, ETH1, |eth1| (eth1.kind, eth1.link) = (Kind::Other, Link::To(ADDED)));
    expect_owned(&host, ETH1, false);
    expect_owned(&host, ADDED, true);
}

fn from(mut crossing: Crossing, mac: [u8; 6]) -> Crossing {
    sign(&mut crossing.frame, mac);
    crossing
}

fn to(mut crossing: Crossing, mac: [u8; 6]) -> Crossing {
    crossing.frame[..6].copy_from_slice(&mac);
    crossing
}

#[test]
fn frames_of_a_macvlan_cross_what_it_lies_on_by_their_hardware_address() {
    let host = with(Kind::Macvlan, Link::To(ETH0), None);
    let drop = |family, reason| Some((family, reason, Action::Drop));
    let [IpAddr::V4(own), IpAddr::V6(own6)] = OF_ADDED else { unreachable!() };
    for (f, address) in FAMILIES.into_iter().zip(OF_ADDED) {
        let sent = crossing(Egress, ETH0, frame(&ip(address, f.remote)));
        expect(&host, &sent, f.drop("no_route"), true);
        expect(&host, &from(sent, MAC_OF_ADDED), PASSES, true);
        let received = crossing(Ingress, ETH0, frame(&ip(f.remote, address)));
        expect(&host, &received, f.drop("wrong_destination"), true);
        expect(&host, &to(received, MAC_OF_ADDED), PASSES, true);
        // As one for all it gets there as well; ETH1 is another link.
        let to_all = crossing(Ingress, ETH0, frame_to_all(&ip(f.remote, address)));
        expect(&host, &to_all, PASSES, true);
        let elsewhere = crossing(Ingress, ETH1, frame_to_all(&ip(f.remote, address)));
        expect(&host, &elsewhere, f.drop("wrong_destination"), true);
        expect(&host, &to(elsewhere, MAC_OF_ADDED), f.drop("wrong_destination"), true);
        let of_another = crossing(Ingress, ETH0, frame_to_all(&ip(f.remote, f.of_eth1)));
        expect(&host, &of_another, f.drop("wrong_destination"), true);
    }
    let answer = crossing(Egress, ETH0, frame(&arp(REPLY, own, NEIGHBOUR)));
    expect(&host, &answer, drop("arp", "arp_sender"), true);
    // It is the address inside that counts.
    let by_it = from(answer.clone(), MAC_OF_ADDED);
    expect(&host, &by_it, PASSES, true);
    let mut for_it = answer;
    for_it.frame[6..12].copy_from_slice(&MAC_OF_ADDED);
    expect(&host, &for_it, drop("arp", "arp_sender"), true);
    let question = crossing(Ingress, ETH0, frame_to_all(&arp(REQUEST, NEIGHBOUR, own)));
    expect(&host, &question, PASSES, true);
    let advertised = crossing(Egress, ETH0, frame(&advertisement(OF_ETH0_6, NEIGHBOUR_6, own6)));
    expect(&host, &advertised, drop("ndp", "ndp_sender"), true);
    let advertised = crossing(Egress, ETH0, frame(&advertisement(own6, NEIGHBOUR_6, own6)));
    expect(&host, &from(advertised, MAC_OF_ADDED), PASSES, true);
    let solicited = crossing(Ingress, ETH0, frame_to_all(&solicitation(NEIGHBOUR_6, OF_ETH0_6, own6)));
    expect(&host, &solicited, PASSES, true);
}

/// With another hardware address an ARP request claims no address of the interface.
#[test]
fn an_arp_request_from_elsewhere_asks_as_nobody() {
    let request = crossing(Egress, ETH0, frame_to_all(&arp(REQUEST, OF_ETH1, NEIGHBOUR)));
    let asks = |sender| Some(("arp", "arp_rewritten", Action::AskAs(sender)));
    let host = example(&Policy::STRONG);
    expect(&host, &request, asks(OF_ETH0), true);
    expect(&host, &from(request, [2, 0, 0, 0, 0, 1]), asks(Ipv4Addr::UNSPECIFIED), true);
}

#[test]
fn frames_of_a_macvlan_on_a_bond_cross_its_ports() {
    let mut host = with(Kind::Macvlan, Link::To(STORAGE), None);
    change(&mut host, STORAGE, |storage| storage.kind = Kind::Bond);
    change(&mut host, ETH1, |eth1| eth1.master = Some(STORAGE));
    let [ipv4, _] = FAMILIES;
    let [own, _] = OF_ADDED;
    for (interface, row) in [(STORAGE, PASSES), (ETH1, PASSES), (ETH0, ipv4.drop("no_route"))] {
        let sent = crossing(Egress, interface, frame(&ip(own, ipv4.remote)));
        expect(&host, &from(sent, MAC_OF_ADDED), row, true);
    }
}

#[test]
fn what_no_uplink_has_is_everyones_unless_it_is_enforced_or_an_uplink_has_it_too() {
    for kind in [Kind::Bridge, Kind::Tunnel, Kind::Other] {
        let mut host = with(kind, Link::None, None);
        expect_owned(&host, ETH0, true);
        change(&mut host, ADDED, |added| added.policy = Some(Policy::STRONG));
        expect_owned(&host, ETH0, false);
        change(&mut host, ADDED, |added| added.policy = Some(Policy { binds: false, ..Policy::STRONG }));
        change(&mut host, ADDED, |added| added.forwarding = Forwarding { ipv4: true, ipv6: true });
        expect_owned(&host, ETH0, true);
        change(&mut host, ETH1, |eth1| {
            eth1.addresses.extend(OF_ADDED.map(|local| Address { local, peer: None, length: 24 }));
        });
        expect_owned(&host, ETH0, false);
    }
    // Not selected, but the way out.
    for kind in [Kind::Wire, Kind::Bond] {
        expect_owned(&with(kind, Link::None, None), ETH0, false);
    }
    // A default route makes it one.
    for (kind, default) in [(Kind::Tunnel, 1), (Kind::Bridge, 0), (Kind::Other, 0)] {
        let mut host = with(kind, Link::None, None);
        let hops = vec![Hop { interface: ADDED, gateway: None }];
        let destination = Prefix::new(Ipv4Addr::UNSPECIFIED, default);
        host.routes.push(Route { table: 254, destination, metric: 50, hops });
        expect_owned(&host, ETH0, false);
    }
}

/// Towards a network that this host is the router of.
#[test]
fn what_a_downlink_has_is_everyones() {
    let forwarding = Forwarding { ipv4: true, ipv6: true };
    let mut host = with(Kind::Wire, Link::None, None);
    change(&mut host, ADDED, |added| added.forwarding = forwarding);
    expect_owned(&host, ETH0, true);
    // There is a gateway, another interface in that subnet, or the policy says so.
    let mut with_gateway = host.clone();
    with_gateway.routes.push(Route {
        table: 254,
        destination: Prefix::new(Ipv4Addr::new(10, 99, 0, 0), 16),
        metric: 0,
        hops: vec![Hop { interface: ADDED, gateway: Some(Ipv4Addr::new(10, 20, 0, 254).into()) }],
    });
    expect_owned(&with_gateway, ETH0, false);
    let mut sharing = host.clone();
    let neighbour = Address { local: Ipv4Addr::new(10, 20, 0, 9).into(), peer: None, length: 24 };
    change(&mut sharing, STORAGE, |storage| storage.addresses.push(neighbour));
    expect_owned(&sharing, ETH0, false);
    change(&mut host, ADDED, |added| added.policy = Some(Policy::STRONG));
    expect_owned(&host, ETH0, false);
}

/// Of a load balancer, or of 1:1 NAT.
#[test]
fn a_prefix_that_the_operator_gives_to_an_interface_is_its_own() {
    for f in FAMILIES {
        let mut host = example(&Policy::STRONG);
        let owns = |owns: Vec<Prefix>| Policy { owns, ..Policy::STRONG };
        change(&mut host, ETH1, |eth1| eth1.policy = Some(owns(vec![Prefix::new(f.remote, 24)])));
        for (interface, row) in [(ETH0, f.drop("wrong_destination")), (ETH1, PASSES), (TUNNEL, PASSES)] {
            let received = crossing(Ingress, interface, frame(&ip(f.neighbour, f.remote)));
            // The tunnel has no Ethernet header, as which this is read.
            expect(&host, &received, row, true);
        }
        let sent = crossing(Egress, ETH0, frame(&ip(f.remote, f.neighbour)));
        expect(&host, &sent, f.sent(ETH1, f.neighbour), true);
    }
}

/// As cloud agents have it.
#[test]
fn the_gateway_of_an_interface_can_be_in_the_table_of_a_rule() {
    let [ipv4, _] = FAMILIES;
    let gateway = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 254));
    let plain = Rule {
        ipv4: true,
        source: Some(Prefix::new(OF_STORAGE, 32)),
        table: 100,
        protocol: 0,
        mark: None,
        is_choosy: false,
    };
    let no_route = ipv4.drop("no_route");
    for (rule, row) in [
        (plain, ipv4.sent(STORAGE, gateway)),
        (Rule { mark: Some((0, u32::MAX)), ..plain }, ipv4.sent(STORAGE, gateway)),
        (Rule { mark: Some((1, u32::MAX)), ..plain }, no_route),
        (Rule { is_choosy: true, ..plain }, no_route),
        (Rule { source: None, ..plain }, no_route),
        (Rule { source: Some(Prefix::new(OF_ETH1, 32)), ..plain }, no_route),
        (Rule { protocol: OWN_PROTOCOL, ..plain }, no_route),
        (Rule { table: 101, ..plain }, no_route),
    ] {
        let mut host = example(&Policy::STRONG);
        host.rules.push(rule);
        host.routes.push(Route {
            table: 100,
            destination: Prefix::new(Ipv4Addr::UNSPECIFIED, 0),
            metric: 0,
            hops: vec![Hop { interface: STORAGE, gateway: Some(gateway) }],
        });
        let sent = crossing(Egress, ETH0, frame(&ip(OF_STORAGE, REMOTE)));
        expect(&host, &sent, row, true);
    }
    // It goes before main, but not before a longer prefix.
    let mut host = example(&Policy::STRONG);
    host.rules.push(Rule { source: Some(Prefix::new(OF_ETH1, 32)), ..plain });
    let near = IpAddr::V4(Ipv4Addr::new(192, 168, 0, 2));
    host.routes.push(Route {
        table: 100,
        destination: Prefix::new(Ipv4Addr::UNSPECIFIED, 0),
        metric: 0,
        hops: vec![Hop { interface: ETH1, gateway: Some(near) }],
    });
    assert_ne!(near, IpAddr::V4(GATEWAY));
    for (destination, next_hop) in [(REMOTE, near), (NEIGHBOUR, NEIGHBOUR.into())] {
        let sent = crossing(Egress, ETH0, frame(&ip(OF_ETH1, destination)));
        expect(&host, &sent, ipv4.sent(ETH1, next_hop), true);
    }
}
