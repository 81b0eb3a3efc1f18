//! Snapshots, and what is found in them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

mod remedies;

use super::findings;
use crate::{
    audit::{
        finding::{Finding, Id, Kind, Severity},
        snapshot::{Hook, Mark, Networkd, Program, Rule, Snapshot, Socket, To, Way},
        sysctls::{Sysctl, Values},
    },
    model::{
        Address, Link, LinkKind, Route,
        host::MAIN_TABLE,
        steering::{PRIORITY, PROTOCOL},
        testing::{self, address, host, ip, link, net, stacked},
    },
    netlink::KernelRoute,
};

const SUBNET: &str = "10.0.0.0/24";

/// Two or more interfaces from eth2 on, all looked at, and the addresses of those in [`SUBNET`] leave by eth2.
fn snapshot(links: impl IntoIterator<Item = Link>, addresses: &[(u32, &str)]) -> Snapshot {
    let addresses: Vec<Address> = addresses.iter().map(|(ifindex, text)| address(*ifindex, text)).collect();
    let host = host(links, addresses);
    let wired = host.links.values().filter(|link| !link.kind.is_without_wire());
    let interfaces: BTreeSet<u32> = wired.map(|link| link.index).collect();
    let in_subnet = host.addresses.iter().filter(|address| address.subnet == net(SUBNET));
    let ways = in_subnet.map(|a| way(&a.local.to_string(), a.ifindex, To::Subnet(a.subnet), 2)).collect();
    Snapshot { host, company: interfaces.clone(), interfaces, ways, ..Snapshot::default() }
}

fn two() -> Snapshot {
    snapshot([eth(2), eth(3)], &[(2, "10.0.0.2/24"), (3, "10.0.0.3/24")])
}

fn eth(index: u32) -> Link {
    link(index, LinkKind::Wire)
}

fn way(source: &str, configured: u32, to: To, leaves_by: u32) -> Way {
    let destination = if to == To::Beyond { "198.51.100.1" } else { "10.0.0.1" };
    let gateway = (to == To::Beyond).then(|| ip("10.0.0.254"));
    let route = Some(KernelRoute { ifindex: leaves_by, gateway, table: MAIN_TABLE, local: false });
    Way { source: ip(source), configured, domain: 0, destination: ip(destination), to, route }
}

/// Source routing: everything leaves by its owner.
fn steered(mut snapshot: Snapshot) -> Snapshot {
    for way in &mut snapshot.ways {
        if let Some(route) = &mut way.route {
            route.ifindex = way.configured;
        }
    }
    snapshot
}

fn with(mut snapshot: Snapshot, ifindex: u32, values: &[(Sysctl, u32)]) -> Snapshot {
    let values = Values::from_iter(values.iter().copied());
    if ifindex == 0 {
        snapshot.sysctls.everywhere = values;
    } else {
        snapshot.sysctls.links.insert(ifindex, values);
    }
    snapshot
}

fn route(destination: &str, ifindex: u32, gateway: Option<&str>) -> Route {
    testing::route(destination, 0, ifindex, gateway)
}

fn ids(snapshot: &Snapshot) -> Vec<Id> {
    findings(snapshot).into_iter().map(|finding| finding.id).collect()
}

#[track_caller]
fn only(snapshot: &Snapshot, id: Id) -> Finding {
    let mut found: Vec<Finding> = findings(snapshot).into_iter().filter(|finding| finding.id == id).collect();
    assert_eq!(found.len(), 1, "{id:?} in {found:#?}");
    found.remove(0)
}

fn named(finding: &Finding, kind: Kind) -> Vec<&str> {
    finding.objects.iter().filter(|object| object.kind == kind).map(|object| object.name.as_str()).collect()
}

