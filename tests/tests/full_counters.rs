//! A table of counters that is full costs the daemon no time, and what it can't count is told.

mod counted;
mod openmetrics;
#[expect(dead_code, reason = "little is violated")]
mod scrape;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use aya::maps::PerCpuValues;
use counted::{counters, status};
use mhebpf_tests::{Daemon, Lab, Mac, scaled};
use scrape::{scrape, start};

/// How long a scrape may take: it is the daemon's loop that reads the counters.
const PROMPT: Duration = scaled(Duration::from_millis(400));

/// Fills the table with counters of interfaces that there are not, and returns how many those are.
fn fill(daemon: &Daemon) -> Result<u64> {
    let mut counters = counters(daemon)?;
    let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
    let mut added = 0_u64;
    // The index is in the first four bytes.
    while counters.insert((100_000 + added).to_le(), PerCpuValues::try_from(vec![1; cpus])?, 0).is_ok() {
        added += 1;
    }
    ensure!(added > 60_000, "{added} entries");
    Ok(added)
}

#[test]
fn a_full_table_is_read_at_once() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = start(&lab, &[])?;
    let added = fill(&daemon)?;
    let mut fastest = Duration::MAX;
    for _ in 0..5 {
        let begin = Instant::now();
        let metrics = scrape(&lab.host)?;
        fastest = fastest.min(begin.elapsed());
        ensure!(metrics.sum("mhebpf_map_entries", &[("map", "COUNTERS")]) >= added as f64, "all are read");
    }
    ensure!(fastest < PROMPT, "a scrape takes {fastest:?}");
    daemon.stop()?;
    lab.finish()
}

#[test]
fn what_a_full_table_does_not_count_is_told() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = start(&lab, &[])?;
    let lost = || scrape(&lab.host)?.value("mhebpf_counts_lost_total");
    assert_eq!((lost()?, status(&lab)?["counts_lost"].as_u64()), (0.0, Some(0)));
    fill(&daemon)?;
    for _ in 0..3 {
        lab.ask(1, lab.address(0), Mac::BROADCAST)?;
    }
    lab.fence()?;
    ensure!(lost()? >= 3.0, "{} are lost", lost()?);
    ensure!(status(&lab)?["counts_lost"].as_u64() >= Some(3), "status tells");
    let said = Daemon::command(&lab.host)?.arg("status").output()?.stdout;
    ensure!(String::from_utf8_lossy(&said).contains("not counted: "), "in words too");
    let end = daemon.stop()?.stderr;
    ensure!(end.contains("packets more were not counted"), "so does the summary");
    lab.finish()
}
