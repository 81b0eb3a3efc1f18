//! The command line of `mhebpf routes`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use glob::Pattern;

use super::{Mode, RunOptions};

const NOTES: &str = "\
It needs no daemon and no root, and changes nothing: rules and tables are computed from the
addresses and routes that this host has now. `mhebpf run --steer rules` keeps them as those change.

Examples:
  What would be kept for every uplink
    mhebpf routes
  Policy routing by hand, without mhebpf
    mhebpf routes -o ip | sh";

/// For which interfaces rules and tables are wanted, and how they are said.
#[derive(Debug, Default, Args)]
#[command(after_help = NOTES)]
pub struct RoutesOptions {
    /// For interfaces with a name like this, instead of every uplink; may be given several times
    #[arg(
        short,
        long = "interface",
        value_name = "GLOB",
        env = "MHEBPF_INTERFACE",
        value_delimiter = ',',
        value_parser = Pattern::new
    )]
    pub interfaces: Vec<Pattern>,

    /// As for run: interfaces, and what is different on some of them
    #[arg(short, long, value_name = "FILE", env = "MHEBPF_CONFIG")]
    pub config: Option<PathBuf>,

    /// How to say it
    #[arg(short, long, value_enum, default_value_t, env = "MHEBPF_OUTPUT")]
    pub output: RoutesFormat,
}

/// How rules and tables are said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum RoutesFormat {
    /// For people: lines of at most 80 columns, with colours on a terminal
    #[default]
    Text,
    /// For programs: one JSON document
    Json,
    /// Commands of iproute2, for a shell. What they make is the operator's own: mhebpf does not touch it
    Ip,
}

impl RoutesOptions {
    /// The options of `mhebpf run` with the same interfaces, which enforce: where nothing is, nothing is steered.
    pub fn as_for_run(&self) -> RunOptions {
        RunOptions {
            interfaces: self.interfaces.clone(),
            mode: Some(Mode::Redirect),
            config: self.config.clone(),
            ..RunOptions::default()
        }
    }
}
