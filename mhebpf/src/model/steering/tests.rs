//! Steering of some hosts.

mod lookup;

use std::{collections::BTreeMap, net::Ipv4Addr};

use mhebpf_ebpf::{Announce, Receive, Unknown};

use super::*;
use crate::model::{
    Address, Hop, Link, LocalRoute, OtherRoute, Route,
    host::MAIN_TABLE,
    testing::{address, host, ip, link, net, port, route, stacked},
};

fn policies(enforced: impl IntoIterator<Item = u32>) -> BTreeMap<u32, Policy> {
    let policy = Policy {
        send: Send::Redirect,
        receive: Receive::Drop,
        announce: Announce::Enforce,
        unknown: Unknown::Pass,
        forwarded: Send::Redirect,
        allow: Vec::new(),
        owns: Vec::new(),
        binds: true,
    };
    enforced.into_iter().map(|ifindex| (ifindex, policy.clone())).collect()
}

fn links(last: u32) -> Vec<Link> {
    (1..=last).map(|n| link(n, if n == 1 { LinkKind::Loopback } else { LinkKind::Wire })).collect()
}

/// Interfaces 2 to 5 with an address each in one subnet, and a default route through the first.
fn lab() -> Host {
    let addresses = (2..=5).map(|n| address(n, &format!("192.168.0.{}/21", 98 + n)));
    let mut host = host(links(5), addresses);
    host.routes = (2..=5).map(|n| route("192.168.0.0/21", 0, n, None)).collect();
    host.routes.push(route("0.0.0.0/0", 0, 2, Some("192.168.0.1")));
    host
}

fn rules(steering: &Steering) -> Vec<(String, u32)> {
    steering.rules.iter().map(|rule| (rule.source.to_string(), rule.table - TABLE_BASE)).collect()
}

fn table(host: &Host, steering: &Steering, ifindex: u32) -> Vec<String> {
    let table = TABLE_BASE + ifindex;
    let routes = steering.tables.get(&table).into_iter().flatten();
    let end = format!(" table {table}");
    routes.map(|(to, route)| route.describe(host, to, table).replace(&end, "")).collect()
}

/// Steering for interfaces 2 to 5.
fn steer(host: &Host) -> Steering {
    Steering::new(host, &policies(2..=5))
}

#[test]
fn each_owner_has_a_table_with_its_own_ways() {
    let host = lab();
    let steering = steer(&host);
    let expected = (2..=5).map(|n| (format!("192.168.0.{}/32", 98 + n), n)).collect::<Vec<_>>();
    assert_eq!(rules(&steering), expected);
    for n in 2..=5 {
        let expected = [format!("default via 192.168.0.1 dev eth{n}"), format!("192.168.0.0/21 dev eth{n}")];
        assert_eq!(table(&host, &steering, n), expected);
    }
    assert_eq!(steering.left_out, []);
}

#[test]
fn what_is_not_enforced_keeps_its_routes() {
    let mut host = lab();
    host.links.insert(6, link(6, LinkKind::Tunnel));
    host.routes.push(route("10.8.0.0/16", 0, 6, None));
    host.routes.push(route("10.8.1.0/24", 0, 2, Some("192.168.0.9")));
    let other = |to, metric| OtherRoute { destination: net(to), metric };
    host.other_routes = vec![other("10.9.0.0/16", 0), other("192.168.0.0/21", 100)];
    let steering = steer(&host);
    let expected = [
        "default via 192.168.0.1 dev eth3",
        "throw 10.8.0.0/16",
        "10.8.1.0/24 via 192.168.0.9 dev eth3",
        "throw 10.9.0.0/16",
        "192.168.0.0/21 dev eth3",
    ];
    assert_eq!(table(&host, &steering, 3), expected);
}

#[test]
fn a_prefix_without_a_next_hop_goes_on_to_main() {
    let mut host = lab();
    host.routes.push(route("10.8.0.0/16", 0, 2, Some("172.16.0.1")));
    host.routes.retain(|route| route.destination.prefix_len() > 0);
    assert_eq!(table(&host, &steer(&host), 3), ["192.168.0.0/21 dev eth3"]);
}

#[test]
fn what_a_shorter_prefix_says_is_not_said_again() {
    let mut host = lab();
    for n in 0..100 {
        host.routes.push(route(&format!("10.{n}.0.0/16"), 20, 2, Some("192.168.0.1")));
    }
    assert_eq!(steer(&host).routes(), 2 * 4);
}

