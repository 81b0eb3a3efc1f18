//! Waiting for a condition, always with a deadline.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// How long a test waits for something that ought to happen at once: the machine may be busy with other things.
pub const PATIENCE: Duration = scaled(Duration::from_secs(10));

/// A time limit, as much longer as `MHEBPF_PATIENCE` said when this was compiled: the tests that `cargo xtask vm` builds
/// run in emulated machines, many times slower.
pub const fn scaled(limit: Duration) -> Duration {
    let factor = match option_env!("MHEBPF_PATIENCE") {
        Some(text) => match u32::from_str_radix(text, 10) {
            Ok(factor) => factor,
            Err(_) => 1,
        },
        None => 1,
    };
    limit.saturating_mul(factor)
}

/// Pause between two looks at a state for which the kernel has no event.
const PAUSE: Duration = Duration::from_millis(2);

/// Asks `condition` again and again until it gives a value.
///
/// # Errors
///
/// The condition's own, and when it has given no value within `limit`: the message names `what`.
pub fn wait_until<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("waited {limit:?} for {what}");
        }
        thread::sleep(PAUSE);
    }
}
