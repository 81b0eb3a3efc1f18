//! The command line of `mhebpf monitor`.

use clap::{Args, builder::PossibleValuesParser};
use glob::Pattern;
use mhebpf_ebpf::Reason;

use super::Format;

const EXAMPLES: &str = "\
Examples:
  Every packet that does not simply pass, as it happens
    mhebpf monitor
  Only what is sent elsewhere from two interfaces
    mhebpf monitor -i eth0 -i eth1 --reason redirected";

/// What `mhebpf monitor` shows.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct MonitorOptions {
    /// How it is shown; with json one document on each line
    #[arg(short, long, value_enum, default_value_t, env = "MHEBPF_OUTPUT")]
    pub output: Format,

    /// Only packets that cross an interface with a name like this; may be given several times
    #[arg(short, long = "interface", value_name = "GLOB", value_parser = super::parse_pattern)]
    pub interfaces: Vec<Pattern>,

    /// Only packets that are counted under this name; may be given several times
    #[arg(long = "reason", value_name = "NAME", value_parser = reasons())]
    pub reasons: Vec<String>,
}

fn reasons() -> PossibleValuesParser {
    PossibleValuesParser::new(Reason::ALL.map(Reason::name))
}
