//! When the host is looked at again.

use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;
use tracing::{debug, warn};

/// How long to wait before a failed synchronisation is tried again: at first, and at most.
pub(super) const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(32));

/// How far a synchronisation came.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The tables are those of the host at one moment.
    InStep,
    /// The host changed all the while: once more, soon.
    Behind,
    /// Something is to be done then.
    Later(Instant),
}

/// When a synchronisation is tried again: after a failure, later each time.
#[derive(Debug, Default)]
pub(super) struct Pace {
    failures: u32,
    retry_at: Option<Instant>,
    /// The failure that was last told of.
    told: Option<String>,
}

impl Pace {
    pub(super) fn note(&mut self, result: Result<Outcome>) {
        let error = match result {
            Ok(outcome) => {
                let retry_at = match outcome {
                    Outcome::InStep => None,
                    Outcome::Behind => Some(Instant::now()),
                    Outcome::Later(at) => Some(at),
                };
                *self = Self { failures: 0, retry_at, told: None };
                return;
            }
            Err(error) => error,
        };
        let error = format!("{error:#}");
        // Something unrelated has changed: the same failure is neither news nor a reason to wait for longer.
        let is_early = self.retry_at.is_some_and(|at| Instant::now() < at);
        if is_early && self.told.as_ref() == Some(&error) {
            debug!("{error}; trying again as planned");
            return;
        }
        let (first, most) = RETRY;
        let delay = first.saturating_mul(1 << self.failures.min(16)).min(most);
        warn!("{error}; trying again in {}s", delay.as_secs());
        self.told = Some(error);
        self.failures += 1;
        self.retry_at = Some(Instant::now() + delay);
    }

    /// Once more, as soon as that may be.
    pub(super) fn at_once(&mut self) {
        self.retry_at = Some(Instant::now());
    }

    pub(super) async fn retry(&self) {
        at(self.retry_at).await;
    }
}

/// Waits for a moment; for ever where there is none.
pub(super) async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
