//! The map of the neighbours that next hops are.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use anyhow::Result;
use aya::maps::{Array, MapData, MapError};
use mhebpf_ebpf::{HOPS, Neighbour, NextHops};

use super::Source;
use crate::{datapath::raw::Raw, model::tables::Hops};

/// How long places stay as they are after the last entry that names them is gone: programs that have read it may be running.
const REST: Duration = Duration::from_secs(1);

/// The hops of each distinct route, each at places of their own that do not change as long as entries name them.
pub(super) struct HopsMap {
    map: Array<MapData, Raw<Neighbour>>,
    /// Where each is, and how many entries name it.
    taken: HashMap<Hops, (NextHops, usize)>,
    /// No place from here on was ever taken.
    fresh: u32,
    /// Places that nobody names any more, by how many there are in a row: the first one, and since when.
    free: BTreeMap<u32, Vec<(u32, Instant)>>,
}

impl HopsMap {
    pub(super) fn take(source: Source<'_>) -> Result<Self> {
        Ok(Self {
            map: Array::try_from(source("HOPS")?)?,
            taken: HashMap::new(),
            fresh: 0,
            free: BTreeMap::new(),
        })
    }

    /// The neighbour at a place.
    pub(super) fn read(&self, place: u32) -> Result<Neighbour, MapError> {
        self.map.get(&place, 0).map(|Raw(neighbour)| neighbour)
    }

    /// All at these places.
    pub(super) fn read_all(&self, next_hops: NextHops) -> Result<Hops, MapError> {
        (0..next_hops.count).map(|place| self.read(next_hops.first.saturating_add(place))).collect()
    }

    /// The places of these hops, for one more entry; they are written where no other entry has them.
    ///
    /// # Errors
    ///
    /// When there is no place left, or the kernel refuses.
    pub(super) fn name(&mut self, hops: &Hops) -> Result<NextHops, MapError> {
        if let Some((next_hops, entries)) = self.taken.get_mut(hops) {
            *entries += 1;
            return Ok(*next_hops);
        }
        let count = hops.len() as u32;
        let first = self.find(count).ok_or(MapError::OutOfBounds { index: self.fresh, max_entries: HOPS })?;
        for (place, hop) in (first..).zip(hops.iter()) {
            self.map.set(place, Raw(*hop), 0)?;
        }
        let next_hops = NextHops { first, count };
        self.taken.insert(hops.clone(), (next_hops, 1));
        Ok(next_hops)
    }

    /// One entry less names these hops.
    pub(super) fn release(&mut self, hops: &Hops) {
        let Some((next_hops, entries)) = self.taken.get_mut(hops) else { return };
        *entries -= 1;
        if *entries == 0 {
            let NextHops { first, count } = *next_hops;
            self.free.entry(count).or_default().push((first, Instant::now()));
            self.taken.remove(hops);
        }
    }

    fn find(&mut self, count: u32) -> Option<u32> {
        let rested = |(_, since): &(u32, Instant)| since.elapsed() >= REST;
        if let Some(free) = self.free.get_mut(&count)
            && let Some(at) = free.iter().position(rested)
        {
            return Some(free.swap_remove(at).0);
        }
        if count <= HOPS - self.fresh {
            let first = self.fresh;
            self.fresh += count;
            return Some(first);
        }
        // Of a longer row the rest is for others.
        let longer = self.free.range_mut(count + 1..);
        let (length, first) = longer
            .filter_map(|(length, free)| {
                let at = free.iter().position(rested)?;
                Some((*length, free.swap_remove(at).0))
            })
            .next()?;
        self.free.entry(length - count).or_default().push((first + count, Instant::now()));
        Some(first)
    }
}
