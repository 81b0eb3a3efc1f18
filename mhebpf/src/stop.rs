//! Whether the daemon is told to end, for what takes long.
//!
//! The daemon's loop learns of it only when it waits. What may take longer than a second before that asks here between two of
//! its steps, and gives up.

use std::{
    error::Error,
    fmt, io,
    sync::atomic::{AtomicU8, Ordering},
};

/// Nobody has asked.
const RUNNING: u8 = 0;
/// Somebody has.
const ASKED: u8 = 1;
/// It ends: what it does from now on is its end, and nothing to be given up.
const ENDING: u8 = 2;

static STATE: AtomicU8 = AtomicU8::new(RUNNING);

/// Something was given up.
#[derive(Clone, Copy, Debug)]
pub struct Stopped;

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("given up: mhebpf is told to end")
    }
}

impl Error for Stopped {}

impl From<Stopped> for io::Error {
    fn from(stopped: Stopped) -> Self {
        Self::other(stopped)
    }
}

/// Has [`check`] fail once one of the signals has come.
///
/// # Errors
///
/// When a signal can't be handled.
pub fn by(signals: &[libc::c_int]) -> io::Result<()> {
    for signal in signals {
        // SAFETY: the action is one atomic operation, which a signal handler may do.
        unsafe { signal_hook_registry::register(*signal, ask) }?;
    }
    Ok(())
}

fn ask() {
    let _ = STATE.compare_exchange(RUNNING, ASKED, Ordering::Relaxed, Ordering::Relaxed);
}

/// Gives up no more.
pub fn begin_end() {
    STATE.store(ENDING, Ordering::Relaxed);
}

/// Whether the daemon is told to end, and does not do so yet.
pub fn is_asked() -> bool {
    STATE.load(Ordering::Relaxed) == ASKED
}

/// Whether something has failed because it was given up.
pub fn has_caused(error: &anyhow::Error) -> bool {
    let is_inside = |error: &io::Error| error.get_ref().is_some_and(<dyn Error + Send + Sync>::is::<Stopped>);
    error.chain().any(|cause| cause.is::<Stopped>() || cause.downcast_ref().is_some_and(is_inside))
}

/// Whether to go on.
///
/// # Errors
///
/// [`Stopped`] when the daemon is told to end, and does not do so yet.
pub fn check() -> Result<(), Stopped> {
    if is_asked() { Err(Stopped) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn what_was_given_up_is_told_from_what_has_failed() {
        let in_between: anyhow::Result<()> = Err(Stopped).context("writing");
        let while_reading: anyhow::Result<()> =
            Err(io::Error::from(Stopped)).context("dumping").context("more");
        let failed: anyhow::Result<()> = Err(io::Error::from_raw_os_error(libc::EPERM)).context("dumping");
        let caused = |result: anyhow::Result<()>| result.is_err_and(|error| has_caused(&error));
        assert!(caused(in_between) && caused(while_reading) && !caused(failed));
    }
}
