//! The status as text.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use anstyle::{AnsiColor, Style};

use crate::{
    console::{Colours, wrap},
    control::protocol::{Chain, Counter, Earlier, Interface, LeftOut, Owned, Status, Steering},
    model::reasons::Rule,
};

/// How many interfaces are shown of each kind.
const INTERFACES: usize = 64;

/// How many names of interfaces with the same reason are shown.
const NAMES: usize = 6;

/// How many addresses of one interface are shown.
pub(super) const ADDRESSES: usize = 32;

/// How many flows that had to be redirected are shown.
const FLOWS: usize = 5;

/// How much of what is not steered is shown.
const LEFT_OUT: usize = 8;

/// How many sources of one interface's rules are shown.
const SOURCES: usize = 4;

pub(super) const NAME: Style = Style::new().bold();
pub(super) const BAD: Style = AnsiColor::Red.on_default();

/// Lines of at most 80 columns, some hundred however many interfaces there are.
pub(super) fn text(status: &Status, colours: Colours) -> String {
    let mut text = head(status, colours);
    let (shown, others) = most_telling(&status.interfaces);
    for interface in shown {
        text.push('\n');
        text += &of_interface(interface, colours);
    }
    if !others.is_empty() {
        let is_up = |interface: &&&Interface| interface.up && interface.hook.is_some();
        let up = others.iter().filter(is_up).count();
        text.push('\n');
        text += &wrap(
            &format!(
                "and {} more interfaces, {up} of them up and with the programs (-o json shows all)",
                others.len()
            ),
            "",
            "  ",
        );
    }
    if !status.host_wide.is_empty() {
        let _ = write!(text, "\n{} owns\n", colours.paint(NAME, "every interface"));
        text += &owned(&status.host_wide);
    }
    if !status.left_out.is_empty() {
        let _ = write!(text, "\n{}\n", colours.paint(NAME, "left out"));
        text += &left_out(&status.left_out);
    }
    for former in status.former.iter().take(INTERFACES) {
        let name = colours.paint(NAME, &former.name);
        let _ = write!(text, "\n{name} ({}) is not enforced any more\n", former.ifindex);
        text += &counters(&former.counters);
    }
    if let Some(more @ 1..) = status.former.len().checked_sub(INTERFACES) {
        let _ = writeln!(text, "\nand {more} more that are not enforced any more (-o json shows all)");
    }
    let Earlier { interfaces: earlier @ 1.., counters } = &status.earlier else { return text };
    let packets: u64 = counters.iter().map(|counter| counter.packets).sum();
    text.push('\n');
    text += &wrap(
        &format!(
            "and {earlier} that are gone for longer, with {packets} packets in all (-o json shows which)"
        ),
        "",
        "  ",
    );
    text
}

/// The interfaces that are shown, by ifindex, and the others: those where something is wrong or was counted come first.
fn most_telling(interfaces: &[Interface]) -> (Vec<&Interface>, Vec<&Interface>) {
    let mut shown: Vec<&Interface> = interfaces.iter().collect();
    if shown.len() <= INTERFACES {
        return (shown, Vec::new());
    }
    let is_behind = |interface: &Interface| !ways_behind(interface).is_empty();
    shown.sort_by_key(|each| (each.hook.is_some(), !is_behind(each), each.counters.is_empty(), each.up));
    let others = shown.split_off(INTERFACES);
    shown.sort_by_key(|interface| interface.ifindex);
    (shown, others)
}

/// The ways on which others come first.
fn ways_behind(interface: &Interface) -> Vec<&'static str> {
    let chains = [("egress", interface.egress_chain), ("ingress", interface.ingress_chain)];
    let behind = chains.into_iter().filter(|(_, chain)| chain.is_some_and(|chain| chain.place > 1));
    behind.map(|(way, _)| way).collect()
}

/// Each with its reason; where there are many, those with the same one together.
fn left_out(all: &[LeftOut]) -> String {
    let say = |names: &str, why: &str| wrap(&format!("{names}: {why}"), "  ", "    ");
    if all.len() <= INTERFACES {
        return all.iter().map(|each| say(&each.name, &each.why)).collect();
    }
    let mut by_reason: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for LeftOut { name, why, .. } in all {
        let why = why.replace(&format!("--interface {name} takes it"), "--interface NAME takes it");
        by_reason.entry(why).or_default().push(name);
    }
    let mut text: String =
        by_reason.iter().take(INTERFACES).map(|(why, names)| say(&some(names), why)).collect();
    if let Some(more @ 1..) = by_reason.len().checked_sub(INTERFACES) {
        let _ = writeln!(text, "  for {more} other reasons more (-o json shows all)");
    }
    text
}

/// The first of many names.
fn some(names: &[&str]) -> String {
    let mut said = names.iter().take(NAMES).copied().collect::<Vec<_>>().join(", ");
    if let Some(more @ 1..) = names.len().checked_sub(NAMES) {
        let _ = write!(said, " and {more} more");
    }
    said
}

