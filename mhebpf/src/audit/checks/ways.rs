//! Where packets leave: RULE 1 of a weak end system, and gateways.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use mhebpf_ebpf::Neighbour;

use super::{count, list, objects};
use crate::{
    audit::{
        finding::{Finding, Id, Kind, Severity},
        snapshot::{To, View, Way},
    },
    model::Tables,
};

/// The subnets in which more than one interface has an address, one of which at least is looked at, with the domain
/// that they are in.
pub(super) fn shared_subnets(view: &View<'_>) -> BTreeMap<(u32, IpNet), BTreeSet<u32>> {
    let mut subnets: BTreeMap<(u32, IpNet), BTreeSet<u32>> = BTreeMap::new();
    for address in view.judged_addresses() {
        let subnet = address.subnet;
        if subnet.prefix_len() < subnet.max_prefix_len() && subnet.contains(&address.local) {
            subnets.entry((view.domain_of(address.ifindex), subnet)).or_default().insert(address.ifindex);
        }
    }
    subnets.retain(|_, interfaces| interfaces.len() > 1);
    subnets
}

/// A fact of which other findings are the consequences.
pub(super) fn shared(view: &View<'_>, subnets: &BTreeMap<(u32, IpNet), BTreeSet<u32>>) -> Vec<Finding> {
    let finding = |((_, subnet), interfaces): (&(u32, IpNet), &BTreeSet<u32>)| {
        let names: Vec<String> = interfaces.iter().map(|ifindex| view.name(*ifindex)).collect();
        Finding {
            id: Id::SharedSubnet,
            severity: Severity::Note,
            objects: [objects(Kind::Subnet, [subnet]), objects(Kind::Interface, &names)].concat(),
            summary: format!("{} share the subnet {subnet}", list(&names)),
            consequence:
                "The kernel has a route to the subnet for each of them, and uses the first one alone, unless \
                          rules of policy routing say otherwise."
                    .to_owned(),
            remedy: "None is needed by itself.".to_owned(),
        }
    };
    subnets.iter().map(finding).collect()
}

/// RULE 1: all packets to a subnet leave by the first route's interface.
pub(super) fn first_route_wins(view: &View<'_>) -> Vec<Finding> {
    let mut wrong: BTreeMap<(u32, IpNet), Vec<(&Way, u32)>> = BTreeMap::new();
    for (way, route) in view.wrong_ways() {
        if let To::Subnet(subnet) = way.to {
            wrong.entry((way.domain, subnet)).or_default().push((way, route.ifindex));
        }
    }
    let finding = |((domain, subnet), ways): ((u32, IpNet), Vec<(&Way, u32)>)| {
        let all =
            view.snapshot.ways.iter().filter(|way| way.domain == domain && way.to == To::Subnet(subnet));
        let winners: BTreeSet<u32> = all.filter_map(|way| Some(way.route?.ifindex)).collect();
        let winners: Vec<String> = winners.into_iter().map(|ifindex| view.name(ifindex)).collect();
        let sources: Vec<String> = ways.iter().map(|(way, _)| source(view, way)).collect();
        let summary = match winners.as_slice() {
            [winner] => format!("everything to {subnet} leaves by {winner}, whatever its source"),
            _ => format!("packets to {subnet} leave by other interfaces than their source's"),
        };
        let by: BTreeSet<String> = ways.iter().map(|(_, ifindex)| view.name(*ifindex)).collect();
        let by: Vec<String> = by.into_iter().collect();
        Finding {
            id: Id::FirstRouteWins,
            severity: Severity::Error,
            objects: [
                objects(Kind::Subnet, [subnet]),
                objects(Kind::Interface, &by),
                objects(Kind::Address, ways.iter().map(|(way, _)| way.source)),
            ]
            .concat(),
            summary,
            consequence: format!(
                "Packets to it from {} leave by {}. When the routes are re-ordered, for which a link that goes down and up \
                 is enough, they leave by another interface.",
                list(&sources),
                list(&by)
            ),
            remedy: "mhebpf sends each packet through the owner of its source. Without it: a routing table for each \
                     interface, and an `ip rule` for each of its addresses."
                .to_owned(),
        }
    };
    wrong.into_iter().map(finding).collect()
}

/// An address with the interface that it is configured on.
fn source(view: &View<'_>, way: &Way) -> String {
    format!("{} ({})", way.source, view.name(way.configured))
}

