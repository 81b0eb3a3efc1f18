//! A loader that leaves the kernel's types alone.

use std::{fs, io};

use aya::EbpfLoader;
use tracing::{debug, error};

use crate::logging;

/// Makes a loader, without the BTF of the kernel if that can be avoided.
///
/// aya reads and parses it whenever it makes a loader (`EbpfLoader::new`, 0.14), which costs 20 ms and 17 MB; the programs
/// touch no kernel structures. It does without where the file can't be opened, and so no file can be opened meanwhile. That
/// holds for the process, so it is done only where there is no other thread that could want to, as that of the log does not.
pub(super) fn new<'a>() -> EbpfLoader<'a> {
    if !is_only_thread() {
        return EbpfLoader::new();
    }
    match NoFiles::begin() {
        Ok(_no_files) => EbpfLoader::new(),
        Err(error) => {
            debug!("the BTF of the kernel is read: {error}");
            EbpfLoader::new()
        }
    }
}

fn is_only_thread() -> bool {
    let known = 1 + usize::from(logging::has_thread());
    fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == known)
}

/// No file can be opened as long as this lives.
struct NoFiles {
    before: libc::rlimit,
}

impl NoFiles {
    fn begin() -> io::Result<Self> {
        let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: a pointer to an `rlimit` that lives through the call.
        if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut before) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // Of the soft limit only, which may be raised again up to the hard one; open files stay open.
        set_limit(libc::rlimit { rlim_cur: 0, ..before })?;
        Ok(Self { before })
    }
}

impl Drop for NoFiles {
    fn drop(&mut self) {
        if let Err(error) = set_limit(self.before) {
            error!("no file can be opened any more: restoring the limit of open files: {error}");
        }
    }
}

fn set_limit(limit: libc::rlimit) -> io::Result<()> {
    // SAFETY: a pointer to an `rlimit` that lives through the call.
    match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