#[test]
fn a_table_with_too_many_routes_is_not_kept() {
    let mut host = lab();
    for n in 0..=MOST_ROUTES {
        let gateway = format!("192.168.{}.{}", 1 + n % 2, 1 + n % 3);
        host.routes.push(route(&format!("10.{}.{}.0/24", n >> 8, n & 255), 0, 2, Some(&gateway)));
    }
    let steering = steer(&host);
    assert_eq!((steering.rules.len(), steering.left_out.len()), (0, 4));
    assert_eq!(steering.left_out[0].describe(&host), "eth2: its table would have more than 10000 routes");
}

#[test]
fn metrics_are_kept_unless_they_are_too_large_for_the_owner() {
    let integer = |number, value: u32| (number, Box::from(value.to_ne_bytes()));
    let metrics = |mtu, lock| -> Metrics {
        let all = [integer(Metrics::MTU, mtu), integer(Metrics::LOCK, lock), integer(11, 20)];
        all.into_iter().filter(|(_, value): &(u16, Box<[u8]>)| value.iter().any(|byte| *byte != 0)).collect()
    };
    let mut host = lab();
    host.routes[4].metrics = metrics(1400, 1 << 2 | 1 << 11);
    let way = |host: &Host, n| match &steer(host).tables[&(TABLE_BASE + n)][&net("0.0.0.0/0")] {
        SteeringRoute::Through(way) => way.metrics.clone(),
        SteeringRoute::Throw => Metrics::default(),
    };
    let all = metrics(1400, 1 << 2 | 1 << 11);
    assert_eq!((way(&host, 2), way(&host, 3)), (all.clone(), all.clone()));
    let told = &table(&host, &steer(&host), 2)[0];
    assert_eq!(told, "default via 192.168.0.1 dev eth2 mtu lock 1400 initcwnd lock 20");
    host.links.entry(3).and_modify(|link| link.mtu = 1300);
    assert_eq!((way(&host, 2), way(&host, 3)), (all, metrics(0, 1 << 11)));
}

#[test]
fn only_the_owners_hops_of_a_multipath_route_are_its_own() {
    let mut host = lab();
    let hop = |ifindex, gateway| Hop::new(ifindex, Some(ip(gateway)));
    host.routes[4].hops = vec![hop(2, "192.168.0.1"), hop(2, "192.168.0.2"), hop(3, "192.168.0.3")];
    let steering = steer(&host);
    let default = |n| table(&host, &steering, n)[0].clone();
    assert_eq!(default(2), "default nexthop via 192.168.0.1 dev eth2 nexthop via 192.168.0.2 dev eth2");
    assert_eq!(default(3), "default via 192.168.0.3 dev eth3");
    assert_eq!(
        default(4),
        "default nexthop via 192.168.0.1 dev eth4 nexthop via 192.168.0.2 dev eth4 nexthop via 192.168.0.3 dev eth4"
    );
}

#[test]
fn a_gateway_outside_all_subnets_is_taken_for_on_link() {
    let mut host = lab();
    host.routes.push(route("10.0.0.0/8", 0, 3, Some("203.0.113.1")));
    let steering = steer(&host);
    assert_eq!(table(&host, &steering, 3)[1], "10.0.0.0/8 via 203.0.113.1 dev eth3 onlink");
}

#[test]
fn the_kernel_chooses_among_routers_of_one_link() {
    let addresses = [address(2, "2001:db8::2/64"), address(3, "2001:db8::3/64")];
    let mut host = host(links(3), addresses);
    host.routes = vec![
        route("2001:db8::/64", 256, 2, None),
        route("2001:db8::/64", 256, 3, None),
        route("::/0", 1024, 2, Some("fe80::1")),
        route("::/0", 1024, 2, Some("fe80::2")),
    ];
    let steering = steer(&host);
    assert_eq!(table(&host, &steering, 2), ["2001:db8::/64 dev eth2 metric 256"]);
    // The others have the first of them.
    assert_eq!(table(&host, &steering, 3)[0], "default via fe80::1 dev eth3 metric 1024");
    // Each its own.
    host.routes.push(route("::/0", 1024, 3, Some("fe80::3")));
    let steering = steer(&host);
    assert_eq!(table(&host, &steering, 2)[0], "default via fe80::1 dev eth2 metric 1024");
    assert_eq!(table(&host, &steering, 3)[0], "default via fe80::3 dev eth3 metric 1024");
}

