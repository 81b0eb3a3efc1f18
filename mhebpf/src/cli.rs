//! The command line.

use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use glob::Pattern;
use mhebpf_ebpf::{Announce, Receive, Send, Unknown};

use crate::{
    datapath::Hook,
    model::{Policy, Selector},
};

/// Makes a multihomed host a strong end system (RFC 1122 section 3.3.4.2).
#[derive(Debug, Parser)]
#[command(version, about, propagate_version = true)]
pub struct Cli {
    /// Says more; twice, all.
    #[arg(short, long, action = ArgAction::Count, global = true)]
    pub verbose: u8,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Enforces until it is stopped by SIGINT or SIGTERM.
    Run(RunOptions),
}

const EXAMPLES: &str = "\
Examples:
  Try it over ssh without fear: it counts what it would do, and stops by itself
    mhebpf run --all --mode observe --for 60s
  Hold every uplink to its own addresses
    mhebpf run --all
  Only these interfaces, also those that appear later; drop instead of redirecting
    mhebpf run --interface 'eth*' --mode drop";

/// What `mhebpf run` enforces, and where.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RunOptions {
    /// Enforce on interfaces with a name like this; may be given several times
    #[arg(
        short,
        long = "interface",
        value_name = "GLOB",
        env = "MHEBPF_INTERFACE",
        value_delimiter = ',',
        value_parser = Pattern::new,
        conflicts_with = "all"
    )]
    pub interfaces: Vec<Pattern>,

    /// Enforce on every uplink: Ethernet devices, but no loopback, dummy, bridge or bond port, nor
    /// container's veth
    #[arg(long, env = "MHEBPF_ALL")]
    pub all: bool,

    /// What happens to a packet whose source address belongs to another interface
    #[arg(long, env = "MHEBPF_MODE", default_value = "redirect")]
    pub mode: Mode,

    /// What happens to a datagram that arrives for an address of another interface
    #[arg(long, env = "MHEBPF_RECEIVE", default_value = "drop")]
    pub receive: ReceivePolicy,

    /// What happens to a packet of local origin whose source is not an address of this host
    #[arg(long, env = "MHEBPF_UNKNOWN", default_value = "pass")]
    pub unknown: UnknownPolicy,

    /// Do not announce the addresses by gratuitous ARP (peers then keep wrong entries until they expire)
    #[arg(long, env = "MHEBPF_NO_ANNOUNCE")]
    pub no_announce: bool,

    /// Stop by itself after this time, such as 90s, 10m, 2h
    #[arg(long = "for", value_name = "DURATION", env = "MHEBPF_FOR", value_parser = parse_duration)]
    pub run_for: Option<Duration>,

    /// How the programs are attached
    #[arg(long, env = "MHEBPF_HOOK", default_value = "auto")]
    pub hook: Hook,
}

/// What happens to a packet whose source address belongs to another interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// It leaves through that interface
    Redirect,
    /// It is dropped
    Drop,
    /// It is counted; nothing is changed at all, ARP included
    Observe,
}

/// What happens to a datagram that arrives for an address of another interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReceivePolicy {
    /// It is silently discarded
    Drop,
    /// It is counted and delivered
    Observe,
    /// It is delivered
    Off,
}

/// What happens to a packet of local origin whose source is not an address of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum UnknownPolicy {
    /// It passes
    Pass,
    /// It is dropped
    Drop,
}

impl RunOptions {
    /// Which interfaces; `None` when the operator has not said.
    pub fn selector(&self) -> Option<Selector> {
        if self.all {
            Some(Selector::Uplinks)
        } else if self.interfaces.is_empty() {
            None
        } else {
            Some(Selector::Matching(self.interfaces.clone()))
        }
    }

    /// The policy in the words of the command line.
    pub fn intent(&self) -> String {
        let mode = name(&self.mode);
        let receive = name(&self.receive);
        let unknown = name(&self.unknown);
        format!("mode {mode}, receive {receive}, unknown {unknown}")
    }

    /// What is enforced on each of them.
    pub fn policy(&self) -> Policy {
        let observe = self.mode == Mode::Observe;
        Policy {
            send: match self.mode {
                Mode::Redirect => Send::Redirect,
                Mode::Drop => Send::Drop,
                Mode::Observe => Send::Observe,
            },
            receive: match self.receive {
                ReceivePolicy::Off => Receive::Off,
                // Observing changes nothing at all.
                ReceivePolicy::Drop if !observe => Receive::Drop,
                ReceivePolicy::Drop | ReceivePolicy::Observe => Receive::Observe,
            },
            announce: if observe { Announce::Observe } else { Announce::Enforce },
            unknown: match self.unknown {
                UnknownPolicy::Pass => Unknown::Pass,
                UnknownPolicy::Drop => Unknown::Drop,
            },
        }
    }
}

/// The name of a value as it is given on the command line.
fn name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err("the unit is s, m or h, as in 90s, 10m, 2h".to_owned()),
    };
    let number: u64 =
        digits.parse().map_err(|_| "expected a whole number and a unit, as in 90s".to_owned())?;
    match number.checked_mul(unit) {
        Some(0) => Err("that is no time at all".to_owned()),
        // A year, far below what a timer can hold.
        Some(seconds) if seconds <= 365 * 24 * 3600 => Ok(Duration::from_secs(seconds)),
        _ => Err("that is more than a year: leave it out to run until stopped".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(arguments: &[&str]) -> RunOptions {
        let cli = Cli::try_parse_from(["mhebpf", "run"].iter().chain(arguments)).expect("valid arguments");
        let Command::Run(options) = cli.command;
        options
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(parse_duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(parse_duration("2h"), Ok(Duration::from_secs(7200)));
        for wrong in ["", "s", "-1s", "1d", "0s", "1.5h", "99999999999999999999s", "9999999h"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn observing_changes_nothing_at_all() {
        let policy = options(&["--all", "--mode", "observe", "--receive", "drop"]).policy();
        assert_eq!(policy.send, Send::Observe);
        assert_eq!(policy.receive, Receive::Observe);
        assert_eq!(policy.announce, Announce::Observe);
    }

    #[test]
    fn without_a_selection_there_is_none() {
        assert!(options(&[]).selector().is_none());
        assert!(options(&["--interface", "eth*", "-i", "ens?"]).selector().is_some());
    }
}
