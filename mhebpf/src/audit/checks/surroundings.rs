//! What else there is: MTUs, sysctls, programs of others.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{list, objects};
use crate::{
    audit::{
        finding::{Finding, Id, Kind, Severity},
        snapshot::{Hook, Program, Snapshot, View},
        sysctls::Sysctl,
    },
    model::Address,
};

/// Different MTUs in one subnet.
pub(super) fn mtu(view: &View<'_>, subnets: &BTreeMap<(u32, IpNet), BTreeSet<u32>>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for ((_, subnet), interfaces) in subnets {
        let links: Vec<_> = interfaces.iter().filter_map(|i| view.snapshot.host.links.get(i)).collect();
        let mtus: BTreeSet<u32> = links.iter().map(|link| link.mtu).collect();
        if mtus.len() < 2 {
            continue;
        }
        let said: Vec<String> = links.iter().map(|link| format!("{} {}", link.name, link.mtu)).collect();
        findings.push(Finding {
            id: Id::MtuMismatch,
            severity: Severity::Warning,
            objects: [
                objects(Kind::Subnet, [subnet]),
                objects(Kind::Interface, links.iter().map(|link| &link.name)),
            ]
            .concat(),
            summary: format!("interfaces in {subnet} have different MTUs"),
            consequence: format!(
                "{}. A packet that was made for the larger one does not fit where mhebpf redirects it to the smaller \
                 one: its sender is told so by ICMP, and adapts after a first loss.",
                list(&said)
            ),
            remedy: "Give them the same MTU, if the network carries it.".to_owned(),
        });
    }
    findings
}

/// Routes of interfaces that lose their carrier.
pub(super) fn linkdown(view: &View<'_>, subnets: &BTreeMap<(u32, IpNet), BTreeSet<u32>>) -> Vec<Finding> {
    let sysctls = &view.snapshot.sysctls;
    let on: BTreeSet<u32> = subnets
        .values()
        .flatten()
        .copied()
        .filter(|ifindex| sysctls.effective(*ifindex, Sysctl::IgnoreRoutesWithLinkdown) == 0)
        .collect();
    if on.is_empty() {
        return Vec::new();
    }
    let names: Vec<String> = on.into_iter().map(|ifindex| view.name(ifindex)).collect();
    vec![Finding {
        id: Id::LinkdownRoutes,
        severity: Severity::Note,
        objects: [
            objects(Kind::Interface, &names),
            objects(Kind::Sysctl, ["net.ipv4.conf.all.ignore_routes_with_linkdown"]),
        ]
        .concat(),
        summary: "routes stay in use when their interface loses its carrier".to_owned(),
        consequence: format!(
            "If one of {} does, and its route is the first, packets of all sources wait for a neighbour there and vanish \
             before mhebpf can redirect them.",
            list(&names)
        ),
        remedy: "mhebpf run --steer rules, with which the kernel chooses the owner's route by itself. Or sysctl -w \
                 net.ipv4.conf.all.ignore_routes_with_linkdown=1"
            .to_owned(),
    }]
}

/// Loopback on the wire.
pub(super) fn localnet(view: &View<'_>) -> Vec<Finding> {
    let names: Vec<String> = view
        .snapshot
        .interfaces
        .iter()
        .filter(|ifindex| view.snapshot.sysctls.effective(**ifindex, Sysctl::RouteLocalnet) != 0)
        .map(|ifindex| view.name(*ifindex))
        .collect();
    if names.is_empty() {
        return Vec::new();
    }
    vec![Finding {
        id: Id::RouteLocalnet,
        severity: Severity::Note,
        objects: [
            objects(Kind::Interface, &names),
            objects(Kind::Sysctl, names.iter().map(|name| format!("net.ipv4.conf.{name}.route_localnet"))),
        ]
        .concat(),
        summary: "addresses of loopback may cross the wire".to_owned(),
        consequence: format!(
            "route_localnet is on for {}: mhebpf lets 127.0.0.0/8 and ::1 pass there.",
            list(&names)
        ),
        remedy: "None, if container networking has set it on purpose; else set it to 0.".to_owned(),
    }]
}

/// Programs and filters of others.
pub(super) fn programs(view: &View<'_>) -> Vec<Finding> {
    let by = by_interface(view, |program| !program.before_mhebpf);
    let finding = |(ifindex, programs): (u32, Vec<&Program>)| {
        let name = view.name(ifindex);
        let said: Vec<String> = programs.iter().map(|program| program_text(program)).collect();
        let has_xdp = programs.iter().any(|program| program.hook == Hook::Xdp);
        let aside = if has_xdp { " What an XDP program sends by itself mhebpf does not see." } else { "" };
        Finding {
            id: Id::ForeignProgram,
            severity: Severity::Note,
            objects: [objects(Kind::Interface, [&name]), objects(Kind::Program, &said)].concat(),
            summary: format!("other programs see the packets of {name}"),
            consequence: format!(
                "{}. mhebpf's programs come first in TCX and let the others have their say about all that passes; what \
                 is redirected or dropped the others don't see.{aside}",
                list(&said)
            ),
            remedy: "None is needed: mhebpf never touches them.".to_owned(),
        }
    };
    by.into_iter().map(finding).collect()
}

