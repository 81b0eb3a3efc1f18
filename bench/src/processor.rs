//! Keeping a measurement on one CPU.

use std::io;

use anyhow::{Context as _, Result, ensure};

/// Keeps the calling thread, and those that it starts, on the CPU that it is on, where no ordinary thread interrupts them
/// (`SCHED_FIFO`). They ought to sleep now and then.
///
/// # Errors
///
/// Without root.
pub(crate) fn stay_here() -> Result<()> {
    // SAFETY: none of these calls keeps a pointer; the set is initialised and its size goes with it.
    let done = unsafe {
        let cpu = libc::sched_getcpu();
        ensure!(cpu >= 0, "asking for the current CPU: {}", io::Error::last_os_error());
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu as usize, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) == 0
            && libc::sched_setscheduler(0, libc::SCHED_FIFO, &libc::sched_param { sched_priority: 1 }) == 0
    };
    if done { Ok(()) } else { Err(io::Error::last_os_error()).context("binding a thread to a CPU") }
}
