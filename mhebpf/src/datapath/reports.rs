//! What the programs say for the log, where it shows that.

use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya_log::{EbpfLogger, Level};

/// The target of the programs' messages.
pub const TARGET: &str = "mhebpf_ebpf";

/// What [`aya_log::LEVEL`] is set to for programs that say nothing.
pub(super) const OFF: u8 = 0;
/// The same for programs that say all that they can.
pub(super) const ON: u8 = Level::Debug as u8;

/// Whether the log shows what the programs say.
pub fn are_shown() -> bool {
    tracing::enabled!(target: TARGET, tracing::Level::DEBUG)
}

/// The messages of the programs.
pub struct Reports {
    logger: EbpfLogger<&'static dyn log::Log>,
}

impl Reports {
    /// `None` where the programs say nothing.
    pub(super) fn take(ebpf: &mut Ebpf, level: u8) -> Result<Option<Self>> {
        if level == OFF {
            return Ok(None);
        }
        let logger = EbpfLogger::init(ebpf).context("reading what the programs say for the log")?;
        Ok(Some(Self { logger }))
    }

    /// Hands on what is there to the log.
    pub fn show(&mut self) {
        self.logger.flush();
    }

    /// A descriptor that is readable when there is a message.
    ///
    /// # Errors
    ///
    /// When no descriptor is left.
    pub fn readiness(&self) -> Result<OwnedFd> {
        self.logger
            .as_fd()
            .try_clone_to_owned()
            .context("duplicating the descriptor of the programs' messages")
    }
}
