//! Command lines that can't be carried out.

use std::fmt;

/// A command line that can't be carried out as it is. The process ends with status 2, as for those that clap refuses.
#[derive(Debug)]
pub struct UsageError(String);

impl UsageError {
    /// With one message, which says what to do.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}
