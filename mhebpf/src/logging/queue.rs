//! Lines that wait to be written.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// How much may wait, in bytes: some thousand lines.
const ROOM: usize = 512 << 10;

/// A queue between those who log and the thread that writes.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    /// How many bytes these have, and the line that is being written.
    bytes: usize,
    /// The thread has something to do that it took.
    busy: Option<usize>,
    /// Lines for which there was no room since that was told. As long as there are any, no other line is taken: so they were left
    /// out where it is told.
    refused: u64,
    /// Lines that could not be written since that was told.
    failed: u64,
    /// All that were ever left out.
    left_out: u64,
}

/// What the thread does next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Writes a line.
    Write(Vec<u8>),
    /// Says how many lines were left out.
    Tell(u64),
}

impl Queue {
    /// Adds a line, if there is room.
    pub(super) fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.refused > 0 || state.bytes + line.len() > ROOM {
            state.refused += 1;
            state.left_out += 1;
            return;
        }
        state.add(line.to_vec());
        self.changed.notify_all();
    }

    /// Adds what is not to be left out.
    pub(super) fn push_anyway(&self, line: Vec<u8>) {
        self.lock().add(line);
        self.changed.notify_all();
    }

    /// How many lines were left out.
    pub(super) fn left_out(&self) -> u64 {
        self.lock().left_out
    }

    /// Waits until nothing waits any more, or the time is over.
    pub(super) fn flush(&self, limit: Duration) {
        let waits = |state: &mut State| state.busy.is_some() || !state.lines.is_empty() || state.refused > 0;
        drop(self.changed.wait_timeout_while(self.lock(), limit, waits));
    }

    /// Waits for something to do; `written` says whether the last line could be written.
    pub(super) fn next(&self, written: bool) -> Step {
        let mut state = self.lock();
        state.end_step(written);
        loop {
            if let Some(line) = state.lines.pop_front() {
                state.busy = Some(line.len());
                return Step::Write(line);
            }
            // There was an end to what was waiting, so there is room.
            state.failed += std::mem::take(&mut state.refused);
            if written && state.failed > 0 {
                state.busy = Some(0);
                return Step::Tell(std::mem::take(&mut state.failed));
            }
            self.changed.notify_all();
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, line: Vec<u8>) {
        self.bytes += line.len();
        self.lines.push_back(line);
    }

    fn end_step(&mut self, written: bool) {
        let Some(bytes) = self.busy.take() else { return };
        self.bytes -= bytes;
        if !written && bytes > 0 {
            self.failed += 1;
            self.left_out += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(queue: &Queue, written: bool) -> String {
        match queue.next(written) {
            Step::Write(line) => String::from_utf8(line).expect("text"),
            Step::Tell(left_out) => panic!("{left_out} lines left out"),
        }
    }

    #[test]
    fn what_finds_no_room_is_told_where_it_was_left_out() {
        let queue = Queue::default();
        queue.push(b"first\n");
        queue.push(&[b'x'; ROOM]);
        queue.push(b"as well\n");
        assert_eq!(line(&queue, true), "first\n");
        queue.push(b"still\n");
        assert_eq!(queue.next(true), Step::Tell(3));
        queue.push(b"last\n");
        assert_eq!(line(&queue, true), "last\n");
        assert_eq!(queue.left_out(), 3);
    }

    #[test]
    fn a_line_that_is_being_written_takes_room_too() {
        let queue = Queue::default();
        queue.push(&[b'x'; ROOM]);
        assert_eq!(line(&queue, true).len(), ROOM);
        queue.push(b"more\n");
        assert_eq!(queue.left_out(), 1);
    }

    #[test]
    fn what_cannot_be_written_is_told_when_something_could() {
        let queue = Queue::default();
        for text in ["a", "b", "c"] {
            queue.push(text.as_bytes());
        }
        assert_eq!(line(&queue, true), "a");
        assert_eq!(line(&queue, false), "b");
        assert_eq!(line(&queue, false), "c");
        assert_eq!(queue.next(true), Step::Tell(2));
        assert_eq!(queue.left_out(), 2);
    }

    #[test]
    fn the_end_has_room_and_is_not_waited_for_without_end() {
        let queue = Queue::default();
        queue.push(&[b'x'; ROOM]);
        queue.push(b"left out\n");
        queue.push_anyway(b"the end\n".to_vec());
        queue.flush(Duration::from_millis(1));
        assert_eq!(line(&queue, true).len(), ROOM);
        assert_eq!(line(&queue, true), "the end\n");
    }
}