/// Those of others that come before mhebpf's.
pub(super) fn behind(view: &View<'_>) -> Vec<Finding> {
    let finding = |(ifindex, programs): (u32, Vec<&Program>)| {
        let name = view.name(ifindex);
        let said: Vec<String> = programs.iter().map(|program| program_text(program)).collect();
        Finding {
            id: Id::BehindOthers,
            severity: Severity::Warning,
            objects: [objects(Kind::Interface, [&name]), objects(Kind::Program, &said)].concat(),
            summary: format!("other programs come before mhebpf's on {name}"),
            consequence: format!(
                "{}. A packet that those let pass for good, drop or redirect is never judged by mhebpf.",
                list(&said)
            ),
            remedy: "Have a program of TCX attached behind (BPF_F_AFTER), or return TCX_NEXT; give a filter of clsact a priority \
                     above 7, mhebpf's own."
                .to_owned(),
        }
    };
    by_interface(view, |program| program.before_mhebpf).into_iter().map(finding).collect()
}

/// What an mhebpf that is gone has left: its tables are frozen.
pub(super) fn left_in_force(view: &View<'_>) -> Vec<Finding> {
    let Snapshot { own, daemon, .. } = view.snapshot;
    // A daemon's own are as they should be, one of each; beside links it has no filters.
    let filters: Vec<&String> =
        own.filters.iter().filter(|name| !daemon || own.links.contains_key(*name)).collect();
    let links: Vec<&String> =
        own.links.iter().filter(|(_, count)| !daemon || **count > 1).map(|(name, _)| name).collect();
    let finding = |what: &str, names: &[&String], remedy: &str| {
        Finding {
        id: Id::LeftInForce,
        severity: Severity::Warning,
        objects: objects(Kind::Interface, names),
        summary: format!("{what} of an mhebpf that does not run any more are in force on {}", list(names)),
        consequence: "They judge by tables that nobody keeps in step with the host: packets of an address that has moved since \
                      are redirected to where it was, or dropped."
            .to_owned(),
        remedy: remedy.to_owned(),
    }
    };
    let mut findings = Vec::new();
    if !filters.is_empty() {
        findings.push(finding(
            "filters",
            &filters,
            "`mhebpf run` takes their place, and `mhebpf unload` takes them off.",
        ));
    }
    if !links.is_empty() {
        findings.push(finding(
            "pinned programs",
            &links,
            "`mhebpf run --pin` takes their place, and `mhebpf unload` takes them off; both with the directory that they are \
             pinned in, if it is not the usual one.",
        ));
    }
    findings
}

/// By the interface that they are on.
fn by_interface<'a>(view: &View<'a>, wanted: impl Fn(&Program) -> bool) -> BTreeMap<u32, Vec<&'a Program>> {
    let mut by: BTreeMap<u32, Vec<&Program>> = BTreeMap::new();
    for program in view.snapshot.programs.iter().filter(|program| wanted(program)) {
        by.entry(program.ifindex).or_default().push(program);
    }
    by
}

fn program_text(program: &Program) -> String {
    let Program { hook, name, id, .. } = program;
    let id = id.map(|id| format!(" (id {id})")).unwrap_or_default();
    format!("{} {name}{id}", hook.name())
}

/// Multipath TCP: a subflow that a peer opens by a second link to the first one's address is not taken.
pub(super) fn multipath(view: &View<'_>) -> Vec<Finding> {
    let snapshot = view.snapshot;
    if snapshot.mptcp.is_empty() {
        return Vec::new();
    }
    let addresses: Vec<&Address> = view.judged_addresses().collect();
    let is_apart = |address: &&&Address| {
        let of_others = |other: &&Address| {
            other.ifindex != address.ifindex && other.local.is_ipv4() == address.local.is_ipv4()
        };
        let is_shared = |other: &&Address| other.subnet == address.subnet;
        addresses.iter().copied().any(|other| of_others(&other))
            && !addresses.iter().copied().filter(of_others).any(|other| is_shared(&other))
    };
    let is_known = |address: &&&Address| snapshot.mptcp.iter().any(|each| each.address == address.local);
    let missing: Vec<&Address> =
        addresses.iter().filter(is_apart).filter(|address| !is_known(address)).copied().collect();
    if missing.is_empty() {
        return Vec::new();
    }
    let locals: Vec<IpAddr> = missing.iter().map(|address| address.local).collect();
    let command = |address: &&Address| {
        format!("ip mptcp endpoint add {} dev {} signal", address.local, view.name(address.ifindex))
    };
    let commands: Vec<String> = missing.iter().map(command).collect();
    vec![Finding {
        id: Id::MptcpEndpoints,
        severity: Severity::Note,
        objects: objects(Kind::Address, &locals),
        summary: "Multipath TCP does not announce every interface's address".to_owned(),
        consequence: format!(
            "A peer that does not know {} opens further subflows to the address that it has. By a link to another \
             interface that is no address of that interface: mhebpf discards them there, and the connection goes on by its \
             first subflow.",
            list(&locals)
        ),
        remedy: format!("Where peers have several links too: {}", commands.join("; ")),
    }]
}

/// A daemon that runs already.
pub(super) fn daemon(view: &View<'_>) -> Vec<Finding> {
    if !view.snapshot.daemon {
        return Vec::new();
    }
    vec![Finding {
        id: Id::DaemonRunning,
        severity: Severity::Note,
        objects: Vec::new(),
        summary: "mhebpf is running in this network namespace".to_owned(),
        consequence: "What is said here is what the kernel would do by itself; on the interfaces where mhebpf enforces \
                      it does not come to that."
            .to_owned(),
        remedy: "None is needed.".to_owned(),
    }]
}
