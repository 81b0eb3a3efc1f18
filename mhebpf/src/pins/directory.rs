//! The directory of a network namespace.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use mhebpf_ebpf::LAYOUT;
use tracing::{info, warn};

use super::{Pinned, file_system};
use crate::datapath::{COUNTING, pin_again};

/// What the name of a namespace's directory starts with.
const NAMESPACE: &str = "netns-";

/// How long another process may hold the lock.
const LOCK_LIMIT: Duration = Duration::from_secs(5);
/// How often it is tried.
const LOCK_STEP: Duration = Duration::from_millis(20);

/// The pins of this network namespace, which nobody else changes as long as this lives.
#[derive(Debug)]
pub struct Pins {
    directory: PathBuf,
    /// Its lock is how other daemons tell that this one is there, from whatever namespaces they are in.
    _lock: File,
}

/// The maps of one start, in a directory of their own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation {
    layout: u32,
    number: u64,
    path: PathBuf,
}

impl Pins {
    /// Makes the directory of this namespace in another one, or takes the one that is there.
    ///
    /// # Errors
    ///
    /// When there is no BPF file system, or others may write to the directory.
    pub fn open(within: &Path) -> Result<Self> {
        file_system::prepare(within)?;
        let directory = within.join(format!("{NAMESPACE}{}", file_system::namespace()?));
        loop {
            file_system::make(&directory)?;
            if let Some(lock) = lock(&directory)? {
                return Ok(Self { directory, _lock: lock });
            }
        }
    }

    /// The directory of this namespace, if it is there and has something in it.
    ///
    /// # Errors
    ///
    /// When it can't be looked at.
    pub fn find(within: &Path) -> Result<Option<PathBuf>> {
        if matches!(fs::metadata(within), Err(error) if error.kind() == io::ErrorKind::NotFound) {
            return Ok(None);
        }
        let directory = within.join(format!("{NAMESPACE}{}", file_system::namespace()?));
        match fs::read_dir(&directory) {
            Ok(mut entries) => Ok(entries.next().is_some().then_some(directory)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error)
                .with_context(|| format!("looking at the pins in {} (this needs root)", directory.display())),
        }
    }

    /// Where the links are.
    pub fn directory(&self) -> &Path {
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
        let generation = Generation::new(&self.directory, LAYOUT, last.unwrap_or(0) + 1);
        file_system::make(&generation.path)?;
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
                && COUNTING.iter().all(|name| generation.map(name).exists())
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
        remove_all(&self.directory)
    }

    /// Removes what other network namespaces have left that are gone: those without a daemon, none of whose links is on an
    /// interface any more.
    pub fn remove_dead_neighbours(&self) {
        // This one's own is locked.
        if let Some(within) = self.directory.parent() {
            remove_dead(within);
        }
    }
}

/// Removes what network namespaces have left that are gone, as [`Pins::remove_dead_neighbours`], and what is empty.
pub fn remove_dead(within: &Path) {
    let Ok(entries) = fs::read_dir(within) else { return };
    for entry in entries.flatten() {
        let directory = entry.path();
        if !entry.file_name().to_str().is_some_and(|name| name.starts_with(NAMESPACE)) {
            continue;
        }
        match remove_if_dead(&directory) {
            Ok(true) => info!("removed {}: its network namespace is gone", directory.display()),
            Ok(false) => {}
            Err(error) => warn!("removing what a network namespace has left: {error:#}"),
        }
    }
}

fn remove_if_dead(directory: &Path) -> Result<bool> {
    let file = File::open(directory).with_context(|| format!("opening {}", directory.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(false),
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("locking {}", directory.display()));
        }
    }
    // One that can't be looked at may be alive.
    let lives = links(directory)?.iter().any(|link| link.is_alive().unwrap_or(true));
    if !lives {
        remove_all(directory)?;
    }
    Ok(!lives)
}

/// Locks a directory; `None` where it was removed meanwhile.
fn lock(directory: &Path) -> Result<Option<File>> {
    let locked = || -> io::Result<Option<File>> {
        let file = File::open(directory)?;
        wait_for_lock(&file, directory)?;
        let (held, named) = (file.metadata()?, fs::metadata(directory)?);
        Ok((held.ino() == named.ino()).then_some(file))
    };
    match locked() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.with_context(|| format!("locking {}", directory.display())),
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
pub fn links(directory: &Path) -> Result<Vec<Pinned>> {
    let mut links: Vec<Pinned> =
        names(directory)?.iter().filter_map(|name| Pinned::read(directory, name)).collect();
    links.sort_by_key(|link| (link.side, link.ifindex));
    Ok(links)
}

fn names(directory: &Path) -> Result<Vec<String>> {
    let read =
        || fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>();
    let names = read().with_context(|| format!("looking at the pins in {}", directory.display()))?;
    Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect())
}

fn remove_all(directory: &Path) -> Result<()> {
    let mut first = Ok(());
    let mut note = |result: Result<()>| {
        if first.is_ok() {
            first = result;
        } else if let Err(error) = result {
            warn!("{error:#}");
        }
    };
    for link in links(directory)? {
        note(link.remove().with_context(|| format!("removing the pin {}", link.path().display())));
    }
    for generation in Generation::all(directory)? {
        note(generation.remove());
    }
    note(
        fs::remove_dir(directory).with_context(|| format!("removing the directory {}", directory.display())),
    );
    first
}

impl Generation {
    fn new(directory: &Path, layout: u32, number: u64) -> Self {
        Self { layout, number, path: directory.join(format!("maps-{layout}-{number}")) }
    }

    fn read(directory: &Path, name: &str) -> Option<Self> {
        let (layout, number) = name.strip_prefix("maps-")?.split_once('-')?;
        Some(Self::new(directory, layout.parse().ok()?, number.parse().ok()?))
    }

    /// The generations in the directory of a namespace, the youngest last.
    ///
    /// # Errors
    ///
    /// When it can't be read.
    pub fn all(directory: &Path) -> Result<Vec<Self>> {
        let mut all: Vec<Self> =
            names(directory)?.iter().filter_map(|name| Self::read(directory, name)).collect();
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
    pub fn map(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Removes the maps, in as far as nothing else holds them.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn remove(&self) -> Result<()> {
        let removed = || {
            for entry in fs::read_dir(&self.path)? {
                fs::remove_file(entry?.path())?;
            }
            fs::remove_dir(&self.path)
        };
        removed().with_context(|| format!("removing the maps in {}", self.path.display()))
    }
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
        let directory = Path::new("/sys/fs/bpf/x");
        let generation = Generation::new(directory, 3, 12);
        let name = generation.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        assert_eq!(Generation::read(directory, name), Some(generation.clone()));
        for other in ["maps", "maps-1", "maps-x-1", "17-egress", "map-1-2"] {
            assert_eq!(Generation::read(directory, other), None, "{other}");
        }
    }
}
