//! What arrives, and what would no longer.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{count, list, objects, ways::addresses};
use crate::audit::{
    finding::{Finding, Id, Kind, Severity},
    snapshot::View,
    sysctls::Sysctl,
};

/// The addresses of the interfaces that are up, by domain and interface.
fn reachable(view: &View<'_>) -> BTreeMap<u32, BTreeMap<u32, BTreeSet<IpAddr>>> {
    let mut domains: BTreeMap<u32, BTreeMap<u32, BTreeSet<IpAddr>>> = BTreeMap::new();
    for address in view.judged_addresses() {
        let domain = view.domain_of(address.ifindex);
        if view.snapshot.host.links.get(&address.ifindex).is_some_and(|link| link.up) {
            let interfaces = domains.entry(domain).or_default();
            interfaces.entry(address.ifindex).or_default().insert(address.local);
        }
    }
    domains
}

/// Requirement (A) of RFC 1122 section 3.3.4.2, which Linux does not keep: there is no sysctl for it.
pub(super) fn weak_receive(view: &View<'_>) -> Vec<Finding> {
    let finding = |interfaces: BTreeMap<u32, BTreeSet<IpAddr>>| {
        let names: Vec<String> = interfaces.keys().map(|ifindex| view.name(*ifindex)).collect();
        let all: Vec<IpAddr> = interfaces.values().flatten().copied().collect();
        Finding {
            id: Id::WeakReceive,
            severity: Severity::Warning,
            objects: [objects(Kind::Interface, &names), objects(Kind::Address, &all)].concat(),
            summary: format!("datagrams for {} are taken on any interface", addresses(all.len())),
            consequence: format!(
                "What arrives on one of {} for an address of another is delivered: a service that is bound to one \
                 network's address can be reached from the others.",
                list(&names)
            ),
            remedy: "mhebpf discards them silently. Without it: a rule of nftables (mhebpf audit --nft)."
                .to_owned(),
        }
    };
    reachable(view).into_values().filter(|interfaces| interfaces.len() > 1).map(finding).collect()
}

/// The reverse path filter against redirected packets' answers.
pub(super) fn strict_reverse_path(view: &View<'_>) -> Vec<Finding> {
    let mut by: BTreeMap<u32, BTreeSet<IpAddr>> = BTreeMap::new();
    for (way, _) in view.wrong_ways().filter(|(way, _)| way.source.is_ipv4()) {
        for owner in view.owners(way.domain, way.source) {
            // With the rules of `--steer rules` the route leads back by the owner.
            if !view.snapshot.steers && view.snapshot.sysctls.effective(*owner, Sysctl::RpFilter) == 1 {
                by.entry(*owner).or_default().insert(way.source);
            }
        }
    }
    let finding = |(ifindex, sources): (u32, BTreeSet<IpAddr>)| {
        let name = view.name(ifindex);
        let sources: Vec<IpAddr> = sources.into_iter().collect();
        let sysctl = format!("net.ipv4.conf.{name}.rp_filter");
        Finding {
            id: Id::StrictReversePath,
            severity: Severity::Warning,
            objects: [
                objects(Kind::Interface, [&name]),
                objects(Kind::Sysctl, [&sysctl]),
                objects(Kind::Address, &sources),
            ]
            .concat(),
            summary: format!("rp_filter is strict on {name}, and the routes lead elsewhere"),
            consequence: format!(
                "The kernel discards what arrives on {name} from where the route leads to another interface: with \
                 mhebpf, the answers to all that is redirected from {}.",
                list(&sources)
            ),
            remedy: format!(
                "sysctl -w {sysctl}=2 (loose), which holds whatever that of `all` is. Or mhebpf run --steer rules, with which \
                 the routes lead back here."
            ),
        }
    };
    by.into_iter().map(finding).collect()
}

/// Addresses that can be reached through other interfaces only.
pub(super) fn unreachable(view: &View<'_>) -> Vec<Finding> {
    let host = &view.snapshot.host;
    let up_in = reachable(view);
    let is_up = |ifindex: &u32| host.links.get(ifindex).is_some_and(|link| link.up);
    let mut by: BTreeMap<u32, BTreeSet<IpAddr>> = BTreeMap::new();
    for address in view.judged_addresses() {
        let domain = view.domain_of(address.ifindex);
        let owned_by_none = !view.owners(domain, address.local).iter().any(is_up);
        if owned_by_none && up_in.contains_key(&domain) {
            by.entry(address.ifindex).or_default().insert(address.local);
        }
    }
    let finding = |(ifindex, lost): (u32, BTreeSet<IpAddr>)| {
        let name = view.name(ifindex);
        let sockets: Vec<String> = view
            .snapshot
            .sockets
            .iter()
            .filter(|s| lost.contains(&s.local.ip()))
            .map(super::sockets::name)
            .collect();
        let ports = super::translation::published_at(view, ifindex, &lost);
        let lost: Vec<IpAddr> = lost.into_iter().collect();
        let served = |things: &[String], one, many, how| match things {
            [] => String::new(),
            things => format!(" {} {how} there: {}.", count(things.len(), one, many), list(things)),
        };
        let bound = served(&sockets, "socket is", "sockets are", "bound")
            + &served(&ports, "port is", "ports are", "published");
        Finding {
            id: Id::UnreachableAddress,
            severity: Severity::Warning,
            objects: [
                objects(Kind::Interface, [&name]),
                objects(Kind::Address, &lost),
                objects(Kind::Socket, &sockets),
                objects(Kind::Port, &ports),
            ]
            .concat(),
            summary: format!("{} on {name}, which is down or has no carrier", addresses(lost.len())),
            consequence: format!(
                "Only as a weak end system is {} reachable now, through other interfaces. With mhebpf what arrives \
                 there is discarded, and what is sent from there is dropped as owner_down.{bound}",
                list(&lost)
            ),
            remedy: format!(
                "Bring {name} up, or configure the address on lo, where it belongs to every interface, or allow it on \
                 the interface that it is reached by (`allow` in the configuration file)."
            ),
        }
    };
    by.into_iter().map(finding).collect()
}
