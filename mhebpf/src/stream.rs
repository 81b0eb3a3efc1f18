//! Output that goes on until nobody reads it any more.

use std::io::{self, Write as _};

/// Goes to the top left corner of a terminal and clears all that is there.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

/// Prints a text on standard output at once; `false` when its reader has gone away.
///
/// # Errors
///
/// When it can't be written for another reason.
pub fn print(text: &str) -> io::Result<bool> {
    write(text)
}

/// The same on a terminal that is cleared before.
///
/// # Errors
///
/// As [`print()`].
pub fn repaint(text: &str) -> io::Result<bool> {
    write(&(CLEAR.to_owned() + text))
}

fn write(text: &str) -> io::Result<bool> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}