/// What is found in a host of each kind, without notes.
#[test]
fn each_host_has_its_findings() {
    use Id::*;
    use Sysctl::*;
    let down = |index| Link { up: false, ..eth(index) };
    let apart = || snapshot([eth(2), eth(3)], &[(2, "10.0.0.2/24"), (3, "10.1.0.3/24")]);
    let beyond = |mut snapshot: Snapshot, routes: Vec<Route>| {
        snapshot.ways.push(way("10.1.0.3", 3, To::Beyond, 2));
        snapshot.host.routes = routes;
        snapshot
    };
    let default = || vec![route(SUBNET, 2, None), route("0.0.0.0/0", 2, Some("10.0.0.254"))];
    let table: Vec<(&str, Snapshot, &[Id])> = vec![
        ("nothing at all", snapshot([], &[]), &[]),
        ("one interface", snapshot([eth(2)], &[(2, "10.0.0.2/24"), (2, "10.0.0.3/24")]), &[]),
        (
            "a VIP on lo",
            snapshot([link(1, LinkKind::Loopback), eth(2)], &[(1, "10.0.0.9/32"), (2, "10.0.0.2/24")]),
            &[],
        ),
        (
            "a macvlan on its lower device",
            snapshot([eth(2), stacked(3, 2)], &[(2, "10.0.0.2/24"), (3, "10.0.0.3/24")]),
            &[ArpWrongMac, WeakReceive],
        ),
        ("two in one subnet", two(), &[FirstRouteWins, ArpWrongMac, ArpWrongSender, WeakReceive]),
        ("two subnets", apart(), &[WeakReceive]),
        ("steered, ARP as it is", steered(two()), &[ArpWrongMac, WeakReceive]),
        ("steered, arp_ignore", with(steered(two()), 0, &[(ArpIgnore, 1)]), &[WeakReceive]),
        ("steered, arp_filter", with(steered(two()), 0, &[(ArpFilter, 1)]), &[WeakReceive]),
        (
            "arp_ignore and arp_announce",
            with(two(), 0, &[(ArpIgnore, 2), (ArpAnnounce, 2)]),
            &[FirstRouteWins, WeakReceive],
        ),
        (
            "arp_announce 1",
            with(two(), 2, &[(ArpAnnounce, 1)]),
            &[FirstRouteWins, ArpWrongMac, ArpWrongSender, WeakReceive],
        ),
        (
            "arp_ignore 8",
            with(steered(two()), 0, &[(ArpIgnore, 8)]),
            &[WeakReceive, ArpUnanswered, ArpUnanswered],
        ),
        (
            "arp_filter",
            with(two(), 0, &[(ArpFilter, 1)]),
            &[FirstRouteWins, ArpWrongMac, ArpWrongSender, WeakReceive, ArpUnanswered],
        ),
        (
            "strict rp_filter",
            with(two(), 3, &[(RpFilter, 1)]),
            &[FirstRouteWins, ArpWrongMac, ArpWrongSender, WeakReceive, ArpUnanswered, StrictReversePath],
        ),
        (
            "loose rp_filter",
            with(with(two(), 3, &[(RpFilter, 2)]), 0, &[(RpFilter, 1)]),
            &[FirstRouteWins, ArpWrongMac, ArpWrongSender, WeakReceive],
        ),
        (
            "the first without carrier",
            snapshot([down(2), eth(3)], &[(2, "10.0.0.2/24"), (3, "10.0.0.3/24")]),
            &[FirstRouteWins, ArpWrongMac, RouteWithoutCarrier, UnreachableAddress],
        ),
        ("a gateway elsewhere", beyond(apart(), default()), &[ArpWrongSender, NoNextHop, WeakReceive]),
        ("all down", snapshot([down(2)], &[(2, "10.0.0.2/24")]), &[]),
    ];
    for (name, snapshot, expected) in table {
        let found: Vec<Id> = findings(&snapshot)
            .iter()
            .filter(|finding| finding.severity != Severity::Note)
            .map(|finding| finding.id)
            .collect();
        assert_eq!(found, expected, "{name}: {:#?}", findings(&snapshot));
    }
}

#[test]
fn a_host_with_one_interface_has_nothing_to_note() {
    assert_eq!(ids(&snapshot([eth(2)], &[(2, "10.0.0.2/24")])), []);
}

