//! The command line of `mhebpf unload`.

use std::path::PathBuf;

use clap::Args;

const EXAMPLES: &str = "\
Examples:
  Take off what outlives mhebpf in this network namespace, after mhebpf was stopped
    mhebpf unload";

/// What `mhebpf unload` takes off.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct UnloadOptions {
    /// The directory that `mhebpf run --pin` was given [default: that of /etc/mhebpf.toml, else /sys/fs/bpf/mhebpf]
    #[arg(long, value_name = "DIRECTORY", env = "MHEBPF_PIN")]
    pub pin: Option<PathBuf>,
}
