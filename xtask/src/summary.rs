//! The sum of all checks and tests of a run.

use std::{fmt, iter, ops::AddAssign};

/// How many checks and tests passed, failed and were skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Summary {
    /// Returns the summary of a single check.
    pub(crate) fn of_check(passed: bool) -> Self {
        Self { passed: passed.into(), failed: (!passed).into(), skipped: 0 }
    }

    /// Parses a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; ...`, coloured or not.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let line = without_colours(line);
        let counts = line.strip_prefix("test result: ")?.split_once(". ")?.1;
        let count = |what: &str| {
            counts.split("; ").find_map(|part| part.trim().strip_suffix(what)?.trim_end().parse().ok())
        };
        Some(Self { passed: count("passed")?, failed: count("failed")?, skipped: count("ignored")? })
    }
}

impl AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

/// Removes `ESC [ ... letter` sequences.
fn without_colours(line: &str) -> String {
    let mut characters = line.chars();
    let plain = iter::from_fn(|| {
        loop {
            match characters.next()? {
                '\u{1b}' => {
                    let _ = characters.find(char::is_ascii_alphabetic);
                }
                other => return Some(other),
            }
        }
    });
    plain.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &str =
        "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.01s";

    #[test]
    fn a_result_line_is_parsed() {
        assert_eq!(Summary::parse(OK), Some(Summary { passed: 12, failed: 0, skipped: 1 }));
        let failed = "test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(Summary::parse(failed), Some(Summary { passed: 2, failed: 3, skipped: 0 }));
    }

    #[test]
    fn a_coloured_result_line_is_parsed() {
        let coloured = OK.replace("ok", "\u{1b}[32mok\u{1b}(B\u{1b}[m");
        assert_eq!(Summary::parse(&coloured), Summary::parse(OK));
    }

    #[test]
    fn other_lines_are_not_results() {
        for line in
            ["", "running 3 tests", "test result: ok", "note: test result: ok. 1 passed; 0 failed; 0 ignored"]
        {
            assert_eq!(Summary::parse(line), None, "{line}");
        }
    }

    #[test]
    fn skipped_tests_are_mentioned_only_where_there_are_any() {
        let mut sum = Summary::of_check(true);
        sum += Summary::of_check(false);
        assert_eq!(sum.to_string(), "1 passed, 1 failed");
        sum += Summary { passed: 3, failed: 0, skipped: 2 };
        assert_eq!(sum.to_string(), "4 passed, 1 failed, 2 skipped");
    }
}
