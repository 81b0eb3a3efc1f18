//! Benchmarks of mhebpf, run by `cargo xtask bench`.
//!
//! Everything that is compared runs in turns within one run; figures are differences or ratios of one round, and
//! their medians and quartiles over all rounds.

mod bpf;
mod control;
mod datapath;
mod machine;
mod options;
mod peers;
mod plot;
mod processor;
mod report;
mod stats;

use std::{env, fs, process::ExitCode};

use anyhow::{Context as _, Result};

use self::{
    machine::Machine,
    options::{Options, Part, USAGE},
    report::Report,
};

fn main() -> ExitCode {
    let options = match Options::parse(env::args_os().skip(1)) {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("bench: {problem}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(over) => {
            eprintln!("bench: {over} figures are over their bars, or could not be had");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures what is asked for, and says how many figures are over their bars.
fn run(options: &Options) -> Result<usize> {
    let mut report = Report::new(Machine::here(), options.quick);
    if options.wants(Part::Datapath) {
        eprintln!("bench: measuring the programs alone");
        datapath::measure(options, &mut report).context("measuring the datapath")?;
    }
    if options.wants(Part::Peers) {
        eprintln!("bench: measuring traffic, with mhebpf and its peers");
        peers::measure(options, &mut report).context("measuring the peers")?;
    }
    if options.wants(Part::Control) {
        eprintln!("bench: measuring the daemon");
        control::measure(options, &mut report).context("measuring the daemon")?;
    }
    print!("{}", report.text());
    if let Some(path) = &options.json {
        let json = serde_json::to_string_pretty(&report)? + "\n";
        fs::write(path, json).with_context(|| format!("writing {}", path.display()))?;
    }
    if let Some(path) = &options.svg {
        let svg = plot::svg(&report).context("drawing the plot")?;
        fs::write(path, svg).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(report.over())
}
