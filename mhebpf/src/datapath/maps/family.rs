//! The maps of one address family.

use std::{collections::HashMap, hash::Hash};

use anyhow::Result;
use aya::maps::{self, LpmTrie, MapData, MapError, lpm_trie::Key};
use mhebpf_ebpf::{Ipv4, Ipv6, NextHopKey, NextHops, Owners, OwnersKey};

use super::{Failures, Source, hops::HopsMap, missing, removed};
use crate::{
    datapath::raw::Raw,
    model::{
        next_hops::Change,
        tables::{FamilyTables, WireAddress},
    },
    stop,
};

/// An address that keys of the maps are made of.
pub(super) trait MapAddress: WireAddress {
    /// [`OwnersKey`] of this family as bytes.
    type OwnersKey: aya::Pod;
    /// [`NextHopKey`] of this family as bytes.
    type NextHopKey: aya::Pod;

    /// As bytes.
    fn owners_key(key: OwnersKey<Self>) -> Self::OwnersKey;
    /// As bytes.
    fn next_hop_key(key: NextHopKey<Self>) -> Self::NextHopKey;
    /// From bytes.
    fn read_owners_key(key: Self::OwnersKey) -> OwnersKey<Self>;
    /// From bytes.
    fn read_next_hop_key(key: Self::NextHopKey) -> NextHopKey<Self>;
}

macro_rules! map_address {
    ($($address:ty),+) => {$(
        impl MapAddress for $address {
            type OwnersKey = Raw<OwnersKey<Self>>;
            type NextHopKey = Raw<NextHopKey<Self>>;

            fn owners_key(key: OwnersKey<Self>) -> Self::OwnersKey {
                Raw(key)
            }

            fn next_hop_key(key: NextHopKey<Self>) -> Self::NextHopKey {
                Raw(key)
            }

            fn read_owners_key(Raw(key): Self::OwnersKey) -> OwnersKey<Self> {
                key
            }

            fn read_next_hop_key(Raw(key): Self::NextHopKey) -> NextHopKey<Self> {
                key
            }
        }
    )+};
}

map_address!(Ipv4, Ipv6);

/// The maps of one address family.
pub(super) struct FamilyMaps<A: MapAddress> {
    owners: maps::HashMap<MapData, A::OwnersKey, Raw<Owners>>,
    prefixes: LpmTrie<MapData, A::OwnersKey, Raw<Owners>>,
    next_hops: LpmTrie<MapData, A::NextHopKey, Raw<NextHops>>,
}

impl<A: MapAddress> FamilyMaps<A> {
    pub(super) fn take(source: Source<'_>, [owners, prefixes, next_hops]: [&str; 3]) -> Result<Self> {
        Ok(Self {
            owners: maps::HashMap::try_from(source(owners)?)?,
            prefixes: LpmTrie::try_from(source(prefixes)?)?,
            next_hops: LpmTrie::try_from(source(next_hops)?)?,
        })
    }

    /// The owners of a single address.
    pub(super) fn read_owners(&self, key: OwnersKey<A>) -> Result<Owners, MapError> {
        self.owners.get(&A::owners_key(key), 0).map(|Raw(owners)| owners)
    }

    /// The owners of the longest prefix around an address.
    pub(super) fn read_owners_by_prefix(&self, key: OwnersKey<A>) -> Result<Owners, MapError> {
        self.prefixes.get(&prefix_key((key, A::BITS)), 0).map(|Raw(owners)| owners)
    }

    /// The next hops of an owner by the longest prefix.
    pub(super) fn read_next_hops(&self, owner: u32, destination: A) -> Result<NextHops, MapError> {
        let key = NextHopKey { owner, destination };
        self.next_hops.get(&next_hop_key((key, A::BITS)), 0).map(|Raw(next_hops)| next_hops)
    }

    /// All that is in the maps.
    pub(super) fn read(&self, hops: &HopsMap) -> Result<FamilyTables<A>, MapError> {
        let mut tables = FamilyTables::default();
        for entry in &self.owners {
            let (key, Raw(owners)) = entry?;
            tables.owners.insert(A::read_owners_key(key), owners);
        }
        for entry in &self.prefixes {
            let (key, Raw(owners)) = entry?;
            let length = key.prefix_len() - OwnersKey::<A>::DOMAIN_BITS;
            tables.prefixes.insert((A::read_owners_key(key.data()), length as u8), owners);
        }
        for entry in &self.next_hops {
            let (key, Raw(next_hops)) = entry?;
            let length = key.prefix_len() - NextHopKey::<A>::OWNER_BITS;
            let hops = hops.read_all(next_hops)?;
            tables.next_hops.insert((A::read_next_hop_key(key.data()), length as u8), hops);
        }
        Ok(tables)
    }

