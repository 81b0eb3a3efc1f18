//! Lines about packets, and the summary at the end.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anstyle::{AnsiColor, Style};
use anyhow::Result;
use serde::Serialize;

use super::{packet::Packet, process::Process};
use crate::{
    console::Colours,
    control::protocol::{Act, Seen},
};

const DIM: Style = Style::new().dimmed();
const DROPPED: Style = AnsiColor::Red.on_default();
const CHANGED: Style = AnsiColor::Yellow.on_default();

/// A packet as one line of JSON.
#[derive(Debug, Serialize)]
struct Line<'a> {
    schema: u32,
    /// RFC 3339, in UTC.
    time: String,
    interface: &'a str,
    direction: &'a str,
    family: &'a str,
    reason: &'a str,
    act: Act,
    observed: bool,
    redirected_to: Option<&'a str>,
    judged: Option<IpAddr>,
    owners: &'a [String],
    forwarded: bool,
    original_destination: Option<SocketAddr>,
    length: u32,
    packet: Packet,
    process: Option<Process>,
}

/// How many are not shown, as one line of JSON.
#[derive(Debug, Serialize)]
struct SuppressedLine {
    schema: u32,
    suppressed: u64,
}

/// The version of the lines: raised when a field is removed or changes its meaning.
const SCHEMA: u32 = 1;

/// One line of text.
pub(super) fn text(seen: &Seen, packet: &Packet, process: Option<&Process>, colours: Colours) -> String {
    let way = if seen.direction == "egress" { "out" } else { "in" };
    let (style, done) = done(seen);
    let done = if seen.observed { format!("would be {done}") } else { done };
    let owners = match seen.owners.as_slice() {
        [] => String::new(),
        owners => format!(", {} is of {}", judged(seen), owners.join(" or ")),
    };
    let way = if seen.forwarded { "fwd" } else { way };
    let by = process.map_or_else(String::new, |process| format!(" by {} ({})", process.name, process.pid));
    format!(
        "{} {:<3} {} {}{}: {} ({}{owners}){by}\n",
        colours.paint(DIM, &time(seen.time)),
        way,
        seen.interface,
        packet,
        translated(seen),
        colours.paint(style, &done),
        seen.reason,
    )
}

fn done(seen: &Seen) -> (Style, String) {
    match (seen.act, &seen.redirected_to) {
        _ if seen.reason == "too_big" => (CHANGED, "sender told of the smaller MTU".to_owned()),
        (Act::Redirect, Some(owner)) => (CHANGED, format!("redirected to {owner}")),
        (Act::Redirect, None) => (CHANGED, "redirected".to_owned()),
        (Act::Rewrite, _) => (CHANGED, "sender rewritten".to_owned()),
        (Act::Drop, _) => (DROPPED, "dropped".to_owned()),
    }
}

/// What a packet has in common with others of its flow, and what becomes of them. Of two ports the lower one is told:
/// the other one is made up for each connection.
pub(crate) fn flow(seen: &Seen) -> String {
    let Seen { interface, direction, reason, .. } = seen;
    let (_, done) = done(seen);
    let forwarded = if seen.forwarded { ", forwarded" } else { "" };
    let (packet, translated) = (Packet::of(seen).flow(), translated(seen));
    format!("{interface} {direction}{forwarded} {packet}{translated}: {done} ({reason})")
}

/// Of a connection of this host whose destination it has translated itself: where it went first.
fn translated(seen: &Seen) -> String {
    seen.original_destination.map_or_else(String::new, |first| format!(", translated from {first}"))
}

fn judged(seen: &Seen) -> String {
    seen.judged.map_or_else(|| "it".to_owned(), |address| address.to_string())
}

/// One line of JSON.
pub(super) fn json(seen: &Seen, packet: Packet, process: Option<Process>) -> Result<String> {
    let line = Line {
        schema: SCHEMA,
        time: time(seen.time),
        interface: &seen.interface,
        direction: &seen.direction,
        family: &seen.family,
        reason: &seen.reason,
        act: seen.act,
        observed: seen.observed,
        redirected_to: seen.redirected_to.as_deref(),
        judged: seen.judged,
        owners: &seen.owners,
        forwarded: seen.forwarded,
        original_destination: seen.original_destination,
        length: seen.length,
        packet,
        process,
    };
    Ok(serde_json::to_string(&line)? + "\n")
}

