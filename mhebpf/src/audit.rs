//! `mhebpf audit`: whether a host is a weak end system, and where that hurts.
//!
//! [`read`] takes a [`snapshot`] of the host, [`checks`] find what there is to find in it, and [`report`] and
//! [`document`] say it. Only the first asks the kernel, and nothing is changed.

pub mod checks;
pub mod document;
pub mod finding;
pub mod nftables;
pub mod published;
pub mod read;
pub mod report;
pub mod roles;
pub mod rule;
pub mod snapshot;
pub mod sysctls;

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use glob::Pattern;

use self::finding::Severity;
use crate::{
    cli::{AuditOptions, Format},
    console::{self, Colours},
    control::client,
    model::{Host, Selector},
    settings::Settings,
    usage::UsageError,
};

/// How an audit ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There is nothing but notes.
    Clean,
    /// There are errors or warnings.
    Findings,
}

/// Looks at the host of this network namespace, and prints what it finds.
///
/// # Errors
///
/// When links, addresses or routes can't be read; [`UsageError`] when the patterns match no interface, or the configuration
/// file can't be understood.
pub async fn run(options: &AuditOptions) -> Result<Outcome> {
    let host = read::host()?;
    let (settings, _) =
        Settings::load(&options.as_for_run()).map_err(|error| UsageError::new(format!("{error:#}")))?;
    let selector = if options.interfaces.is_empty() {
        Selector::Uplinks { downlinks: settings.binds_downlinks() }
    } else {
        Selector::Matching(options.interfaces.clone())
    };
    check_selection(&host, &selector, &options.interfaces)?;
    let mut snapshot = read::complete(host, &selector, &settings)?;
    // Who only has its name is none.
    snapshot.daemon = client::find().await;
    let findings = checks::findings(&snapshot);
    let outcome = if findings.iter().any(|finding| finding.severity < Severity::Note) {
        Outcome::Findings
    } else {
        Outcome::Clean
    };
    let nft = options.nft.then(|| nftables::rules(&snapshot));
    let command = command(&snapshot.host, &snapshot.interfaces, &options.interfaces);
    let document = document::Document::new(&snapshot, findings, command, nft);
    let colours = Colours::of_stdout();
    let text = match options.output {
        Format::Text => colours.printable(&report::text(&document, colours)),
        Format::Json => document.to_json()?,
    };
    console::print(&text).context("printing what was found")?;
    Ok(outcome)
}

/// A pattern that matches nothing is most likely a mistake.
///
/// # Errors
///
/// When it is one, with the names that there are.
pub(crate) fn check_selection(
    host: &Host,
    selector: &Selector,
    patterns: &[Pattern],
) -> Result<(), UsageError> {
    let selection = selector.select(host);
    if patterns.is_empty() || !selection.enforced.is_empty() {
        return Ok(());
    }
    let patterns = selector.describe();
    if let Some((ifindex, reason)) = selection.left_out.first_key_value() {
        let name = host.name_of(*ifindex);
        return Err(UsageError::new(format!(
            "--interface {patterns} matches nothing that mhebpf could enforce on: {name} is left out, {reason}"
        )));
    }
    let names: Vec<&str> = host.links.values().map(|link| link.name.as_str()).collect();
    Err(UsageError::new(format!(
        "--interface {patterns} matches no interface of this host; it has {}",
        names.join(", ")
    )))
}

/// The command that makes this host a strong end system; `None` where there are not two interfaces to be told apart.
fn command(host: &Host, interfaces: &BTreeSet<u32>, patterns: &[Pattern]) -> Option<String> {
    let with_addresses: BTreeSet<u32> =
        host.addresses.iter().map(|address| address.ifindex).filter(|i| interfaces.contains(i)).collect();
    if with_addresses.len() < 2 && patterns.is_empty() {
        return None;
    }
    if patterns.is_empty() {
        return Some("mhebpf run --all".to_owned());
    }
    let flags: Vec<String> =
        patterns.iter().map(|pattern| format!("--interface {}", quoted(pattern.as_str()))).collect();
    Some(format!("mhebpf run {}", flags.join(" ")))
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:@".contains(c));
    if is_plain { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        LinkKind,
        testing::{address, host, link},
    };

    #[test]
    fn the_command_names_what_was_asked_for() {
        let host = host(
            [link(2, LinkKind::Wire), link(3, LinkKind::Wire)],
            [address(2, "10.0.0.1/24"), address(3, "10.0.0.2/24")],
        );
        let both = BTreeSet::from([2, 3]);
        assert_eq!(command(&host, &both, &[]).as_deref(), Some("mhebpf run --all"));
        assert_eq!(command(&host, &BTreeSet::from([2]), &[]), None);
        let patterns = ["eth*", "eno1"].map(|text| Pattern::new(text).expect("a pattern"));
        let expected = "mhebpf run --interface 'eth*' --interface eno1";
        assert_eq!(command(&host, &both, &patterns).as_deref(), Some(expected));
    }

    #[test]
    fn a_pattern_that_matches_nothing_is_answered_with_the_names_that_there_are() {
        let host = host([link(1, LinkKind::Loopback), link(2, LinkKind::Wire)], []);
        let error = |pattern: &str| {
            let patterns = vec![Pattern::new(pattern).expect("a pattern")];
            check_selection(&host, &Selector::Matching(patterns.clone()), &patterns)
                .map_err(|e| e.to_string())
        };
        assert_eq!(error("eth*").map_err(|_| ()), Ok(()));
        let message = error("ens*").expect_err("there is none");
        assert!(
            message.contains("'ens*' matches no interface") && message.contains("eth1, eth2"),
            "{message}"
        );
        let message = error("eth1").expect_err("loopback");
        assert!(message.contains("eth1 is left out, no packet leaves"), "{message}");
    }
}