#[test]
fn what_is_found_names_what_it_is_about() {
    let finding = only(&two(), Id::FirstRouteWins);
    assert_eq!(named(&finding, Kind::Subnet), [SUBNET]);
    assert_eq!(named(&finding, Kind::Interface), ["eth2"]);
    assert_eq!(named(&finding, Kind::Address), ["10.0.0.3"]);
    assert!(finding.summary.contains("leaves by eth2"), "{}", finding.summary);

    let finding = only(&two(), Id::ArpWrongMac);
    assert_eq!(named(&finding, Kind::Address), ["10.0.0.2", "10.0.0.3"]);
    assert!(finding.consequence.contains("02:00:00:00:00:03 of eth3: 2 wrong answers"), "{finding:?}");
}

#[test]
fn the_gateway_that_mhebpf_would_use_is_named() {
    let mut snapshot = two();
    snapshot.ways.push(way("10.0.0.3", 3, To::Beyond, 2));
    snapshot.host.routes =
        vec![route(SUBNET, 2, None), route(SUBNET, 3, None), route("0.0.0.0/0", 2, Some("10.0.0.254"))];
    let finding = only(&snapshot, Id::AsymmetricGateway);
    assert!(finding.remedy.contains("the gateway 10.0.0.254 on eth3"), "{finding:?}");
    assert!(!ids(&snapshot).contains(&Id::NoNextHop));
    // Not without a route to it.
    snapshot.host.routes.remove(1);
    assert!(only(&snapshot, Id::NoNextHop).consequence.contains("no_route"));
}

#[test]
fn sessions_that_would_end_are_worse_than_those_that_move() {
    let socket = |peer: &str, leaves_by| Socket {
        protocol: "tcp",
        local: SocketAddr::new(ip("10.0.0.3"), 40000),
        peer: Some(SocketAddr::new(ip(peer), 9000)),
        leaves_by: Some(leaves_by),
    };
    let mut snapshot = two();
    snapshot.host.routes = vec![route(SUBNET, 2, None), route(SUBNET, 3, None)];
    snapshot.sockets = vec![socket("10.0.0.1", 3)];
    assert!(!ids(&snapshot).contains(&Id::SocketsLeaveElsewhere), "it leaves by its owner");
    snapshot.sockets = vec![socket("10.0.0.1", 2)];
    let finding = only(&snapshot, Id::SocketsLeaveElsewhere);
    assert_eq!(finding.severity, Severity::Note);
    assert!(finding.consequence.contains("go on through eth3"), "{finding:?}");
    assert_eq!(named(&finding, Kind::Socket), ["tcp 10.0.0.3:40000 to 10.0.0.1:9000"]);
    snapshot.sockets = vec![socket("192.0.2.1", 2)];
    let finding = only(&snapshot, Id::SocketsLeaveElsewhere);
    assert!(finding.severity == Severity::Warning && finding.consequence.contains("no_route"), "{finding:?}");
    snapshot.host.links.entry(3).and_modify(|link| link.up = false);
    assert!(only(&snapshot, Id::SocketsLeaveElsewhere).consequence.contains("owner_down"));
}

#[test]
fn sockets_of_an_address_that_becomes_unreachable_are_named() {
    let mut snapshot = two();
    snapshot.host.links.entry(3).and_modify(|link| link.up = false);
    snapshot.sockets = vec![Socket {
        protocol: "tcp",
        local: SocketAddr::new(ip("10.0.0.3"), 22),
        peer: None,
        leaves_by: None,
    }];
    let finding = only(&snapshot, Id::UnreachableAddress);
    assert_eq!(named(&finding, Kind::Socket), ["tcp 10.0.0.3:22"]);
    assert!(finding.consequence.contains("1 socket is bound there"), "{finding:?}");
}

#[test]
fn addresses_of_vrfs_are_told_apart() {
    let vrf = link(9, LinkKind::Vrf { table: 10 });
    let red = Link { master: Some(9), ..eth(3) };
    let mut snapshot = snapshot([eth(2), red, vrf], &[(2, "10.0.0.2/24"), (3, "10.0.0.3/24")]);
    snapshot.ways.clear();
    assert_eq!(ids(&snapshot), [], "each is alone in its domain");
}

