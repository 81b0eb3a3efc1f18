//! A log whose reader is stuck holds nothing up, and what others can have it say is limited.

mod openmetrics;
#[expect(dead_code, reason = "only what is measured is asked for")]
mod scrape;

use std::{
    env, fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::{
        fd::AsRawFd as _,
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixStream},
    },
    path::PathBuf,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use mhebpf_tests::{Daemon, Lab, NetNs, PATIENCE, craft, lab::INTERFACES, scaled, wait_until};
use scrape::{ADDRESS, connect, scrape};

/// How long a daemon may take to end, whatever it is doing.
const END: Duration = scaled(Duration::from_secs(1));

/// How much a pipe holds here, in bytes: the least that there is.
const PIPE: i32 = 4096;

/// Kills what it has started, if that has not ended.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// A daemon whose log goes into a pipe that nobody reads yet.
    fn start(lab: &Lab, arguments: &[&str]) -> Result<(Self, io::PipeReader)> {
        let (reader, writer) = io::pipe()?;
        // SAFETY: the command takes no pointers.
        let size = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, PIPE) };
        ensure!(size == PIPE, "a pipe of {size} bytes: {}", io::Error::last_os_error());
        let mut command = Daemon::command(&lab.host)?;
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(writer);
        Ok((Self(command.spawn()?), reader))
    }

    fn signal(&self, signal: i32) {
        // SAFETY: kill takes no pointers; a child that has not been waited for keeps its id.
        unsafe { libc::kill(self.0.id().cast_signed(), signal) };
    }

    /// How long it takes to end when it is told to.
    fn stop(&mut self) -> Result<Duration> {
        let begin = Instant::now();
        self.signal(libc::SIGTERM);
        let status = wait_until("the end of mhebpf", PATIENCE, || Ok(self.0.try_wait()?))?;
        ensure!(status.code() == Some(0), "{status}");
        Ok(begin.elapsed())
    }
}

fn dropped(ns: &NetNs) -> Result<f64> {
    scrape(ns)?.value("mhebpf_log_lines_dropped_total")
}

/// A configuration with a name so long that each line about it is as long as lines can be.
fn configuration(name: &str) -> Result<(PathBuf, String)> {
    let top = env::temp_dir().join(format!("mhebpf-{name}-{}", std::process::id()));
    let directory = (0..14).fold(top.clone(), |path, _| path.join("x".repeat(250)));
    fs::create_dir_all(&directory)?;
    let file = directory.join("mhebpf.toml");
    fs::write(&file, format!("interfaces = [\"{INTERFACES}\"]\nno-announce = true\n"))?;
    Ok((top, file.to_str().context("a path")?.to_owned()))
}

#[test]
fn a_log_that_nobody_reads_keeps_the_daemon_from_nothing() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let (top, file) = configuration("unread")?;
    let (mut running, reader) =
        Running::start(&lab, &["-v", "run", "--config", &file, "--metrics", ADDRESS])?;
    wait_until("the daemon", PATIENCE, || Ok(scrape(&lab.host).ok()))?;
    // Each reload is logged by the name of the file.
    wait_until("lines to be left out", scaled(Duration::from_secs(60)), || {
        running.signal(libc::SIGHUP);
        Ok((dropped(&lab.host)? > 0.0).then_some(()))
    })?;
    lab.add_address(0, [192, 168, 0, 200])?;
    lab.wait_in_step(0, 0)?;
    // Now somebody reads it, and is told.
    let lines = thread::spawn(move || {
        let lines = BufReader::new(reader).split(b'\n').map_while(Result::ok);
        lines.map(|line| String::from_utf8_lossy(&line).into_owned()).collect::<Vec<_>>()
    });
    let before = dropped(&lab.host)?;
    wait_until("no more lines to be left out", PATIENCE, || {
        let before = dropped(&lab.host)?;
        running.signal(libc::SIGHUP);
        Ok((dropped(&lab.host)? == before).then_some(()))
    })?;
    let after = dropped(&lab.host)?;
    let took = running.stop()?;
    ensure!(took < END, "{took:?}");
    let lines = lines.join().map_err(|_| anyhow::anyhow!("the reader has panicked"))?;
    let told = lines.iter().filter_map(|line| {
        let (_, said) = line.split_once(" WARN ")?;
        said.split_once(' ').filter(|(_, rest)| rest.contains("left out here"))?.0.parse::<u32>().ok()
    });
    let told = f64::from(told.sum::<u32>());
    ensure!(before <= told && told == after, "{before}, {after} left out, {told} told");
    let last = lines.last().context("no lines")?;
    ensure!(last.contains("every packet belonged"), "the summary is the end: {last}");
    fs::remove_dir_all(top)?;
    lab.finish()
}

