//! The BPF file system, and this network namespace's place in it.

use std::{
    fs::{DirBuilder, File},
    io,
    net::UdpSocket,
    os::{fd::AsRawFd as _, unix::fs::DirBuilderExt as _},
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use rustix::fs::fstatfs;

use crate::trusted::{self, Directory};

/// `BPF_FS_MAGIC` of linux/magic.h.
const MAGIC: u32 = 0xcafe_4a11;

/// Opens the directory, and makes it, for this user only, where it is missing.
///
/// # Errors
///
/// When it is not in a BPF file system, or others may write to it.
pub(super) fn prepare(path: &Path) -> Result<Directory> {
    let looking = || format!("looking at the directory for pins, {}", path.display());
    let directory = match Directory::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make(path)?;
            Directory::open(path).with_context(looking)?
        }
        opened => opened.with_context(looking)?,
    };
    check_is_bpf(directory.file(), path)?;
    Ok(directory)
}

fn make(path: &Path) -> Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().with_context(|| format!("{} is no name of a directory", path.display()))?;
    let opened = trusted::open_any(parent).with_context(|| {
        format!(
            "looking for a BPF file system for {} (mount -t bpf -o mode=0700 bpf /sys/fs/bpf mounts one): {}",
            path.display(),
            parent.display()
        )
    })?;
    check_is_bpf(&opened, path)?;
    let through = Path::new("/proc/self/fd").join(opened.as_raw_fd().to_string()).join(name);
    match DirBuilder::new().mode(0o700).create(through) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
    .with_context(|| format!("making the directory {}", path.display()))
}

fn check_is_bpf(existing: &File, wanted: &Path) -> Result<()> {
    let status =
        fstatfs(existing).with_context(|| format!("asking what file system has {}", wanted.display()))?;
    // Of another type on each architecture.
    if status.f_type as u32 != MAGIC {
        bail!(
            "{} is not in a BPF file system, where links and maps can be pinned: mount one with \
             `mount -t bpf -o mode=0700 bpf /sys/fs/bpf`, or name a directory in another one (--pin DIR)",
            wanted.display()
        );
    }
    Ok(())
}

/// The number of this network namespace, which no other has until the machine starts anew (`SO_NETNS_COOKIE`, Linux
/// 5.14). Those of inodes are used again.
///
/// # Errors
///
/// On older kernels.
pub(super) fn namespace() -> Result<u64> {
    cookie().context("asking for the number of this network namespace (SO_NETNS_COOKIE, Linux 5.14)")
}

fn cookie() -> io::Result<u64> {
    // Any socket will do; this one needs no route and sends nothing.
    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to the number.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}
