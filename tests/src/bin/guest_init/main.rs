//! The first process of a guest in which the tests run on another kernel: see `xtask/src/vm.rs`, which makes its root
//! file system.
//!
//! It mounts what the tests need, loads modules, runs every program in `/tests`, and ends the emulator. What it says on
//! the second serial line is read by `xtask/src/vm/output.rs`.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};

mod load;
mod mount;
mod power;
mod run;

/// The serial line for what the tests say. The kernel has the first one.
const LINE: &str = "/dev/ttyS1";

fn main() -> ExitCode {
    // The first process of any machine but a guest would do harm here, and so would any other process.
    if std::process::id() != 1 || !Path::new("/guest/modules").exists() {
        eprintln!("this is the first process of a guest; `cargo xtask vm` boots one");
        return ExitCode::FAILURE;
    }
    let failed = match guest() {
        Ok(failed) => failed,
        Err(error) => {
            // There is nothing else to tell it to.
            println!("guest: {error}");
            true
        }
    };
    power::end(failed.into())
}

/// Does everything, and tells whether a test failed.
fn guest() -> io::Result<bool> {
    mount::all()?;
    let mut line = OpenOptions::new().write(true).open(LINE)?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    // Else the modules of tunnels make an interface of each kind in every new namespace, which the tests want empty.
    fs::write("/proc/sys/net/core/fb_tunnels_only_for_init_net", "2")?;
    for complaint in load::all()? {
        writeln!(line, "guest: {complaint}")?;
    }
    run::tool("ip link set lo up")?;
    writeln!(line, "guest: {} was up after {:.1} s", release.trim(), uptime()?)?;
    let failed = run::tests(&mut line)?;
    writeln!(line, "RC={}", u32::from(failed))?;
    drain(&line)?;
    Ok(failed)
}

fn uptime() -> io::Result<f64> {
    let text = fs::read_to_string("/proc/uptime")?;
    Ok(text.split(' ').next().and_then(|seconds| seconds.parse().ok()).unwrap_or_default())
}

/// Waits until all that was written has left the machine.
fn drain(line: &File) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    // SAFETY: tcdrain takes no pointers, and the descriptor is open.
    match unsafe { libc::tcdrain(line.as_raw_fd()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
