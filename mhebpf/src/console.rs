//! Text for a terminal: lines that fit, and colours where they are wanted.

use std::{
    env,
    io::{self, IsTerminal as _, Write as _},
};

use anstyle::Style;
use textwrap::{Options, WordSeparator, WordSplitter};

/// How wide text is at most, in columns.
pub const WIDTH: usize = 80;

/// Whether text is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colours {
    /// It is.
    On,
    /// It is plain.
    Off,
}

impl Colours {
    /// On where standard output is a terminal and `NO_COLOR` is not set (no-color.org: to anything but nothing).
    pub fn of_stdout() -> Self {
        let unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if io::stdout().is_terminal() && !unwanted { Self::On } else { Self::Off }
    }

    /// The text in a style.
    pub fn paint(self, style: Style, text: &str) -> String {
        match self {
            Self::On => format!("{style}{text}{style:#}"),
            Self::Off => text.to_owned(),
        }
    }
}

/// Breaks a text into lines of at most [`WIDTH`] columns: the first one starts with `first`, the others with
/// `others`. Only a word that is too long for a line of its own is broken.
pub fn wrap(text: &str, first: &str, others: &str) -> String {
    wrap_to(WIDTH, text, first, others)
}

/// [`wrap`] for another width.
pub fn wrap_to(width: usize, text: &str, first: &str, others: &str) -> String {
    // Words end at blanks only: a hyphen is a part of what is to be copied, and so is a slash.
    let options = Options::new(width)
        .initial_indent(first)
        .subsequent_indent(others)
        .word_separator(WordSeparator::AsciiSpace)
        .word_splitter(WordSplitter::NoHyphenation);
    let mut lines = textwrap::fill(text, options);
    lines.push('\n');
    lines
}

/// Prints a text on standard output. A reader that has gone away is no failure.
///
/// # Errors
///
/// When it can't be written for another reason.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Says something on standard error, if that can be written: a terminal may be gone, and a disk full.
pub fn say(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_fit_and_words_stay_whole() {
        let text = "sysctl -w net.ipv4.conf.eth0_int.ignore_routes_with_linkdown=1 ".repeat(3);
        let lines = wrap(&text, "  ", "    ");
        assert!(lines.lines().all(|line| line.len() <= WIDTH), "{lines}");
        assert_eq!(lines.matches("net.ipv4.conf.eth0_int.ignore_routes_with_linkdown=1").count(), 3);
        assert!(lines.starts_with("  sysctl -w net.ipv4.") && lines.contains("\n    "), "{lines}");
    }

    #[test]
    fn plain_text_has_no_escapes() {
        let bold = Style::new().bold();
        assert_eq!(Colours::Off.paint(bold, "word"), "word");
        assert_eq!(Colours::On.paint(bold, "word"), "\u{1b}[1mword\u{1b}[0m");
    }
}
