//! The file systems that the tests and mhebpf need.

use std::{ffi::CString, fs, io, ptr};

/// Each with its type, and whether the guest can do without it.
const ALL: [(&str, &str, bool); 8] = [
    ("/proc", "proc", false),
    ("/sys", "sysfs", false),
    ("/dev", "devtmpfs", false),
    ("/run", "tmpfs", false),
    ("/tmp", "tmpfs", false),
    ("/sys/fs/bpf", "bpf", false),
    ("/sys/fs/cgroup", "cgroup2", true),
    ("/sys/kernel/tracing", "tracefs", true),
];

/// Mounts everything.
pub(crate) fn all() -> io::Result<()> {
    for (place, kind, dispensable) in ALL {
        if let Err(error) = mount(place, kind)
            && !dispensable
        {
            return Err(io::Error::new(error.kind(), format!("mounting {kind} on {place}: {error}")));
        }
    }
    Ok(())
}

fn mount(place: &str, kind: &str) -> io::Result<()> {
    // In /sys the kernel makes the directories itself.
    if !place.starts_with("/sys/") {
        fs::create_dir_all(place)?;
    }
    let (place, kind) = (CString::new(place)?, CString::new(kind)?);
    // SAFETY: the strings end with a zero byte and outlive the call; these file systems take no data.
    let result = unsafe { libc::mount(kind.as_ptr(), place.as_ptr(), kind.as_ptr(), 0, ptr::null()) };
    // Some kernels mount devtmpfs by themselves.
    match io::Error::last_os_error() {
        _ if result == 0 => Ok(()),
        error if error.raw_os_error() == Some(libc::EBUSY) => Ok(()),
        error => Err(error),
    }
}
