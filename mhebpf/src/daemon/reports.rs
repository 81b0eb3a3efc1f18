//! What the programs say, in the log.

use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result};
use tokio::{
    io::{Interest, unix::AsyncFd},
    task::JoinHandle,
};
use tracing::warn;

use crate::datapath::Reports;

/// Begins to hand on what the programs say to the log, until the task is ended.
///
/// # Errors
///
/// When their messages can't be waited for.
pub(super) fn follow(reports: Reports) -> Result<JoinHandle<()>> {
    // SAFETY: it is one descriptor of its own, the same for as long as it lives.
    let ready = unsafe { AsyncFd::register_with_interest(reports.readiness()?, Interest::READABLE) };
    Ok(tokio::spawn(hand_on(ready.context("waiting for what the programs say")?, reports)))
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
