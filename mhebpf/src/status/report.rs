//! The status as text.

use std::{fmt::Write as _, time::Duration};

use anstyle::{AnsiColor, Style};

use crate::{
    console::{Colours, wrap},
    control::protocol::{Chain, Counter, Interface, Owned, Status, Steering},
    model::reasons::Rule,
};

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

/// Lines of at most 80 columns.
pub(super) fn text(status: &Status, colours: Colours) -> String {
    let mut text = head(status, colours);
    for interface in &status.interfaces {
        text.push('\n');
        text += &of_interface(interface, colours);
    }
    if !status.host_wide.is_empty() {
        let _ = write!(text, "\n{} owns\n", colours.paint(NAME, "every interface"));
        text += &owned(&status.host_wide);
    }
    if !status.left_out.is_empty() {
        let _ = write!(text, "\n{}\n", colours.paint(NAME, "left out"));
        for left_out in &status.left_out {
            text += &wrap(&format!("{}: {}", left_out.name, left_out.why), "  ", "    ");
        }
    }
    for former in &status.former {
        let name = colours.paint(NAME, &former.name);
        let _ = write!(text, "\n{name} ({}) is not enforced any more\n", former.ifindex);
        text += &counters(&former.counters);
    }
    text
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