#[test]
fn addresses_of_one_owner_share_a_rule_within_their_subnet() {
    let many = |ifindex, third| (1..=200).map(move |n| address(ifindex, &format!("10.1.{third}.{n}/24")));
    let mut host = host(links(4), many(2, 0).chain(many(2, 1)).chain(many(3, 2)));
    host.routes = vec![route("10.1.0.0/24", 0, 2, None), route("10.1.2.0/24", 0, 3, None)];
    let rules_of = |host: &Host| rules(&steer(host));
    let expected = [("10.1.0.0/24", 2), ("10.1.1.0/24", 2), ("10.1.2.0/24", 3)];
    assert_eq!(rules_of(&host), expected.map(|(prefix, n)| (prefix.to_owned(), n)));
    // An address of another owner divides what is around it.
    host.addresses.push(address(3, "10.1.0.201/24"));
    let rules = rules_of(&host);
    assert_eq!(rules.len(), 2 + 5, "{rules:?}");
    assert!(rules.contains(&("10.1.0.201/32".to_owned(), 3)), "{rules:?}");
    assert!(rules.contains(&("10.1.0.0/25".to_owned(), 2)), "{rules:?}");
}

#[test]
fn addresses_that_are_not_one_interfaces_own_have_no_rule() {
    let mut host = lab();
    host.links.insert(7, stacked(7, 5));
    host.links.insert(8, port(8, 9));
    host.links.insert(9, link(9, LinkKind::Vrf { table: 10 }));
    host.addresses.extend([
        address(1, "192.168.0.110/32"),
        address(2, "192.168.0.111/21"),
        address(3, "192.168.0.111/21"),
        address(7, "192.168.0.112/21"),
        address(8, "192.168.0.113/21"),
        address(2, "fe80::2/64"),
    ]);
    let steering = Steering::new(&host, &policies([2, 3, 4, 5, 8]));
    let sources: Vec<String> = rules(&steering).into_iter().map(|(source, _)| source).collect();
    let expected = ["192.168.0.100/32", "192.168.0.101/32", "192.168.0.102/32", "192.168.0.103/32"];
    assert_eq!(sources, expected);
    let left_out: Vec<String> = steering.left_out.iter().map(|each| each.describe(&host)).collect();
    let expected = [
        "eth8: it is in the VRF eth9, whose own rule comes first",
        "192.168.0.111: eth2 and eth3 own it, and the kernel chooses among them",
    ];
    assert_eq!(left_out, expected);
}

#[test]
fn an_address_on_a_vlan_is_steered_to_the_vlan_device() {
    let mut host = lab();
    host.links.insert(7, stacked(7, 5));
    host.addresses.push(address(7, "10.7.0.1/24"));
    host.routes.push(route("10.7.0.0/24", 0, 7, None));
    let steering = Steering::new(&host, &policies([2, 3, 4, 5, 7]));
    assert_eq!(rules(&steering)[0], ("10.7.0.1/32".to_owned(), 7));
    assert_eq!(table(&host, &steering, 7), ["10.7.0.0/24 dev eth7"]);
}

#[test]
fn a_local_route_is_a_source_too() {
    let mut host = lab();
    host.local_routes = vec![
        LocalRoute { domain: MAIN_DOMAIN, prefix: net("10.5.0.0/16"), ifindex: 3 },
        LocalRoute { domain: MAIN_DOMAIN, prefix: net("10.6.0.0/16"), ifindex: 1 },
    ];
    host.addresses.push(address(4, "10.5.0.1/32"));
    let steering = steer(&host);
    assert_eq!(rules(&steering).len(), 4, "the address has two owners, and the prefix is around it");
    host.addresses.pop();
    assert_eq!(rules(&steer(&host))[0], ("10.5.0.0/16".to_owned(), 3));
}

#[test]
fn where_nothing_is_enforced_on_what_is_sent_nothing_is_steered() {
    let host = lab();
    let mut policies = policies(2..=5);
    for send in [Send::Off, Send::Observe] {
        policies.entry(3).and_modify(|policy| policy.send = send);
        let steering = Steering::new(&host, &policies);
        assert_eq!(rules(&steering).len(), 3);
        assert_eq!(steering.left_out[0].describe(&host), "eth3: what it sends is not enforced");
    }
}

#[test]
fn ten_thousand_addresses_take_a_moment() {
    // Every other one is of another interface, so no two share a rule.
    let addresses = (0..10_000_u32).map(|n| {
        let local = Ipv4Addr::from(0x0a00_0000 + n);
        Address {
            ifindex: 2 + n % 2,
            local: local.into(),
            subnet: net("10.0.0.0/8"),
            tentative: false,
            host_scope: false,
        }
    });
    let mut host = host(links(3), addresses);
    host.routes = vec![route("10.0.0.0/8", 0, 2, None), route("10.0.0.0/8", 0, 3, None)];
    let started = std::time::Instant::now();
    assert_eq!(rules(&steer(&host)).len(), 10_000);
    println!("{:?}", started.elapsed());
}
