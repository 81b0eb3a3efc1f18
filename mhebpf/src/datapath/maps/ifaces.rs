//! The maps of interfaces.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use aya::maps::{Array, HashMap, MapData, MapError};
use mhebpf_ebpf::{DIRECT_IFACES, Iface};

use super::{
    Failures, Source, removed,
    staged::{Blocks, without_closed},
};
use crate::datapath::raw::Raw;

/// The array of interfaces, and where in it those with a high ifindex are.
pub(super) struct IfaceMaps {
    ifaces: Array<MapData, Raw<Iface>>,
    slots: HashMap<MapData, u32, u32>,
    /// The slots in use, by ifindex.
    used: BTreeMap<u32, u32>,
    /// Slots that were in use and are free again.
    free: Vec<u32>,
    /// The blocks of those that were written.
    blocks: BTreeMap<u32, Blocks>,
    /// Those whose blocks are to be moved after a grace period that has not begun.
    waiting: BTreeSet<u32>,
    /// The same after the one that has.
    in_grace_period: BTreeSet<u32>,
}

impl IfaceMaps {
    pub(super) fn take(source: Source<'_>) -> Result<Self> {
        Ok(Self {
            ifaces: Array::try_from(source("IFACES")?)?,
            slots: HashMap::try_from(source("IFACE_SLOTS")?)?,
            used: BTreeMap::new(),
            free: Vec::new(),
            blocks: BTreeMap::new(),
            waiting: BTreeSet::new(),
            in_grace_period: BTreeSet::new(),
        })
    }

    /// Writes an interface, before its slot can be found; its blocks as far as that can be done at once.
    pub(super) fn write(&mut self, ifindex: u32, iface: Iface) -> Result<(), MapError> {
        let before = self.blocks.get(&ifindex);
        let blocks = before.map_or_else(|| Blocks::begin(&iface), |blocks| blocks.towards(&iface));
        self.write_with(ifindex, iface, blocks)
    }

    fn write_with(&mut self, ifindex: u32, iface: Iface, blocks: Blocks) -> Result<(), MapError> {
        self.set(ifindex, blocks.of(iface))?;
        self.blocks.insert(ifindex, blocks);
        self.in_grace_period.remove(&ifindex);
        if blocks.are_done() {
            self.waiting.remove(&ifindex);
        } else {
            self.waiting.insert(ifindex);
        }
        Ok(())
    }

    /// Whether blocks wait for a grace period that is to be begun.
    pub(super) fn has_blocks_to_move(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// What waits now does so for the grace period that begins.
    pub(super) fn begin_grace_period(&mut self) {
        self.in_grace_period.append(&mut self.waiting);
    }

    /// Brings the blocks a step further that were written before the grace period, and not since.
    pub(super) fn move_blocks(&mut self, written: &BTreeMap<u32, Iface>, failures: &mut Failures) {
        for ifindex in std::mem::take(&mut self.in_grace_period) {
            let (Some(blocks), Some(iface)) = (self.blocks.get(&ifindex), written.get(&ifindex)) else {
                continue;
            };
            let moved = self.write_with(ifindex, *iface, blocks.after(true));
            failures.note("moving a block of addresses", moved);
        }
    }

    fn set(&mut self, ifindex: u32, iface: Iface) -> Result<(), MapError> {
        if ifindex < DIRECT_IFACES {
            return self.ifaces.set(ifindex, Raw(iface), 0);
        }
        if let Some(slot) = self.used.get(&ifindex) {
            return self.ifaces.set(*slot, Raw(iface), 0);
        }
        let slot = self.free.last().copied().unwrap_or(DIRECT_IFACES + self.used.len() as u32);
        if slot == self.ifaces.len() {
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
        self.ifaces.get(&slot, 0).map(|Raw(iface)| without_closed(iface))
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
            let iface = without_closed(iface);
            // How an array has what nobody has written.
            if iface != Iface::EMPTY {
                all.insert(ifindex, iface);
            }
        }
        Ok(all)
    }

    /// Removes an interface; its slot is for others then.
    pub(super) fn remove(&mut self, ifindex: u32) -> Result<(), MapError> {
        self.blocks.remove(&ifindex);
        self.waiting.remove(&ifindex);
        self.in_grace_period.remove(&ifindex);
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
