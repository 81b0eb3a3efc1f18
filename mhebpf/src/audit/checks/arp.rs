//! What ARP says: RULE 2 of a weak end system.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use ipnet::IpNet;

use super::{list, objects, ways::addresses};
use crate::{
    audit::{
        finding::{Finding, Id, Kind, Severity},
        snapshot::{View, Way},
        sysctls::Sysctl,
    },
    model::{Framing, Link},
};

/// Whether an interface answers a request for a local address that a neighbour in `subnet` sends, as `arp_process`
/// and `arp_ignore` of Linux 6.18 do.
fn answers(view: &View<'_>, link: &Link, asked: Ipv4Addr, way: Option<&Way>) -> bool {
    let sysctls = &view.snapshot.sysctls;
    let heeds = match sysctls.effective(link.index, Sysctl::ArpIgnore) {
        1 | 2 => view.is_configured(link.index, asked.into()),
        8 => false,
        _ => true,
    };
    // Both ask for the route from the address to the neighbour, and want it to lead back here: `arp_filter`, and
    // `fib_validate_source` by way of `ip_route_input`.
    let wants_route_back = sysctls.effective(link.index, Sysctl::ArpFilter) != 0
        || sysctls.effective(link.index, Sysctl::RpFilter) == 1;
    let leads_back = || way.and_then(|way| way.route).is_none_or(|route| route.ifindex == link.index);
    heeds && (!wants_route_back || leads_back())
}

fn speaks_arp(link: &Link) -> bool {
    link.up && link.framing == Framing::Ethernet
}

/// RULE 2: addresses are answered with the hardware addresses of other interfaces in the subnet.
pub(super) fn wrong_mac(view: &View<'_>, subnets: &BTreeMap<(u32, IpNet), BTreeSet<u32>>) -> Vec<Finding> {
    let host = &view.snapshot.host;
    let mut findings = Vec::new();
    for ((domain, subnet), interfaces) in subnets {
        let links: Vec<&Link> = interfaces
            .iter()
            .filter_map(|ifindex| host.links.get(ifindex))
            .filter(|l| speaks_arp(l))
            .collect();
        let mut asked = BTreeSet::new();
        let mut answering = BTreeMap::new();
        let mut answers_count = 0;
        for address in view.judged_addresses() {
            let IpAddr::V4(local) = address.local else { continue };
            if address.subnet != *subnet || view.domain_of(address.ifindex) != *domain {
                continue;
            }
            let owners = view.owners(*domain, address.local);
            let way = view.way_to_subnet(*domain, address.local, *subnet);
            for link in links.iter().filter(|link| !owners.contains(&link.index)) {
                if answers(view, link, local, way) {
                    asked.insert(local);
                    answering.insert(link.index, link);
                    answers_count += 1;
                }
            }
        }
        if asked.is_empty() {
            continue;
        }
        let names: Vec<&str> = answering.values().map(|link| link.name.as_str()).collect();
        let macs: Vec<String> =
            answering.values().map(|link| format!("{} of {}", mac(link), link.name)).collect();
        let asked: Vec<Ipv4Addr> = asked.into_iter().collect();
        findings.push(Finding {
            id: Id::ArpWrongMac,
            severity: Severity::Error,
            objects: [
                objects(Kind::Subnet, [subnet]),
                objects(Kind::Interface, &names),
                objects(Kind::Address, &asked),
            ]
            .concat(),
            summary: format!(
                "{} of {subnet} {} answered by ARP with other interfaces' MACs",
                addresses(asked.len()),
                if asked.len() == 1 { "is" } else { "are" }
            ),
            consequence: format!(
                "A broadcast request for one of {} is also answered with {}: {answers_count} wrong answers in all. \
                 Peers send to whichever answer they keep.",
                list(&asked),
                list(&macs)
            ),
            remedy: "mhebpf lets each interface answer for its own addresses only. Without it: \
                     net.ipv4.conf.all.arp_ignore=1, which does nothing about what is sent."
                .to_owned(),
        });
    }
    findings
}

