//! The command line.

mod audit;
mod documents;
mod explain;
mod format;
mod monitor;
mod routes;
mod status;
mod unload;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use glob::Pattern;
use serde::Deserialize;

pub use self::{
    audit::AuditOptions,
    documents::{completions, manual},
    explain::{ArpKind, ExplainOptions, NdpKind},
    format::Format,
    monitor::MonitorOptions,
    routes::{RoutesFormat, RoutesOptions},
    status::StatusOptions,
    unload::UnloadOptions,
};
use crate::{config::Source, datapath::Hook, pins::DEFAULT_DIRECTORY};

/// Makes a multihomed host a strong end system (RFC 1122 section 3.3.4.2).
#[derive(Debug, Parser)]
#[command(version, about, propagate_version = true)]
pub struct Cli {
    /// Says more; twice, all.
    #[arg(short, long, action = ArgAction::Count, env = "MHEBPF_VERBOSE", global = true)]
    pub verbose: u8,
    /// How the log on standard error is written [default: human]
    #[arg(long, value_name = "FORMAT", env = "MHEBPF_LOG_FORMAT", global = true, hide_short_help = true)]
    pub log_format: Option<LogFormat>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Enforces until it is stopped by SIGINT or SIGTERM.
    Run(RunOptions),
    /// Says whether this host is a weak end system, and where that hurts; changes nothing.
    Audit(AuditOptions),
    /// Says what becomes of a packet, and why.
    Explain(ExplainOptions),
    /// Says how the running daemon is, or what it has left in force: what each interface owns, and what was counted.
    Status(StatusOptions),
    /// Shows packets that do not simply pass, as it happens.
    Monitor(MonitorOptions),
    /// Says which rules and tables of policy routing would have the kernel choose the owner by itself.
    Routes(RoutesOptions),
    /// Takes off what `mhebpf run --pin`, or a daemon that was killed, has left in force, and removes its maps.
    Unload(UnloadOptions),
    /// Prints the manual page of mhebpf, or of one of its commands.
    #[command(hide = true)]
    Man {
        /// The command
        command: Option<String>,
    },
    /// Prints completions for a shell.
    #[command(hide = true)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line of text for each event
    Human,
    /// One JSON document for each event
    Json,
}

const EXAMPLES: &str = "\
Examples:
  Try it over ssh without fear: it counts what it would do, and stops by itself
    mhebpf run --all --mode observe --for 60s
  Hold every uplink to its own addresses
    mhebpf run --all
  Only these interfaces, also those that appear later; drop instead of redirecting
    mhebpf run --interface 'eth*' --mode drop
  Go on enforcing while mhebpf is upgraded and started again
    mhebpf run --all --pin
  As a file says, which is read again on SIGHUP
    mhebpf run --config /etc/mhebpf.toml";

/// The headings of `mhebpf run --help`.
const WHERE: &str = "Where";
const WHAT: &str = "What is enforced";
const HOW: &str = "How it runs";

