//! Somebody else holds the daemon's name in its network namespace, an abstract socket that anybody can bind, or the daemon is
//! another user's.

use std::{
    fs, io,
    os::{
        fd::AsRawFd as _,
        linux::net::SocketAddrExt as _,
        unix::{
            fs::{MetadataExt as _, chown},
            net::{SocketAddr, UnixListener, UnixStream},
        },
    },
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use mhebpf_tests::{Daemon, Lab, NetNs, PATIENCE, lab::INTERFACES, scaled, skip, wait_until};
use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};

const NOBODY: libc::uid_t = 65_534;
/// A user of these tests' own.
const USER: u32 = 64_990;

/// How long a command may take that somebody would like to see wait for ever.
const PROMPT: Duration = scaled(Duration::from_secs(5));

/// From here on this thread is nobody's.
fn become_nobody() -> io::Result<()> {
    // The system call, unlike the function of libc, is about this thread only. SAFETY: no pointers are involved.
    match unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn address() -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name("mhebpf")
}

/// Does something as nobody in a namespace.
fn as_nobody<T: Send>(ns: &NetNs, work: impl FnOnce() -> io::Result<T> + Send) -> Result<T> {
    ns.run(|| {
        thread::scope(|scope| {
            let done = scope.spawn(|| become_nobody().and_then(|()| work()));
            Ok(done.join().map_err(|_| io::Error::other("the thread has panicked"))??)
        })
    })
}

/// How a command ended, and what it said, within a time that nobody can make it exceed.
fn command(ns: &NetNs, words: &[&str]) -> Result<(Option<i32>, String, String)> {
    let mut command = Daemon::command(ns)?;
    let mut child = command.args(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let ended = wait_until(&format!("the end of {words:?}"), PROMPT, || Ok(child.try_wait()?));
    if ended.is_err() {
        child.kill()?;
    }
    let output = child.wait_with_output()?;
    ended?;
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    Ok((output.status.code(), stdout, stderr))
}

/// The process of the daemon, as root is told.
fn told(ns: &NetNs) -> Result<Value> {
    let (status, stdout, stderr) = command(ns, &["status", "-o", "json"])?;
    ensure!(status == Some(0), "{status:?}: {stdout}{stderr}");
    Ok(serde_json::from_str::<Value>(&stdout)?["pid"].clone())
}

#[test]
fn a_name_that_somebody_binds_in_a_loop_keeps_no_daemon_from_starting_again() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let squatter = scope.spawn(|| {
            as_nobody(&lab.host, || {
                let address = address()?;
                let mut bound = None;
                while !done.load(Ordering::Relaxed) {
                    // Again and again while the daemon has it, and then for good.
                    bound = bound.or_else(|| UnixListener::bind_addr(&address).ok());
                    thread::yield_now();
                }
                Ok(bound.is_some())
            })
        });
        let restarts = || -> Result<()> {
            for _ in 0..5 {
                let daemon = lab.mhebpf(&[])?;
                ensure!(told(&lab.host)? == daemon.pid(), "another one answers");
                let second =
                    Daemon::spawn(&lab.host, &["run", "--interface", INTERFACES])?.wait_end(PATIENCE)?;
                ensure!(second.stderr.contains("already running"), "{}", second.stderr);
                daemon.stop()?;
                let (status, stdout, stderr) = command(&lab.host, &["unload"])?;
                ensure!(status == Some(0), "{status:?}: {stdout}{stderr}");
            }
            Ok(())
        };
        let result = restarts();
        done.store(true, Ordering::Relaxed);
        let has_had_it = squatter.join().map_err(|_| io::Error::other("the thread has panicked"))??;
        result?;
        ensure!(has_had_it, "nobody has never had the name");
        Ok(())
    })?;
    lab.finish()
}

/// A socket that listens and takes nobody, with a full queue.
fn full_queue() -> io::Result<(Socket, Vec<UnixStream>)> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix("\0mhebpf")?)?;
    socket.listen(0)?;
    let mut waiting = Vec::new();
    loop {
        let client = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        client.set_nonblocking(true)?;
        match client.connect(&SockAddr::unix("\0mhebpf")?) {
            Ok(()) => waiting.push(client.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok((socket, waiting)),
            Err(error) => return Err(error),
        }
    }
}

