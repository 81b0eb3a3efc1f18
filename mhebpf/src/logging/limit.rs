//! Lines that others can cause: whoever sends packets, or connects.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    time::{Instant, sleep},
};
use tracing::debug;

/// How many lines of a kind are written in each period.
const LINES: u32 = 10;
const PERIOD: Duration = Duration::from_secs(1);

/// A limit for lines of one kind. What is left out is told at the end of the period.
#[derive(Debug)]
pub struct Limit {
    /// What the lines are, for the one that tells how many were left out.
    of: &'static str,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    begin: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl Limit {
    /// One that has left out nothing.
    pub const fn new(of: &'static str) -> Self {
        Self { of, state: Mutex::new(State { begin: None, lines: 0, left_out: 0 }) }
    }

    /// Whether one more line is written now. Outside of the daemon's runtime all are, as nobody would tell of the others.
    pub fn admits(&'static self) -> bool {
        let Ok(runtime) = Handle::try_current() else { return true };
        let mut state = self.lock();
        let admitted = state.admits(Instant::now());
        if !admitted && state.left_out == 1 {
            runtime.spawn(self.tell_later());
        }
        admitted
    }

    async fn tell_later(&'static self) {
        sleep(PERIOD).await;
        let left_out = std::mem::take(&mut self.lock().left_out);
        debug!("{left_out} more lines were left out within a second: {}", self.of);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn admits(&mut self, now: Instant) -> bool {
        if self.begin.is_none_or(|begin| now - begin >= PERIOD) {
            (self.begin, self.lines) = (Some(now), 0);
        }
        if self.lines < LINES {
            self.lines += 1;
            return true;
        }
        self.left_out += 1;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_lines_are_written_in_a_second_and_the_others_counted() {
        let mut state = State { begin: None, lines: 0, left_out: 0 };
        let now = Instant::now();
        let mut admitted = |count: u32, at| (0..count).filter(|_| state.admits(at)).count();
        assert_eq!(admitted(1000, now), 10);
        assert_eq!(admitted(5, now + PERIOD / 2), 0);
        assert_eq!(admitted(5, now + PERIOD) + admitted(1000, now + PERIOD), 10);
        assert_eq!(state.left_out, 990 + 5 + 995);
    }
}
