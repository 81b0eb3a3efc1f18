//! Rules of others that look at the source: which interfaces would lose a gateway without them.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::{
    list, objects,
    policy_routing::{Place, texts},
};
use crate::{
    audit::{
        finding::{Finding, Id, Kind, Severity},
        snapshot::{Rule, View},
        sysctls::Sysctl,
    },
    model::{
        Host,
        host::{MAIN_DOMAIN, MAIN_TABLE},
        next_hops::{self, NextHop},
        steering::PRIORITY,
    },
};

/// The metric of a route that is there for mhebpf to know its gateway: less preferred than what people and DHCP clients make.
const METRIC: u32 = 4096;

/// More routes than these are not worth a list of commands.
const MOST_COMMANDS: usize = 4;

/// A next hop that an interface has only by a table that such a rule leads to.
struct ByRuleOnly {
    ifindex: u32,
    prefix: IpNet,
    next_hop: NextHop,
    /// It has none at all without.
    is_lost: bool,
}

/// Source rules: they and mhebpf go together.
pub(super) fn found(view: &View<'_>, rules: &[&Rule]) -> Finding {
    let said = texts(rules);
    let by_rule_only = by_rule_only(view);
    let interfaces: BTreeSet<u32> = by_rule_only.iter().map(|each| each.ifindex).collect();
    let names = interfaces.iter().map(|ifindex| view.name(*ifindex));
    let gateways: Vec<String> = by_rule_only.iter().map(|each| each.say(view)).collect();
    let aside = if gateways.is_empty() {
        String::new()
    } else {
        format!(" Only their tables know how {}; mhebpf takes it from there.", list(&gateways))
    };
    Finding {
        id: Id::SourceRules,
        severity: Severity::Note,
        objects: [objects(Kind::Rule, &said), objects(Kind::Interface, names)].concat(),
        summary: "rules of policy routing steer by source already".to_owned(),
        consequence: format!(
            "{}. Where the kernel chooses the owner by itself there is nothing to redirect, and mhebpf is the guarantee \
             that nothing else leaves.{aside} With --steer rules, whose rules have the priority {PRIORITY}, {}.",
            list(&said),
            meeting(rules)
        ),
        remedy: remedy(view, rules, &by_rule_only),
    }
}

fn meeting(rules: &[&Rule]) -> &'static str {
    match (
        rules.iter().any(|rule| Place::of(rule) == Place::Before),
        rules.iter().any(|rule| Place::of(rule) == Place::After),
    ) {
        (true, false) => "these are asked first, and decide",
        (false, _) => {
            "these are asked after them, and decide no more for an address of an interface that mhebpf steers"
        }
        (true, true) => {
            "those with a lower number are asked first, and decide; the others decide no more for an address of an interface \
             that mhebpf steers"
        }
    }
}

fn by_rule_only(view: &View<'_>) -> Vec<ByRuleOnly> {
    let host = &view.snapshot.host;
    let owners = &view.snapshot.company | &view.snapshot.interfaces;
    let with = next_hops::of_owners(host, &owners);
    let without = next_hops::of_owners(&Host { rules: Vec::new(), ..host.clone() }, &owners);
    let mut found: Vec<ByRuleOnly> = with
        .into_iter()
        .filter(|(key, next_hop)| without.get(key) != Some(next_hop))
        .filter_map(|((ifindex, prefix), hops)| {
            let (next_hop, _) = *hops.first()?;
            let is_lost = !without.contains_key(&(ifindex, prefix));
            Some(ByRuleOnly { ifindex, prefix, next_hop, is_lost })
        })
        .collect();
    found.sort_by_key(|each| (each.ifindex, each.prefix));
    found
}

