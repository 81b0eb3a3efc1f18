//! Reading what the programs have counted, and freeing what is not needed any more.

use std::{collections::BTreeMap, os::fd::AsFd as _};

use anyhow::{Context as _, Result, bail};
use aya::maps::{Map, MapData, PerCpuArray, PerCpuValues};
use mhebpf_ebpf::{CounterKey, Direction, Family, LOST, Reason};

use super::{
    batch::{self, Position},
    maps::Source,
};

/// The table of counters.
pub struct Counters {
    map: MapData,
    direct: PerCpuArray<MapData, u64>,
    /// What maps have counted that these are in place of.
    before: BTreeMap<CounterKey, u64>,
    /// What those could not count.
    lost_before: u64,
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
        let Map::PerCpuHashMap(map) = source("COUNTERS")? else { bail!("COUNTERS is a map of another type") };
        let direct = PerCpuArray::try_from(source("DIRECT_COUNTS")?)?;
        Ok(Self { map, direct, before: BTreeMap::new(), lost_before: 0 })
    }

    /// Goes on from what others have counted, which count no more.
    ///
    /// # Errors
    ///
    /// As [`Counters::read`].
    pub fn go_on_from(&mut self, others: &Self) -> Result<()> {
        self.before = others.sums()?.0;
        self.lost_before = others.lost()?;
        Ok(())
    }

    /// All counters, summed over the CPUs, in a fixed order. The table can have tens of thousands.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read the maps.
    pub fn read(&self) -> Result<Vec<Count>> {
        Ok(self.read_with_entries()?.0)
    }

    /// The same, and how many entries the map of counters has: those that are counted without it are none.
    ///
    /// # Errors
    ///
    /// As [`Counters::read`].
    pub fn read_with_entries(&self) -> Result<(Vec<Count>, usize)> {
        let (sums, entries) = self.sums()?;
        Ok((sums.into_iter().filter_map(|(key, packets)| count(key, packets)).collect(), entries))
    }

    fn sums(&self) -> Result<(BTreeMap<CounterKey, u64>, usize)> {
        let mut sums = BTreeMap::new();
        for place in 0..LOST {
            let packets = self.at(place)?;
            if packets > 0 {
                sums.insert(CounterKey::of_direct(place), packets);
            }
        }
        let direct = sums.len();
        batch::sums(self.map.fd().as_fd(), |key, packets| {
            sums.insert(key, packets);
        })
        .context("reading the counters")?;
        let entries = sums.len() - direct;
        for (key, packets) in &self.before {
            *sums.entry(*key).or_default() += packets;
        }
        Ok((sums, entries))
    }

    /// How many packets could not be counted.
    ///
    /// # Errors
    ///
    /// As [`Counters::read`].
    pub fn lost(&self) -> Result<u64> {
        Ok(self.at(LOST)? + self.lost_before)
    }

    /// Frees the counters of interfaces that are gone, among the next thousand or so: what they had, and where to go on; `None`
    /// when that was the last of them.
    ///
    /// What is counted on them meanwhile is lost.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read or change the maps.
    pub fn free(
        &mut self,
        from: Option<Position>,
        is_gone: impl Fn(u32) -> bool,
    ) -> Result<(Vec<Count>, Option<Position>)> {
        let map = self.map.fd().as_fd();
        let mut freed = Vec::new();
        let next = batch::some_sums(map, from.unwrap_or_default(), |key, packets| {
            if is_gone(key.ifindex) {
                freed.push((key, packets));
            }
        })
        .context("reading the counters")?;
        let keys: Vec<CounterKey> = freed.iter().map(|(key, _)| *key).collect();
        batch::delete(map, &keys).context("freeing counters")?;
        if from.is_none() {
            freed.extend(self.before.extract_if(.., |key, _| is_gone(key.ifindex)));
        }
        // The first time only: these are few.
        for place in (0..LOST).filter(|_| from.is_none()) {
            let key = CounterKey::of_direct(place);
            let packets = if is_gone(key.ifindex) { self.at(place)? } else { 0 };
            if packets > 0 {
                let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
                self.direct
                    .set(place, PerCpuValues::try_from(vec![0; cpus])?, 0)
                    .context("freeing counters")?;
                freed.push((key, packets));
            }
        }
        Ok((freed.into_iter().filter_map(|(key, packets)| count(key, packets)).collect(), next))
    }

    /// The count in a place of its own.
    fn at(&self, place: u32) -> Result<u64> {
        let per_cpu = self.direct.get(&place, 0).context("reading the counters")?;
        Ok(per_cpu.iter().sum())
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
