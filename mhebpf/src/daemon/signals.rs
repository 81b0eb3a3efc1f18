//! What interrupts a run.

use std::{fs::File, time::Duration};

use anyhow::{Context as _, Result};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, sleep_until},
};
use tracing::{debug, info};

use crate::stop;

/// What is asked of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// To end.
    Stop,
    /// To read the configuration file again.
    Reload,
}

/// The signals, and the time that a run may take.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
    had_terminal: bool,
    lost_terminal: bool,
    deadline: Option<Instant>,
}

impl Signals {
    pub(super) fn new(run_for: Option<Duration>) -> Result<Self> {
        stop::by(&[libc::SIGINT, libc::SIGTERM]).context("handling SIGINT and SIGTERM")?;
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("handling SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("handling SIGTERM")?,
            // Before the signal is handled, which ends that.
            had_terminal: has_terminal() && !ignores_hang_ups(),
            hang_up: signal(SignalKind::hangup()).context("handling SIGHUP")?,
            lost_terminal: false,
            deadline: run_for.map(|run_for| Instant::now() + run_for),
        })
    }

    /// Whether the run ends because its terminal is gone.
    pub(super) fn has_lost_terminal(&self) -> bool {
        self.lost_terminal
    }

    /// Waits for the next request. Cancelling loses none.
    pub(super) async fn next(&mut self) -> Request {
        let deadline = self.deadline;
        let time_is_up = async move {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => debug!("stopping: SIGINT"),
            _ = self.terminate.recv() => debug!("stopping: SIGTERM"),
            _ = self.hang_up.recv() => {
                // The terminal may be gone because of what is enforced, and with it the one who could stop it.
                if !self.had_terminal || has_terminal() {
                    return Request::Reload;
                }
                self.lost_terminal = true;
                info!("stopping: the terminal is gone");
            }
            () = time_is_up => info!("stopping: the time is up"),
        }
        Request::Stop
    }
}

/// Whether this process was started to go on without its terminal (nohup).
fn ignores_hang_ups() -> bool {
    // SAFETY: an all-zero `sigaction` is a valid one, and is written to.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGHUP, std::ptr::null(), &raw mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
    }
}

/// Whether this process has a controlling terminal.
fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}
