//! What the programs say, in the log.

use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result};
use tokio::io::{Interest, unix::AsyncFd};
use tracing::warn;

use crate::datapath::Reports;

/// Begins to hand on what the programs say to the log, until the process ends.
///
/// # Errors
///
/// When their messages can't be waited for.
pub(super) fn follow(reports: Reports) -> Result<()> {
    // SAFETY: it is one descriptor of its own, the same for as long as it lives.
    let ready = unsafe { AsyncFd::register_with_interest(reports.readiness()?, Interest::READABLE) };
    tokio::spawn(hand_on(ready.context("waiting for what the programs say")?, reports));
    Ok(())
}

async fn hand_on(ready: AsyncFd<OwnedFd>, mut reports: Reports) {
    loop {
        match ready.readable().await {
            Ok(mut ready) => {
                // Before they are taken: what comes meanwhile makes it ready again.
                ready.clear_ready();
                reports.show();
            }
            Err(error) => return warn!("waiting for what the programs say: {error}"),
        }
    }
}
