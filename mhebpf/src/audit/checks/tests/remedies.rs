//! What enforcing would cut off or move, and what is to be done about it.

use mhebpf_ebpf::{Announce, Receive, Send, Unknown};

use super::*;
use crate::{
    audit::{
        published::Published,
        snapshot::{Borrowed, Endpoint, Translation},
    },
    model::{Policy, Rule as Leading},
};

const ETH3: &str = "10.1.0.3/24";

/// Two interfaces in two subnets, a default route by the first, and far packets of the second that leave by it.
fn apart() -> Snapshot {
    let mut snapshot = snapshot([eth(2), eth(3)], &[(2, "10.0.0.2/24"), (3, ETH3)]);
    snapshot.ways.push(way("10.1.0.3", 3, To::Beyond, 2));
    snapshot.host.routes = vec![
        route("10.0.0.0/24", 2, None),
        route("10.1.0.0/24", 3, None),
        route("0.0.0.0/0", 2, Some("10.0.0.254")),
    ];
    snapshot
}

/// A rule from an address of eth3 that leads to a table.
fn ruled(mut snapshot: Snapshot, table: u32) -> Snapshot {
    let source = Some(net("10.1.0.3/32"));
    snapshot.rules =
        vec![Rule { family: 4, priority: 100, source, table, protocol: Some(4), ..Rule::default() }];
    let leading =
        Leading { ipv4: true, priority: 100, source, table, protocol: 4, mark: None, selects: false };
    snapshot.host.rules = vec![leading];
    snapshot
}

fn in_table(table: u32, route: Route) -> Route {
    Route { table, ..route }
}

#[test]
fn a_rule_that_alone_knows_a_gateway_is_to_be_kept() {
    let mut snapshot = ruled(apart(), 1000);
    snapshot.host.routes.push(in_table(1000, route("0.0.0.0/0", 3, Some("10.1.0.254"))));
    let finding = only(&snapshot, Id::SourceRules);
    assert_eq!(named(&finding, Kind::Interface), ["eth3"]);
    assert!(finding.consequence.contains("eth3 reaches 0.0.0.0/0 through 10.1.0.254"), "{finding:?}");
    assert!(finding.remedy.starts_with("Keep them: without them eth3 would lose"), "{finding:?}");
    assert!(
        finding.remedy.ends_with(": ip route add default via 10.1.0.254 dev eth3 metric 4096"),
        "{finding:?}"
    );

    // As that makes it.
    let said = Route { metric: 4096, ..route("0.0.0.0/0", 3, Some("10.1.0.254")) };
    snapshot.host.routes.push(said);
    let remedy = only(&snapshot, Id::SourceRules).remedy;
    assert!(remedy.contains("They may be removed once mhebpf enforces"), "{remedy}");
    // The kernel itself asks these rules.
    let filtered = with(snapshot.clone(), 3, &[(Sysctl::ArpFilter, 1)]);
    assert_eq!(only(&filtered, Id::SourceRules).remedy, "None is needed: keep them.");
    // A table that leads elsewhere too is of more use than mhebpf knows.
    snapshot.host.routes.push(in_table(1000, route("10.9.0.0/16", 2, Some("10.0.0.9"))));
    assert_eq!(only(&snapshot, Id::SourceRules).remedy, "None is needed: keep them.");
}

#[test]
fn a_default_route_that_would_be_the_only_one_is_not_recommended() {
    let mut snapshot = ruled(apart(), 1000);
    snapshot.host.routes.pop();
    snapshot.host.routes.push(in_table(1000, route("0.0.0.0/0", 3, Some("10.1.0.254"))));
    let remedy = only(&snapshot, Id::SourceRules).remedy;
    assert!(remedy.starts_with("Keep them") && !remedy.contains("ip route"), "{remedy}");
}

#[test]
fn a_gateway_outside_all_subnets_is_taken_for_reachable() {
    let mut snapshot = ruled(apart(), 1000);
    snapshot.host.routes.push(in_table(1000, route("0.0.0.0/0", 3, Some("169.254.0.1"))));
    let remedy = only(&snapshot, Id::SourceRules).remedy;
    assert!(remedy.ends_with("via 169.254.0.1 dev eth3 metric 4096 onlink"), "{remedy}");
}

#[test]
fn every_sysctl_that_silences_an_interface_is_set() {
    let silent = with(two(), 3, &[(Sysctl::ArpFilter, 1), (Sysctl::RpFilter, 1)]);
    let finding = only(&silent, Id::ArpUnanswered);
    let expected = "sysctl -w net.ipv4.conf.eth3.arp_filter=0 net.ipv4.conf.eth3.rp_filter=2 (mhebpf does";
    assert!(finding.remedy.starts_with(expected) && finding.remedy.contains("--steer rules"), "{finding:?}");
    let everywhere = with(two(), 0, &[(Sysctl::ArpFilter, 1)]);
    let remedy = only(&everywhere, Id::ArpUnanswered).remedy;
    assert!(remedy.contains("net.ipv4.conf.all.arp_filter=0"), "{remedy}");
    let steered = Snapshot { steers: true, ..everywhere };
    assert!(!ids(&steered).contains(&Id::ArpUnanswered));
}

#[test]
fn an_address_without_a_subnet_is_asked_for_from_nowhere() {
    let lonely = || snapshot([eth(2), eth(3)], &[(2, "10.0.0.2/24"), (3, "10.0.0.9/32")]);
    let silent = with(lonely(), 3, &[(Sysctl::ArpIgnore, 2)]);
    let finding = only(&silent, Id::ArpUnanswered);
    assert_eq!(finding.remedy, "sysctl -w net.ipv4.conf.eth3.arp_ignore=1");
    // Nobody answers for it today either.
    assert!(!ids(&with(lonely(), 0, &[(Sysctl::ArpIgnore, 2)])).contains(&Id::ArpUnanswered));
}