#[test]
fn a_full_queue_has_nobody_wait_for_ever() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let queue = as_nobody(&lab.host, full_queue)?;
    for words in [&["status"][..], &["monitor"]] {
        let (status, _, stderr) = command(&lab.host, words)?;
        ensure!(status == Some(1) && stderr.contains("takes no connections"), "{words:?}: {stderr}");
    }
    let (_, stdout, stderr) = command(&lab.host, &["audit"])?;
    ensure!(stdout.contains("first-route-wins") && !stdout.contains("daemon-running"), "{stdout}{stderr}");
    let (status, stdout, stderr) = command(&lab.host, &["unload"])?;
    ensure!(status == Some(0), "{status:?}: {stdout}{stderr}");
    let daemon = lab.mhebpf(&[])?;
    assert_eq!(told(&lab.host)?, daemon.pid());
    let log = daemon.stop()?.stderr;
    ensure!(log.contains("holds the name of mhebpf"), "{log}");
    assert!(queue.0.as_raw_fd() >= 0);
    lab.finish()
}

/// The directory that a user has for what runs.
struct RunOfUser(PathBuf);

impl RunOfUser {
    fn new() -> Result<Self> {
        let run = Self(format!("/run/user/{USER}").into());
        fs::create_dir_all(&run.0).with_context(|| format!("making {}", run.0.display()))?;
        chown(&run.0, Some(USER), Some(USER))?;
        Ok(run)
    }
}

impl Drop for RunOfUser {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
        // Only if this test has made it.
        let _ = fs::remove_dir("/run/user");
    }
}

/// What `setpriv` is told to run as the user, with what the daemon needs.
const AS_USER: [&str; 5] = [
    "--reuid=64990",
    "--clear-groups",
    "--inh-caps=+bpf,+net_admin,+net_raw,+perfmon",
    "--ambient-caps=+bpf,+net_admin,+net_raw,+perfmon",
    "--bounding-set=-all,+bpf,+net_admin,+net_raw,+perfmon",
];

#[test]
fn root_is_told_by_the_daemon_of_another_user() -> Result<()> {
    if Command::new("setpriv").arg("--version").stdout(Stdio::null()).status().is_err() {
        skip("setpriv is not installed");
        return Ok(());
    }
    let lab = Lab::builder().links(2).build()?;
    let run = RunOfUser::new()?;
    // Any user can have a socket there, and put what others listen at in its place.
    {
        let name =
            lab.host.run(|| Ok(format!("netns-{}", fs::metadata("/proc/thread-self/ns/net")?.ino())))?;
        let place = run.0.join("mhebpf").join(name);
        fs::create_dir_all(&place)?;
        let _listener = UnixListener::bind(place.join("control"))?;
        for path in [run.0.join("mhebpf"), place.clone(), place.join("control")] {
            chown(&path, Some(USER), Some(USER))?;
        }
        let (status, _, stderr) = command(&lab.host, &["status"])?;
        ensure!(status == Some(1) && stderr.contains("no mhebpf is running"), "{stderr}");
        fs::remove_dir_all(run.0.join("mhebpf"))?;
    }
    let program = mhebpf_tests::binary::mhebpf()?;
    let mut child = lab.host.command("setpriv");
    child.args(AS_USER).arg(program).args(["run", "--interface", INTERFACES, "--no-announce"]);
    let mut child = child.stderr(Stdio::piped()).spawn()?;
    let answers = wait_until("the daemon's answer", PATIENCE, || {
        if let Some(status) = child.try_wait()? {
            let mut said = String::new();
            io::Read::read_to_string(&mut child.stderr.take().context("stderr")?, &mut said)?;
            bail!("{status}: {said}");
        }
        Ok(told(&lab.host).ok())
    });
    if answers.is_err() {
        child.kill()?;
        child.wait()?;
    }
    assert_eq!(answers?, child.id());
    let listed = fs::read_dir(run.0.join("mhebpf"))?.count();
    assert_eq!(listed, 1);
    // SAFETY: a process that this test has started and not waited for.
    unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGTERM) };
    child.wait()?;
    assert_eq!(fs::read_dir(run.0.join("mhebpf"))?.count(), 0, "it leaves nothing");
    lab.finish()
}
