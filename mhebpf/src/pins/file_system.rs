//! The BPF file system, and this network namespace's place in it.

use std::{
    ffi::CString,
    fs::{self, DirBuilder},
    io,
    net::UdpSocket,
    os::{
        fd::AsRawFd as _,
        unix::{
            ffi::OsStrExt as _,
            fs::{DirBuilderExt as _, MetadataExt as _},
        },
    },
    path::Path,
};

use anyhow::{Context as _, Result, bail};

/// `BPF_FS_MAGIC` of linux/magic.h.
const MAGIC: u32 = 0xcafe_4a11;

/// Makes the directory where it is missing, for this user only.
///
/// # Errors
///
/// When it is not in a BPF file system, or others may write to it.
pub(super) fn prepare(directory: &Path) -> Result<()> {
    if !directory.exists() {
        let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
        check_is_bpf(parent.unwrap_or(Path::new(".")), directory)?;
        make(directory)?;
    }
    check_is_bpf(directory, directory)?;
    let metadata = fs::metadata(directory).with_context(|| format!("looking at {}", directory.display()))?;
    // SAFETY: a system call without arguments that always succeeds.
    let own = unsafe { libc::geteuid() };
    if (metadata.uid() != own && metadata.uid() != 0) || metadata.mode() & 0o022 != 0 {
        bail!(
            "{} is of user {} with the permissions {:o}: others could put programs there; give it to the user that \
             mhebpf runs as (chown), for that user alone (chmod 700)",
            directory.display(),
            metadata.uid(),
            metadata.mode() & 0o7777
        );
    }
    Ok(())
}

/// Makes a directory, unless it is there.
pub(super) fn make(directory: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result.with_context(|| format!("making the directory {}", directory.display())),
    }
}

fn check_is_bpf(existing: &Path, wanted: &Path) -> Result<()> {
    let wanted = wanted.display();
    match file_system(existing) {
        Ok(MAGIC) => Ok(()),
        Ok(_) => bail!(
            "{wanted} is not in a BPF file system, where links and maps can be pinned: mount one with \
             `mount -t bpf bpf /sys/fs/bpf`, or name a directory in another one (--pin DIR)"
        ),
        Err(error) => Err(error).with_context(|| {
            format!(
                "looking for a BPF file system for {wanted} (mount -t bpf bpf /sys/fs/bpf mounts one): {}",
                existing.display()
            )
        }),
    }
}

/// The magic number of the file system that holds a file.
fn file_system(path: &Path) -> io::Result<u32> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: an all-zero `statfs` is a valid one.
    let mut status: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: a string that ends with NUL, and a `statfs` that lives through the call.
    match unsafe { libc::statfs(path.as_ptr(), &raw mut status) } {
        // Of another type on each architecture.
        0 => Ok(status.f_type as u32),
        _ => Err(io::Error::last_os_error()),
    }
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