#[test]
fn answers_of_published_ports_move_or_are_lost() {
    let mut node = apart();
    let both = [Id::TranslatedAnswers, Id::TranslatedAnswersLost];
    let found =
        |snapshot: &Snapshot| ids(snapshot).into_iter().filter(|id| both.contains(id)).collect::<Vec<_>>();
    node.translation = Translation { arriving: true, ..Translation::default() };
    assert_eq!(found(&node), [], "it does not forward");
    node.host.links.values_mut().for_each(|link| link.forwards = true);
    assert_eq!(found(&node), [Id::TranslatedAnswersLost]);
    let finding = only(&node, Id::TranslatedAnswersLost);
    assert_eq!((finding.severity, named(&finding, Kind::Address)), (Severity::Warning, vec!["10.1.0.3"]));
    assert!(
        finding.remedy.contains("forwarded = \"off\" in an [[interface]] with name = \"eth2\""),
        "{finding:?}"
    );

    let off = Policy {
        send: Send::Redirect,
        receive: Receive::Drop,
        announce: Announce::Enforce,
        unknown: Unknown::Pass,
        forwarded: Send::Off,
        allow: Vec::new(),
        owns: Vec::new(),
        binds: true,
    };
    let mut left_alone = node.clone();
    left_alone.policies.insert(2, off);
    assert_eq!(found(&left_alone), []);

    node.host.routes.push(Route { metric: 4096, ..route("0.0.0.0/0", 3, Some("10.1.0.254")) });
    assert_eq!(found(&node), [Id::TranslatedAnswers]);
    assert_eq!(only(&node, Id::TranslatedAnswers).severity, Severity::Note);

    let port = |port, address: Option<&str>, interface: Option<&str>| Published {
        protocol: Some(6),
        addresses: address.map(|address| (ip(address), ip(address))),
        ports: Some((port, port)),
        interface: interface.map(str::to_owned),
    };
    node.translation.published = [
        port(80, None, None),
        port(81, Some("10.1.0.3"), None),
        port(82, Some("10.0.0.2"), None),
        port(83, None, Some("eth2")),
    ]
    .into();
    let moved = only(&node, Id::TranslatedAnswers);
    assert_eq!(named(&moved, Kind::Port), ["tcp 10.1.0.3:81", "tcp 80"]);
    assert!(moved.consequence.starts_with("tcp 10.1.0.3:81, tcp 80. "), "{}", moved.consequence);
}

#[test]
fn own_connections_are_noted_where_their_destination_is_translated() {
    let mut snapshot = apart();
    snapshot.translation = Translation { output: true, ..Translation::default() };
    assert_eq!(named(&only(&snapshot, Id::OutputTranslated), Kind::Interface), ["eth2", "eth3"]);
    let one_subnet = Snapshot { translation: snapshot.translation.clone(), ..two() };
    assert!(!ids(&one_subnet).contains(&Id::OutputTranslated));
}

#[test]
fn an_unnumbered_interface_is_named_with_the_address_that_it_borrows() {
    let mut snapshot = snapshot([eth(2), eth(3)], &[(2, "10.0.0.2/24")]);
    let destination = net("10.9.9.9/32");
    snapshot.borrowed = [Borrowed { ifindex: 3, address: ip("10.0.0.2"), destination }].into();
    let finding = only(&snapshot, Id::BorrowedAddress);
    assert_eq!((named(&finding, Kind::Interface), finding.severity), (vec!["eth3"], Severity::Warning));
    assert!(finding.remedy.contains("allow = [\"10.0.0.2/32\"] in an [[interface]] with name = \"eth3\""));
    // Not where nothing is to be enforced.
    snapshot.interfaces.remove(&3);
    assert!(!ids(&snapshot).contains(&Id::BorrowedAddress));
}

#[test]
fn services_without_a_next_hop_are_named() {
    let mut snapshot = apart();
    let local = SocketAddr::new(ip("10.1.0.3"), 22);
    snapshot.sockets = vec![Socket { protocol: "tcp", local, peer: None, leaves_by: None }];
    let finding = only(&snapshot, Id::ServiceWithoutNextHop);
    assert_eq!(named(&finding, Kind::Socket), ["tcp 10.1.0.3:22"]);
    snapshot.host.routes.push(Route { metric: 4096, ..route("0.0.0.0/0", 3, Some("10.1.0.254")) });
    assert!(!ids(&snapshot).contains(&Id::ServiceWithoutNextHop));
}

#[test]
fn addresses_that_multipath_tcp_does_not_announce_are_named() {
    let mut snapshot = apart();
    assert!(!ids(&snapshot).contains(&Id::MptcpEndpoints));
    snapshot.mptcp = vec![Endpoint { address: ip("10.0.0.2"), signal: true }];
    let finding = only(&snapshot, Id::MptcpEndpoints);
    assert!(finding.remedy.ends_with("ip mptcp endpoint add 10.1.0.3 dev eth3 signal"), "{finding:?}");
    let one_subnet = Snapshot { mptcp: snapshot.mptcp.clone(), ..two() };
    assert!(!ids(&one_subnet).contains(&Id::MptcpEndpoints), "every subflow comes by its own link");
    snapshot.mptcp.push(Endpoint { address: ip("10.1.0.3"), signal: true });
    assert!(!ids(&snapshot).contains(&Id::MptcpEndpoints));
}
