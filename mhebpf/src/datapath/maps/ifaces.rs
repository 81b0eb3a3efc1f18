//! The maps of interfaces.

use std::collections::BTreeMap;

use anyhow::Result;
use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, MapError},
};
use mhebpf_ebpf::{DIRECT_IFACES, HIGH_IFACES, Iface};

use super::{removed, take};
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
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self> {
        Ok(Self {
            ifaces: Array::try_from(take(ebpf, "IFACES")?)?,
            slots: HashMap::try_from(take(ebpf, "IFACE_SLOTS")?)?,
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