#[test]
fn surroundings_are_noted() {
    let mut snapshot = with(two(), 3, &[(Sysctl::RouteLocalnet, 1)]);
    snapshot.host.links.entry(3).and_modify(|link| link.mtu = 9000);
    let source = Some(net("10.0.0.3/32"));
    snapshot.rules = vec![
        Rule { family: 4, priority: 50, table: 77, ..Rule::default() },
        Rule { family: 4, priority: 100, source, table: 1000, protocol: Some(4), ..Rule::default() },
    ];
    let program = |hook, name: &str| Program {
        ifindex: 2,
        hook,
        name: name.to_owned(),
        id: Some(7),
        before_mhebpf: false,
    };
    let before = Program { before_mhebpf: true, ..program(Hook::TcIngress, "tap") };
    snapshot.programs = vec![program(Hook::Xdp, "lb"), program(Hook::TcxEgress, "cil_to_netdev"), before];
    snapshot.daemon = true;

    assert!(only(&snapshot, Id::MtuMismatch).consequence.starts_with("eth2 1500, eth3 9000."));
    let rules = only(&snapshot, Id::SourceRules);
    assert_eq!(named(&rules, Kind::Rule), ["100: from 10.0.0.3 lookup 1000 proto static"]);
    let programs = only(&snapshot, Id::ForeignProgram);
    assert_eq!(named(&programs, Kind::Program), ["XDP lb (id 7)", "TCX egress cil_to_netdev (id 7)"]);
    assert_eq!(named(&only(&snapshot, Id::RouteLocalnet), Kind::Interface), ["eth3"]);
    assert_eq!(named(&only(&snapshot, Id::BehindOthers), Kind::Program), ["tc ingress tap (id 7)"]);
    only(&snapshot, Id::DaemonRunning);
    assert_eq!(named(&only(&snapshot, Id::LinkdownRoutes), Kind::Interface), ["eth2", "eth3"]);
    let ignored = with(snapshot, 0, &[(Sysctl::IgnoreRoutesWithLinkdown, 1)]);
    assert!(!ids(&ignored).contains(&Id::LinkdownRoutes));
}

#[test]
fn what_no_daemon_keeps_in_step_is_named() {
    let mut snapshot = two();
    snapshot.own.filters.insert("eth2".to_owned());
    snapshot.own.links.insert("eth3".to_owned(), 1);
    let left = |snapshot: &Snapshot| -> Vec<Vec<String>> {
        let findings = findings(snapshot).into_iter().filter(|finding| finding.id == Id::LeftInForce);
        let names =
            |finding: Finding| named(&finding, Kind::Interface).into_iter().map(str::to_owned).collect();
        findings.map(names).collect()
    };
    assert_eq!(left(&snapshot), [["eth2"], ["eth3"]]);
    snapshot.daemon = true;
    assert_eq!(left(&snapshot), [[""; 0]; 0], "they are the daemon's");
    snapshot.own.links.extend([("eth2".to_owned(), 1), ("eth3".to_owned(), 2)]);
    assert_eq!(left(&snapshot), [["eth2"], ["eth3"]], "beside the daemon's");
}

#[test]
fn long_lists_are_cut_in_sentences_and_whole_in_objects() {
    let links: Vec<Link> = (2..22).map(eth).collect();
    let texts: BTreeMap<u32, String> = (2..22).map(|index| (index, format!("10.0.0.{index}/24"))).collect();
    let addresses: Vec<(u32, &str)> = texts.iter().map(|(index, text)| (*index, text.as_str())).collect();
    let finding = only(&snapshot(links, &addresses), Id::FirstRouteWins);
    assert!(finding.consequence.contains("10.0.0.8 (eth8), and 13 more leave by eth2"), "{finding:?}");
    assert_eq!(named(&finding, Kind::Address).len(), 19);
}

#[test]
fn findings_come_in_the_order_of_their_severity() {
    let severities: Vec<Severity> = findings(&two()).iter().map(|finding| finding.severity).collect();
    assert!(severities.is_sorted() && severities.len() > 4, "{severities:?}");
}

