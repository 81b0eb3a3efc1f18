//! mhebpf as a child process.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    binary, confined,
    judge::Judge,
    netns::NetNs,
    summary::Summary,
    wait::{PATIENCE, scaled, wait_until},
};

/// What the daemon says when its programs are attached and its maps are filled.
pub const READY: &str = "mhebpf ready";

/// How long the daemon may take to end after a signal.
const END: Duration = scaled(Duration::from_secs(5));

/// A running mhebpf. Dropping it stops it, as kindly as possible.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    said: Arc<Said>,
    reader: Option<JoinHandle<()>>,
    status: Option<ExitStatus>,
    enforcement: Option<Enforcement>,
}

/// The stretch of time in which a lab's judge holds frames against the daemon.
#[derive(Debug)]
struct Enforcement {
    judge: Arc<Judge>,
    period: usize,
}

impl Drop for Enforcement {
    fn drop(&mut self) {
        self.judge.end(self.period);
    }
}

/// How a daemon ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// All that it printed on standard error.
    pub stderr: String,
    /// The counters at its end.
    pub summary: Summary,
}

#[derive(Debug, Default)]
struct Said {
    lines: Mutex<(Vec<String>, bool)>,
    grown: Condvar,
}

impl Said {
    fn lock(&self) -> MutexGuard<'_, (Vec<String>, bool)> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, stderr: ChildStderr) {
        for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
            self.lock().0.push(String::from_utf8_lossy(&line).into_owned());
            self.grown.notify_all();
        }
        self.lock().1 = true;
        self.grown.notify_all();
    }
}

impl Daemon {
    /// Starts `mhebpf` with these arguments in a namespace, with the capabilities that the shipped unit grants, and does not wait
    /// for anything.
    ///
    /// # Errors
    ///
    /// When there is no such program.
    pub fn spawn(ns: &NetNs, arguments: &[&str]) -> Result<Self> {
        let mut command = Self::command(ns)?;
        command.args(arguments);
        confined::as_by_the_unit(&mut command)?;
        Self::spawn_command(command)
    }

    /// The command that [`Daemon::spawn`] would start without arguments, to be changed before [`Daemon::spawn_command`].
    ///
    /// # Errors
    ///
    /// When there is no such program.
    pub fn command(ns: &NetNs) -> Result<Command> {
        let program = binary::mhebpf()?;
        let mut command = ns.command(program.to_str().context("the path of mhebpf is not UTF-8")?);
        command.env("NO_COLOR", "1").env_remove("RUST_LOG");
        Ok(command)
    }

    /// Starts a command made by [`Daemon::command`].
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn spawn_command(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        let said = Arc::new(Said::default());
        let reader = child.stderr.take().map(|stderr| {
            let said = Arc::clone(&said);
            thread::spawn(move || said.read(stderr))
        });
        Ok(Self { child, said, reader, status: None, enforcement: None })
    }

    /// Tells a judge that from now on, and until this daemon is told to stop, leaks count.
    pub(crate) fn enforces(&mut self, judge: &Arc<Judge>) {
        let period = judge.begin();
        self.enforcement = Some(Enforcement { judge: Arc::clone(judge), period });
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    ///
    /// When it ends or is not ready in time, with all that it said.
    pub fn wait_ready(&self) -> Result<()> {
        self.wait_for_line(READY, PATIENCE).map(drop)
    }

    /// Waits for a line on standard error that contains `text`, and returns it.
    ///
    /// # Errors
    ///
    /// When none comes in time, with all that it said.
    pub fn wait_for_line(&self, text: &str, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        let mut said = self.said.lock();
        loop {
            if let Some(line) = said.0.iter().find(|line| line.contains(text)) {
                return Ok(line.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if said.1 || left.is_zero() {
                let end = if said.1 { "before it closed standard error" } else { "in time" };
                bail!("mhebpf did not say `{text}` {end}; it said:\n{}", said.0.join("\n"));
            }
            said = self.said.grown.wait_timeout(said, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// All that it has said on standard error so far.
    pub fn stderr(&self) -> String {
        self.said.lock().0.join("\n")
    }

    /// Lets it sleep; what it enforces stays in force.
    ///
    /// # Errors
    ///
    /// When it has ended already.
    pub fn pause(&self) -> Result<()> {
        self.kill(libc::SIGSTOP)
    }

    /// Wakes it up again.
    ///
    /// # Errors
    ///
    /// When it has ended already.
    pub fn resume(&self) -> Result<()> {
        self.kill(libc::SIGCONT)
    }

    /// Has it read its configuration again.
    ///
    /// # Errors
    ///
    /// When it has ended already.
    pub fn reload(&self) -> Result<()> {
        self.kill(libc::SIGHUP)
    }

    fn kill(&self, signal: i32) -> Result<()> {
        // SAFETY: kill takes no pointers; a child that has not been waited for keeps its id.
        let result = unsafe { libc::kill(self.pid().cast_signed(), signal) };
        ensure!(result == 0, std::io::Error::last_os_error());
        Ok(())
    }

    /// Sends it a signal that ends it.
    ///
    /// # Errors
    ///
    /// When it has ended already.
    pub fn signal(&mut self, signal: i32) -> Result<()> {
        ensure!(self.child.try_wait()?.is_none(), "mhebpf has ended by itself; it said:\n{}", self.stderr());
        // Frames that leave once it has been told to stop are not held against it.
        self.enforcement = None;
        self.kill(signal)
    }

    /// Waits until it ends by itself or by an earlier signal.
    ///
    /// # Errors
    ///
    /// When it does not in time.
    pub fn wait_end(&mut self, limit: Duration) -> Result<Ended> {
        let child = &mut self.child;
        let status = wait_until("mhebpf to end", limit, || Ok(child.try_wait()?))
            .with_context(|| format!("it said:\n{}", self.said.lock().0.join("\n")))?;
        self.status = Some(status);
        self.enforcement = None;
        if let Some(reader) = self.reader.take() {
            // The reader only panics if memory is exhausted.
            let _ = reader.join();
        }
        let stderr = self.stderr();
        let summary = Summary::parse(&stderr);
        Ok(Ended { status, stderr, summary })
    }

    /// Stops it with SIGTERM, as a service manager does.
    ///
    /// # Errors
    ///
    /// When it had ended by itself, does not end in time, or not with status 0.
    pub fn stop(mut self) -> Result<Ended> {
        self.signal(libc::SIGTERM)?;
        let ended = self.wait_end(END)?;
        let sound = ended.status.success() && !ended.stderr.contains("panicked");
        ensure!(sound, "mhebpf ended with {}; it said:\n{}", ended.status, ended.stderr);
        Ok(ended)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.status.is_some() {
            return;
        }
        if self.signal(libc::SIGTERM).is_ok() && self.wait_end(END).is_ok() {
            return;
        }
        // Errors mean that it is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
