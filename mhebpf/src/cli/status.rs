//! The command line of `mhebpf status`.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::{Format, parse_duration};

const EXAMPLES: &str = "\
Examples:
  How the daemon is, what each interface owns and what was counted
    mhebpf status
  The same every second, with rates
    mhebpf status --watch
  Only the counters, for a script
    mhebpf status -o json | jq '.interfaces[] | {name, counters}'";

/// What `mhebpf status` shows.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct StatusOptions {
    /// How it is shown
    #[arg(short, long, value_enum, default_value_t, env = "MHEBPF_OUTPUT")]
    pub output: Format,

    /// Shows it again and again, with rates; with -o json one document on each line
    #[arg(short, long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", value_parser = parse_duration)]
    pub watch: Option<Duration>,

    /// Where to look for what outlives mhebpf, if none is running [default: that of /etc/mhebpf.toml, else
    /// /sys/fs/bpf/mhebpf]
    #[arg(long, value_name = "DIRECTORY", env = "MHEBPF_PIN")]
    pub pin: Option<PathBuf>,
}