fn mac(link: &Link) -> String {
    let Some(mac) = link.mac else { return "no hardware address".to_owned() };
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Requests that teach the neighbours a wrong hardware address, as `arp_solicit` of Linux 6.18 makes them.
pub(super) fn wrong_sender(view: &View<'_>) -> Vec<Finding> {
    let host = &view.snapshot.host;
    let mut by: BTreeMap<u32, BTreeSet<IpAddr>> = BTreeMap::new();
    for (way, route) in view.wrong_ways().filter(|(way, _)| way.source.is_ipv4()) {
        let Some(link) = host.links.get(&route.ifindex).filter(|link| speaks_arp(link)) else { continue };
        let neighbour = route.gateway.unwrap_or(way.destination);
        let in_common_subnet = || {
            let subnets = host.addresses.iter().filter(|address| address.ifindex == link.index);
            let mut subnets = subnets.map(|address| address.subnet);
            subnets.any(|subnet| subnet.contains(&neighbour) && subnet.contains(&way.source))
        };
        let speaks_for_it = match view.snapshot.sysctls.effective(link.index, Sysctl::ArpAnnounce) {
            0 => true,
            1 => in_common_subnet(),
            _ => false,
        };
        if speaks_for_it && neighbour.is_ipv4() {
            by.entry(link.index).or_default().insert(way.source);
        }
    }
    let finding = |(ifindex, sources): (u32, BTreeSet<IpAddr>)| {
        let name = view.name(ifindex);
        let sources: Vec<IpAddr> = sources.into_iter().collect();
        Finding {
            id: Id::ArpWrongSender,
            severity: Severity::Error,
            objects: [objects(Kind::Interface, [&name]), objects(Kind::Address, &sources)].concat(),
            summary: format!("{name} asks by ARP in the name of other interfaces' addresses"),
            consequence: format!(
                "When it looks for a neighbour for a packet from {}, its request says that the address has the MAC of \
                 {name}, and the neighbour believes it.",
                list(&sources)
            ),
            remedy: format!(
                "mhebpf has each interface ask with an address of its own. Without it: \
                 net.ipv4.conf.{name}.arp_announce=2."
            ),
        }
    };
    by.into_iter().map(finding).collect()
}

/// Interfaces that do not answer for themselves: with mhebpf nobody else does either.
pub(super) fn unanswered(view: &View<'_>) -> Vec<Finding> {
    let host = &view.snapshot.host;
    let mut by: BTreeMap<u32, BTreeSet<IpAddr>> = BTreeMap::new();
    for address in view.judged_addresses() {
        let Some(link) = host.links.get(&address.ifindex).filter(|link| speaks_arp(link)) else { continue };
        let IpAddr::V4(local) = address.local else { continue };
        let way = view.way_to_subnet(view.domain_of(link.index), address.local, address.subnet);
        if !answers(view, link, local, way) {
            by.entry(link.index).or_default().insert(address.local);
        }
    }
    let finding = |(ifindex, silent): (u32, BTreeSet<IpAddr>)| {
        let name = view.name(ifindex);
        let silent: Vec<IpAddr> = silent.into_iter().collect();
        let effective = |sysctl| view.snapshot.sysctls.effective(ifindex, sysctl);
        let cause = if effective(Sysctl::ArpIgnore) == 8 {
            (Sysctl::ArpIgnore, 8, 1)
        } else if effective(Sysctl::ArpFilter) != 0 {
            (Sysctl::ArpFilter, 1, 0)
        } else {
            (Sysctl::RpFilter, 1, 2)
        };
        let (sysctl, is, should) = (cause.0.name(), cause.1, cause.2);
        Finding {
            id: Id::ArpUnanswered,
            severity: Severity::Warning,
            objects: [
                objects(Kind::Interface, [&name]),
                objects(Kind::Sysctl, [format!("net.ipv4.conf.{name}.{sysctl}")]),
                objects(Kind::Address, &silent),
            ]
            .concat(),
            summary: format!("{name} does not answer ARP requests for its own addresses"),
            consequence: format!(
                "{sysctl} is {is} there, and so it keeps silent about {}. With \
                 mhebpf no other interface answers for it: new peers could not reach it.",
                list(&silent)
            ),
            remedy: format!(
                "Set net.ipv4.conf.{name}.{sysctl} to {should}, and the one of `all` to no more than that, before \
                 mhebpf is started."
            ),
        }
    };
    by.into_iter().map(finding).collect()
}
