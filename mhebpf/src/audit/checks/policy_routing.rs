//! Policy routing that is there already, and how it and that of `mhebpf run --steer rules` meet.

use super::{list, objects, source_rules};
use crate::{
    audit::{
        finding::{Finding, Id, Kind, Severity},
        snapshot::{Rule, View},
    },
    model::steering::PRIORITY,
    netlink::LocalLate,
};

/// The priority of the rule for the table main.
const MAIN_PRIORITY: u32 = 32766;

/// Where the rules of others stand beside those with [`PRIORITY`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Before,
    Same,
    After,
}

impl Place {
    pub(super) fn of(rule: &Rule) -> Self {
        match rule.priority.cmp(&PRIORITY) {
            std::cmp::Ordering::Less => Self::Before,
            std::cmp::Ordering::Equal => Self::Same,
            std::cmp::Ordering::Greater => Self::After,
        }
    }
}

/// The rules that are there, by what they mean to mhebpf.
pub(super) fn rules(view: &View<'_>) -> Vec<Finding> {
    let (ours, others): (Vec<&Rule>, Vec<&Rule>) =
        view.snapshot.rules.iter().partition(|rule| rule.is_ours());
    let (same, others): (Vec<&Rule>, Vec<&Rule>) =
        others.into_iter().partition(|rule| Place::of(rule) == Place::Same);
    let (by_source, by_else): (Vec<&Rule>, Vec<&Rule>) =
        others.into_iter().partition(|rule| rule.is_for_sources());
    let is_shadowed = |rule: &&Rule| {
        Place::of(rule) == Place::After && rule.priority < MAIN_PRIORITY && rule.is_for_unmarked()
    };
    let shadowed: Vec<&Rule> = by_else.into_iter().filter(is_shadowed).collect();
    [
        (!view.snapshot.local_late.is_empty()).then(|| local_late(&view.snapshot.local_late)),
        (!same.is_empty()).then(|| in_our_place(&same)),
        (!by_source.is_empty()).then(|| source_rules::found(view, &by_source)),
        (!shadowed.is_empty()).then(|| after_ours(&shadowed)),
        (!ours.is_empty() && !view.snapshot.daemon).then(|| left_behind(&ours)),
    ]
    .into_iter()
    .flatten()
    .collect()
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

/// A VPN's rule for all packets that it has not marked, for one: what is looked up by a rule of mhebpf never comes to it. Rules
/// for marks are none, since those of mhebpf are for unmarked packets only.
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

pub(super) fn texts(rules: &[&Rule]) -> Vec<String> {
    rules.iter().map(ToString::to_string).collect()
}
