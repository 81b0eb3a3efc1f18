//! Where and when a run was made.

use std::{fs, thread};

use serde::Serialize;

/// Where and when a run was made.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    /// The kernel's release.
    pub(crate) kernel: String,
    /// The processor's name.
    pub(crate) cpu: String,
    /// How many CPUs there are.
    pub(crate) cpus: usize,
    /// The day, in UTC.
    pub(crate) date: String,
}

impl Machine {
    /// This one, now.
    pub(crate) fn here() -> Self {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Self {
            kernel: kernel.trim().to_owned(),
            cpu: model.map_or("unknown processor", |(_, name)| name).to_owned(),
            cpus: thread::available_parallelism().map_or(1, usize::from),
            date: today(),
        }
    }
}

fn today() -> String {
    // SAFETY: both calls fill in what they are given; `tm` is plain data for which all zeroes are valid.
    let (year, month, day) = unsafe {
        let now = libc::time(std::ptr::null_mut());
        let mut tm: libc::tm = std::mem::zeroed();
        libc::gmtime_r(&raw const now, &raw mut tm);
        (tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday)
    };
    format!("{year}-{month:02}-{day:02}")
}
