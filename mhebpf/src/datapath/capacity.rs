//! For how many entries the maps have room.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use aya::{Ebpf, maps::Map};

use crate::model::tables::Entries;

/// For how many entries each map of entries that come and go has room, by its name.
#[derive(Debug)]
pub struct Capacities(BTreeMap<String, u32>);

impl Capacities {
    /// As the kernel has made them.
    pub(super) fn of(ebpf: &Ebpf) -> Result<Self> {
        let mut capacities = BTreeMap::new();
        for (name, map) in ebpf.maps() {
            if let Map::HashMap(data) | Map::PerCpuHashMap(data) | Map::LpmTrie(data) = map {
                let info = data.info().with_context(|| format!("asking how large the map {name} is"))?;
                capacities.insert(name.to_owned(), info.max_entries());
            }
        }
        Ok(Self(capacities))
    }

    /// Of one map; `None` where the built object has no such map.
    pub fn get(&self, map: &str) -> Option<u32> {
        self.0.get(map).copied()
    }

    /// Of the maps that are made as large as the host needs.
    pub fn room(&self) -> Entries {
        let of = |map| self.get(map).unwrap_or(0) as usize;
        Entries {
            owners: of("OWNERS"),
            owners6: of("OWNERS6"),
            prefixes: of("PREFIXES"),
            prefixes6: of("PREFIXES6"),
            further_owners: of("FURTHER_OWNERS"),
            high_ifaces: of("IFACE_SLOTS"),
        }
    }
}