#[test]
fn a_reader_that_is_stuck_keeps_the_daemon_from_nothing() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let before = lab.host.ip("rule")?;
    let (top, file) = configuration("stuck")?;
    let arguments = ["-v", "run", "--config", &file, "--steer", "rules", "--metrics", ADDRESS];
    let (mut running, reader) = Running::start(&lab, &arguments)?;
    wait_until("the daemon", PATIENCE, || Ok(scrape(&lab.host).ok()))?;
    // Two of the lines that name the file have no room in the pipe.
    for policy in ["off", "observe", "drop"] {
        let mut text = fs::read_to_string(&file)?;
        text.truncate(text.find("receive").unwrap_or(text.len()));
        fs::write(&file, format!("{text}receive = \"{policy}\"\n"))?;
        running.signal(libc::SIGHUP);
        wait_until("the policy to be another", PATIENCE, || {
            let with_policy = scrape(&lab.host)?.sum("mhebpf_interface_info", &[("receive", policy)]);
            Ok((with_policy == 2.0).then_some(()))
        })?;
    }
    lab.add_address(0, [192, 168, 0, 200])?;
    lab.wait_in_step(0, 0)?;
    let took = running.stop()?;
    ensure!(took < END, "{took:?}");
    ensure!(lab.host.ip("rule")? == before, "something is left");
    drop(reader);
    fs::remove_dir_all(top)?;
    lab.finish()
}

/// It says so with standard error closed by the first line, when the start fails.
#[test]
fn an_error_that_nobody_reads_ends_the_daemon_all_the_same() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let (top, file) = configuration("error")?;
    fs::write(&file, format!("wrong = \"{}\"\n", "x".repeat(PIPE as usize)))?;
    let (mut running, reader) = Running::start(&lab, &["run", "--config", &file])?;
    let status = wait_until("the end of mhebpf", PATIENCE, || Ok(running.0.try_wait()?))?;
    ensure!(status.code() == Some(2), "{status}");
    drop(reader);
    fs::remove_dir_all(top)?;
    lab.finish()
}

/// How many lines of the log contain a text, and how many more it says were left out of their kind.
fn count(daemon: &Daemon, (text, kind): (&str, &str)) -> (usize, usize) {
    let said = daemon.stderr();
    let told = format!("more lines were left out within a second: {kind}");
    let left_out = said.lines().filter(|line| line.contains(&told));
    let left_out = left_out.filter_map(|line| {
        let (before, _) = line.split_once(" more lines")?;
        before.rsplit(' ').next()?.parse::<usize>().ok()
    });
    (said.matches(text).count(), left_out.sum())
}

/// Does something with the log limited to ten lines in a second, and has all of it accounted for.
fn flood(
    daemon: &Daemon,
    text: (&str, &str),
    caused: usize,
    mut cause: impl FnMut() -> Result<()>,
) -> Result<()> {
    let begin = Instant::now();
    for _ in 0..caused {
        cause()?;
    }
    let (said, _) = wait_until("all to be told", PATIENCE, || {
        let (said, left_out) = count(daemon, text);
        Ok((said + left_out >= caused).then_some((said, left_out)))
    })?;
    let most = 10 * (begin.elapsed().as_secs() as usize + 2);
    ensure!((1..=most).contains(&said), "{said} lines in {:?}", begin.elapsed());
    Ok(())
}

#[test]
fn those_who_may_not_ask_cannot_fill_the_log() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = lab.run_mhebpf(&["-v", "run", "--interface", INTERFACES, "--no-announce"])?;
    let nobody = || {
        let name = SocketAddr::from_abstract_name("mhebpf")?;
        let mut stream = UnixStream::connect_addr(&name)?;
        stream.read_to_string(&mut String::new()).map(drop)
    };
    lab.host.run(|| {
        thread::scope(|scope| {
            let flooding = scope.spawn(|| {
                // The system call, unlike the function of libc, is about this thread only. SAFETY: no pointers are involved.
                let result = unsafe { libc::syscall(libc::SYS_setresuid, 65_534, 65_534, 65_534) };
                ensure!(result == 0, io::Error::last_os_error());
                flood(&daemon, ("may not ask this daemon", "clients of status"), 500, || Ok(nobody()?))
            });
            flooding.join().map_err(|_| anyhow::anyhow!("the thread has panicked"))?
        })
    })?;
    daemon.stop()?;
    lab.finish()
}

#[test]
fn those_who_ask_for_metrics_nonsensically_cannot_fill_the_log() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let arguments = ["-v", "run", "--interface", INTERFACES, "--no-announce", "--metrics", ADDRESS];
    let daemon = lab.run_mhebpf(&arguments)?;
    lab.host.run(|| {
        flood(&daemon, ("a scrape of the metrics:", "scrapes"), 500, || {
            let mut stream = connect()?;
            stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n")?;
            // It may be reset once it was refused.
            let _ = stream.read_to_end(&mut Vec::new());
            Ok(())
        })
    })?;
    daemon.stop()?;
    lab.finish()
}

#[test]
fn those_who_send_malformed_packets_cannot_fill_the_log() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = lab.run_mhebpf(&["-v", "run", "--interface", INTERFACES, "--no-announce"])?;
    // A datagram that ends within its header.
    let frame = craft::ethernet(lab.outward(0), 0x0800, &[0x45, 0, 0, 40]);
    let text = ("ends within its headers", "what the programs say");
    let begin = Instant::now();
    // The programs leave out most of it by themselves, of which nobody knows how much.
    wait_until("lines to be left out", PATIENCE, || {
        lab.send_from_host(0, &frame)?;
        Ok((count(&daemon, text).1 > 0).then_some(()))
    })?;
    let (said, most) = (count(&daemon, text).0, 10 * (begin.elapsed().as_secs() as usize + 2));
    ensure!((1..=most).contains(&said), "{said} lines in {:?}", begin.elapsed());
    daemon.stop()?;
    lab.finish()
}