fn head(status: &Status, colours: Colours) -> String {
    let title = colours.paint(NAME, &format!("mhebpf {}", status.version));
    let mut text = format!("{title}, process {}, running for {}\n", status.pid, seconds(status.uptime));
    let mut line = |sentence: &str| text += &wrap(sentence, "  ", "    ");
    line(&format!("{}; interfaces: {}", status.intent, status.selected_by));
    if status.observing {
        line("nothing is changed: what is counted would be done");
    }
    if let Some(directory) = &status.pinned {
        line(&format!("outlives this process: pinned in {directory}"));
    }
    let again = &status.resynchronisations;
    let ago = status.in_step.map_or_else(|| "not yet".to_owned(), |ago| format!("{} ago", seconds(ago)));
    line(&format!(
        "in step with the host: {ago}; {} synchronisations, {} failed",
        status.synchronisations + again.failures,
        again.failures
    ));
    line(&format!("lost events: {}, interrupted dumps: {}", again.lost_events, again.interrupted_dumps));
    line(&format!("{} local addresses, {} next hops", status.addresses, status.next_hops));
    if let Some(routes) = &status.routes {
        let doubt = if routes.in_doubt { ", and are compared again soon" } else { "" };
        line(&format!(
            "{} routes are followed by their events; all were compared {} ago{doubt}",
            routes.followed,
            seconds(routes.compared)
        ));
    }
    status.no_room.iter().take(LEFT_OUT).for_each(|each| line(&colours.paint(BAD, &each.why)));
    if let Some(more @ 1..) = status.no_room.len().checked_sub(LEFT_OUT) {
        line(&format!("and for {more} interfaces more (-o json shows all)"));
    }
    if let Some(lost) = lost(status.counts_lost, colours) {
        line(&lost);
    }
    if let Some(steering) = &status.steering {
        let Steering { rules, priority, protocol, tables, routes, redirected, .. } = steering;
        line(&format!(
            "steering by {rules} rules of priority {priority} and {routes} routes in {tables} tables, protocol {protocol}"
        ));
        line(&format!("redirected all the same: {redirected} packets"));
        steering.flows.iter().take(FLOWS).for_each(|flow| line(&format!("  {flow}")));
        steering
            .left_out
            .iter()
            .take(LEFT_OUT)
            .for_each(|left_out| line(&format!("not steered: {left_out}")));
        if let Some(more @ 1..) = steering.left_out.len().checked_sub(LEFT_OUT) {
            line(&format!("and {more} more (-o json shows all)"));
        }
    }
    text
}

/// What is said of packets that could not be counted.
pub(super) fn lost(packets: u64, colours: Colours) -> Option<String> {
    let not = colours.paint(BAD, "not counted");
    (packets > 0).then(|| format!("{not}: {packets} packets, as the table of counters had no room"))
}

fn of_interface(interface: &Interface, colours: Colours) -> String {
    let Interface { name, ifindex, mtu, policy, .. } = interface;
    let up = if interface.up { "up".to_owned() } else { colours.paint(BAD, "down or without carrier") };
    let vrf = interface.vrf.as_ref().map_or_else(String::new, |vrf| format!(", VRF {vrf}"));
    let mut text = format!("{} ({ifindex}): {up}, mtu {mtu}{vrf}\n", colours.paint(NAME, name));
    let mut line = |sentence: &str| text += &wrap(sentence, "  ", "    ");
    let place = |way: &str, chain: Option<Chain>| {
        chain.map_or_else(String::new, |chain| format!(", {} of {} on {way}", chain.place, chain.programs))
    };
    line(&match &interface.hook {
        None => "the programs are not attached".to_owned(),
        Some(hook) => format!(
            "attached by {hook}{}{}",
            place("egress", interface.egress_chain),
            place("ingress", interface.ingress_chain)
        ),
    });
    let behind = ways_behind(interface);
    if !behind.is_empty() {
        let warning = colours.paint(BAD, "others come first");
        line(&format!("{warning} on {}: packets whose way those end are not judged", behind.join(" and ")));
    }
    line(&policy.to_string());
    if let Some(steering) = &interface.steering {
        let sources = match steering.sources.as_slice() {
            [] => "no source".to_owned(),
            several if several.len() > SOURCES => format!("{} rules", several.len()),
            several => several.join(", "),
        };
        line(&format!("table {} with {} routes, for {sources}", steering.table, steering.routes));
    }
    if interface.owned.is_empty() {
        line("owns no address of its own");
    }
    text += &owned(&interface.owned);
    text + &counters(&interface.counters)
}

fn owned(owned: &[Owned]) -> String {
    let mut text = String::new();
    for Owned { address, rule, through } in owned.iter().take(ADDRESSES) {
        let why = match rule {
            Rule::Configured => "configured".to_owned(),
            Rule::Below => format!("of {through}, stacked on it"),
            Rule::HostWide => format!("host-wide, through {through}"),
            Rule::LocalRoute => "local route".to_owned(),
            Rule::Allowed => "allowed".to_owned(),
            Rule::Owned => "by the configuration".to_owned(),
        };
        text += &wrap(&format!("{address:<43} {why}"), "  ", "      ");
    }
    if let Some(more @ 1..) = owned.len().checked_sub(ADDRESSES) {
        let _ = writeln!(text, "  and {more} more (-o json shows all)");
    }
    text
}

pub(super) fn counters(counters: &[Counter]) -> String {
    let mut text = String::new();
    for Counter { direction, family, reason, observed, packets, rate } in counters {
        let rate = rate.map_or_else(String::new, |rate| format!(" {rate:>10.1}/s"));
        let would = if *observed { "  (would be)" } else { "" };
        let _ = writeln!(text, "  {direction:<8} {family:<5} {reason:<18} {packets:>12}{rate}{would}");
    }
    text
}

pub(super) fn seconds(seconds: f64) -> String {
    let whole = Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs();
    humantime::format_duration(Duration::from_secs(whole)).to_string()
}

#[cfg(test)]
mod tests;
