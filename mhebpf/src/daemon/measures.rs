//! What the daemon measures, for those who scrape it.

use std::{
    fs,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use mhebpf_ebpf::DIRECT_IFACES;

use super::Daemon;
use crate::{
    datapath::Capacities,
    logging,
    metrics::{Fill, Interface, Measures},
    model::{Policy, Tables},
    netlink::{Dumper, Events},
};

impl Daemon<'_> {
    /// Takes what is there: nothing is dumped, and no interface is asked.
    ///
    /// # Errors
    ///
    /// When the counters can't be read.
    pub(super) fn measures(&mut self, dumper: &Dumper, events: &Events) -> Result<Measures> {
        let (counts, entries) = self.datapath.counters.read_with_entries()?;
        // What an earlier daemon has counted on interfaces that are gone has no name any more.
        self.totals.add(&counts, |ifindex| self.names.get(&ifindex).cloned());
        let tables = self.datapath.maps.written();
        let history = &self.history;
        Ok(Measures {
            mode: self.settings.mode(),
            packets: self.totals.series().map(|(series, packets)| (series.clone(), packets)).collect(),
            interfaces: self.measured_interfaces(dumper),
            local_addresses: tables.local_addresses(),
            next_hops: self.count_next_hops(tables).into_iter().sum(),
            maps: fills(tables, self.count_next_hops(tables), entries, &self.datapath.capacities),
            without_room: self.growing.left_out.len(),
            steering: self.steerer.is_keeping().then(|| {
                let kept = self.steerer.kept();
                (kept.rules.len(), kept.routes())
            }),
            synchronisations: history.synchronisations,
            failures: history.failures,
            interrupted_dumps: dumper.interrupted(),
            overruns: history.overruns + events.overruns(),
            restored: history.restored,
            durations: history.durations.clone(),
            in_step: history.is_in_step && !events.is_pending(),
            last_in_step: history.in_step_at.map(since_1970),
            last_in_step_age: history.in_step.map(|at| at.elapsed().as_secs_f64()),
            counts_lost: self.datapath.counters.lost()?,
            suppressed_samples: self.datapath.samples.suppressed().context("measuring")?,
            log_lines_dropped: logging::left_out(),
            started: since_1970(history.started_at),
            processor_time: processor_time().as_secs_f64(),
            resident_memory: resident_memory(),
        })
    }

    /// How many next hops there are, of IPv4 and of IPv6.
    pub(super) fn count_next_hops(&self, tables: &Tables) -> [usize; 2] {
        let [ipv4, ipv6] = self.next_hops.entries();
        [tables.ipv4.next_hops.len() + ipv4, tables.ipv6.next_hops.len() + ipv6]
    }

    fn measured_interfaces(&self, dumper: &Dumper) -> Vec<Interface> {
        let of = |(ifindex, policy): (&u32, &Policy)| {
            let link = dumper.last().links.get(ifindex)?;
            Some(Interface {
                name: link.name.clone(),
                up: link.up,
                is_behind: self.attachments.is_behind(*ifindex),
                hook: self.attachments.hook_of(*ifindex).map_or("none", |hook| hook.name()),
                policy: policy.into(),
            })
        };
        self.policies.iter().filter_map(of).collect()
    }
}

/// How full the maps are whose entries come and go.
fn fills(
    tables: &Tables,
    [next_hops, next_hops6]: [usize; 2],
    counters: usize,
    capacities: &Capacities,
) -> Vec<Fill> {
    let high = tables.ifaces.range(DIRECT_IFACES..).count();
    let entries = [
        ("COUNTERS", counters),
        ("FURTHER_OWNERS", tables.further_owners.len()),
        ("IFACE_SLOTS", high),
        ("NEXT_HOPS", next_hops),
        ("NEXT_HOPS6", next_hops6),
        ("OWNERS", tables.ipv4.owners.len()),
        ("OWNERS6", tables.ipv6.owners.len()),
        ("PREFIXES", tables.ipv4.prefixes.len()),
        ("PREFIXES6", tables.ipv6.prefixes.len()),
    ];
    let fill = |(map, entries)| Some(Fill { map, entries, capacity: capacities.get(map)? });
    entries.into_iter().filter_map(fill).collect()
}

fn since_1970(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is valid, and the clock is always there.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// In bytes; `None` where there is no /proc.
fn resident_memory() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    // SAFETY: no pointers are involved.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    Some(pages * u64::try_from(page).ok()?)
}
