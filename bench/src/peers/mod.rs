//! What mhebpf costs from end to end, beside others that do a part of its work.
//!
//! Each variant has a [`lab`] of its own, two namespaces joined by two links, and all of them stand side by side. A variant
//! is measured in turns with one that has nothing installed and as many addresses, and what counts is the ratio of the two
//! in one round. Another one with nothing installed tells what the run cannot resolve. What mhebpf redirects is also held
//! against what it lets pass.
//!
//! A single thread on one CPU does all the work of a [`workload`], both ends and what the kernel does for them in softirqs:
//! the figures are the cost in CPU time of the whole way, without the scheduler's moods. Only IPv4 is measured.

mod lab;
mod variant;
mod workload;

use std::{process::Command, thread, time::Duration};

use anyhow::{Context as _, Result};

pub(crate) use self::workload::Workload;
use self::{
    lab::{COUNTS, FEW, Lab},
    variant::Variant,
};
use crate::{
    options::Options,
    processor,
    report::{Cell, Report},
    stats::Summary,
};

/// The table of what leaves by the interface that the kernel chooses itself.
pub(crate) const SENT_FROM_ETH0: &str =
    "ratio to nothing installed: source address and route are those of eth0";

/// How long all that takes.
#[derive(Clone, Copy)]
struct Effort {
    rounds: usize,
    /// How long traffic is made at a time.
    slice: Duration,
    /// How long others may use the CPU then.
    pause: Duration,
}

/// Measures all variants that this machine has.
///
/// # Errors
///
/// Without root, and when traffic does not take the way that it should.
pub(crate) fn measure(options: &Options, report: &mut Report) -> Result<()> {
    let effort = if options.quick {
        Effort { rounds: 8, slice: Duration::from_millis(5), pause: Duration::from_millis(1) }
    } else {
        Effort { rounds: 40, slice: Duration::from_millis(15), pause: Duration::from_millis(3) }
    };
    let nothing = |count| Lab::new(Variant::Nothing, count).context("building a lab with nothing");
    let baselines = COUNTS.into_iter().map(nothing).collect::<Result<Vec<_>>>()?;
    let mut labs = Vec::new();
    for (variant, count) in variant::all() {
        match Lab::new(variant, count) {
            Ok(lab) => labs.push(lab),
            // What is measured here is never missing.
            Err(why) if matches!(variant, Variant::Mhebpf | Variant::MhebpfSteering) => return Err(why),
            Err(why) => report.leave_out(format!("{}: {why:#}", variant.name(count))),
        }
    }
    for peer in ["nft", "iptables"] {
        if let Ok(output) = Command::new(peer).arg("--version").output() {
            report.note(format!("peers: {}", String::from_utf8_lossy(&output.stdout).trim()));
        }
    }
    // Daemons are children of this thread, and end with it; the measuring one is bound to a CPU.
    thread::scope(|scope| {
        let measuring = scope.spawn(|| {
            processor::stay_here(report)?;
            for comparison in Comparison::ALL {
                compare(effort, comparison, &baselines, &labs, report)?;
            }
            for lab in labs.iter().filter(|lab| lab.count == FEW) {
                if let Err(why) = lab.variant.redirects() {
                    report.leave_out(format!("{} with the source of eth1: {why}", lab.variant.kind()));
                }
            }
            Ok(())
        });
        measuring.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// What is held against what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    /// With and without something installed, where no packet takes the wrong way.
    OwnWay,
    /// The same, where the route leads through another interface than that of the source.
    OtherWay,
    /// What is redirected and what takes its own way, with the same installed.
    BothWays,
}

impl Comparison {
    const ALL: [Self; 3] = [Self::OwnWay, Self::OtherWay, Self::BothWays];

    const fn table(self) -> &'static str {
        match self {
            Self::OwnWay => SENT_FROM_ETH0,
            Self::OtherWay => {
                "ratio to nothing installed: the source address is that of eth1, and the route leads through eth0"
            }
            Self::BothWays => {
                "ratio of what leaves by eth1, against the route, to what leaves by eth0, with the same installed"
            }
        }
    }

    /// What is said beside the name of a workload.
    const fn short(self) -> &'static str {
        match self {
            Self::OwnWay => "",
            Self::OtherWay => ", source of eth1",
            Self::BothWays => ", eth1 to eth0",
        }
    }

    const fn redirected(self) -> bool {
        !matches!(self, Self::OwnWay)
    }

    fn takes_part(self, variant: Variant) -> bool {
        match self {
            Self::OwnWay => true,
            Self::OtherWay => variant.redirects().is_ok(),
            // Where nothing is redirected there is the difference of the two interfaces, which is none.
            Self::BothWays => matches!(variant, Variant::Nothing | Variant::Mhebpf | Variant::MhebpfSteering),
        }
    }
}

