use std::collections::{BTreeMap, BTreeSet};

use netlink_packet_route::{
    AddressFamily,
    link::{Inet6DevConf, InetDevConf},
    route::{
        RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteNextHop, RouteNextHopFlags,
        RouteProtocol, RouteType, RouteVia,
    },
};

use super::*;
use crate::model::{
    Hop, LocalRoute, Metrics, OtherRoute, Route,
    host::MAIN_TABLE,
    testing::{ip, net},
};

/// The tables main and local, and that of a VRF whose device has the index 9.
fn domains() -> Tables {
    let domains = BTreeMap::from([(254, 0), (255, 0), (1000, 9)]);
    Tables { domains, ..Tables::default() }
}

fn message(attributes: Vec<RouteAttribute>) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.kind = RouteType::Unicast;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.attributes = attributes;
    message
}

fn gateway(text: &str) -> RouteAttribute {
    RouteAttribute::Gateway(ip(text).into())
}

fn unicast(message: &RouteMessage) -> Option<Route> {
    match route(message, &domains())? {
        AnyRoute::Unicast(route) | AnyRoute::Both(route, _) => Some(route),
        AnyRoute::Local(_) | AnyRoute::Other(_) | AnyRoute::Placed(_) => None,
    }
}

#[test]
fn a_default_route_has_no_destination_attribute() {
    for (family, router, destination) in
        [(AddressFamily::Inet, "10.0.0.1", "0.0.0.0/0"), (AddressFamily::Inet6, "fe80::1", "::/0")]
    {
        let mut message = message(vec![RouteAttribute::Oif(2), gateway(router)]);
        message.header.address_family = family;
        let hops = vec![Hop::new(2, Some(ip(router)))];
        let expected = Route {
            table: MAIN_TABLE,
            destination: net(destination),
            metric: 0,
            hops,
            metrics: Metrics::default(),
            preference: 0,
        };
        assert_eq!(unicast(&message), Some(expected));
    }
}

#[test]
fn the_table_attribute_counts_more_than_the_header() {
    let in_table = |table| unicast(&message(vec![RouteAttribute::Oif(2), RouteAttribute::Table(table)]));
    assert_eq!(in_table(100), None);
    assert_eq!(in_table(1000).map(|route| route.table), Some(1000));
}

#[test]
fn an_ipv4_route_may_have_an_ipv6_gateway() {
    let via = RouteAttribute::Via(RouteVia::Inet6("fe80::1".parse().expect("an address")));
    let route = unicast(&message(vec![RouteAttribute::Oif(2), via])).expect("a route");
    assert_eq!(route.hops, [Hop::new(2, Some(ip("fe80::1")))]);
}

#[test]
fn a_dead_hop_of_a_multipath_route_is_left_out() {
    let mut alive = RouteNextHop::default();
    alive.interface_index = 2;
    let mut dead = RouteNextHop::default();
    dead.interface_index = 3;
    dead.flags = RouteNextHopFlags::Dead;
    let route = unicast(&message(vec![RouteAttribute::MultiPath(vec![alive, dead])])).expect("a route");
    assert_eq!(route.hops, [Hop::new(2, None)]);
}

#[test]
fn metrics_are_kept_as_they_are() {
    let all = vec![RouteMetric::CcAlgo("bbr".to_owned()), RouteMetric::Mtu(1400), RouteMetric::Lock(1 << 2)];
    let route = unicast(&message(vec![RouteAttribute::Oif(2), RouteAttribute::Metrics(all)]));
    let metrics = route.expect("a route").metrics;
    let number = |value: u32| Box::<[u8]>::from(value.to_ne_bytes());
    let expected = [(1, number(1 << 2)), (2, number(1400)), (16, Box::from(*b"bbr\0"))];
    assert_eq!(metrics, Metrics::from_iter(expected));
    assert_eq!(metrics.get(Metrics::MTU), Some(1400));
}

