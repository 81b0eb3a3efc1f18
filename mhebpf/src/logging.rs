//! The log of a daemon, which waits for nobody.
//!
//! Whoever reads the log may be stuck: a pipe that nobody empties, a terminal that was stopped. So lines go through a queue of
//! limited size to a thread that writes them, and what finds no room there is left out, counted, and told as soon as there is
//! room again. Commands that end by themselves write at once.

mod limit;
mod queue;

use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::AsFd as _,
    sync::{Arc, OnceLock},
    thread,
    time::Duration,
};

use tracing::warn;

pub use self::limit::Limit;
use self::queue::{Queue, Step};
use crate::console;

/// How long the end of a daemon waits for lines to be written.
const END: Duration = Duration::from_millis(200);

/// How long it takes until a line is tried again that would have to be waited for, where standard error is non-blocking.
const AGAIN: Duration = Duration::from_millis(10);

/// What the thread needs to format a line of its own, in bytes.
const STACK: usize = 256 << 10;

static QUEUE: OnceLock<Arc<Queue>> = OnceLock::new();

/// Has lines be written by a thread from now on. Without one they go on to be written at once.
pub fn begin() {
    let begun = || {
        let log = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        let queue = Arc::new(Queue::default());
        let of_thread = Arc::clone(&queue);
        thread::Builder::new()
            .name("log".to_owned())
            .stack_size(STACK)
            .spawn(move || write(&of_thread, log))?;
        Ok::<_, io::Error>(queue)
    };
    if let Ok(queue) = begun() {
        let _ = QUEUE.set(queue);
    }
}

/// Whether there is the thread. It opens no files.
pub fn has_thread() -> bool {
    QUEUE.get().is_some()
}

/// How many lines were left out so far.
pub fn left_out() -> u64 {
    QUEUE.get().map_or(0, |queue| queue.left_out())
}

/// Says something that the daemon ends with, after all that waits: there is always room for it.
pub fn say(text: &str) {
    match QUEUE.get() {
        Some(queue) => queue.push_anyway(console::Colours::Off.printable(text).into_bytes()),
        None => console::say(text),
    }
}

/// Waits until all lines are written, but not for long.
pub fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(END);
    }
}

/// Where the log is written to.
#[derive(Clone, Copy, Debug)]
pub struct Writer;

impl io::Write for Writer {
    /// Takes a line as a whole.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match QUEUE.get() {
            Some(queue) => {
                queue.push(line);
                Ok(line.len())
            }
            None => io::stderr().write(line),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write(queue: &Queue, mut log: File) {
    let mut written = true;
    loop {
        match queue.next(written) {
            Step::Write(line) => written = write_line(&mut log, &line).is_ok(),
            Step::Tell(1) => warn!("1 line was left out here: the log could not be written"),
            Step::Tell(left_out) => {
                warn!("{left_out} lines were left out here: the log could not be written");
            }
        }
    }
}

fn write_line(log: &mut File, mut line: &[u8]) -> io::Result<()> {
    while !line.is_empty() {
        match log.write(line) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => line = &line[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Whoever shares the pipe has made it so.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(AGAIN),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