/// What `mhebpf run` enforces, and where.
#[derive(Debug, Default, Args)]
#[command(after_help = EXAMPLES)]
pub struct RunOptions {
    /// Enforce on interfaces with a name like this; may be given several times
    #[arg(
        short,
        help_heading = WHERE,
        long = "interface",
        value_name = "GLOB",
        env = "MHEBPF_INTERFACE",
        value_delimiter = ',',
        value_parser = parse_pattern,
        conflicts_with = "all"
    )]
    pub interfaces: Vec<Pattern>,

    /// Enforce on every uplink: no loopback or dummy, tunnel without a default route, bridge or bond port, container's veth,
    /// nor downlink
    #[arg(long, env = "MHEBPF_ALL", help_heading = WHERE)]
    pub all: bool,

    /// Hold downlinks to their own addresses too: interfaces by which this host, as a router, is reached by networks that it
    /// forwards for
    #[arg(long, env = "MHEBPF_DOWNLINKS", help_heading = WHERE)]
    pub downlinks: bool,

    /// What happens to a packet whose source address belongs to another interface [default: redirect]
    #[arg(long, env = "MHEBPF_MODE", help_heading = WHAT)]
    pub mode: Option<Mode>,

    /// What happens to a datagram that arrives for an address of another interface [default: drop]
    #[arg(long, env = "MHEBPF_RECEIVE", help_heading = WHAT)]
    pub receive: Option<ReceivePolicy>,

    /// Whether ARP and NDP are held to the interface's own addresses [default: enforce]
    #[arg(long, env = "MHEBPF_ANNOUNCE", help_heading = WHAT)]
    pub announce: Option<AnnouncePolicy>,

    /// What happens to a packet of local origin whose source is not an address of this host [default: pass]
    #[arg(long, env = "MHEBPF_UNKNOWN", help_heading = WHAT)]
    pub unknown: Option<UnknownPolicy>,

    /// What happens to a packet that this host forwards with another interface's address as its source, as address
    /// translation makes them [default: enforce]
    #[arg(long, env = "MHEBPF_FORWARDED", help_heading = WHAT)]
    pub forwarded: Option<ForwardedPolicy>,

    /// Whether policy routing has the kernel choose the owner by itself, so that nothing needs to be redirected
    /// [default: none]
    #[arg(long, env = "MHEBPF_STEER", help_heading = WHAT)]
    pub steer: Option<Steer>,

    /// Do not announce the addresses by gratuitous ARP and unsolicited neighbour advertisements (peers then keep
    /// wrong entries until they expire)
    #[arg(long, env = "MHEBPF_NO_ANNOUNCE", help_heading = WHAT)]
    pub no_announce: bool,

    /// Stop by itself after this time, such as 90s, 10m, 2h. With --pin too, all is taken off at the end
    #[arg(long = "for", value_name = "DURATION", env = "MHEBPF_FOR", help_heading = HOW, value_parser = parse_duration)]
    pub run_for: Option<Duration>,

    /// How the programs are attached [default: auto]
    #[arg(long, env = "MHEBPF_HOOK", help_heading = HOW)]
    pub hook: Option<Hook>,

    /// What is enforced outlives mhebpf, in this directory of a BPF file system [default: /sys/fs/bpf/mhebpf]. The next
    /// `run --pin` takes it over without an unenforced moment; `mhebpf unload` takes it off
    #[arg(
        long,
        value_name = "DIRECTORY",
        num_args = 0..=1,
        default_missing_value = DEFAULT_DIRECTORY,
        env = "MHEBPF_PIN",
        help_heading = HOW
    )]
    pub pin: Option<PathBuf>,

    /// Serve metrics for Prometheus over HTTP, at /metrics of this address and port, such as 127.0.0.1:9469
    #[arg(long, value_name = "ADDRESS:PORT", env = "MHEBPF_METRICS", help_heading = HOW, value_parser = parse_address)]
    pub metrics: Option<SocketAddr>,

    /// The configuration file; without this option /etc/mhebpf.toml, if it is there
    #[arg(short, long, value_name = "FILE", env = "MHEBPF_CONFIG", help_heading = HOW)]
    pub config: Option<PathBuf>,
}

/// What happens to a packet whose source address belongs to another interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It leaves through that interface
    Redirect,
    /// It is dropped
    Drop,
    /// It is counted; nothing is changed at all, ARP and NDP included
    Observe,
}

/// The same for one interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SendPolicy {
    /// It leaves through that interface
    Redirect,
    /// It is dropped
    Drop,
    /// It is counted, and leaves as it is
    Observe,
    /// It leaves as it is
    Off,
}

/// What happens to a datagram that arrives for an address of another interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReceivePolicy {
    /// It is silently discarded
    Drop,
    /// It is counted and delivered
    Observe,
    /// It is delivered
    Off,
}

/// Whether ARP and NDP are held to the interface's own addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AnnouncePolicy {
    /// Other interfaces' addresses are neither answered for nor announced
    Enforce,
    /// It is counted when they are
    Observe,
    /// Nothing is done about it
    Off,
}

/// What happens to a packet of local origin whose source is not an address of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownPolicy {
    /// It passes
    Pass,
    /// It is dropped
    Drop,
}

/// What happens to a packet that this host forwards with another interface's address as its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ForwardedPolicy {
    /// What happens to one of this host's own
    Enforce,
    /// It is counted, and leaves as it is
    Observe,
    /// It leaves as it is
    Off,
}

/// Whether the daemon keeps policy routing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Steer {
    /// It keeps none
    None,
    /// It keeps a rule for each source and a routing table for each interface
    Rules,
}

impl RunOptions {
    /// Which configuration file is read.
    pub fn config_source(&self) -> Source {
        self.config.clone().map_or(Source::Default, Source::Named)
    }
}

/// The name of a value as it is given on the command line.
pub fn name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// Reads a whole number of seconds, minutes or hours, such as `90s`, `10m` or `2h`.
///
/// # Errors
///
/// What is wrong with it.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
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

/// Reads a pattern of interface names, such as `eth*`.
///
/// # Errors
///
/// What is wrong with it.
pub fn parse_pattern(text: &str) -> Result<Pattern, String> {
    let why = match Pattern::new(text) {
        Ok(_) if text.is_empty() => "it is empty".to_owned(),
        Ok(pattern) => return Ok(pattern),
        Err(error) => error.to_string(),
    };
    Err(format!("no pattern of interface names, such as 'eth*': {why}"))
}

/// Reads an address and a port, such as `127.0.0.1:9469` or `[::1]:9469`.
///
/// # Errors
///
/// What is wrong with it.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "expected an address and a port, as in 127.0.0.1:9469 or [::1]:9469".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
