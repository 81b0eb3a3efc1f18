//! What a process takes.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context as _, Result};

/// What a process has taken so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Time on a CPU.
    pub(crate) cpu: Duration,
    /// Resident memory (`VmRSS`), in KiB.
    pub(crate) resident: u64,
    /// The most that was ever resident (`VmHWM`), in KiB.
    pub(crate) most_resident: u64,
}

impl Usage {
    /// Reads it from `/proc`. Memory of BPF maps is the kernel's, and not in it.
    ///
    /// # Errors
    ///
    /// When there is no such process.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let kibibytes = |name| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let value = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            value.with_context(|| format!("/proc/{pid}/status has no {name}"))
        };
        let mut cpu = Duration::ZERO;
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            // Nanoseconds on a CPU come first. A thread may end meanwhile.
            let text = fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
            cpu += Duration::from_nanos(
                text.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0),
            );
        }
        Ok(Self { cpu, resident: kibibytes("VmRSS:")?, most_resident: kibibytes("VmHWM:")? })
    }
}

/// The kernel's memory for the BPF maps that a process holds, in bytes.
///
/// # Errors
///
/// When there is no such process.
pub(crate) fn map_memory(pid: u32) -> Result<u64> {
    let mut maps = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).context("looking for the daemon's maps")? {
        // Descriptors come and go.
        let info = fs::read_to_string(entry?.path()).unwrap_or_default();
        let number = |name| info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        if let (Some(id), Some(memory)) = (number("map_id:"), number("memlock:")) {
            maps.insert(id, memory);
        }
    }
    Ok(maps.values().sum())
}
