//! mhebpf inside a container, with no more capabilities than README asks for.

use std::{
    collections::BTreeSet,
    ffi::CString,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use mhebpf_tests::{
    Daemon, Lab, NetNs, PATIENCE, PEER, binary,
    docker::{self, Engine, IMAGE, shared_libraries},
    features::{self, Feature},
    traffic::{ARTICLE_PORT, tcp},
    wait_until,
};

const NAME: &str = "strong";

/// Where the container waits until its links are there.
struct Gate(PathBuf);

impl Gate {
    fn new(directory: &Path) -> Result<Self> {
        let path = directory.join("gate");
        fs::create_dir(&path)?;
        let fifo = CString::new(path.join("fifo").to_str().context("the path is not UTF-8")?)?;
        // SAFETY: the path ends with a zero byte.
        let made = unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) };
        ensure!(made == 0, "mkfifo: {}", io::Error::last_os_error());
        Ok(Self(path))
    }

    fn open(&self) -> Result<()> {
        // Opening fails while nobody reads.
        let mut gate = wait_until("the container to wait for its links", PATIENCE, || {
            Ok(OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(self.0.join("fifo")).ok())
        })?;
        Ok(gate.write_all(b"go\n")?)
    }
}

/// The capabilities of README, without `CAP_`, and their numbers.
fn capabilities() -> Result<Vec<(&'static str, u32)>> {
    let mut capabilities = vec![("NET_ADMIN", 12), ("NET_RAW", 13), ("BPF", 39)];
    if !features::has(Feature::LoadWithoutPerfmon)? {
        capabilities.push(("PERFMON", 38));
    }
    Ok(capabilities)
}

/// Starts `mhebpf run --all` in a container without a network, which waits at the gate.
fn start(engine: &Engine, gate: &Gate) -> Result<Daemon> {
    let mhebpf = binary::mhebpf()?;
    let names: Vec<_> = capabilities()?.into_iter().map(|(name, _)| name).collect();
    let mut run = engine.client();
    run.args(["run", "--name", NAME, "--network", "none"]).args(engine.only(&names));
    run.arg(format!("--volume={}:/gate", gate.0.display()));
    run.arg(format!("--volume={}:/bin/mhebpf:ro", mhebpf.display()));
    for library in shared_libraries(&mhebpf)? {
        run.arg(format!("--volume={0}:{0}:ro", library.display()));
    }
    run.args([IMAGE, "sh", "-c", "read -r go < /gate/fifo && exec mhebpf run --all"]);
    Daemon::spawn_command(run)
}

fn network(engine: &Engine, daemon: &Daemon) -> Result<NetNs> {
    wait_until("the container's network", PATIENCE, || Ok(engine.network_of(NAME).ok()))
        .with_context(|| format!("docker said: {}\ndockerd said: {}", daemon.stderr(), engine.log()))
}

/// The effective capabilities of the container's first process, which is mhebpf.
fn effective(engine: &Engine) -> Result<u64> {
    let status = engine.docker(&["exec", NAME, "cat", "/proc/1/status"])?;
    assert!(status.starts_with("Name:\tmhebpf"), "{status}");
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    Ok(u64::from_str_radix(mask.context("no capabilities in the status")?.trim(), 16)?)
}

#[test]
fn in_a_container_each_source_leaves_by_its_own_interface_and_one_answers_a_who_has() -> Result<()> {
    if !docker::is_available()? {
        return Ok(());
    }
    let outside = NetNs::new("outside")?;
    let engine = Engine::start(&outside, &[])?;
    let gate = Gate::new(engine.directory())?;
    let mut daemon = start(&engine, &gate)?;
    let lab = Lab::builder().links(4).build_around(network(&engine, &daemon)?)?;
    gate.open()?;
    daemon.wait_ready()?;
    lab.hold_to(&mut daemon);

    let granted = capabilities()?.iter().fold(0, |mask, (_, number)| mask | 1_u64 << number);
    assert_eq!(effective(&engine)?, granted, "no more than README asks for");
    let said = daemon.stderr();
    assert!(said.contains("on eth0_int, eth1_int, eth2_int, eth3_int"), "{said}");

    let server = tcp::EchoServer::start(&lab.switch, PEER, ARTICLE_PORT)?;
    lab.forget_neighbours()?;
    for port in lab.ports() {
        let (address, recording) = (lab.address(port), lab.record());
        let stream = tcp::connect(&lab.host, address, server.address())?;
        tcp::echo_bulk(&stream, 100_000)?;
        tcp::close(stream)?;
        assert_eq!(recording.ports_of(address)?, BTreeSet::from([port]));

        let recording = lab.record();
        lab.ask_all(address)?;
        assert_eq!(recording.arp_replies_for(address)?, [(port, lab.mac(port))]);
    }
    let said = daemon.stop()?.stderr;
    assert!(!said.contains(" ERROR "), "{said}");
    lab.finish()
}
