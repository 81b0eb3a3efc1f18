//! Reading what the programs have counted.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use aya::maps::{MapData, PerCpuArray, PerCpuHashMap};
use mhebpf_ebpf::{CounterKey, DIRECT_COUNTS, Direction, Family, Reason};

use super::{maps::Source, raw::Raw};

/// The table of counters.
pub struct Counters {
    map: PerCpuHashMap<MapData, Raw<CounterKey>, u64>,
    direct: PerCpuArray<MapData, u64>,
}

/// One counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// The interface on which the packets were judged.
    pub ifindex: u32,
    /// Which way they crossed it.
    pub direction: Direction,
    /// What carried the judged address.
    pub family: Family,
    /// Why they did not simply pass.
    pub reason: Reason,
    /// Whether they were left alone and only counted.
    pub observed: bool,
    /// How many.
    pub packets: u64,
}

impl Counters {
    pub(super) fn take(source: Source<'_>) -> Result<Self> {
        Ok(Self {
            map: PerCpuHashMap::try_from(source("COUNTERS")?)?,
            direct: PerCpuArray::try_from(source("DIRECT_COUNTS")?)?,
        })
    }

    /// All counters, summed over the CPUs, in a fixed order.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read the maps.
    pub fn read(&self) -> Result<Vec<Count>> {
        let mut sums = BTreeMap::new();
        for place in 0..DIRECT_COUNTS {
            let per_cpu = self.direct.get(&place, 0).context("reading the counters")?;
            let packets = per_cpu.iter().sum::<u64>();
            if packets > 0 {
                sums.insert(CounterKey::of_direct(place), packets);
            }
        }
        for entry in &self.map {
            let (Raw(key), per_cpu) = entry.context("reading the counters")?;
            sums.insert(key, per_cpu.iter().sum::<u64>());
        }
        Ok(sums.into_iter().filter_map(|(key, packets)| count(key, packets)).collect())
    }

    /// How many entries the map of counters has: those that are counted without it are none.
    pub fn entries(&self) -> usize {
        self.map.keys().filter(Result::is_ok).count()
    }
}

/// `None` for a number that this version does not know.
fn count(key: CounterKey, packets: u64) -> Option<Count> {
    Some(Count {
        ifindex: key.ifindex,
        direction: Direction::from_u8(key.direction)?,
        family: Family::from_u8(key.family)?,
        reason: Reason::from_u8(key.reason)?,
        observed: key.observed != 0,
        packets,
    })
}
