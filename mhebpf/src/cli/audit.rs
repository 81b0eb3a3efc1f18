//! The command line of `mhebpf audit`.

use std::path::PathBuf;

use clap::Args;
use glob::Pattern;

use super::{RunOptions, format::Format};

const NOTES: &str = "\
It needs no daemon, and what it can't read without root it names. Exit status: 0 nothing to
find fault with (notes don't count), 3 findings, 1 failed, 2 usage.

Examples:
  What is wrong with this host
    mhebpf audit
  The same for a program, and only about some interfaces
    mhebpf audit -o json --interface 'eth*'
  With what the configuration file allows
    mhebpf audit --config mhebpf.toml
  The nearest rules of nftables, where eBPF is not to be had
    mhebpf audit --nft";

/// What `mhebpf audit` looks at, and how it says what it found.
#[derive(Debug, Args)]
#[command(after_help = NOTES)]
pub struct AuditOptions {
    /// How to say what was found
    #[arg(short, long, value_enum, default_value_t, env = "MHEBPF_OUTPUT")]
    pub output: Format,

    /// Look at interfaces with a name like this, instead of every uplink; may be given several times
    #[arg(
        short,
        long = "interface",
        value_name = "GLOB",
        env = "MHEBPF_INTERFACE",
        value_delimiter = ',',
        value_parser = super::parse_pattern
    )]
    pub interfaces: Vec<Pattern>,

    /// As for run: what is different on some interfaces
    #[arg(short, long, value_name = "FILE", env = "MHEBPF_CONFIG")]
    pub config: Option<PathBuf>,

    /// Also print the nearest rules of nftables, for hosts that can't run eBPF programs
    #[arg(long, env = "MHEBPF_NFT")]
    pub nft: bool,
}

impl AuditOptions {
    /// The options of `mhebpf run` for the same interfaces.
    pub fn as_for_run(&self) -> RunOptions {
        RunOptions {
            interfaces: self.interfaces.clone(),
            all: self.interfaces.is_empty(),
            config: self.config.clone(),
            ..RunOptions::default()
        }
    }
}
