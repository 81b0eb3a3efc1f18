//! Hosts as people have them, and which devices are their uplinks.

use super::*;
use crate::model::{
    Address, Route, Rule,
    testing::{self, address, host, link, net, port, stacked},
};

fn wire(index: u32) -> Link {
    link(index, LinkKind::Wire)
}

/// One end of a pair whose other end is in another namespace.
fn end(index: u32) -> Link {
    Link { link_elsewhere: true, ..link(index, LinkKind::Other) }
}

/// A device on another one.
fn on(lower: u32, index: u32, kind: LinkKind) -> Link {
    Link { link: Some(lower), ..link(index, kind) }
}

/// A router's: both families are forwarded on all of its links.
fn forwarding(mut host: Host) -> Host {
    for link in host.links.values_mut() {
        (link.forwards, link.router) = (true, true);
    }
    host
}

fn route(table: u32, destination: &str, ifindex: u32, gateway: Option<&str>) -> Route {
    Route { table, ..testing::route(destination, 0, ifindex, gateway) }
}

fn main(destination: &str, ifindex: u32, gateway: Option<&str>) -> Route {
    route(254, destination, ifindex, gateway)
}

fn rule(source: Option<&str>, table: u32) -> Rule {
    let source = source.map(net);
    Rule { ipv4: true, priority: 100, source, table, protocol: 3, mark: None, selects: false }
}

fn with<const N: usize>(
    links: impl IntoIterator<Item = Link>,
    addresses: [Address; N],
    routes: Vec<Route>,
) -> Host {
    Host { routes, ..host(links, addresses) }
}

fn uplinks(host: &Host) -> Vec<u32> {
    Uplinks::of(host).uplinks.into_iter().collect()
}

#[test]
fn wires_are_uplinks_and_a_bond_in_place_of_its_ports() {
    let host = host([link(1, LinkKind::Loopback), wire(2), port(3, 9), link(9, LinkKind::Bond), wire(4)], []);
    assert_eq!(uplinks(&host), [2, 4, 9]);
    assert_eq!(Uplinks::of(&host).left_out[&3], PORT);
}

#[test]
fn a_bridge_is_one_if_a_port_is_a_way_out() {
    let tap = Link { master: Some(8), ..link(5, LinkKind::Tunnel) };
    let veth = Link { master: Some(9), ..end(6) };
    let vlan_of_a_bridge = on(8, 10, LinkKind::Vlan { id: 5 });
    let links =
        [port(2, 8), tap, veth, link(8, LinkKind::Bridge), link(9, LinkKind::Bridge), vlan_of_a_bridge];
    let host =
        host(links, [address(8, "10.0.0.1/24"), address(9, "172.17.0.1/16"), address(10, "10.5.0.1/24")]);
    assert_eq!(uplinks(&host), [8, 10]);
    assert_eq!(Uplinks::of(&host).left_out[&9], INSIDE_BRIDGE);
}

#[test]
fn what_lies_on_an_uplink_is_one_with_a_subnet_or_a_gateway() {
    let vlan = |index| on(2, index, LinkKind::Vlan { id: 5 });
    let virtual_router = Link { mac: Some([0, 0, 0x5e, 0, 1, 51]), ..on(2, 8, LinkKind::Macvlan) };
    let links =
        [wire(2), vlan(3), vlan(4), vlan(5), on(2, 6, LinkKind::Macvlan), stacked(7, 2), virtual_router];
    let addresses = [
        address(3, "10.0.3.1/24"),
        address(4, "10.0.4.1/32"),
        // The shim by which a host reaches its containers on macvlans.
        address(6, "192.168.1.223/32"),
        address(7, "10.0.7.1/24"),
        address(8, "10.0.8.1/24"),
    ];
    let routes = vec![main("10.9.0.0/16", 4, Some("10.0.4.254")), main("192.168.1.192/27", 6, None)];
    let host = with(links, addresses, routes);
    assert_eq!(uplinks(&host), [2, 3, 4, 7]);
    let left_out = Uplinks::of(&host).left_out;
    assert_eq!([5, 6, 8].map(|index| left_out[&index]), [WITHOUT_SUBNET, WITHOUT_SUBNET, VIRTUAL_ROUTER]);
}

