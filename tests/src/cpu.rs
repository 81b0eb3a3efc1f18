//! CPUs, and staying on one.

use std::{io, mem};

use anyhow::{Context as _, Result, ensure};

/// The CPUs that this process may use.
pub(crate) fn cpus() -> Result<Vec<usize>> {
    // SAFETY: cpu_set_t is plain data for which all zeroes are valid; the kernel fills in at most its size.
    let set = unsafe {
        let mut set = mem::zeroed::<libc::cpu_set_t>();
        // The process's main thread: the calling one may have been bound to a CPU by an earlier round.
        ensure!(
            libc::sched_getaffinity(libc::getpid(), size_of::<libc::cpu_set_t>(), &raw mut set) == 0,
            io::Error::last_os_error()
        );
        set
    };
    // SAFETY: each index is below CPU_SETSIZE.
    Ok((0..libc::CPU_SETSIZE as usize).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect())
}

/// Binds the calling thread to one CPU: what it sends is judged there, by what that CPU remembers.
///
/// # Errors
///
/// When the kernel refuses.
pub fn stay_on_one_cpu() -> Result<()> {
    run_on(*cpus()?.first().context("there is a CPU")?)
}

/// Binds the calling thread to a CPU.
pub(crate) fn run_on(cpu: usize) -> Result<()> {
    // SAFETY: cpu_set_t is plain data for which all zeroes are valid; `cpu` comes from such a set.
    let result = unsafe {
        let mut set = mem::zeroed::<libc::cpu_set_t>();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    ensure!(result == 0, "binding a thread to CPU {cpu}: {}", io::Error::last_os_error());
    Ok(())
}