/// What is right to do: to keep them, unless all that they lead to is known without them as well.
fn remedy(view: &View<'_>, rules: &[&Rule], by_rule_only: &[ByRuleOnly]) -> String {
    if by_rule_only.is_empty() {
        return if rules.iter().all(|rule| is_dispensable(view, rule)) {
            "None is needed: keep them. They may be removed once mhebpf enforces, since the main table has all the \
             next hops that theirs have."
                .to_owned()
        } else {
            "None is needed: keep them.".to_owned()
        };
    }
    let names: BTreeSet<String> = by_rule_only.iter().map(|each| view.name(each.ifindex)).collect();
    let names: Vec<String> = names.into_iter().collect();
    let keep = format!("Keep them: without them {} would lose what only their tables know.", list(&names));
    let commands: Option<Vec<String>> = by_rule_only.iter().map(|each| each.command(view)).collect();
    match commands {
        Some(commands) if commands.len() <= MOST_COMMANDS => {
            format!(
                "{keep} To do without them, first say it in the main table, less preferred than the route that there is: {}",
                commands.join("; ")
            )
        }
        _ => keep,
    }
}

impl ByRuleOnly {
    fn say(&self, view: &View<'_>) -> String {
        let (name, prefix) = (view.name(self.ifindex), self.prefix);
        match self.next_hop {
            NextHop::Gateway(gateway) => format!("{name} reaches {prefix} through {gateway}"),
            NextHop::OnLink => format!("{name} reaches {prefix}, on its own link"),
        }
    }

    /// What makes it known in the main table, and moves no packet that has no source yet: where the main table has a route for the
    /// same destinations already, which is preferred, and none through this interface. `None` where there is no such command.
    fn command(&self, view: &View<'_>) -> Option<String> {
        let host = &view.snapshot.host;
        let is_in_main = view.domain_of(self.ifindex) == MAIN_DOMAIN;
        let is_preferred = host.routes.iter().any(|route| {
            route.table == MAIN_TABLE && route.destination == self.prefix && route.metric < METRIC
        });
        if !(self.is_lost && is_in_main && is_preferred) {
            return None;
        }
        let NextHop::Gateway(gateway) = self.next_hop else { return None };
        let (name, prefix) = (view.name(self.ifindex), self.prefix);
        let flag = if prefix.addr().is_ipv6() { "-6 " } else { "" };
        let to = if prefix.prefix_len() == 0 { "default".to_owned() } else { prefix.to_string() };
        let via = if prefix.addr().is_ipv4() == gateway.is_ipv4() { "via" } else { "via inet6" };
        let on_link = host
            .addresses
            .iter()
            .any(|address| address.ifindex == self.ifindex && address.subnet.contains(&gateway));
        let onlink = if on_link { "" } else { " onlink" };
        Some(format!("ip {flag}route add {to} {via} {gateway} dev {name} metric {METRIC}{onlink}"))
    }
}

/// Whether mhebpf does the same without a rule: it is for one address of an interface that is looked at, its table leads nowhere
/// else, and nothing but the programs has to know that.
fn is_dispensable(view: &View<'_>, rule: &Rule) -> bool {
    let snapshot = view.snapshot;
    let Some(source) = rule.source.filter(|_| rule.is_for_sources_only() && rule.action.is_none()) else {
        return false;
    };
    if source.prefix_len() < source.max_prefix_len() {
        return false;
    }
    let [owner] = view.owners(MAIN_DOMAIN, source.addr()) else { return false };
    // Both look the way back up by these rules, and are content with it.
    let is_asked_by_the_kernel = snapshot.sysctls.effective(*owner, Sysctl::ArpFilter) != 0
        || snapshot.sysctls.effective(*owner, Sysctl::RpFilter) == 1;
    let mut hops = snapshot.host.routes.iter().filter(|route| route.table == rule.table).peekable();
    let has_routes = hops.peek().is_some();
    let leads_to_owner = hops.flat_map(|route| &route.hops).all(|hop| hop.ifindex == *owner);
    snapshot.interfaces.contains(owner) && !is_asked_by_the_kernel && has_routes && leads_to_owner
}
