//! What the kernel's table of counters has.

use std::fs;

use anyhow::{Context as _, Result};
use aya::maps::{Map, MapData, MapInfo, PerCpuHashMap};
use mhebpf_tests::Daemon;

/// The keys are eight bytes, of which the first four are the interface's index.
pub(crate) type Counters = PerCpuHashMap<MapData, u64, u64>;

/// That of a daemon that runs.
pub(crate) fn counters(daemon: &Daemon) -> Result<Counters> {
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

/// What `mhebpf status -o json` says.
pub(crate) fn status(lab: &mhebpf_tests::Lab) -> Result<serde_json::Value> {
    let output = Daemon::command(&lab.host)?.args(["status", "-o", "json"]).output()?;
    Ok(serde_json::from_slice(&output.stdout)?)
}