fn compare(
    effort: Effort,
    comparison: Comparison,
    baselines: &[Lab],
    labs: &[Lab],
    report: &mut Report,
) -> Result<()> {
    let labs: Vec<&Lab> = labs.iter().filter(|lab| comparison.takes_part(lab.variant)).collect();
    let redirected = comparison.redirected();
    for workload in Workload::ALL {
        let mut ratios: Vec<Vec<f64>> = labs.iter().map(|_| Vec::new()).collect();
        let mut absolute = Vec::new();
        // The first round only warms up.
        for round in 0..=effort.rounds {
            for (lab, ratios) in labs.iter().zip(&mut ratios) {
                let baseline = match comparison {
                    Comparison::BothWays => (*lab, false),
                    _ => (
                        baselines.iter().find(|baseline| baseline.count == lab.count).unwrap_or(lab),
                        redirected,
                    ),
                };
                let measure = |(lab, redirected): (&Lab, bool)| {
                    thread::sleep(effort.pause);
                    let rate = workload.rate(lab, redirected, effort.slice);
                    rate.with_context(|| format!("{} with {}", workload.name(), lab.variant.name(lab.count)))
                };
                let (nothing, rate) = if round % 2 == 0 {
                    let nothing = measure(baseline)?;
                    (nothing, measure((lab, redirected))?)
                } else {
                    let rate = measure((lab, redirected))?;
                    (measure(baseline)?, rate)
                };
                if round > 0 {
                    ratios.push(rate / nothing);
                    if lab.count == FEW {
                        absolute.push(nothing);
                    }
                }
            }
        }
        let control = labs.iter().position(|lab| lab.variant == Variant::Nothing);
        let resolution = control.map_or(0.0, |index| Summary::of(ratios[index].iter().copied()).reach(1.0));
        for (lab, ratios) in labs.iter().zip(ratios) {
            let summary = Summary::of(ratios);
            report.add(Cell {
                part: "peers",
                table: comparison.table().to_owned(),
                series: lab.variant.kind().to_owned(),
                row: lab.variant.name(lab.count),
                column: workload.name().to_owned(),
                unit: "ratio",
                addresses: Some(lab.count),
                summary,
                resolved: lab.variant != Variant::Nothing && summary.differs_from(1.0, resolution),
                bar: None,
            });
        }
        if comparison != Comparison::BothWays {
            report.add(Cell {
                part: "peers",
                table: "nothing installed, for comparison".to_owned(),
                series: "nothing".to_owned(),
                row: workload.name().to_owned(),
                column: if redirected { "source of eth1" } else { "source of eth0" }.to_owned(),
                unit: workload.unit(),
                addresses: Some(FEW),
                summary: Summary::of(absolute),
                resolved: true,
                bar: None,
            });
        }
        report.note(format!(
            "peers, {}{}: differences of the ratio below {resolution:.3} are not resolved.",
            workload.name(),
            comparison.short(),
        ));
    }
    Ok(())
}