/// Packets that vanish before any program sees them.
pub(super) fn without_carrier(view: &View<'_>) -> Vec<Finding> {
    let mut lost: BTreeMap<u32, BTreeSet<IpAddr>> = BTreeMap::new();
    for (way, route) in view.wrong_ways() {
        if view.snapshot.host.links.get(&route.ifindex).is_some_and(|link| !link.up) {
            lost.entry(route.ifindex).or_default().insert(way.source);
        }
    }
    let finding = |(ifindex, sources): (u32, BTreeSet<IpAddr>)| {
        let name = view.name(ifindex);
        let sources: Vec<IpAddr> = sources.into_iter().collect();
        Finding {
            id: Id::RouteWithoutCarrier,
            severity: Severity::Error,
            objects: [objects(Kind::Interface, [&name]), objects(Kind::Address, &sources)].concat(),
            summary: format!("{name} has no carrier, and other interfaces' packets are routed to it"),
            consequence: format!(
                "Packets from {} wait for a neighbour on {name} and vanish. mhebpf never sees them: a packet has to \
                 reach the egress program to be redirected.",
                list(&sources)
            ),
            remedy: format!(
                "sysctl -w net.ipv4.conf.{name}.ignore_routes_with_linkdown=1 (for IPv6 \
                 net.ipv6.conf.{name}.ignore_routes_with_linkdown=1), or take {name} down."
            ),
        }
    };
    lost.into_iter().map(finding).collect()
}

/// Interfaces whose packets to far destinations leave by another one.
pub(super) fn gateways(view: &View<'_>) -> Vec<Finding> {
    let tables = Tables::new(&view.snapshot.host, &BTreeMap::new());
    let mut groups: BTreeMap<(u32, bool, u32, Option<String>), Vec<&Way>> = BTreeMap::new();
    for (way, route) in view.wrong_ways() {
        if way.to == To::Beyond {
            let next_hop = next_hop(view, &tables, way);
            let key = (way.configured, way.source.is_ipv6(), route.ifindex, next_hop);
            groups.entry(key).or_default().push(way);
        }
    }
    let finding = |((configured, is_ipv6, leaves_by, next_hop), ways): (_, Vec<&Way>)| {
        let (name, by) = (view.name(configured), view.name(leaves_by));
        let family = if is_ipv6 { "IPv6" } else { "IPv4" };
        let sources: Vec<IpAddr> = ways.iter().map(|way| way.source).collect();
        let objects = [objects(Kind::Interface, [&name, &by]), objects(Kind::Address, &sources)].concat();
        let summary = format!("far {family} destinations are reached from {name} through {by}");
        let fact = format!("Packets from {} leave by {by}, and the answers come back there.", list(&sources));
        let flag = if is_ipv6 { "-6 " } else { "" };
        match next_hop {
            Some(next_hop) => Finding {
                id: Id::AsymmetricGateway,
                severity: Severity::Warning,
                objects,
                summary,
                consequence: fact,
                remedy: format!("mhebpf sends them through {next_hop}, which {name} reaches directly."),
            },
            None => Finding {
                id: Id::NoNextHop,
                severity: Severity::Warning,
                objects,
                summary: format!("{summary}, and {name} knows no gateway"),
                consequence: format!("{fact} mhebpf would drop them, counted as no_route."),
                remedy: format!(
                    "Where {name} has a gateway G, say so, less preferred than the route that there is: ip {flag}route \
                     add default via G dev {name} metric 4096. Where it has none, nothing is to be done."
                ),
            },
        }
    };
    groups.into_iter().map(finding).collect()
}

/// The next hop that mhebpf would use, and on which interface: the first owner that is up and has one.
pub(super) fn next_hop(view: &View<'_>, tables: &Tables, way: &Way) -> Option<String> {
    view.owners(way.domain, way.source).iter().find_map(|owner| {
        view.snapshot.host.links.get(owner).filter(|link| link.up)?;
        let next_hop = match way.destination {
            IpAddr::V4(destination) => tables.ipv4.next_hops(*owner, destination.into())?,
            IpAddr::V6(destination) => tables.ipv6.next_hops(*owner, destination.into())?,
        };
        Some(match next_hop.first().and_then(Neighbour::ip) {
            Some(gateway) => format!("the gateway {gateway} on {}", view.name(*owner)),
            None => format!("{}, where every destination is a neighbour", view.name(*owner)),
        })
    })
}

/// How many addresses there are, in words.
pub(super) fn addresses(number: usize) -> String {
    count(number, "address", "addresses")
}