#[test]
fn what_main_has_besides_next_hops_is_told() {
    let other = |metric| Some(AnyRoute::Other(OtherRoute { destination: net("0.0.0.0/0"), metric }));
    let of = |change: &dyn Fn(&mut RouteMessage)| {
        let mut message = message(vec![RouteAttribute::Oif(2), RouteAttribute::Priority(7)]);
        change(&mut message);
        route(&message, &domains())
    };
    assert_eq!(of(&|message| message.header.kind = RouteType::BlackHole), other(7));
    assert_eq!(of(&|message| message.header.tos = 8), other(0));
    assert_eq!(of(&|message| message.header.source_prefix_length = 64), other(0));
    assert_eq!(of(&|message| message.attributes.push(RouteAttribute::EncapType(1.into()))), other(7));
    // Other tables have no say, and broadcast addresses are found before.
    assert_eq!(of(&|message| message.header.kind = RouteType::Broadcast), None);
    assert_eq!(of(&|message| message.header.flags = RouteFlags::Dead), None);
    let in_vrf = |message: &mut RouteMessage| {
        (message.header.kind, message.header.table) = (RouteType::Throw, 252);
        message.attributes.push(RouteAttribute::Table(1000));
    };
    assert_eq!(of(&in_vrf), None);
}

#[test]
fn a_multipath_route_with_an_encapsulation_is_both() {
    let hop = |interface_index, attributes| {
        let mut hop = RouteNextHop::default();
        (hop.interface_index, hop.attributes) = (interface_index, attributes);
        hop
    };
    let hops = vec![hop(2, vec![]), hop(3, vec![RouteAttribute::EncapType(1.into())])];
    let route = route(&message(vec![RouteAttribute::MultiPath(hops)]), &domains());
    let Some(AnyRoute::Both(route, other)) = route else { panic!("{route:?}") };
    assert_eq!(route.hops, [Hop::new(2, None)]);
    assert_eq!(other.destination, route.destination);
}

#[test]
fn local_routes_that_are_not_the_kernels_count_in_their_domain() {
    let local = |table, protocol| {
        let destination = RouteAttribute::Destination(ip("10.5.0.0").into());
        let attributes = vec![RouteAttribute::Oif(1), RouteAttribute::Table(table), destination];
        let mut message = message(attributes);
        message.header.kind = RouteType::Local;
        message.header.protocol = protocol;
        message.header.destination_prefix_length = 16;
        route(&message, &domains())
    };
    let expected =
        |domain| Some(AnyRoute::Local(vec![LocalRoute { domain, prefix: net("10.5.0.0/16"), ifindex: 1 }]));
    assert_eq!(local(255, RouteProtocol::Boot), expected(0));
    assert_eq!(local(1000, RouteProtocol::Other(66)), expected(9));
    assert_eq!(local(255, RouteProtocol::Kernel), None);
    // Transparent proxies route everything to themselves in a table of their own.
    assert_eq!(local(100, RouteProtocol::Boot), None);
}

#[test]
fn the_local_address_is_never_the_peer() {
    let mut message = AddressMessage::default();
    message.header.index = 2;
    message.header.prefix_len = 32;
    message.attributes =
        vec![AddressAttribute::Address(ip("10.9.0.1")), AddressAttribute::Local(ip("10.0.0.1"))];
    let parsed = address(&message).expect("an address");
    assert_eq!((parsed.local, parsed.subnet), (ip("10.0.0.1"), net("10.9.0.1/32")));
    assert!(!parsed.tentative);
}

#[test]
fn an_ipv6_address_without_a_peer_is_the_local_one() {
    let mut message = AddressMessage::default();
    message.header.prefix_len = 64;
    message.attributes =
        vec![AddressAttribute::Address(ip("2001:db8::1")), AddressAttribute::Flags(AddressFlags::Tentative)];
    let parsed = address(&message).expect("an address");
    assert_eq!((parsed.local, parsed.subnet), (ip("2001:db8::1"), net("2001:db8::/64")));
    assert!(parsed.tentative);
}

#[test]
fn devices_without_ethernet_are_told_from_those_that_cannot_be_read() {
    let point_to_point = LinkFlags::Pointopoint;
    assert_eq!(framing(LinkLayerType::Ether, LinkFlags::empty()), Framing::Ethernet);
    assert_eq!(framing(LinkLayerType::None, LinkFlags::empty()), Framing::Bare);
    assert_eq!(framing(LinkLayerType::Ipgre, point_to_point), Framing::Bare);
    assert_eq!(framing(LinkLayerType::Ipgre, LinkFlags::empty()), Framing::Unknown);
    assert_eq!(framing(LinkLayerType::Infiniband, point_to_point), Framing::Unknown);
}