/// That packets are not shown.
pub(super) fn suppressed_text(packets: u64) -> String {
    format!("{packets} packets are not shown so far: there are too many\n")
}

/// The same as JSON.
pub(super) fn suppressed_json(suppressed: u64) -> Result<String> {
    Ok(serde_json::to_string(&SuppressedLine { schema: SCHEMA, suppressed })? + "\n")
}

/// In UTC, with milliseconds (RFC 3339).
fn time(microseconds: u64) -> String {
    // What humantime refuses, the year 10000, is no time that a daemon sends.
    let bounded = microseconds.min(253_402_300_799_000_000);
    let time: SystemTime = UNIX_EPOCH + Duration::from_micros(bounded);
    humantime::format_rfc3339_millis(time).to_string()
}

/// How many packets were shown, by reason.
#[derive(Debug, Default)]
pub(super) struct Tally {
    by_reason: BTreeMap<(String, bool), u64>,
    /// How many were not.
    pub(super) suppressed: u64,
}

impl Tally {
    pub(super) fn count(&mut self, seen: &Seen) {
        *self.by_reason.entry((seen.reason.clone(), seen.observed)).or_default() += 1;
    }

    /// One line for each reason.
    pub(super) fn text(&self) -> String {
        if self.by_reason.is_empty() && self.suppressed == 0 {
            return "nothing was seen that did not simply pass\n".to_owned();
        }
        let mut text = String::new();
        for ((reason, observed), packets) in &self.by_reason {
            let would = if *observed { "  (would be)" } else { "" };
            let _ = writeln!(text, "{reason:<18} {packets:>12}{would}");
        }
        if self.suppressed > 0 {
            let _ = writeln!(text, "{:<18} {:>12}", "not shown", self.suppressed);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::to_hex;

    fn seen() -> Seen {
        let mut bytes = Vec::new();
        let builder = etherparse::PacketBuilder::ipv4([192, 168, 0, 101], [192, 168, 0, 1], 64).udp(5000, 53);
        builder.write(&mut bytes, b"?").expect("a packet");
        let [interface, direction, family, reason] =
            ["eth0", "egress", "ipv4", "redirected"].map(str::to_owned);
        Seen {
            time: 1_795_650_000_123_456,
            interface,
            direction,
            family,
            reason,
            act: Act::Redirect,
            observed: false,
            redirected_to: Some("eth1".to_owned()),
            judged: Some([192, 168, 0, 101].into()),
            owners: vec!["eth1".to_owned()],
            socket: 7,
            forwarded: false,
            original_destination: None,
            length: 29,
            bytes: to_hex(&bytes),
        }
    }

    #[test]
    fn lines_of_text_look_like_this() {
        let arp = Seen {
            direction: "ingress".to_owned(),
            family: "arp".to_owned(),
            reason: "arp_target".to_owned(),
            act: Act::Drop,
            redirected_to: None,
            bytes: "0001080006040001020000000001c0a80001000000000000c0a80065".to_owned(),
            ..seen()
        };
        let garbage =
            Seen { bytes: "zz".to_owned(), judged: None, owners: Vec::new(), time: u64::MAX, ..seen() };
        let observed = Seen { observed: true, ..seen() };
        let lines: String = [seen(), observed, arp, garbage]
            .iter()
            .map(|seen| text(seen, &Packet::of(seen), None, Colours::Off))
            .collect();
        insta::assert_snapshot!("lines", lines);
    }

    #[test]
    fn lines_of_json_look_like_this_and_processes_are_named() {
        let process = Some(Process { pid: 4321, name: "named".to_owned() });
        let line = json(&seen(), Packet::of(&seen()), process.clone()).unwrap_or_default();
        insta::assert_snapshot!("json", line);
        let line = text(&seen(), &Packet::of(&seen()), process.as_ref(), Colours::Off);
        assert!(line.ends_with(" by named (4321)\n"), "{line}");
    }

    #[test]
    fn the_summary_counts_by_reason() {
        let mut tally = Tally::default();
        assert_eq!(tally.text(), "nothing was seen that did not simply pass\n");
        for observed in [false, false, true] {
            tally.count(&Seen { observed, ..seen() });
        }
        tally.suppressed = 9;
        insta::assert_snapshot!("summary", tally.text());
    }
}
