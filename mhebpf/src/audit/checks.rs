//! From a snapshot to findings: pure functions, one for each kind of thing that can be found.

mod arp;
mod policy_routing;
mod reach;
mod sockets;
mod source_rules;
mod surroundings;
#[cfg(test)]
mod tests;
mod translation;
mod unnumbered;
mod ways;

use std::collections::BTreeSet;

use super::{
    finding::{Finding, Kind, Object},
    snapshot::{Snapshot, View},
};
use crate::model::Address;

/// All findings, in the order of their severity, then of [`super::finding::Id::ALL`], then of what they are about.
pub fn findings(snapshot: &Snapshot) -> Vec<Finding> {
    let view = View::new(snapshot);
    let subnets = ways::shared_subnets(&view);
    let mut findings = Vec::new();
    findings.extend(ways::first_route_wins(&view));
    findings.extend(ways::without_carrier(&view));
    findings.extend(ways::gateways(&view));
    findings.extend(ways::shared(&view, &subnets));
    findings.extend(arp::wrong_mac(&view, &subnets));
    findings.extend(arp::wrong_sender(&view));
    findings.extend(arp::unanswered(&view));
    findings.extend(reach::weak_receive(&view));
    findings.extend(reach::strict_reverse_path(&view));
    findings.extend(reach::unreachable(&view));
    findings.extend(sockets::leave_elsewhere(&view));
    findings.extend(sockets::without_next_hop(&view));
    findings.extend(translation::answers(&view));
    findings.extend(translation::output(&view));
    findings.extend(unnumbered::borrowed(&view));
    findings.extend(surroundings::multipath(&view));
    findings.extend(surroundings::mtu(&view, &subnets));
    findings.extend(policy_routing::rules(&view));
    findings.extend(policy_routing::networkd(&view));
    findings.extend(surroundings::linkdown(&view, &subnets));
    findings.extend(surroundings::localnet(&view));
    findings.extend(surroundings::behind(&view));
    findings.extend(surroundings::left_in_force(&view));
    findings.extend(surroundings::programs(&view));
    findings.extend(surroundings::daemon(&view));
    if snapshot.interfaces != snapshot.company {
        let focus = Focus::new(&view);
        findings.retain(|finding| focus.holds(finding));
    }
    // Stable: what each check gives is in the order of addresses and indices.
    findings.sort_by_key(|finding| (finding.severity, finding.id));
    findings
}

/// The interfaces that are looked at, and their addresses, by their names.
struct Focus(BTreeSet<String>);

impl Focus {
    fn new(view: &View<'_>) -> Self {
        let interfaces = &view.snapshot.interfaces;
        let owned_here = |address: &&Address| {
            let owners = view.owners(view.domain_of(address.ifindex), address.local);
            owners.iter().any(|owner| interfaces.contains(owner))
        };
        let addresses = view.judged_addresses().filter(owned_here).map(|address| address.local.to_string());
        Self(interfaces.iter().map(|ifindex| view.name(*ifindex)).chain(addresses).collect())
    }

    /// Whether a finding is about one of them, or about no interface in particular.
    fn holds(&self, finding: &Finding) -> bool {
        let is_particular = |object: &&Object| matches!(object.kind, Kind::Interface | Kind::Address);
        let mut particular = finding.objects.iter().filter(is_particular).peekable();
        particular.peek().is_none() || particular.any(|object| self.0.contains(&object.name))
    }
}

/// How many things a sentence names before it says how many more there are.
const NAMED: usize = 6;

/// A list for a sentence.
pub(super) fn list<T: ToString>(items: &[T]) -> String {
    let mut named: Vec<String> = items.iter().take(NAMED).map(ToString::to_string).collect();
    if items.len() > NAMED {
        named.push(format!("and {} more", items.len() - NAMED));
    }
    named.join(", ")
}

/// "1 address", "2 addresses".
fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

fn objects<T: ToString>(kind: Kind, items: impl IntoIterator<Item = T>) -> Vec<Object> {
    items.into_iter().map(|item| Object::new(kind, item.to_string())).collect()
}
