//! Blocks of addresses that are replaced while programs read them.

use std::{future::pending, io};

use tokio::task::{JoinHandle, spawn_blocking};
use tracing::{debug, warn};

use super::Daemon;
use crate::datapath::wait_for_grace_period;

/// A grace period that is waited for beside the loop, one at a time.
#[derive(Default)]
pub(super) struct GracePeriod {
    waits: Option<JoinHandle<io::Result<()>>>,
    /// This kernel has none for us.
    is_refused: bool,
}

impl GracePeriod {
    fn begin(&mut self) {
        self.waits = Some(spawn_blocking(wait_for_grace_period));
    }

    /// Comes when it is over, or can't be waited for; never if none has begun. May be given up.
    pub(super) async fn over(&mut self) -> io::Result<()> {
        match &mut self.waits {
            Some(waits) => {
                let over = waits.await.unwrap_or_else(|error| Err(io::Error::other(error)));
                self.waits = None;
                over
            }
            None => pending().await,
        }
    }
}

impl Daemon<'_> {
    /// Begins to wait for a grace period, if blocks need one.
    pub(super) fn have_blocks_moved(&mut self) {
        let is_idle = self.grace_period.waits.is_none() && !self.grace_period.is_refused;
        if is_idle && self.datapath.maps.has_blocks_to_move() {
            self.datapath.maps.begin_grace_period();
            self.grace_period.begin();
        }
    }

    /// Goes on with the blocks that have waited. Where grace periods can't be had, they stay closed.
    pub(super) fn move_blocks(&mut self, over: io::Result<()>) {
        match over {
            Ok(()) => {
                if let Err(error) = self.datapath.maps.move_blocks() {
                    warn!("{error:#}");
                }
                self.have_blocks_moved();
            }
            Err(error) => {
                debug!("addresses of blocks that have changed are looked up one by one from now on: {error}");
                self.grace_period.is_refused = true;
            }
        }
    }
}
