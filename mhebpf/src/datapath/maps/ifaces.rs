//! The maps of interfaces.

use std::collections::BTreeMap;

use anyhow::Result;
use aya::maps::{Array, HashMap, MapData, MapError};
use mhebpf_ebpf::{DIRECT_IFACES, HIGH_IFACES, Iface};

use super::{Source, removed};
use crate::datapath::raw::Raw;

/// The array of interfaces, and where in it those with a high ifindex are.
pub(super) struct IfaceMaps {
    ifaces: Array<MapData, Raw<Iface>>,
    slots: HashMap<MapData, u32, u32>,
    /// The slots in use, by ifindex.
    used: BTreeMap<u32, u32>,
    /// Slots that were in use and are free again.
    free: Vec<u32>,
}

impl IfaceMaps {
    pub(super) fn take(source: Source<'_>) -> Result<Self> {
        Ok(Self {
            ifaces: Array::try_from(source("IFACES")?)?,
            slots: HashMap::try_from(source("IFACE_SLOTS")?)?,
            used: BTreeMap::new(),
            free: Vec::new(),
        })
    }

    /// Writes an interface, before its slot can be found.
    pub(super) fn write(&mut self, ifindex: u32, iface: Iface) -> Result<(), MapError> {
        if ifindex < DIRECT_IFACES {
            return self.ifaces.set(ifindex, Raw(iface), 0);
        }
        if let Some(slot) = self.used.get(&ifindex) {
            return self.ifaces.set(*slot, Raw(iface), 0);
        }
        let slot = self.free.last().copied().unwrap_or(DIRECT_IFACES + self.used.len() as u32);
        if slot == DIRECT_IFACES + HIGH_IFACES {
            return Err(MapError::OutOfBounds { index: slot, max_entries: slot });
        }
        self.ifaces.set(slot, Raw(iface), 0)?;
        self.slots.insert(ifindex, slot, 0)?;
        self.free.pop();
        self.used.insert(ifindex, slot);
        Ok(())
    }

    /// Reads an interface.
    pub(super) fn read(&self, ifindex: u32) -> Result<Iface, MapError> {
        let slot = if ifindex < DIRECT_IFACES { ifindex } else { self.slots.get(&ifindex, 0)? };
        self.ifaces.get(&slot, 0).map(|Raw(iface)| iface)
    }

    /// Reads all interfaces that were written.
    pub(super) fn read_all(&self) -> Result<BTreeMap<u32, Iface>, MapError> {
        let mut slots: Vec<(u32, u32)> = (0..DIRECT_IFACES).map(|ifindex| (ifindex, ifindex)).collect();
        for entry in &self.slots {
            slots.push(entry?);
        }
        let mut all = BTreeMap::new();
        for (ifindex, slot) in slots {
            let Raw(iface) = self.ifaces.get(&slot, 0)?;
            // How an array has what nobody has written.
            if iface != Iface::EMPTY {
                all.insert(ifindex, iface);
            }
        }
        Ok(all)
    }

    /// Removes an interface; its slot is for others then.
    pub(super) fn remove(&mut self, ifindex: u32) -> Result<(), MapError> {
        if ifindex < DIRECT_IFACES {
            return self.ifaces.set(ifindex, Raw(Iface::EMPTY), 0);
        }
        removed(self.slots.remove(&ifindex))?;
        if let Some(slot) = self.used.remove(&ifindex) {
            self.free.push(slot);
        }
        Ok(())
    }
}
