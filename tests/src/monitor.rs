//! `mhebpf monitor` as a child process.

use std::{
    io::{BufRead as _, BufReader, Read},
    process::{Child, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    daemon::Daemon,
    netns::NetNs,
    wait::{PATIENCE, wait_until},
};

/// A running monitor. Dropping it kills it.
#[derive(Debug)]
pub struct Monitor {
    child: Child,
    said: [Arc<Said>; 2],
    readers: Vec<JoinHandle<()>>,
}

/// Lines with the moments at which they came, and whether no more will.
type Lines = (Vec<(Instant, String)>, bool);

#[derive(Debug, Default)]
struct Said {
    lines: Mutex<Lines>,
    grown: Condvar,
}

impl Said {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, from: impl Read) {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            self.lock().0.push((Instant::now(), line));
            self.grown.notify_all();
        }
        self.lock().1 = true;
        self.grown.notify_all();
    }

    fn text(&self) -> String {
        self.lock().0.iter().map(|(_, line)| format!("{line}\n")).collect()
    }

    fn wait_for(
        &self,
        wanted: impl Fn(&str) -> bool,
        after: Option<Instant>,
        limit: Duration,
    ) -> Result<(Instant, String)> {
        let deadline = Instant::now() + limit;
        let mut lines = self.lock();
        loop {
            let late = |at: Instant| after.is_none_or(|after| at >= after);
            if let Some(line) = lines.0.iter().find(|(at, line)| late(*at) && wanted(line)) {
                return Ok(line.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if lines.1 || left.is_zero() {
                let end = if lines.1 { "before the end" } else { "in time" };
                let all: Vec<&str> = lines.0.iter().rev().take(20).map(|(_, line)| line.as_str()).collect();
                bail!(
                    "the line did not come {end}; there were {}, the last ones:\n{}",
                    lines.0.len(),
                    all.join("\n")
                );
            }
            lines = self.grown.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Monitor {
    /// Starts `mhebpf monitor` with further arguments in a namespace, and waits until it watches.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub fn start(ns: &NetNs, further: &[&str]) -> Result<Self> {
        let mut command = Daemon::command(ns)?;
        command.arg("monitor").args(further);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("starting mhebpf monitor")?;
        let said = [Arc::<Said>::default(), Arc::<Said>::default()];
        let mut readers = Vec::new();
        if let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) {
            let [out, err] = said.clone();
            readers.push(thread::spawn(move || out.read(stdout)));
            readers.push(thread::spawn(move || err.read(stderr)));
        }
        let monitor = Self { child, said, readers };
        let [_, stderr] = &monitor.said;
        stderr.wait_for(|line| line.contains("watching"), None, PATIENCE).context("mhebpf monitor")?;
        Ok(monitor)
    }

    /// Waits for a line on standard output that came after a moment and that is `wanted`.
    ///
    /// # Errors
    ///
    /// When none comes in time.
    pub fn wait_for(&self, after: Instant, wanted: impl Fn(&str) -> bool) -> Result<(Instant, String)> {
        self.said[0].wait_for(wanted, Some(after), PATIENCE)
    }

    /// All that it has printed on standard output so far.
    pub fn stdout(&self) -> String {
        self.said[0].text()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn signal(&self, signal: i32) -> Result<()> {
        // SAFETY: kill takes no pointers; a child that has not been waited for keeps its id.
        let result = unsafe { libc::kill(self.child.id().cast_signed(), signal) };
        ensure!(result == 0, std::io::Error::last_os_error());
        Ok(())
    }

    /// Waits until it ends, and returns its status and what it said on standard error.
    ///
    /// # Errors
    ///
    /// When it does not in time.
    pub fn wait_end(mut self) -> Result<(ExitStatus, String)> {
        let child = &mut self.child;
        let status = wait_until("mhebpf monitor to end", PATIENCE, || Ok(child.try_wait()?))?;
        for reader in self.readers.drain(..) {
            // The reader only panics if memory is exhausted.
            let _ = reader.join();
        }
        Ok((status, self.said[1].text()))
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // Errors mean that it is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