#[test]
fn only_what_concerns_an_interface_that_is_looked_at_is_found() {
    let mut links: Vec<Link> = (2..6).map(eth).collect();
    links.push(eth(6));
    let mut snapshot = snapshot(
        links,
        &[(2, "10.0.0.2/24"), (3, "10.0.0.3/24"), (4, "10.1.0.4/24"), (5, "10.1.0.5/24"), (6, "10.2.0.6/24")],
    );
    let shared = |snapshot: &Snapshot| {
        let found = findings(snapshot).into_iter().filter(|finding| finding.id == Id::SharedSubnet);
        found.map(|finding| named(&finding, Kind::Subnet).join(" ")).collect::<Vec<_>>()
    };
    assert_eq!(shared(&snapshot), ["10.0.0.0/24", "10.1.0.0/24"]);
    snapshot.interfaces = BTreeSet::from([3]);
    assert_eq!(shared(&snapshot), ["10.0.0.0/24"]);
    assert!(ids(&snapshot).contains(&Id::FirstRouteWins), "its own packets leave by another");
    snapshot.interfaces = BTreeSet::from([6]);
    assert_eq!(ids(&snapshot), [Id::WeakReceive], "others' addresses can be reached through it");
}

#[test]
fn rules_are_told_apart_by_their_place_beside_ours() {
    let mut snapshot = two();
    let source = Some(net("10.0.0.3/32"));
    let rule = |priority, source, protocol| Rule {
        family: 4,
        priority,
        source,
        table: 1000,
        protocol,
        ..Rule::default()
    };
    let found = |snapshot: &Snapshot, id| only(snapshot, id).consequence;

    snapshot.rules = vec![rule(PRIORITY - 1, source, None)];
    assert!(found(&snapshot, Id::SourceRules).contains("these are asked first"));
    snapshot.rules = vec![rule(PRIORITY + 1, source, None)];
    assert!(found(&snapshot, Id::SourceRules).contains("these are asked after them"));
    snapshot.rules.push(rule(PRIORITY - 1, source, None));
    assert!(found(&snapshot, Id::SourceRules).contains("the others decide no more"));

    // As wg-quick makes them.
    snapshot.rules = vec![rule(32764, None, None)];
    assert!(found(&snapshot, Id::ShadowedRules).contains("does not take a VPN"));
    snapshot.rules = vec![rule(1000, None, None)];
    assert!(!ids(&snapshot).contains(&Id::ShadowedRules));

    // What is for marks is left alone.
    let mark = Some(Mark { value: 1, mask: u32::MAX });
    snapshot.rules = vec![Rule { mark, ..rule(32764, None, None) }];
    assert!(!ids(&snapshot).contains(&Id::ShadowedRules));
    snapshot.rules = vec![Rule { mark, not: true, ..rule(32764, None, None) }];
    assert!(found(&snapshot, Id::ShadowedRules).contains("32764: not from all fwmark 0x1 lookup 1000"));

    snapshot.rules = vec![rule(PRIORITY, source, Some(4))];
    assert!(found(&snapshot, Id::SteeringClash).contains("refuses to start"));
    assert!(!ids(&snapshot).contains(&Id::SourceRules));

    snapshot.local_late = vec![crate::netlink::LocalLate { ipv4: true, priority: Some(32_765) }];
    assert!(found(&snapshot, Id::LocalTableLate).contains("of IPv4 has the priority 32765"));
    snapshot.local_late.clear();

    snapshot.rules = vec![rule(PRIORITY, source, Some(PROTOCOL))];
    assert_eq!(only(&snapshot, Id::SteeringLeftBehind).severity, Severity::Warning);
    snapshot.daemon = true;
    assert_eq!(ids(&snapshot).iter().filter(|id| **id == Id::SteeringLeftBehind).count(), 0);
}

#[test]
fn what_keeps_networkd_from_removing_rules_is_said() {
    let mut snapshot = two();
    snapshot.networkd = Some(Networkd { removes_rules: true, removes_routes: true });
    let remedy = only(&snapshot, Id::NetworkdRemovesRules).remedy;
    assert!(remedy.ends_with("ManageForeignRoutingPolicyRules=no ManageForeignRoutes=no"), "{remedy}");
    snapshot.networkd = Some(Networkd { removes_rules: false, removes_routes: false });
    assert!(!ids(&snapshot).contains(&Id::NetworkdRemovesRules));
}
