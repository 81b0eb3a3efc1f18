//! A real Docker engine of a test's own.
//!
//! Engine, containerd, shims and containers live in namespaces of processes and mounts that end with the engine, however that
//! comes about: so no process and no mount outlives it. Their files are in one directory, their control groups under one parent,
//! and the network is the test's own.

mod capabilities;
mod cgroups;
mod leftovers;
mod needs;
mod program;

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

pub use needs::is_available;
pub use program::shared_libraries;

use crate::{
    netns::NetNs,
    wait::{PATIENCE, scaled, wait_until},
};

/// The image that every engine has: busybox, and nothing else.
pub const IMAGE: &str = "busybox";

/// How long an engine may take to start, and a request to it.
const START: Duration = scaled(Duration::from_secs(30));

/// A running engine. Dropping it ends it with all its containers and removes all that it has made.
#[derive(Debug)]
pub struct Engine {
    /// `unshare`, whose child is the engine.
    child: Child,
    /// In front of all that it makes in the file system and among the control groups.
    name: String,
    directory: PathBuf,
}

impl Engine {
    /// Starts `dockerd` with further options in a network namespace and waits until it answers. It ends with the thread that
    /// starts it, if that ends first.
    ///
    /// # Errors
    ///
    /// When it ends or does not answer in time, with what it said.
    pub fn start(ns: &NetNs, options: &[&str]) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        leftovers::remove();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}{}-{number}", leftovers::PREFIX, std::process::id());
        let directory = std::env::temp_dir().join(&name);
        fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
        let child = dockerd(ns, &name, &directory, options)?;
        let mut engine = Self { child, name, directory };
        engine.wait_until_it_answers().with_context(|| format!("dockerd said:\n{}", engine.log()))?;
        engine.import_image()?;
        Ok(engine)
    }

    fn wait_until_it_answers(&mut self) -> Result<()> {
        let socket = self.socket();
        wait_until("dockerd to answer", START, || {
            if let Some(status) = self.child.try_wait()? {
                bail!("dockerd ended with {status}");
            }
            Ok(ping(&socket).then_some(()))
        })
    }

    fn import_image(&self) -> Result<()> {
        let root = self.directory.join("root");
        program::stage("busybox", &root, &["sh", "sleep", "cat", "nc"])?;
        let archive = self.directory.join("root.tar");
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(&root).arg("-cf").arg(&archive).arg(".");
        ensure!(tar.status().context("starting tar")?.success(), "{tar:?} failed");
        self.docker(&["import", &archive.to_string_lossy(), IMAGE]).map(drop)
    }

    /// The client, for this engine.
    pub fn client(&self) -> Command {
        let mut client = Command::new("docker");
        // Whatever the user's client is set up for is no concern of the test's.
        for variable in ["DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS", "DOCKER_TLS_VERIFY"] {
            client.env_remove(variable);
        }
        client.env("DOCKER_CONFIG", &self.directory);
        client.arg("-H").arg(format!("unix://{}", self.socket().display()));
        client
    }

    /// Runs `docker` with these arguments and returns what it printed.
    ///
    /// # Errors
    ///
    /// When it fails, with what it said.
    pub fn docker(&self, arguments: &[&str]) -> Result<String> {
        let output =
            self.client().args(arguments).stdin(Stdio::null()).output().context("starting docker")?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            bail!(
                "`docker {}`: {}: {}\ndockerd said:\n{}",
                arguments.join(" "),
                output.status,
                complaint.trim(),
                self.log()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Starts a container that does nothing, with these options of `docker run`, and returns its network namespace.
    ///
    /// # Errors
    ///
    /// When the engine refuses.
    pub fn run_idle(&self, name: &str, options: &[&str]) -> Result<NetNs> {
        let run = ["run", "--detach", "--name", name];
        self.docker(&[&run, options, &[IMAGE, "sleep", "infinity"]].concat())?;
        self.network_of(name)
    }

    /// The network namespace of a running container.
    ///
    /// # Errors
    ///
    /// When it has none.
    pub fn network_of(&self, container: &str) -> Result<NetNs> {
        let key = self.docker(&["inspect", "--format", "{{.NetworkSettings.SandboxKey}}", container])?;
        ensure!(key.starts_with('/'), "the container {container} has no network namespace");
        // The engine has bound it to a file in its own name space of mounts.
        NetNs::open(container, &PathBuf::from(format!("/proc/{}/root{key}", self.child.id())))
    }

    /// A directory that vanishes with the engine.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What it has said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("socket")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // The engine is the first process of its namespace, so that all the others end before it does, and its parent
        // waits for it.
        match program::child_of(self.child.id()) {
            // SAFETY: kill takes no pointers; nobody but the parent, which is not done yet, can have waited for this child.
            Some(engine) => drop(unsafe { libc::kill(engine, libc::SIGKILL) }),
            None => drop(self.child.kill()),
        }
        let _ = self.child.wait();
        cgroups::remove(&self.name);
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn dockerd(ns: &NetNs, name: &str, directory: &Path, options: &[&str]) -> Result<Child> {
    let path = |file: &str| directory.join(file);
    // An empty configuration instead of the machine's.
    fs::write(path("daemon.json"), "{}")?;
    let log = fs::File::create(path("log"))?;
    let mut command = ns.command("unshare");
    command
        .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["dockerd", "--log-level", "warn", "--config-file"])
        .arg(path("daemon.json"))
        .arg("--data-root")
        .arg(path("data"))
        .arg("--exec-root")
        .arg(path("exec"))
        .arg("--pidfile")
        .arg(path("pid"))
        .arg("--host")
        .arg(format!("unix://{}", path("socket").display()))
        // Copies of directories work on every file system, and there is little to copy.
        .args(["--storage-driver", "vfs"])
        // Without systemd's help the groups are where they can be found again.
        .args(["--exec-opt", "native.cgroupdriver=cgroupfs"])
        .arg("--cgroup-parent")
        .arg(format!("/{name}"))
        .arg(capabilities::runtime(directory)?)
        .args(options)
        .env("PATH", program::search_path()?)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    command.spawn().context("starting unshare")
}

/// Whether an engine answers at this socket. It listens long before it does.
fn ping(socket: &Path) -> bool {
    let answer = || {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /_ping HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        std::io::Result::Ok(answer)
    };
    answer().is_ok_and(|answer| answer.lines().next().is_some_and(|status| status.ends_with("200 OK")))
}