    /// Writes what is new or different.
    pub(super) fn add(
        &mut self,
        written: &mut FamilyTables<A>,
        wanted: &FamilyTables<A>,
        hops: &mut HopsMap,
        failures: &mut Failures,
    ) {
        add(&mut written.owners, &wanted.owners, failures, "adding a local address", |key, owners| {
            self.owners.insert(A::owners_key(key), Raw(owners), 0)
        });
        add(&mut written.prefixes, &wanted.prefixes, failures, "adding a local prefix", |key, owners| {
            self.prefixes.insert(&prefix_key(key), Raw(owners), 0)
        });
        for (key, wanted) in &wanted.next_hops {
            if stop::is_asked() {
                return;
            }
            let before = written.next_hops.get(key);
            if before == Some(wanted) {
                continue;
            }
            let added = hops.name(wanted).and_then(|next_hops| {
                let inserted = self.next_hops.insert(&next_hop_key(*key), Raw(next_hops), 0);
                inserted.inspect_err(|_| hops.release(wanted))
            });
            if failures.note("adding a next hop", added)
                && let Some(before) = written.next_hops.insert(*key, wanted.clone())
            {
                hops.release(&before);
            }
        }
    }

    /// Writes one change of next hops, unless an entry of `written` is there instead.
    pub(super) fn change(
        &mut self,
        change: &Change,
        destination: A,
        written: &FamilyTables<A>,
        hops: &mut HopsMap,
    ) -> Result<(), MapError> {
        let key = (NextHopKey { owner: change.owner, destination }, change.prefix.prefix_len());
        let next_hops = change.after.as_ref().map(|after| hops.name(after)).transpose()?;
        if !written.next_hops.contains_key(&key) {
            let done = match next_hops {
                Some(next_hops) => self.next_hops.insert(&next_hop_key(key), Raw(next_hops), 0),
                None => removed(self.next_hops.remove(&next_hop_key(key))),
            };
            if let (Err(_), Some(after)) = (&done, &change.after) {
                hops.release(after);
            }
            done?;
        }
        if let Some(before) = &change.before {
            hops.release(before);
        }
        Ok(())
    }

    /// Removes what is no longer wanted.
    pub(super) fn remove(
        &mut self,
        written: &mut FamilyTables<A>,
        wanted: &FamilyTables<A>,
        hops: &mut HopsMap,
        failures: &mut Failures,
    ) {
        remove(&mut written.owners, &wanted.owners, failures, "removing a local address", |key| {
            self.owners.remove(&A::owners_key(key))
        });
        remove(&mut written.prefixes, &wanted.prefixes, failures, "removing a local prefix", |key| {
            self.prefixes.remove(&prefix_key(key))
        });
        for key in missing(written.next_hops.keys(), |key| wanted.next_hops.contains_key(key)) {
            if stop::is_asked() {
                return;
            }
            let done = removed(self.next_hops.remove(&next_hop_key(key)));
            if failures.note("removing a next hop", done)
                && let Some(before) = written.next_hops.remove(&key)
            {
                hops.release(&before);
            }
        }
    }
}

fn add<K: Copy + Eq + Hash, V: Copy + Eq>(
    written: &mut HashMap<K, V>,
    wanted: &HashMap<K, V>,
    failures: &mut Failures,
    what: &'static str,
    mut insert: impl FnMut(K, V) -> Result<(), MapError>,
) {
    for (key, value) in wanted {
        if stop::is_asked() {
            return;
        }
        if written.get(key) != Some(value) && failures.note(what, insert(*key, *value)) {
            written.insert(*key, *value);
        }
    }
}

fn remove<K: Copy + Eq + Hash, V>(
    written: &mut HashMap<K, V>,
    wanted: &HashMap<K, V>,
    failures: &mut Failures,
    what: &'static str,
    mut remove: impl FnMut(K) -> Result<(), MapError>,
) {
    for key in missing(written.keys(), |key| wanted.contains_key(key)) {
        if stop::is_asked() {
            return;
        }
        if failures.note(what, removed(remove(key))) {
            written.remove(&key);
        }
    }
}

fn prefix_key<A: MapAddress>((key, length): (OwnersKey<A>, u8)) -> Key<A::OwnersKey> {
    Key::new(OwnersKey::<A>::DOMAIN_BITS + u32::from(length), A::owners_key(key))
}

fn next_hop_key<A: MapAddress>((key, length): (NextHopKey<A>, u8)) -> Key<A::NextHopKey> {
    Key::new(NextHopKey::<A>::OWNER_BITS + u32::from(length), A::next_hop_key(key))
}
