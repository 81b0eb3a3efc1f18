//! Waiting for a condition, always with a deadline.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// How long a test waits for something that ought to happen at once: the machine may be busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(10);

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
