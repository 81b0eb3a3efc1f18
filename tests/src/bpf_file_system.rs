//! A BPF file system of a test's own.

use std::{
    env,
    ffi::CString,
    fs, io,
    os::unix::{ffi::OsStrExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{self, Command},
    sync::atomic::{AtomicUsize, Ordering},
};

use anyhow::{Context as _, Result, ensure};

use crate::{confined, daemon::Daemon, netns::NetNs};

/// A mounted BPF file system. With it go all links and maps that are pinned in it.
#[derive(Debug)]
pub struct BpfFileSystem {
    path: PathBuf,
}

impl BpfFileSystem {
    /// Mounts one that nobody else knows of.
    ///
    /// # Errors
    ///
    /// Without root.
    pub fn mount() -> Result<Self> {
        static MOUNTED: AtomicUsize = AtomicUsize::new(0);
        let number = MOUNTED.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("mhebpf-bpf-{}-{number}", process::id()));
        fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        let mounted = Self { path };
        let target = CString::new(mounted.path.as_os_str().as_bytes())?;
        // SAFETY: all pointers are to strings that end with NUL, or null where there are no data.
        let result =
            unsafe { libc::mount(c"bpf".as_ptr(), target.as_ptr(), c"bpf".as_ptr(), 0, std::ptr::null()) };
        let error = io::Error::last_os_error();
        ensure!(result == 0, "mounting a BPF file system on {}: {error}", mounted.path.display());
        Ok(mounted)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A directory in it, as an argument.
    pub fn directory(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }

    /// A command in a network namespace, which sees this file system as `/sys/fs/bpf`.
    ///
    /// # Errors
    ///
    /// When mhebpf has not been built.
    pub fn command(&self, ns: &NetNs, words: &[&str]) -> Result<Command> {
        let mut command = Daemon::command(ns)?;
        command.args(words);
        let source = CString::new(self.path.as_os_str().as_bytes())?;
        // SAFETY: these are system calls with pointers to strings that end with NUL, or null; nothing is allocated.
        unsafe {
            command.pre_exec(move || {
                let (none, target) = (std::ptr::null(), c"/sys/fs/bpf".as_ptr());
                let private = libc::MS_REC | libc::MS_PRIVATE;
                if libc::unshare(libc::CLONE_NEWNS) == 0
                    && libc::mount(none, c"/".as_ptr(), none, private, none.cast()) == 0
                    && libc::mount(source.as_ptr(), target, none, libc::MS_BIND, none.cast()) == 0
                {
                    return Ok(());
                }
                Err(io::Error::last_os_error())
            });
        }
        // Mounting takes more.
        confined::as_by_the_unit(&mut command)?;
        Ok(command)
    }
}

impl Drop for BpfFileSystem {
    fn drop(&mut self) {
        if let Ok(target) = CString::new(self.path.as_os_str().as_bytes()) {
            // SAFETY: a string that ends with NUL.
            unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
        }
        // Fails where it is mounted still, and then there is nothing else to do.
        let _ = fs::remove_dir(&self.path);
    }
}
