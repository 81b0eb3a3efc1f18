//! How many entries tables have, and maps have room for.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
};

use mhebpf_ebpf::DIRECT_IFACES;

use super::Tables;

/// A number of entries for each of the maps that addresses and interfaces are in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    /// Single IPv4 addresses.
    pub owners: usize,
    /// Single IPv6 addresses.
    pub owners6: usize,
    /// IPv4 prefixes.
    pub prefixes: usize,
    /// IPv6 prefixes.
    pub prefixes6: usize,
    /// Members of sets of interfaces.
    pub further_owners: usize,
    /// Interfaces with an index from [`DIRECT_IFACES`] on.
    pub high_ifaces: usize,
}

impl Entries {
    /// The same number for each.
    pub const fn all(number: usize) -> Self {
        Self {
            owners: number,
            owners6: number,
            prefixes: number,
            prefixes6: number,
            further_owners: number,
            high_ifaces: number,
        }
    }

    /// Those of tables.
    pub fn of(tables: &Tables) -> Self {
        Self {
            owners: tables.ipv4.owners.len(),
            owners6: tables.ipv6.owners.len(),
            prefixes: tables.ipv4.prefixes.len(),
            prefixes6: tables.ipv6.prefixes.len(),
            further_owners: tables.further_owners.len(),
            high_ifaces: tables.ifaces.range(DIRECT_IFACES..).count(),
        }
    }

    /// Those that there are for a moment where maps are brought from `written` to `wanted`: what is new is written before anything
    /// is removed.
    pub fn of_change(written: &Tables, wanted: &Tables) -> Self {
        let high = |tables: &Tables| -> HashSet<u32> {
            tables.ifaces.range(DIRECT_IFACES..).map(|(ifindex, _)| *ifindex).collect()
        };
        Self {
            owners: of_both(&written.ipv4.owners, &wanted.ipv4.owners),
            owners6: of_both(&written.ipv6.owners, &wanted.ipv6.owners),
            prefixes: of_both(&written.ipv4.prefixes, &wanted.ipv4.prefixes),
            prefixes6: of_both(&written.ipv6.prefixes, &wanted.ipv6.prefixes),
            further_owners: written.further_owners.union(&wanted.further_owners).count(),
            high_ifaces: high(written).union(&high(wanted)).count(),
        }
    }

    /// Computes a number from that of two for each map.
    #[must_use]
    pub fn with(self, other: Self, number: impl Fn(usize, usize) -> usize) -> Self {
        Self {
            owners: number(self.owners, other.owners),
            owners6: number(self.owners6, other.owners6),
            prefixes: number(self.prefixes, other.prefixes),
            prefixes6: number(self.prefixes6, other.prefixes6),
            further_owners: number(self.further_owners, other.further_owners),
            high_ifaces: number(self.high_ifaces, other.high_ifaces),
        }
    }

    /// Whether there is room for all of them.
    pub fn fit_in(self, room: Self) -> bool {
        self.with(room, usize::max) == room
    }
}

fn of_both<K: Eq + Hash, V>(written: &HashMap<K, V>, wanted: &HashMap<K, V>) -> usize {
    written.len() + wanted.keys().filter(|key| !written.contains_key(key)).count()
}
