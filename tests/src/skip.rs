//! Tests that a kernel cannot run.

use std::io::{self, Write as _};

/// Says on standard error that the rest of a test is skipped, past libtest, which swallows what a passing test prints.
pub fn skip(why: &str) {
    let thread = std::thread::current();
    // Nobody is left to hear of a failure.
    let _ = writeln!(io::stderr(), "SKIPPED: {}: {why}", thread.name().unwrap_or("a test"));
}
