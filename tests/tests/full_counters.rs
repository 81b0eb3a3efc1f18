//! A table of counters that is full costs the daemon no time.

#[expect(dead_code, reason = "sums are enough")]
mod openmetrics;
#[expect(dead_code, reason = "nothing is violated")]
mod scrape;

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Map, MapData, MapInfo, PerCpuHashMap, PerCpuValues};
use mhebpf_tests::{Daemon, Lab, scaled};
use scrape::{scrape, start};

/// How long a scrape may take: it is the daemon's loop that reads the counters.
const PROMPT: Duration = scaled(Duration::from_millis(400));

type Counters = PerCpuHashMap<MapData, u64, u64>;

fn counters(daemon: &Daemon) -> Result<Counters> {
    let mut found = None;
    for entry in fs::read_dir(format!("/proc/{}/fdinfo", daemon.pid()))? {
        let info = fs::read_to_string(entry?.path()).unwrap_or_default();
        let Some(id) = info.lines().find_map(|line| line.strip_prefix("map_id:")) else { continue };
        let id = id.trim().parse()?;
        if MapInfo::from_id(id)?.name_as_str() == Some("COUNTERS") {
            found = Some(Map::PerCpuHashMap(MapData::from_id(id)?).try_into()?);
        }
    }
    found.context("the daemon has no map COUNTERS")
}

#[test]
fn a_full_table_is_read_at_once() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = start(&lab, &[])?;
    let mut counters = counters(&daemon)?;
    let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
    // Of interfaces that there are not: their indices are in the first four bytes.
    let mut added = 0_u64;
    while counters.insert((100_000 + added).to_le(), PerCpuValues::try_from(vec![1; cpus])?, 0).is_ok() {
        added += 1;
    }
    ensure!(added > 60_000, "{added} entries");
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
