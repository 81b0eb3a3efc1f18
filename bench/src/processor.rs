//! Keeping a measurement on one CPU.

use std::io;

use anyhow::{Result, ensure};

use crate::report::Report;

/// Keeps the calling thread, and those that it starts, on the CPU that it is on, where no ordinary thread interrupts them
/// (`SCHED_FIFO`). They ought to sleep now and then. Where the kernel refuses that, the report says so.
///
/// # Errors
///
/// When the thread cannot be bound to its CPU.
pub(crate) fn stay_here(report: &mut Report) -> Result<()> {
    // SAFETY: none of these calls keeps a pointer; the set is initialised and its size goes with it.
    let (stays, undisturbed) = unsafe {
        let cpu = libc::sched_getcpu();
        ensure!(cpu >= 0, "asking for the current CPU: {}", io::Error::last_os_error());
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu as usize, &mut set);
        let priority = libc::sched_param { sched_priority: 1 };
        (
            libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) == 0,
            libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const priority) == 0,
        )
    };
    ensure!(stays, "binding a thread to its CPU: {}", io::Error::last_os_error());
    if !undisturbed {
        report.note(
            "without SCHED_FIFO, which the kernel refuses here: others disturb what is measured.".into(),
        );
    }
    Ok(())
}
