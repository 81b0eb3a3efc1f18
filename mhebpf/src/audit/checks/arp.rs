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
    model::{Address, Framing, Link},
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

/// Sysctls that keep an interface silent, with values that would not.
type Causes = BTreeSet<(Sysctl, u32)>;

/// What keeps an interface from answering for an own address, with the value that would not.
fn silencers(view: &View<'_>, link: &Link, address: &Address, way: Option<&Way>) -> Vec<(Sysctl, u32)> {
    let effective = |sysctl| view.snapshot.sysctls.effective(link.index, sysctl);
    let mut found = Vec::new();
    let has_subnet = address.subnet.prefix_len() < address.subnet.max_prefix_len();
    match effective(Sysctl::ArpIgnore) {
        8 => found.push((Sysctl::ArpIgnore, 1)),
        // It wants the sender in the same subnet; today interfaces that do not want that answer instead.
        2 if !has_subnet && answered_elsewhere(view, link) => found.push((Sysctl::ArpIgnore, 1)),
        _ => {}
    }
    // With the rules of `--steer rules` the route leads back here.
    let leads_away = !view.snapshot.steers
        && way.and_then(|way| way.route).is_some_and(|route| route.ifindex != link.index);
    if leads_away && effective(Sysctl::ArpFilter) != 0 {
        found.push((Sysctl::ArpFilter, 0));
    }
    if leads_away && effective(Sysctl::RpFilter) == 1 {
        found.push((Sysctl::RpFilter, 2));
    }
    found
}

/// Whether another interface answers for addresses that it does not have.
fn answered_elsewhere(view: &View<'_>, link: &Link) -> bool {
    let domain = view.domain_of(link.index);
    view.snapshot.company.iter().any(|other| {
        *other != link.index
            && view.domain_of(*other) == domain
            && ![1, 2, 8].contains(&view.snapshot.sysctls.effective(*other, Sysctl::ArpIgnore))
    })
}

/// The command that sets a sysctl of an interface, and that of `all` where it would count instead.
fn command(view: &View<'_>, link: &Link, causes: &Causes) -> String {
    let sysctls = &view.snapshot.sysctls;
    let mut settings = Vec::new();
    for (sysctl, value) in causes {
        settings.push(format!("net.ipv4.conf.{}.{}={value}", link.name, sysctl.name()));
        if sysctls.everywhere.get(sysctl).is_some_and(|everywhere| everywhere > value) {
            settings.push(format!("net.ipv4.conf.all.{}={value}", sysctl.name()));
        }
    }
    format!("sysctl -w {}", settings.join(" "))
}

/// Interfaces that do not answer for themselves: with mhebpf nobody else does either.
pub(super) fn unanswered(view: &View<'_>) -> Vec<Finding> {
    let host = &view.snapshot.host;
    let mut by: BTreeMap<u32, (BTreeSet<IpAddr>, Causes)> = BTreeMap::new();
    for address in view.judged_addresses().filter(|address| address.local.is_ipv4()) {
        let Some(link) = host.links.get(&address.ifindex).filter(|link| speaks_arp(link)) else { continue };
        let way = view.way_to_subnet(view.domain_of(link.index), address.local, address.subnet);
        let causes = silencers(view, link, address, way);
        if !causes.is_empty() {
            let (silent, all_causes) = by.entry(link.index).or_default();
            silent.insert(address.local);
            all_causes.extend(causes);
        }
    }
    let finding = |(ifindex, (silent, causes)): (u32, (BTreeSet<IpAddr>, Causes))| {
        let link = host.links.get(&ifindex)?;
        let name = &link.name;
        let silent: Vec<IpAddr> = silent.into_iter().collect();
        let is = |(sysctl, _): &(Sysctl, u32)| {
            format!("{} is {}", sysctl.name(), view.snapshot.sysctls.effective(ifindex, *sysctl))
        };
        let said: Vec<String> = causes.iter().map(is).collect();
        let full = |(sysctl, _): &(Sysctl, u32)| format!("net.ipv4.conf.{name}.{}", sysctl.name());
        let by_routes = !causes.iter().any(|(sysctl, _)| *sysctl == Sysctl::ArpIgnore);
        let (aside, or) = if by_routes {
            (
                ", since the route to its neighbours leads by another interface",
                " (mhebpf does what it is for). Or mhebpf run --steer rules, with which the routes lead back here.",
            )
        } else {
            ("", "")
        };
        Some(Finding {
            id: Id::ArpUnanswered,
            severity: Severity::Warning,
            objects: [
                objects(Kind::Interface, [name]),
                objects(Kind::Sysctl, causes.iter().map(full)),
                objects(Kind::Address, &silent),
            ]
            .concat(),
            summary: format!("{name} does not answer ARP requests for its own addresses"),
            consequence: format!(
                "{} there, and so it keeps silent about {}{aside}. With mhebpf no other interface answers for it: new peers \
                 could not reach it.",
                said.join(", "),
                list(&silent)
            ),
            remedy: format!("{}{or}", command(view, link, &causes)),
        })
    };
    by.into_iter().filter_map(finding).collect()
}
