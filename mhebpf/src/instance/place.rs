//! Where the daemon of a network namespace is found, and held to be the only one.
//!
//! ```text
//! /run/mhebpf/            of root, or of a service's user; /run/user/UID/mhebpf of other users
//!   netns-INODE/          of one network namespace; locked by its daemon
//!     control             the socket that it answers at
//! ```
//!
//! Nobody but the user of the daemon and root can put anything there.

use std::{
    fs::{self, TryLockError},
    io,
    os::unix::{fs::MetadataExt as _, net::UnixListener},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tracing::debug;

use crate::trusted::{Directory, Entry, own_user};

/// Where services have theirs.
const RUN: &str = "/run/mhebpf";
/// Where users have theirs.
const RUN_OF_USERS: &str = "/run/user";
/// What the directory is called.
const OURS: &str = "mhebpf";
/// What the name of a namespace's directory starts with.
const NAMESPACE: &str = "netns-";
/// The name of the socket.
const SOCKET: &str = "control";

/// For how long the lock is tried.
const MOMENT: Duration = Duration::from_millis(200);

/// The directory of this network namespace, locked.
#[derive(Debug)]
pub(super) struct Place {
    directory: Directory,
    within: Directory,
    name: String,
}

/// What became of an attempt to lock it.
pub(super) enum Claim {
    /// It is this process's, and so is the socket.
    Held(Place, UnixListener),
    /// Another daemon has it, and answers there.
    Taken(Entry),
    /// There is no directory that this user could have.
    Nowhere,
}

/// Locks the directory of this network namespace, which is made where it is missing.
///
/// # Errors
///
/// When the directory is there and can't be locked, or has no socket in it in the end.
pub(super) fn claim() -> Result<Claim> {
    let name = name()?;
    for path in [PathBuf::from(RUN), of_user(&own_user().to_string())] {
        match prepare(&path).and_then(|within| Ok((within.make_below(&name)?, within))) {
            Ok((directory, within)) => return lock(directory, within, name),
            Err(error) => debug!("no place for the socket of mhebpf: {}: {error}", path.display()),
        }
    }
    Ok(Claim::Nowhere)
}

fn of_user(user: &str) -> PathBuf {
    Path::new(RUN_OF_USERS).join(user).join(OURS)
}

fn prepare(path: &Path) -> io::Result<Directory> {
    match Directory::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Where anybody may write, another user could be the first to have the name.
            Directory::open(path.parent().unwrap_or(path))?.make_below(OURS)
        }
        opened => opened,
    }
}

fn lock(mut directory: Directory, within: Directory, name: String) -> Result<Claim> {
    let begin = Instant::now();
    loop {
        match directory.file().try_lock() {
            Ok(()) => {}
            // Another daemon that starts holds it for a moment, to see whether this namespace is gone.
            Err(TryLockError::WouldBlock) if begin.elapsed() < MOMENT => {
                thread::sleep(MOMENT / 10);
                continue;
            }
            Err(TryLockError::WouldBlock) => return Ok(Claim::Taken(directory.entry(SOCKET))),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("locking {}", directory.path().display()));
            }
        }
        // Who had it before has removed it, maybe.
        if directory.is_at(&within.entry(&name)).unwrap_or(false) {
            break;
        }
        directory = within
            .make_below(&name)
            .with_context(|| format!("making the directory {}", within.entry(&name).path().display()))?;
    }
    remove_dead(&within);
    let socket = directory.entry(SOCKET);
    // One that was killed has left it.
    let _ = socket.remove();
    let path = socket.path();
    let listener =
        UnixListener::bind(&path).with_context(|| format!("making the socket {}", path.display()))?;
    Ok(Claim::Held(Place { directory, within, name }, listener))
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.directory.entry(SOCKET).remove();
        let _ = self.within.entry(&self.name).remove_directory();
    }
}

/// Removes what daemons of other network namespaces have left that were killed.
fn remove_dead(within: &Directory) {
    for name in within.names().unwrap_or_default() {
        // This one's own is locked, by another descriptor.
        if name.starts_with(NAMESPACE)
            && let Ok(directory) = within.below(&name)
            && directory.file().try_lock().is_ok()
        {
            let _ = directory.entry(SOCKET).remove();
            let _ = within.entry(&name).remove_directory();
        }
    }
}

/// The sockets at which a daemon of this network namespace may answer this user, each with the users whose it may be: where
/// only root, a service's user that root has made the directory for, and this user have theirs.
pub(crate) fn sockets() -> Vec<(PathBuf, [u32; 2])> {
    existing([PathBuf::from(RUN), of_user(&own_user().to_string())])
}

/// For root, the sockets of all other users, each with its user. Any user can have one.
pub(crate) fn sockets_of_others() -> Vec<(PathBuf, u32)> {
    if own_user() != 0 {
        return Vec::new();
    }
    let users = fs::read_dir(RUN_OF_USERS).into_iter().flatten().flatten();
    let users = users.filter_map(|user| user.file_name().into_string().ok()).filter(|user| user != "0");
    existing(users.map(|user| of_user(&user))).into_iter().map(|(socket, [_, user])| (socket, user)).collect()
}

fn existing(places: impl IntoIterator<Item = PathBuf>) -> Vec<(PathBuf, [u32; 2])> {
    let Ok(name) = name() else { return Vec::new() };
    let socket = |place: PathBuf| {
        let directory = Directory::open_of_any_user(&place).ok()?.below(&name).ok()?;
        Some((directory.entry(SOCKET).path(), directory.users()))
    };
    places.into_iter().filter_map(socket).collect()
}

/// The number of this network namespace's inode tells it from all others that are there now.
fn name() -> Result<String> {
    let metadata = fs::metadata("/proc/self/ns/net").context("looking at this network namespace")?;
    Ok(format!("{NAMESPACE}{}", metadata.ino()))
}
