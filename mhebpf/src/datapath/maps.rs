//! Keeping the maps equal to the [`Tables`] that the host asks for.

mod epoch;
mod family;
mod filter;
mod hops;
mod ifaces;
mod live;
mod staged;

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{HashMap, MapData, MapError},
};
use ipnet::IpNet;
use mhebpf_ebpf::{Filter, FurtherOwnerKey, Iface, Ipv4, Ipv6};

use self::{epoch::EpochMap, family::FamilyMaps, filter::FilterMap, hops::HopsMap, ifaces::IfaceMaps};
pub use self::{live::Live, staged::wait_for_grace_period};
use super::raw::Raw;
use crate::{
    model::{Tables, next_hops::Change},
    stop,
};

/// Where the maps come from, by their names in the object.
pub(super) type Source<'a> = &'a mut dyn FnMut(&str) -> Result<aya::maps::Map>;

/// So many changes of next hops are given up when the daemon is told to end.
const MANY: usize = 1_000;

/// The maps, together with what was written to them.
pub struct Maps {
    ifaces: IfaceMaps,
    filter: FilterMap,
    epoch: EpochMap,
    further_owners: HashMap<MapData, Raw<FurtherOwnerKey>, u8>,
    ipv4: FamilyMaps<Ipv4>,
    ipv6: FamilyMaps<Ipv6>,
    hops: HopsMap,
    written: Tables,
    /// Changes of next hops that the kernel has refused.
    failed: Vec<Change>,
}

impl Maps {
    pub(super) fn take(source: Source<'_>) -> Result<Self> {
        Ok(Self {
            ifaces: IfaceMaps::take(source)?,
            filter: FilterMap::take(source)?,
            epoch: EpochMap::take(source)?,
            further_owners: HashMap::try_from(source("FURTHER_OWNERS")?)?,
            ipv4: FamilyMaps::take(source, ["OWNERS", "PREFIXES", "NEXT_HOPS"])?,
            ipv6: FamilyMaps::take(source, ["OWNERS6", "PREFIXES6", "NEXT_HOPS6"])?,
            hops: HopsMap::take(source)?,
            written: Tables::default(),
            failed: Vec::new(),
        })
    }

    /// What the maps were brought to.
    pub fn written(&self) -> &Tables {
        &self.written
    }

