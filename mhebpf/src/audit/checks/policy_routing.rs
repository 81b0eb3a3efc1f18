//! Policy routing that is there already, and how it and that of `mhebpf run --steer rules` meet.

use std::collections::BTreeSet;

use super::{list, objects};
use crate::{
    audit::{
        finding::{Finding, Id, Kind, Severity},
        snapshot::{Rule, View},
    },
    model::{
        host::MAIN_TABLE,
        steering::{PRIORITY, PROTOCOL},
    },
    netlink::LocalLate,
};

/// The priority of the rule for the table main.
const MAIN_PRIORITY: u32 = 32766;

/// Where the rules of others stand beside those with [`PRIORITY`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Before,
    Same,
    After,
}

impl Place {
    fn of(rule: &Rule) -> Self {
        match rule.priority.cmp(&PRIORITY) {
            std::cmp::Ordering::Less => Self::Before,
            std::cmp::Ordering::Equal => Self::Same,
            std::cmp::Ordering::Greater => Self::After,
        }
    }
}

/// The rules that are there, by what they mean to mhebpf.
pub(super) fn rules(view: &View<'_>) -> Vec<Finding> {
    let (ours, others): (Vec<&Rule>, Vec<&Rule>) = view.snapshot.rules.iter().partition(|rule| is_ours(rule));
    let (same, others): (Vec<&Rule>, Vec<&Rule>) =
        others.into_iter().partition(|rule| Place::of(rule) == Place::Same);
    let (by_source, by_else): (Vec<&Rule>, Vec<&Rule>) =
        others.into_iter().partition(|rule| rule.source.is_some());
    let shadowed: Vec<&Rule> = by_else
        .into_iter()
        .filter(|rule| Place::of(rule) == Place::After && rule.priority < MAIN_PRIORITY)
        .collect();
    [
        (!view.snapshot.local_late.is_empty()).then(|| local_late(&view.snapshot.local_late)),
        (!same.is_empty()).then(|| in_our_place(&same)),
        (!by_source.is_empty()).then(|| source_rules(&by_source)),
        (!shadowed.is_empty()).then(|| after_ours(&shadowed)),
        (!ours.is_empty() && !view.snapshot.daemon).then(|| left_behind(&ours)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn is_ours(rule: &Rule) -> bool {
    rule.priority == PRIORITY && rule.protocol == Some(PROTOCOL)
}

/// Source rules: they and mhebpf go together.
fn source_rules(rules: &[&Rule]) -> Finding {
    let said = texts(rules);
    let own_tables: BTreeSet<u32> =
        rules.iter().map(|rule| rule.table).filter(|table| ![0, MAIN_TABLE].contains(table)).collect();
    let aside = if own_tables.is_empty() {
        ""
    } else {
        " Next hops for what is redirected come from the main table, or the VRF's: a gateway that only such a table \
         knows is not used."
    };
    let meeting = match (
        rules.iter().any(|r| Place::of(r) == Place::Before),
        rules.iter().any(|r| Place::of(r) == Place::After),
    ) {
        (true, false) => "these are asked first, and decide",
        (false, _) => {
            "these are asked after them, and decide no more for an address of an interface that mhebpf steers"
        }
        (true, true) => {
            "those with a lower number are asked first, and decide; the others decide no more for an address of an interface \
             that mhebpf steers"
        }
    };
    Finding {
        id: Id::SourceRules,
        severity: Severity::Note,
        objects: objects(Kind::Rule, &said),
        summary: "rules of policy routing steer by source already".to_owned(),
        consequence: format!(
            "{}. Where the kernel chooses the owner by itself there is nothing to redirect, and mhebpf is the guarantee \
             that nothing else leaves.{aside} With --steer rules, whose rules have the priority {PRIORITY}, {meeting}.",
            list(&said)
        ),
        remedy: "None is needed: keep them, or remove them once mhebpf enforces.".to_owned(),
    }
}

fn local_late(families: &[LocalLate]) -> Finding {
    let said: Vec<String> = families.iter().map(LocalLate::describe).collect();
    Finding {
        id: Id::LocalTableLate,
        severity: Severity::Warning,
        objects: objects(Kind::Rule, ["from all lookup local"]),
        summary: "the table local is not looked up first".to_owned(),
        consequence: format!("{}. mhebpf run --steer rules refuses to start.", list(&said)),
        remedy: "ip rule add priority 0 lookup local; ip -6 rule add priority 0 lookup local".to_owned(),
    }
}

fn in_our_place(rules: &[&Rule]) -> Finding {
    let said = texts(rules);
    Finding {
        id: Id::SteeringClash,
        severity: Severity::Note,
        objects: objects(Kind::Rule, &said),
        summary: format!("somebody else's rules have the priority {PRIORITY} of mhebpf's"),
        consequence: format!("{}. mhebpf run --steer rules refuses to start beside them.", list(&said)),
        remedy: "Give them another priority, or do without --steer rules.".to_owned(),
    }
}

/// Marks of VPNs, for one: what is looked up by a rule of mhebpf never comes to them.
fn after_ours(rules: &[&Rule]) -> Finding {
    let said = texts(rules);
    Finding {
        id: Id::ShadowedRules,
        severity: Severity::Note,
        objects: objects(Kind::Rule, &said),
        summary: "rules that do not look at the source come after those of --steer rules".to_owned(),
        consequence: format!(
            "{}. With --steer rules a socket that is bound to an interface's address is routed by the table of that \
             interface, before these are asked: it does not take a VPN that they lead to. Sockets that are not bound do as \
             before.",
            list(&said)
        ),
        remedy: format!(
            "If they are meant for bound sockets too, give them a priority below {PRIORITY}, or do without --steer rules."
        ),
    }
}

fn left_behind(rules: &[&Rule]) -> Finding {
    let said = texts(rules);
    Finding {
        id: Id::SteeringLeftBehind,
        severity: Severity::Warning,
        objects: objects(Kind::Rule, &said),
        summary: "rules of an mhebpf that does not run any more are in force".to_owned(),
        consequence: format!(
            "{}. Nobody keeps them and their tables in step with addresses and routes.",
            list(&said)
        ),
        remedy: "Start mhebpf again: it takes them over with --steer rules, and removes them without."
            .to_owned(),
    }
}

/// What systemd-networkd would remove.
pub(super) fn networkd(view: &View<'_>) -> Vec<Finding> {
    let Some(networkd) = view.snapshot.networkd else { return Vec::new() };
    let lines: Vec<&str> = [
        (networkd.removes_rules, "ManageForeignRoutingPolicyRules=no"),
        (networkd.removes_routes, "ManageForeignRoutes=no"),
    ]
    .into_iter()
    .filter_map(|(removes, line)| removes.then_some(line))
    .collect();
    if lines.is_empty() {
        return Vec::new();
    }
    vec![Finding {
        id: Id::NetworkdRemovesRules,
        severity: Severity::Note,
        objects: Vec::new(),
        summary: "systemd-networkd removes rules and routes that it has not made itself".to_owned(),
        consequence:
            "It does so when it is restarted or reloaded, and when it configures a link, and takes those of \
                      mhebpf run --steer rules too; mhebpf puts them back."
                .to_owned(),
        remedy: format!(
            "For --steer rules, under [Network] of /etc/systemd/networkd.conf: {}",
            lines.join(" ")
        ),
    }]
}

fn texts(rules: &[&Rule]) -> Vec<String> {
    rules.iter().map(|rule| text(rule)).collect()
}

/// A rule as `ip rule` writes it, as far as it is read.
fn text(rule: &Rule) -> String {
    let source = rule.source.map_or_else(|| "all".to_owned(), |source| source.to_string());
    let maker = match rule.protocol {
        // What `ip rule add` gives it, and what has none.
        None | Some(0 | 3) => String::new(),
        Some(protocol) => format!(" proto {}", protocol_name(protocol)),
    };
    format!("{}: from {source} lookup {}{maker}", rule.priority, rule.table)
}

/// The name of a routing protocol (`linux/rtnetlink.h`), or its number.
fn protocol_name(protocol: u8) -> String {
    let name = match protocol {
        1 => "redirect",
        2 => "kernel",
        4 => "static",
        9 => "ra",
        16 => "dhcp",
        18 => "keepalived",
        186 => "bgp",
        188 => "ospf",
        PROTOCOL => "mhebpf",
        _ => return protocol.to_string(),
    };
    name.to_owned()
}