#[test]
fn a_tunnel_is_one_with_a_default_route_in_any_table_that_packets_come_to() {
    let tunnel = |index| link(index, LinkKind::Tunnel);
    let addresses = [3, 4, 5].map(|index| address(index, &format!("10.8.{index}.2/24")));
    let routes = vec![
        // As OpenVPN and wg-quick have them.
        main("0.0.0.0/1", 3, Some("10.8.3.1")),
        route(51820, "0.0.0.0/0", 4, None),
        main("10.0.0.0/8", 5, None),
    ];
    let mut host = with([wire(2), tunnel(3), tunnel(4), tunnel(5)], addresses, routes);
    host.rules = vec![rule(None, 51820)];
    assert_eq!(uplinks(&host), [2, 3, 4]);
    assert_eq!(Uplinks::of(&host).left_out[&5], TUNNEL);
}

#[test]
fn the_hosts_ends_of_pairs_are_none_whatever_their_kind() {
    let pair = [on(6, 5, LinkKind::Other), on(5, 6, LinkKind::Other)];
    let unknown = link(7, LinkKind::Other);
    let links = [wire(2), end(3), end(4), unknown].into_iter().chain(pair);
    let addresses = [
        address(2, "10.0.0.2/24"),
        address(4, "10.0.4.1/28"),
        address(5, "10.244.0.1/32"),
        address(7, "10.7.0.1/24"),
    ];
    let host = with(links, addresses, vec![main("10.244.0.0/24", 5, Some("10.244.0.1"))]);
    assert_eq!(uplinks(&host), [2]);
    let left_out = Uplinks::of(&host).left_out;
    assert_eq!(
        [3, 4, 5, 6, 7].map(|index| left_out[&index]),
        [OTHER_NAMESPACE, OTHER_NAMESPACE, PAIR, PAIR, UNKNOWN]
    );
}

#[test]
fn in_a_container_the_ends_of_its_pairs_are_uplinks_and_a_macvlan_or_a_wire_beside_them_changes_nothing() {
    let macvlan = Link { link_elsewhere: true, ..link(3, LinkKind::Macvlan) };
    let addresses = [address(2, "10.244.0.2/24"), address(3, "10.1.20.201/24")];
    let default = vec![main("0.0.0.0/0", 2, Some("10.244.0.1"))];
    assert_eq!(uplinks(&with([end(2), macvlan], addresses, default.clone())), [2, 3]);
    assert_eq!(uplinks(&with([end(2), wire(3)], addresses, default)), [2, 3], "SR-IOV");
    let vmac = Link { mac: Some([0, 0, 0x5e, 0, 1, 51]), ..on(2, 4, LinkKind::Macvlan) };
    assert_eq!(uplinks(&host([end(2), end(3), vmac], addresses)), [2, 3]);
    let vlan = on(2, 5, LinkKind::Vlan { id: 5 });
    assert_eq!(uplinks(&host([end(2), vlan], [addresses[0], address(5, "10.5.0.1/24")])), [2, 5]);
}

#[test]
fn a_container_whose_address_is_for_itself_alone_has_a_default_route() {
    let routes = vec![main("169.254.1.1/32", 2, None), main("0.0.0.0/0", 2, Some("169.254.1.1"))];
    assert_eq!(uplinks(&with([end(2), end(3)], [address(2, "10.244.0.2/32")], routes)), [2]);
}

#[test]
fn a_container_without_addresses_has_all_ends_as_uplinks() {
    assert_eq!(uplinks(&host([link(1, LinkKind::Loopback), end(2), end(3)], [])), [2, 3]);
}

#[test]
fn in_a_container_that_is_a_node_itself_its_own_containers_are_left_alone() {
    let bridge_port = Link { master: Some(5), ..end(6) };
    let links = [end(2), end(3), end(4), link(5, LinkKind::Bridge), bridge_port, link(7, LinkKind::Bridge)];
    let addresses = [
        address(2, "172.18.0.2/16"),
        address(3, "169.254.1.1/32"),
        address(3, "fe80::3/64"),
        address(5, "10.244.0.1/24"),
        // Docker in Docker, before the first container.
        address(7, "172.17.0.1/16"),
    ];
    assert_eq!(uplinks(&host(links, addresses)), [2]);
}

