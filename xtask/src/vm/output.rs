//! What a guest says, and what it means.

use std::mem;

use crate::summary::Summary;

/// What the guest's init puts before lines of its own; see `tests/src/bin/guest_init`.
const GUEST: &str = "guest: ";

/// What tests say, past libtest, of what they leave out; see `tests/src/skip.rs`.
const SKIPPED: &str = "SKIPPED: ";

/// What a kernel says when something is wrong with it.
const ALARMS: [&str; 6] =
    ["Oops", "BUG:", "WARNING:", "Kernel panic", "general protection fault", "Out of memory"];

/// A program of tests that ran in the guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) name: String,
    pub(crate) sum: Summary,
    /// `exit status: 0 after 3.2 s`; empty if it has not ended.
    pub(crate) end: String,
    pub(crate) lines: Vec<String>,
    /// What was left out, as `TEST: WHY`, once for each test.
    pub(crate) skips: Vec<String>,
}

impl Section {
    fn skip(&mut self, skip: &str) {
        let test = |skip: &str| skip.split_once(": ").map(|(test, _)| test.to_owned());
        if !self.skips.iter().any(|other| test(other) == test(skip)) {
            self.skips.push(skip.to_owned());
        }
    }

    /// Tells whether all went well.
    pub(crate) fn is_good(&self) -> bool {
        self.end.starts_with("exit status: 0 ") && self.sum.failed == 0
    }
}

/// All that a guest said on its second serial line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) sections: Vec<Section>,
    /// What the guest's init said of itself.
    pub(crate) notes: Vec<String>,
    /// The last line, `RC=n`.
    pub(crate) code: Option<u32>,
    running: Section,
}

impl Output {
    /// Takes the next line, and returns the section that ends with it.
    pub(crate) fn take(&mut self, line: &str) -> Option<&Section> {
        let line = line.trim_end();
        if let Some(said) = line.strip_prefix(GUEST) {
            return self.take_note(said);
        }
        if let Some(code) = line.strip_prefix("RC=") {
            self.code = code.parse().ok();
            return None;
        }
        // It may come in the middle of a line of libtest's.
        if let Some((_, skip)) = line.split_once(SKIPPED) {
            self.running.skip(skip);
        }
        if let Some(sum) = Summary::parse(line) {
            self.running.sum += sum;
        }
        self.running.lines.push(line.to_owned());
        None
    }

    fn take_note(&mut self, said: &str) -> Option<&Section> {
        if let Some(name) = said.strip_prefix("begin ") {
            self.running = Section { name: name.to_owned(), ..Section::default() };
        } else if let Some(end) = said.strip_prefix("end ") {
            self.end_section(end);
            return self.sections.last();
        } else {
            self.notes.push(said.to_owned());
        }
        None
    }

    fn end_section(&mut self, end: &str) {
        let mut section = mem::take(&mut self.running);
        end.clone_into(&mut section.end);
        // For libtest a test that leaves itself out has passed.
        let left_out = section.skips.len() as u64;
        section.sum.passed = section.sum.passed.saturating_sub(left_out);
        section.sum.skipped += left_out;
        // Tests that died have no result line.
        if section.sum.failed == 0 && !section.is_good() {
            section.sum.failed = 1;
        }
        self.sections.push(section);
    }

    /// Ends the section of a guest that has ended in the middle of it.
    pub(crate) fn finish(&mut self) {
        if !self.running.name.is_empty() {
            self.end_section("with the guest");
        }
    }

    /// Adds up the tests.
    pub(crate) fn sum(&self) -> Summary {
        self.sections.iter().fold(Summary::default(), |mut sum, section| {
            sum += section.sum;
            sum
        })
    }
}

/// Returns what is alarming in the log of a kernel.
pub(crate) fn alarms(console: &str) -> Vec<String> {
    let is_alarming = |line: &&str| ALARMS.iter().any(|alarm| line.contains(alarm));
    console.lines().filter(is_alarming).map(|line| line.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(text: &str) -> Output {
        let mut output = Output::default();
        for line in text.lines() {
            output.take(line);
        }
        output.finish();
        output
    }

    #[test]
    fn sections_are_told_apart_and_added_up() {
        let output = output(
            "guest: kernel 6.1\nguest: begin mtu\r\nrunning 2 tests\r\ntest a ... SKIPPED: b: no TCX\nok\n\
             SKIPPED: b: no TCX\n\
             test result: ok. 2 passed; 0 failed; 0 ignored; x\r\nguest: end exit status: 0 after 1.0 s\r\n\
             guest: begin sessions\ntest result: FAILED. 1 passed; 1 failed; 0 ignored; x\n\
             guest: end exit status: 101 after 1.0 s\nRC=1\r\n",
        );
        assert_eq!(output.sum(), Summary { passed: 2, failed: 1, skipped: 1 });
        assert_eq!(output.sections[0].skips, ["b: no TCX"]);
        assert_eq!(output.notes, ["kernel 6.1"]);
        assert_eq!(output.code, Some(1));
        let good: Vec<_> = output.sections.iter().map(Section::is_good).collect();
        assert_eq!(good, [true, false]);
    }

    #[test]
    fn a_program_that_dies_or_never_ends_has_failed() {
        let died =
            output("guest: begin a\nrunning 1 test\nguest: end signal: 11 (SIGSEGV) after 1.0 s\nRC=1\n");
        assert_eq!(died.sum(), Summary { passed: 0, failed: 1, skipped: 0 });
        let cut = output("guest: begin a\nrunning 1 test\n");
        assert_eq!(cut.sum(), Summary { passed: 0, failed: 1, skipped: 0 });
        assert_eq!(cut.code, None);
    }

    #[test]
    fn a_kernel_in_trouble_is_noticed() {
        let console = "[ 1.0] clocksource: fine\n[ 2.0] WARNING: CPU: 0 PID: 1 at net/core/dev.c\n";
        assert_eq!(alarms(console), ["[ 2.0] WARNING: CPU: 0 PID: 1 at net/core/dev.c"]);
        assert!(alarms("[ 1.0] Warning: unable to open an initial console.").is_empty());
    }
}
