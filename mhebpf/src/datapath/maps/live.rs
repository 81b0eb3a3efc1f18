//! The maps as the programs see them now, whatever was written to them.

use std::cell::{Cell, RefCell};

use anyhow::{Context as _, Result};
use aya::maps::MapError;
use elsa::FrozenVec;
use mhebpf_ebpf::{
    AddressTables, FurtherOwnerKey, Iface, Ipv4, Ipv6, Neighbour, Owners, OwnersKey, Tables, filter::Bit,
};

use super::Maps;
use crate::datapath::raw::Raw;

/// The maps as [`Tables`], read by a system call at each lookup.
///
/// What was read lives as long as this does, so it is for one decision and not for many.
pub struct Live<'a> {
    maps: &'a Maps,
    ifaces: FrozenVec<Box<Iface>>,
    owners: FrozenVec<Box<Owners>>,
    neighbours: FrozenVec<Box<Neighbour>>,
    failure: RefCell<Option<MapError>>,
    lookups: Cell<usize>,
}

impl<'a> Live<'a> {
    pub(super) fn new(maps: &'a Maps) -> Self {
        Self {
            maps,
            ifaces: FrozenVec::new(),
            owners: FrozenVec::new(),
            neighbours: FrozenVec::new(),
            failure: RefCell::default(),
            lookups: Cell::new(0),
        }
    }

    /// Whether all that was asked for could be read.
    ///
    /// # Errors
    ///
    /// When the kernel refused a lookup, which then counted as one that found nothing.
    pub fn finish(self) -> Result<()> {
        let lookups = self.lookups.get();
        self.failure.into_inner().map_or(Ok(()), |error| {
            Err(error).with_context(|| format!("reading the BPF maps, in one of {lookups} lookups"))
        })
    }

    /// Keeps what was found, or the failure.
    fn keep<'b, T>(&self, values: &'b FrozenVec<Box<T>>, found: Result<T, MapError>) -> Option<&'b T> {
        self.lookups.set(self.lookups.get() + 1);
        match found {
            Ok(value) => Some(values.push_get(Box::new(value))),
            Err(MapError::KeyNotFound) => None,
            Err(error) => {
                self.failure.borrow_mut().get_or_insert(error);
                None
            }
        }
    }
}

impl Tables for Live<'_> {
    fn iface(&self, ifindex: u32) -> Option<&Iface> {
        self.keep(&self.ifaces, self.maps.ifaces.read(ifindex))
    }

    fn may_be_local(&self, bit: Bit) -> bool {
        let none = FrozenVec::new();
        self.keep(&none, self.maps.filter.read().map(|filter| bit.is_set(&filter)))
            .is_none_or(|may_be| *may_be)
    }

    fn is_further_owner(&self, key: &FurtherOwnerKey) -> bool {
        let none = FrozenVec::new();
        self.keep(&none, self.maps.further_owners.get(&Raw(*key), 0)).is_some()
    }
}

macro_rules! address_tables {
    ($($address:ty, $family:ident;)+) => {$(
        impl AddressTables<$address> for Live<'_> {
            fn owners(&self, key: &OwnersKey<$address>) -> Option<&Owners> {
                self.keep(&self.owners, self.maps.$family.read_owners(*key))
            }

            fn owners_by_prefix(&self, key: &OwnersKey<$address>) -> Option<&Owners> {
                self.keep(&self.owners, self.maps.$family.read_owners_by_prefix(*key))
            }

            fn next_hop(&self, owner: u32, destination: $address, flow: u32) -> Option<&Neighbour> {
                let next_hops = self.maps.$family.read_next_hops(owner, destination);
                let found = next_hops.and_then(|next_hops| self.maps.hops.read(next_hops.place(flow)));
                self.keep(&self.neighbours, found)
            }
        }
    )+};
}

address_tables! {
    Ipv4, ipv4;
    Ipv6, ipv6;
}
