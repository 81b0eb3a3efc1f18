//! What is shown.

use glob::Pattern;

use crate::{cli::MonitorOptions, control::protocol::Seen};

/// What is shown: all that matches one of the patterns and one of the reasons, where there are any.
#[derive(Debug)]
pub(super) struct Filter<'a> {
    interfaces: &'a [Pattern],
    reasons: &'a [String],
}

impl<'a> Filter<'a> {
    pub(super) fn new(options: &'a MonitorOptions) -> Self {
        Self { interfaces: &options.interfaces, reasons: &options.reasons }
    }

    pub(super) fn admits(&self, seen: &Seen) -> bool {
        (self.interfaces.is_empty() || self.interfaces.iter().any(|glob| glob.matches(&seen.interface)))
            && (self.reasons.is_empty() || self.reasons.contains(&seen.reason))
    }
}
