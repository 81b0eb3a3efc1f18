//! The directory of a network namespace.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use mhebpf_ebpf::LAYOUT;
use tracing::{info, warn};

use super::{Pinned, file_system};
use crate::{
    datapath::{COUNTING, pin_again},
    trusted::{Directory, Entry, is_distrust},
};

/// What the name of a namespace's directory starts with.
const NAMESPACE: &str = "netns-";

/// How long another process may hold the lock.
const LOCK_LIMIT: Duration = Duration::from_secs(5);
/// How often it is tried.
const LOCK_STEP: Duration = Duration::from_millis(20);

/// The pins of this network namespace, which nobody else changes as long as this lives.
#[derive(Debug)]
pub struct Pins {
    within: Directory,
    /// Locked, which is how other daemons tell that this one is there, from whatever namespaces they are in.
    directory: Directory,
    name: String,
}

/// The maps of one start, in a directory of their own.
#[derive(Clone, Debug)]
pub struct Generation {
    layout: u32,
    number: u64,
    place: Entry,
    directory: Directory,
}

impl PartialEq for Generation {
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place
    }
}

impl Pins {
    /// Makes the directory of this namespace in another one, or takes the one that is there.
    ///
    /// # Errors
    ///
    /// When there is no BPF file system, or others may write to the directory.
    pub fn open(within: &Path) -> Result<Self> {
        let within = file_system::prepare(within)?;
        let name = name_of_namespace()?;
        loop {
            let directory = within
                .make_below(&name)
                .with_context(|| format!("making the directory {}", within.entry(&name).path().display()))?;
            if lock(&directory, &within.entry(&name))? {
                return Ok(Self { within, directory, name });
            }
        }
    }

    /// The directory of this namespace, if it is there and has something in it.
    ///
    /// # Errors
    ///
    /// When it can't be looked at; when others may write to it.
    pub fn find(within: &Path) -> Result<Option<Directory>> {
        let found = || -> Result<Option<Directory>> {
            let directory = Directory::open(within)?.below(&name_of_namespace()?)?;
            Ok((!directory.names()?.is_empty()).then_some(directory))
        };
        match found() {
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => {
                let needs = if is_distrust(&error) { "" } else { " (this needs root)" };
                Err(error.context(format!("looking at the pins in {}{needs}", within.display())))
            }
            found => found,
        }
    }

    /// Where the links are.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The links, in the order in which they are taken off.
    ///
    /// # Errors
    ///
    /// When the directory can't be read.
    pub fn links(&self) -> Result<Vec<Pinned>> {
        links(&self.directory)
    }

    /// Makes a place for new maps.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn begin(&self) -> Result<Generation> {
        let last = Generation::all(&self.directory)?.into_iter().map(|generation| generation.number).max();
        let generation = Generation::make(&self.directory, LAYOUT, last.unwrap_or(0) + 1)?;
        if let Some(last) = self.last_counting(&generation)? {
            for name in COUNTING {
                if let Err(error) = pin_again(&last.map(name), &generation.map(name)) {
                    warn!("counting from 0: {error:#}");
                }
            }
        }
        Ok(generation)
    }

    /// The youngest other maps with the same layout, as far as they were made.
    fn last_counting(&self, other_than: &Generation) -> Result<Option<Generation>> {
        let is_counting = |generation: &Generation| {
            generation != other_than
                && generation.is_known()
                && COUNTING.iter().all(|name| generation.map(name).through().exists())
        };
        Ok(Generation::all(&self.directory)?.into_iter().rev().find(is_counting))
    }

    /// Removes the maps of earlier starts, which no program in force uses any more.
    ///
    /// # Errors
    ///
    /// At the first that can't be removed.
    pub fn keep_only(&self, current: &Generation) -> Result<()> {
        for generation in Generation::all(&self.directory)? {
            if generation != *current {
                generation.remove()?;
            }
        }
        Ok(())
    }

    /// Takes all programs off their interfaces and removes all maps. What others have put in the directory stays.
    ///
    /// # Errors
    ///
    /// The first failure; all the rest is removed nevertheless.
    pub fn remove_all(&self) -> Result<()> {
        remove_all(&self.directory, &self.within.entry(&self.name))
    }

    /// Removes what other network namespaces have left that are gone: those without a daemon, none of whose links is on an
    /// interface any more.
    pub fn remove_dead_neighbours(&self) {
        // This one's own is locked.
        remove_dead(&self.within);
    }
}