    /// What the programs decide by, which can be something else where others write to the maps.
    pub fn live(&self) -> Live<'_> {
        Live::new(self)
    }

    /// All that is in the maps, whoever has written it. Takes a system call or two for each entry.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read a map.
    pub fn read(&self) -> Result<Tables> {
        let mut tables =
            Tables { ifaces: self.ifaces.read_all().context("reading the interfaces")?, ..Tables::default() };
        for key in self.further_owners.keys() {
            tables.further_owners.insert(key.context("reading further owners")?.0);
        }
        tables.ipv4 = self.ipv4.read(&self.hops).context("reading what is known of IPv4 addresses")?;
        tables.ipv6 = self.ipv6.read(&self.hops).context("reading what is known of IPv6 addresses")?;
        Ok(tables)
    }

    /// The filter that is in its map, whoever has written it.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read it.
    pub fn read_filter(&self) -> Result<Filter> {
        self.filter.read().context("reading the filter of local addresses")
    }

    /// Brings the maps to `wanted`, writing only what differs.
    ///
    /// What is added or changed is written before anything is removed, and owners before the interfaces that
    /// cache them: at no moment does an address that stays look foreign or owned elsewhere. The filter has the address of an
    /// owner before and after there is one; where it can't be written, no interface asks it. An entry that can't be written is
    /// tried again at the next call.
    ///
    /// # Errors
    ///
    /// The first failure; all other entries are written nevertheless. [`Stopped`](crate::stop::Stopped) when what is left was
    /// given up.
    pub fn write(&mut self, wanted: &Tables) -> Result<()> {
        if *wanted == self.written && self.epoch.has_begun() {
            return Ok(());
        }
        let mut failures = Failures::default();
        failures.note("ending what the programs remember", self.epoch.end());
        let is_filtered = failures.note("adding to the filter", self.filter.add(&wanted.filter()));
        if !is_filtered {
            self.write_ifaces(wanted, is_filtered, &mut failures);
        }
        for key in &wanted.further_owners {
            if !self.written.further_owners.contains(key)
                && failures.note("adding an owner", self.further_owners.insert(Raw(*key), 1, 0))
            {
                self.written.further_owners.insert(*key);
            }
        }
        self.ipv4.add(&mut self.written.ipv4, &wanted.ipv4, &mut self.hops, &mut failures);
        self.ipv6.add(&mut self.written.ipv6, &wanted.ipv6, &mut self.hops, &mut failures);
        // Nothing is removed until all is added.
        stop::check()?;
        self.write_ifaces(wanted, is_filtered, &mut failures);
        self.remove_unwanted(wanted, &mut failures);
        stop::check()?;
        failures.note("removing from the filter", self.filter.write(self.written.filter()));
        failures.note("having the programs remember", self.epoch.begin());
        failures.into_result()
    }

    /// Whether blocks of addresses wait for a grace period that is to be begun.
    pub fn has_blocks_to_move(&self) -> bool {
        self.ifaces.has_blocks_to_move()
    }

    /// A grace period begins ([`wait_for_grace_period`]), of which [`Maps::move_blocks`] is to be told when it is over.
    pub fn begin_grace_period(&mut self) {
        self.ifaces.begin_grace_period();
    }

    /// Brings blocks a step further that have waited since before the grace period that is over. Until they are there, their
    /// addresses are looked up.
    ///
    /// # Errors
    ///
    /// The first failure; all others are written nevertheless.
    pub fn move_blocks(&mut self) -> Result<()> {
        let mut failures = Failures::default();
        self.ifaces.move_blocks(&self.written.ifaces, &mut failures);
        failures.into_result()
    }

    /// Waits until all blocks are where they are wanted.
    ///
    /// # Errors
    ///
    /// When grace periods can't be waited for, or a map can't be written.
    pub fn settle(&mut self) -> Result<()> {
        while self.has_blocks_to_move() {
            self.begin_grace_period();
            wait_for_grace_period().context("waiting for an RCU grace period")?;
            self.move_blocks()?;
        }
        Ok(())
    }

    /// Writes changes of next hops that are in no [`Tables`], as `changes` tells them. Those that can't be written are tried again
    /// at the next call.
    ///
    /// # Errors
    ///
    /// The first failure; all others are written nevertheless.
    pub fn write_next_hops(&mut self, changes: impl FnOnce(&mut dyn FnMut(Change))) -> Result<()> {
        let mut failures = Failures::default();
        let mut has_written = false;
        let failed = std::mem::take(&mut self.failed);
        let mut changed = 0_usize;
        let mut write = |change: Change| {
            changed += 1;
            // So many take seconds. Few are rather written than left out of maps that may stay in force.
            if changed > MANY && stop::is_asked() {
                return;
            }
            if !std::mem::replace(&mut has_written, true) {
                failures.note("ending what the programs remember", self.epoch.end());
            }
            let done = match change.prefix {
                IpNet::V4(net) => {
                    self.ipv4.change(&change, net.addr().into(), &self.written.ipv4, &mut self.hops)
                }
                IpNet::V6(net) => {
                    self.ipv6.change(&change, net.addr().into(), &self.written.ipv6, &mut self.hops)
                }
            };
            if !failures.note("writing a next hop", done) {
                self.failed.push(change);
            }
        };
        failed.into_iter().for_each(&mut write);
        changes(&mut write);
        if has_written {
            failures.note("having the programs remember", self.epoch.begin());
        }
        failures.into_result()
    }

    /// Without a filter, all say that there are owners by prefix: the programs look there, and don't ask it.
    fn write_ifaces(&mut self, wanted: &Tables, is_filtered: bool, failures: &mut Failures) {
        for (ifindex, iface) in &wanted.ifaces {
            let mut iface = *iface;
            if !is_filtered {
                iface.flags |= Iface::PREFIXES;
            }
            if self.written.ifaces.get(ifindex) == Some(&iface) {
                continue;
            }
            if failures.note("updating an interface", self.ifaces.write(*ifindex, iface)) {
                self.written.ifaces.insert(*ifindex, iface);
            }
        }
    }

    fn remove_unwanted(&mut self, wanted: &Tables, failures: &mut Failures) {
        let gone: Vec<u32> =
            self.written.ifaces.keys().filter(|key| !wanted.ifaces.contains_key(key)).copied().collect();
        for ifindex in gone {
            if failures.note("removing an interface", self.ifaces.remove(ifindex)) {
                self.written.ifaces.remove(&ifindex);
            }
        }
        self.ipv4.remove(&mut self.written.ipv4, &wanted.ipv4, &mut self.hops, failures);
        self.ipv6.remove(&mut self.written.ipv6, &wanted.ipv6, &mut self.hops, failures);
        for key in missing(self.written.further_owners.iter(), |key| wanted.further_owners.contains(key)) {
            if failures.note("removing an owner", removed(self.further_owners.remove(&Raw(key)))) {
                self.written.further_owners.remove(&key);
            }
        }
    }
}

/// A map is called as it is in the programs. In the object a global is the section that it is in, and no pin can be called
/// that: bpffs keeps dots for later (`bpf_lookup`, Linux 6.18).
pub(super) fn name_in_object(name: &str) -> &str {
    match name {
        "FILTER" => ".bss.filter",
        "EPOCH" => ".bss.epoch",
        other => other,
    }
}

pub(super) fn take(ebpf: &mut Ebpf, name: &str) -> Result<aya::maps::Map> {
    ebpf.take_map(name_in_object(name)).with_context(|| format!("the built object has no map {name}"))
}

fn missing<'a, K: Copy + 'a>(written: impl Iterator<Item = &'a K>, wanted: impl Fn(&K) -> bool) -> Vec<K> {
    written.filter(|key| !wanted(key)).copied().collect()
}

/// What is not there needs no removal.
fn removed(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        other => other,
    }
}

/// The first failure of a row of writes, and how many there were.
#[derive(Default)]
struct Failures {
    first: Option<anyhow::Error>,
    count: usize,
}

impl Failures {
    /// Whether `result` is a success.
    fn note(&mut self, what: &'static str, result: Result<(), MapError>) -> bool {
        match result {
            Ok(()) => true,
            Err(error) => {
                self.count += 1;
                self.first.get_or_insert_with(|| anyhow::Error::new(error).context(what));
                false
            }
        }
    }

    fn into_result(self) -> Result<()> {
        let count = self.count;
        self.first.map_or(Ok(()), |first| {
            Err(first.context(format!("writing the BPF maps: {count} entries failed, the first while")))
        })
    }
}