#[test]
fn a_router_is_that_of_networks_without_a_gateway() {
    let links = || [wire(2), link(8, LinkKind::Bridge), port(3, 8)];
    let addresses = [address(2, "203.0.113.5/24"), address(8, "192.168.1.1/24")];
    let default = || vec![main("0.0.0.0/0", 2, Some("203.0.113.1"))];
    let router = forwarding(with(links(), addresses, default()));
    assert_eq!(uplinks(&router), [2]);
    assert_eq!(Uplinks::of(&router).left_out[&8], DOWNLINK);
    assert_eq!(uplinks(&with(links(), addresses, default())), [2, 8], "a host, which forwards nothing");
    let mut static_route = router;
    static_route.routes.push(main("10.9.0.0/16", 8, Some("192.168.1.254")));
    assert_eq!(uplinks(&static_route), [2, 8], "a gateway is known there");
}

#[test]
fn a_gateway_may_be_known_only_to_the_table_of_a_rule_from_an_address() {
    let addresses = [address(2, "10.1.0.5/24"), address(3, "10.2.0.5/24")];
    let routes = vec![main("0.0.0.0/0", 2, Some("10.1.0.1")), route(101, "10.9.0.0/16", 3, Some("10.2.0.1"))];
    let mut host = forwarding(with([wire(2), wire(3)], addresses, routes));
    assert_eq!(uplinks(&host), [2]);
    host.rules = vec![rule(Some("10.2.0.5/32"), 101)];
    assert_eq!(uplinks(&host), [2, 3]);
    host.rules[0].mark = Some((1, u32::MAX));
    assert_eq!(uplinks(&host), [2], "for marked packets only");
}

#[test]
fn interfaces_of_one_subnet_are_no_downlinks() {
    let addresses = [address(2, "10.1.0.5/24"), address(3, "10.1.0.6/24"), address(4, "10.4.0.1/24")];
    let host = forwarding(host([wire(2), wire(3), wire(4)], addresses));
    assert_eq!(uplinks(&host), [2, 3]);
    assert_eq!(Uplinks::of(&host).downlinks, BTreeSet::from([4]));
}

#[test]
fn an_unnumbered_link_that_routes_lead_to_is_a_downlink_and_an_idle_one_is_not() {
    let addresses = [address(2, "10.1.0.5/24")];
    let routes = vec![main("0.0.0.0/0", 2, Some("10.1.0.1")), main("10.244.0.2/32", 3, None)];
    let host = forwarding(with([wire(2), wire(3), wire(4), end(5)], addresses, routes));
    assert_eq!(uplinks(&host), [2, 4]);
}

#[test]
fn each_family_is_forwarded_by_itself() {
    let addresses = [address(2, "10.1.0.5/24"), address(3, "2001:db8:3::1/64")];
    let mut host = host([wire(2), wire(3)], addresses);
    host.links.values_mut().for_each(|link| link.forwards = true);
    assert_eq!(Uplinks::of(&host).downlinks, BTreeSet::from([2]));
}

#[test]
fn a_vrf_has_its_own_gateways_and_subnets() {
    let vrf = link(9, LinkKind::Vrf { table: 10 });
    let addresses = [address(2, "10.1.0.5/24"), address(3, "10.1.0.6/24")];
    let routes = vec![route(10, "0.0.0.0/0", 2, Some("10.1.0.1"))];
    let host = forwarding(with([port(2, 9), wire(3), vrf], addresses, routes));
    assert_eq!(uplinks(&host), [2]);
    assert_eq!(Uplinks::of(&host).left_out[&9], VRF);
}

#[test]
fn shared_subnets_are_found() {
    let addresses = [
        address(2, "192.168.0.100/21"),
        address(3, "192.168.0.101/21"),
        address(4, "10.0.0.1/8"),
        address(3, "fe80::3/64"),
        address(4, "fe80::4/64"),
    ];
    let shared = shared_subnets(&host([wire(2), wire(3), wire(4)], addresses));
    assert_eq!(shared.len(), 1);
    assert_eq!(shared.values().next(), Some(&BTreeSet::from([2, 3])));
}
