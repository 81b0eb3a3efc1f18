//! How a command that reads says what it found.

use clap::ValueEnum;

/// How a command that reads says what it found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people: lines of at most 80 columns, with colours on a terminal
    #[default]
    Text,
    /// For programs: one JSON document
    Json,
}
