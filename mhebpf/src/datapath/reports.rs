//! What the programs say for the log, where it shows that.

use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya_log::{EbpfLogger, Level};

use crate::logging::Limit;

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

/// What senders of packets can have the log say. The programs themselves keep to one message in 10 ms on each CPU.
static LINES: Limit = Limit::new("what the programs say");

/// The messages of the programs.
pub struct Reports {
    logger: EbpfLogger<Limited>,
}

/// Hands on some messages in a second.
struct Limited;

impl log::Log for Limited {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        log::logger().enabled(metadata)
    }

    fn log(&self, record: &log::Record<'_>) {
        if LINES.admits() {
            log::logger().log(record);
        }
    }

    fn flush(&self) {
        log::logger().flush();
    }
}

impl Reports {
    /// `None` where the programs say nothing.
    pub(super) fn take(ebpf: &mut Ebpf, level: u8) -> Result<Option<Self>> {
        if level == OFF {
            return Ok(None);
        }
        let logger = EbpfLogger::init_with_logger(ebpf, Limited)
            .context("reading what the programs say for the log")?;
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
