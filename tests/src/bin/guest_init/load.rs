//! Loading modules.

use std::{fs, io};

/// Loads the modules that `/guest/modules` lists, in its order, and returns what the kernel said against any of them.
pub(crate) fn all() -> io::Result<Vec<String>> {
    let mut complaints = Vec::new();
    for path in fs::read_to_string("/guest/modules")?.lines() {
        match load(path) {
            Err(error) if error.raw_os_error() != Some(libc::EEXIST) => {
                complaints.push(format!("{path} was not loaded: {error}"));
            }
            _ => {}
        }
    }
    Ok(complaints)
}

fn load(path: &str) -> io::Result<()> {
    let contents = fs::read(path)?;
    // SAFETY: the kernel reads as many bytes as it is told, and a string of parameters, here empty.
    let result =
        unsafe { libc::syscall(libc::SYS_init_module, contents.as_ptr(), contents.len(), c"".as_ptr()) };
    let result = if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    // The root file system is in memory.
    fs::remove_file(path)?;
    result
}