fn name_of_namespace() -> Result<String> {
    Ok(format!("{NAMESPACE}{}", file_system::namespace()?))
}

fn is_missing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Removes what network namespaces have left that are gone, as [`Pins::remove_dead_neighbours`], and what is empty. A directory
/// that is not there, or that others may write to, is left alone.
pub fn remove_dead_in(within: &Path) {
    match Directory::open(within) {
        Ok(within) => remove_dead(&within),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => warn!("not looking for what network namespaces have left: {error}"),
    }
}

fn remove_dead(within: &Directory) {
    let names = within.names().unwrap_or_default();
    for name in names.iter().filter(|name| name.starts_with(NAMESPACE)) {
        match remove_if_dead(within, name) {
            Ok(true) => {
                info!("removed {}: its network namespace is gone", within.entry(name).path().display());
            }
            Ok(false) => {}
            Err(error) => warn!("removing what a network namespace has left: {error:#}"),
        }
    }
}

fn remove_if_dead(within: &Directory, name: &str) -> Result<bool> {
    let place = within.entry(name);
    let directory = match within.below(name) {
        // Another one was quicker.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened.with_context(|| format!("opening {}", place.path().display()))?,
    };
    match directory.file().try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(false),
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("locking {}", place.path().display()));
        }
    }
    // One that can't be looked at may be alive.
    let lives = links(&directory)?.iter().any(|link| link.is_alive().unwrap_or(true));
    if !lives {
        remove_all(&directory, &place)?;
    }
    Ok(!lives)
}

/// Locks a directory; `false` where it was removed meanwhile.
fn lock(directory: &Directory, place: &Entry) -> Result<bool> {
    let locked = || {
        wait_for_lock(directory.file(), directory.path())?;
        directory.is_at(place)
    };
    match locked() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        result => result.with_context(|| format!("locking {}", directory.path().display())),
    }
}

/// Others hold the lock for a moment, to see whether this namespace is gone.
fn wait_for_lock(file: &File, directory: &Path) -> io::Result<()> {
    let begin = Instant::now();
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if begin.elapsed() > LOCK_LIMIT => {
                let message = format!("{} holds the lock: end it first", holder(file));
                return Err(io::Error::new(io::ErrorKind::TimedOut, message));
            }
            Err(TryLockError::WouldBlock) => {}
        }
        if !told && begin.elapsed() > LOCK_LIMIT / 10 {
            told = true;
            info!("waiting for {}, which holds the lock of {}", holder(file), directory.display());
        }
        thread::sleep(LOCK_STEP);
    }
}

/// Who has locked a file, as `/proc/locks` says.
fn holder(file: &File) -> String {
    let process = || {
        let inode = file.metadata().ok()?.ino().to_string();
        let locks = fs::read_to_string("/proc/locks").ok()?;
        locks.lines().find_map(|line| holder_of(line, &inode))
    };
    process().map_or_else(|| "another process".to_owned(), |process| format!("process {process}"))
}

/// The process of a line of `/proc/locks` (`1: FLOCK  ADVISORY  WRITE 1234 00:1d:5678 0 EOF`), where that holds a lock of this
/// inode; 0 is one of another PID namespace.
fn holder_of(line: &str, inode: &str) -> Option<u32> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        [_, "FLOCK", _, _, process, place, ..] if place.rsplit(':').next() == Some(inode) => {
            process.parse().ok().filter(|process| *process > 0)
        }
        _ => None,
    }
}

/// The links in a directory, in the order in which they are taken off.
///
/// # Errors
///
/// When the directory can't be read.
pub fn links(directory: &Directory) -> Result<Vec<Pinned>> {
    let mut links: Vec<Pinned> =
        names(directory)?.iter().filter_map(|name| Pinned::read(directory, name)).collect();
    links.sort_by_key(|link| (link.side, link.ifindex));
    Ok(links)
}

fn names(directory: &Directory) -> Result<Vec<String>> {
    directory.names().with_context(|| format!("looking at the pins in {}", directory.path().display()))
}

