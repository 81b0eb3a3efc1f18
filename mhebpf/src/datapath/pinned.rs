//! Maps and links in a BPF file system.

use std::{io, os::fd::OwnedFd};

use anyhow::{Context as _, Result, bail};
use aya::{
    maps::{Map, MapData},
    programs::{
        ProgramError, SchedClassifier,
        links::{FdLink, PinnedLink},
        tc::SchedClassifierLink,
    },
};
use tracing::warn;

use super::{Counters, Maps, StateMap};
use crate::pins::{Directory, Entry, Generation, Pinned};

/// The maps that are pinned. Those of samples are not: nobody watches when the daemon is gone.
pub(super) const MAPS: [&str; 15] = [
    "IFACES",
    "IFACE_SLOTS",
    "FILTER",
    "EPOCH",
    "OWNERS",
    "OWNERS6",
    "PREFIXES",
    "PREFIXES6",
    "FURTHER_OWNERS",
    "NEXT_HOPS",
    "NEXT_HOPS6",
    "HOPS",
    "COUNTERS",
    "DIRECT_COUNTS",
    "STATE",
];

/// Those of them that go on with the next daemon.
pub const COUNTING: [&str; 2] = ["COUNTERS", "DIRECT_COUNTS"];

/// The maps of a daemon that may be gone.
pub struct PinnedMaps {
    /// The tables.
    pub maps: Maps,
    /// What was counted.
    pub counters: Counters,
    /// What the daemon has noted.
    pub state: StateMap,
}

impl PinnedMaps {
    /// Those in the directory of a network namespace that were written last. What a start was making or filling when it was
    /// killed is in no use yet.
    ///
    /// # Errors
    ///
    /// Without root or CAP_BPF, or when another version has written them.
    pub fn youngest(directory: &Directory) -> Result<Self> {
        let generations = Generation::all(directory)?;
        let is_complete = |generation: &&Generation| {
            // What can't be looked at is opened, which says why.
            generation.is_known()
                && MAPS.iter().all(|name| generation.map(name).through().try_exists().unwrap_or(true))
        };
        for generation in generations.iter().rev().filter(is_complete) {
            let maps = Self::open(generation)?;
            if maps.state.read()?.written != 0 {
                return Ok(maps);
            }
        }
        let others = generations.iter().filter(|generation| !generation.is_known());
        let layouts: Vec<String> = others.map(|generation| generation.layout().to_string()).collect();
        bail!(
            "the maps in {} were written by another version of mhebpf (layout {}), which this one can't read: ask that \
             one, or take them over with `mhebpf run --pin`",
            directory.path().display(),
            if layouts.is_empty() { "unknown".to_owned() } else { layouts.join(" and ") }
        )
    }

    fn open(generation: &Generation) -> Result<Self> {
        let source = &mut |name: &str| open(&generation.map(name));
        Ok(Self {
            maps: Maps::take(source)?,
            counters: Counters::take(source)?,
            state: StateMap::take(source)?,
        })
    }
}

fn open(place: &Entry) -> Result<Map> {
    let opened = MapData::from_pin(place.through()).and_then(Map::from_map_data);
    opened.with_context(|| {
        format!("opening the pinned map {} (this needs root or CAP_BPF)", place.path().display())
    })
}

/// Pins a pinned map in another place as well.
///
/// # Errors
///
/// When the kernel refuses.
pub fn pin_again(from: &Entry, to: &Entry) -> Result<()> {
    let map = MapData::from_pin(from.through());
    let map = map.with_context(|| format!("opening the pinned map {}", from.path().display()))?;
    map.pin(to.through()).with_context(|| format!("pinning a map as {}", to.path().display()))
}

/// Pins a link.
pub(super) fn pin(link: &OwnedFd, pinned: &Pinned) -> Result<PinnedLink> {
    let place = pinned.place();
    pinned.pin(link).with_context(|| format!("pinning a link as {}", place.path().display()))?;
    open_link(place)
}

/// Has the program take the place of another one, which a link that was pinned earlier runs: no packet passes between the two.
/// `None` where there is no such link, or its interface has been deleted or moved to another network namespace meanwhile; its
/// pin is gone then too. With it goes the id by which the kernel lists it.
pub(super) fn take_over(
    program: &mut SchedClassifier,
    pinned: &Pinned,
) -> Result<Option<(PinnedLink, Option<u32>)>> {
    let place = pinned.place();
    match pinned.is_in_force() {
        Ok(true) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        // Of another interface that had the same index here, or no link at all.
        Ok(false) => return remove(place).map(|()| None),
        Err(error) => {
            return Err(error).with_context(|| format!("opening the pinned link {}", place.path().display()));
        }
    }
    let link = FdLink::from(open_link(place)?);
    let Ok(link) = SchedClassifierLink::try_from(link) else {
        warn!("{} is no TCX link: replacing it", place.path().display());
        return remove(place).map(|()| None);
    };
    match program.attach_to_link(link) {
        Ok(key) => {
            let held = program.take_link(key)?;
            let id = pinned.id().ok().flatten();
            let pinned = open_link(place)?;
            // Not before there is another descriptor.
            drop(held);
            Ok(Some((pinned, id)))
        }
        // The interface was deleted at this very moment (`tcx_link_update`, Linux 6.6).
        Err(ProgramError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOLINK) => {
            remove(place).map(|()| None)
        }
        Err(error) => Err(error)
            .with_context(|| format!("replacing the program of the link {}", place.path().display())),
    }
}

fn open_link(place: &Entry) -> Result<PinnedLink> {
    PinnedLink::from_pin(place.through())
        .with_context(|| format!("opening the pinned link {}", place.path().display()))
}

fn remove(place: &Entry) -> Result<()> {
    place.remove().with_context(|| format!("removing the pin {}", place.path().display()))
}