#[test]
fn the_hardware_address_of_a_tunnel_is_what_its_packets_have_outside() {
    let outer_of = |layer, bytes: &[u8]| {
        let mut message = LinkMessage::default();
        message.header.link_layer_type = layer;
        message.attributes.push(LinkAttribute::Address(bytes.to_vec()));
        link(&message, Everywhere::default()).outer
    };
    assert_eq!(outer_of(LinkLayerType::Tunnel, &[192, 0, 2, 65]), Some(ip("192.0.2.65")));
    let mut ipv6 = [0; 16];
    assert_eq!(outer_of(LinkLayerType::Ip6gre, &ipv6), None, "it is chosen for each packet");
    (ipv6[0], ipv6[15]) = (0xfd, 1);
    assert_eq!(outer_of(LinkLayerType::Tunnel6, &ipv6), Some(ip("fd00::1")));
    assert_eq!(outer_of(LinkLayerType::Ether, &[2, 0, 0, 0, 0, 1]), None);
}

#[test]
fn sysctls_of_a_link_count_together_with_those_of_all() {
    let link_with = |route_localnet, rp_filter, forwarding, everywhere| {
        let mut ipv4 = InetDevConf::default();
        (ipv4.route_localnet, ipv4.rp_filter) = (route_localnet, rp_filter);
        let mut ipv6 = Inet6DevConf::default();
        ipv6.forwarding = forwarding;
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::AfSpecUnspec(vec![
            AfSpecUnspec::Inet(vec![AfSpecInet::DevConf(ipv4)]),
            AfSpecUnspec::Inet6(vec![AfSpecInet6::DevConf(ipv6)]),
        ]));
        let link = link(&message, everywhere);
        (link.route_localnet, link.strict_reverse_path, link.router)
    };
    let nothing = Everywhere::default();
    assert_eq!(link_with(0, 0, 0, nothing), (false, false, false));
    assert_eq!(link_with(1, 1, 1, nothing), (true, true, true));
    // The greater one counts of the reverse path filters, and 2 is loose.
    assert_eq!(
        link_with(0, 1, 0, Everywhere { route_localnet: 1, rp_filter: 2, ..nothing }),
        (true, false, false)
    );
    assert_eq!(
        link_with(0, 0, 0, Everywhere { route_localnet: 0, rp_filter: 1, ..nothing }),
        (false, true, false)
    );
}

#[test]
fn of_a_link_without_an_address_family_those_of_all_count() {
    let link = link(
        &LinkMessage::default(),
        Everywhere { route_localnet: 1, rp_filter: 1, arp_ignore: 1, arp_filter: 1 },
    );
    assert!(link.route_localnet && link.strict_reverse_path && !link.router);
    assert!(link.arp_ignore == 1 && link.arp_filter);
}

#[test]
fn of_a_table_that_a_rule_leads_to_only_unicast_routes_count() {
    let mut message = message(vec![RouteAttribute::Oif(2), gateway("10.0.0.1"), RouteAttribute::Table(101)]);
    assert_eq!(unicast(&message), None);
    let by_rule = BTreeSet::from([(101, true)]);
    let tables = Tables { by_rule, ..domains() };
    assert!(matches!(route(&message, &tables), Some(AnyRoute::Unicast(Route { table: 101, .. }))));
    // A transparent proxy's: it makes nothing local.
    message.header.kind = RouteType::Local;
    assert_eq!(route(&message, &tables), None);
    let of_ipv6 = Tables { by_rule: BTreeSet::from([(101, false)]), ..domains() };
    message.header.kind = RouteType::Unicast;
    assert_eq!(route(&message, &of_ipv6), None);
}

#[test]
fn the_kind_of_a_device_and_its_vlan_are_read() {
    use netlink_packet_route::link::InfoKind;
    let of = |infos| {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::LinkInfo(infos));
        link(&message, Everywhere::default()).kind
    };
    assert_eq!(link(&LinkMessage::default(), Everywhere::default()).kind, LinkKind::Wire);
    let vlan =
        |id| vec![LinkInfo::Kind(InfoKind::Vlan), LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Id(id)]))];
    assert_eq!([of(vlan(0)), of(vlan(7))], [LinkKind::Vlan { id: 0 }, LinkKind::Vlan { id: 7 }]);
    assert_eq!(of(vec![LinkInfo::Kind(InfoKind::Other("new".to_owned()))]), LinkKind::Other);
}
