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

    /// A report with a `?`, as `ls` has it, for every character that is not for a terminal.
    ///
    /// An interface is called what somebody likes, where only `/`, `:` and blanks are refused (`dev_valid_name`, Linux
    /// 6.18): a container's could write all over the terminal of whoever looks at it.
    pub fn printable(self, text: &str) -> String {
        let styles = if self == Self::On { &STYLES[..] } else { &[] };
        let mut printable = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find(is_unprintable) {
            let (before, from) = rest.split_at(at);
            printable.push_str(before);
            rest = match styles.iter().find(|style| from.starts_with(**style)) {
                Some(style) => {
                    printable.push_str(style);
                    &from[style.len()..]
                }
                None => {
                    printable.push('?');
                    from.char_indices().nth(1).map_or("", |(second, _)| &from[second..])
                }
            };
        }
        printable + rest
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

/// The sequences that [`Colours::paint`] makes: plain again, bold, dimmed, red, green, yellow and cyan.
const STYLES: [&str; 7] =
    ["\u{1b}[0m", "\u{1b}[1m", "\u{1b}[2m", "\u{1b}[31m", "\u{1b}[32m", "\u{1b}[33m", "\u{1b}[36m"];

/// Whether a character does something else than stand where it is: controls, and those of Unicode that turn the
/// direction of text around or have no width.
fn is_unprintable(character: char) -> bool {
    match character {
        '\n' | '\t' => false,
        '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' => true,
        _ => character.is_control(),
    }
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
    let _ = io::stderr().lock().write_all(Colours::Off.printable(text).as_bytes());
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
    fn names_do_not_write_all_over_the_terminal() {
        let bold = Colours::On.paint(Style::new().bold(), "eth0");
        let text = format!("{bold}\tup, größer\n");
        assert_eq!(Colours::On.printable(&text), text);
        assert_eq!(Colours::Off.printable(&text), "?[1meth0?[0m\tup, größer\n");
        let names = "a\u{1b}[2Jb\u{1b}[8mc\u{1b}[31\rd\u{9b}e\u{7}\u{202e}f";
        assert_eq!(Colours::On.printable(names), "a?[2Jb?[8mc?[31?d?e??f");
    }

    #[test]
    fn plain_text_has_no_escapes() {
        let bold = Style::new().bold();
        assert_eq!(Colours::Off.paint(bold, "word"), "word");
        assert_eq!(Colours::On.paint(bold, "word"), "\u{1b}[1mword\u{1b}[0m");
    }
}
