//! What is measured.

use std::time::Duration;

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use super::Series;

/// The daemon at one moment. Times of day are seconds since 1970, in UTC.
#[derive(Debug)]
pub struct Measures {
    /// The mode, in the words of the command line.
    pub mode: String,
    /// Packets that did not simply pass.
    pub packets: Vec<(Series, u64)>,
    /// The enforced interfaces.
    pub interfaces: Vec<Interface>,
    /// How many local addresses the maps have; those of a prefix count once.
    pub local_addresses: usize,
    /// How many next hops they have.
    pub next_hops: usize,
    /// How full the maps are.
    pub maps: Vec<Fill>,
    /// How many interfaces have something that the maps have no room for.
    pub without_room: usize,
    /// How many rules of policy routing are kept, and how many routes in their tables; `None` without steering.
    pub steering: Option<(usize, usize)>,
    /// How often the maps were brought in step with the host.
    pub synchronisations: u64,
    /// How often that failed.
    pub failures: u64,
    /// How often a dump was interrupted by a change, and taken again.
    pub interrupted_dumps: u64,
    /// How often the kernel had more events than the socket could keep.
    pub overruns: u64,
    /// How often programs were attached again, or put first again, that others had disturbed.
    pub restored: u64,
    /// How long synchronisations took.
    pub durations: Durations,
    /// Whether the maps are known to be those of the host as it is now.
    pub in_step: bool,
    /// When they were last found to be; `None` when never.
    pub last_in_step: Option<f64>,
    /// How long ago that was, in seconds.
    pub last_in_step_age: Option<f64>,
    /// How many packets could not be counted.
    pub counts_lost: u64,
    /// How many packets were not shown to monitors while there were any.
    pub suppressed_samples: u64,
    /// How many lines of the log could not be written.
    pub log_lines_dropped: u64,
    /// When the daemon was started.
    pub started: f64,
    /// What it has taken of processors, in seconds.
    pub processor_time: f64,
    /// What it has of memory, in bytes.
    pub resident_memory: Option<u64>,
}

/// An enforced interface.
#[derive(Debug)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// It is up and has carrier.
    pub up: bool,
    /// How the programs are attached: `tcx` or `clsact`; `none` where they are not, yet.
    pub hook: &'static str,
    /// Programs or filters of others come before, and stay there.
    pub is_behind: bool,
    /// What is enforced there, in the words of the configuration file.
    pub policy: crate::control::protocol::Policy,
}

/// How full a map is.
#[derive(Debug)]
pub struct Fill {
    /// The name by which the kernel knows it, unabridged.
    pub map: &'static str,
    /// How many entries it has.
    pub entries: usize,
    /// For how many there is room.
    pub capacity: u32,
}

/// How long synchronisations took.
#[derive(Clone, Debug)]
pub struct Durations {
    /// All of them, in seconds.
    pub all: Histogram,
    /// The last one, in seconds.
    pub last: f64,
}

impl Durations {
    /// Adds one.
    pub fn note(&mut self, duration: Duration) {
        self.last = duration.as_secs_f64();
        self.all.observe(self.last);
    }
}

impl Default for Durations {
    /// None yet. The bounds are powers of two from 0.25 ms to 8 s: an idle host takes less than 1 ms, one with thousands
    /// of addresses some tens.
    fn default() -> Self {
        Self { all: Histogram::new(exponential_buckets(1.0 / 4096.0, 2.0, 16)), last: 0.0 }
    }
}