/// Removes what is ours in a directory, and the directory, which is at `place`.
fn remove_all(directory: &Directory, place: &Entry) -> Result<()> {
    let mut first = Ok(());
    let mut note = |result: Result<()>| {
        if first.is_ok() {
            first = result;
        } else if let Err(error) = result {
            warn!("{error:#}");
        }
    };
    for link in links(directory)? {
        note(link.remove().with_context(|| format!("removing the pin {}", link.place().path().display())));
    }
    for generation in Generation::all(directory)? {
        note(generation.remove());
    }
    let removed = place.remove_directory();
    note(removed.with_context(|| format!("removing the directory {}", place.path().display())));
    first
}

impl Generation {
    fn name(layout: u32, number: u64) -> String {
        format!("maps-{layout}-{number}")
    }

    fn make(within: &Directory, layout: u32, number: u64) -> Result<Self> {
        let place = within.entry(&Self::name(layout, number));
        let directory = within.make_below(&Self::name(layout, number));
        let directory =
            directory.with_context(|| format!("making the directory {}", place.path().display()))?;
        Ok(Self { layout, number, place, directory })
    }

    /// Understands the name of a generation: the layout and the number.
    fn read(name: &str) -> Option<(u32, u64)> {
        let (layout, number) = name.strip_prefix("maps-")?.split_once('-')?;
        let (layout, number) = (layout.parse().ok()?, number.parse().ok()?);
        (Self::name(layout, number) == name).then_some((layout, number))
    }

    /// The generations in the directory of a namespace, the youngest last.
    ///
    /// # Errors
    ///
    /// When it can't be read, or one of them is no directory that only trusted users may write to.
    pub fn all(within: &Directory) -> Result<Vec<Self>> {
        let mut all = Vec::new();
        for name in names(within)? {
            let Some((layout, number)) = Self::read(&name) else { continue };
            let place = within.entry(&name);
            let directory = within
                .below(&name)
                .with_context(|| format!("opening the directory {}", place.path().display()))?;
            all.push(Self { layout, number, place, directory });
        }
        all.sort_by_key(|generation| generation.number);
        Ok(all)
    }

    /// Whether this version can read the maps.
    pub fn is_known(&self) -> bool {
        self.layout == LAYOUT
    }

    /// The number of the layout.
    pub fn layout(&self) -> u32 {
        self.layout
    }

    /// Where a map is pinned.
    pub fn map(&self, name: &str) -> Entry {
        self.directory.entry(name)
    }

    /// Removes the maps, in as far as nothing else holds them. What others have put there stays, and the directory with it.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn remove(&self) -> Result<()> {
        let removed = || {
            for name in self.directory.names()?.iter().filter(|name| is_map(name)) {
                self.map(name).remove()?;
            }
            self.place.remove_directory()
        };
        removed().with_context(|| format!("removing the maps in {}", self.place.path().display()))
    }
}

/// Whether a name is like those of maps, be they of another version.
fn is_map(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_a_lock_is_read_from_what_the_kernel_lists() {
        let line = "12: FLOCK  ADVISORY  WRITE 4242 00:1d:5678 0 EOF";
        assert_eq!(holder_of(line, "5678"), Some(4242));
        assert_eq!(holder_of(line, "678"), None);
        for other in [
            "12: -> FLOCK  ADVISORY  WRITE 4242 00:1d:5678 0 EOF",
            "12: POSIX  ADVISORY  WRITE 4242 00:1d:5678 0 EOF",
            "12: FLOCK  ADVISORY  WRITE 0 00:1d:5678 0 EOF",
        ] {
            assert_eq!(holder_of(other, "5678"), None, "{other}");
        }
    }

    #[test]
    fn generations_are_read_back_and_others_are_not_ours() {
        assert_eq!(Generation::read(&Generation::name(3, 12)), Some((3, 12)));
        for other in ["maps", "maps-1", "maps-x-1", "17-egress", "map-1-2", "maps-1-02", "maps-+1-2"] {
            assert_eq!(Generation::read(other), None, "{other}");
        }
        assert!(is_map("OWNERS6") && !is_map("notes") && !is_map("Owners"));
    }
}
