//! Daemons that pin what they attach.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use mhebpf_tests::{
    BpfFileSystem, Daemon, Lab, NetNs, PATIENCE,
    features::{self, Feature},
    lab::INTERFACES,
    tcx,
};

/// A lab and a directory for pins; `None` where the kernel has no TCX.
pub(crate) fn start(links: usize) -> Result<Option<(Lab, BpfFileSystem)>> {
    if !features::require(Feature::Tcx)? {
        return Ok(None);
    }
    Ok(Some((Lab::builder().links(links).build()?, BpfFileSystem::mount()?)))
}

/// Starts a daemon and waits until it is ready. Leaks are not the judge's: enforcement does not end with the daemon.
pub(crate) fn run(lab: &Lab, directory: &str, further: &[&str]) -> Result<Daemon> {
    let daemon = spawn(lab, directory, further)?;
    daemon.wait_ready()?;
    Ok(daemon)
}

pub(crate) fn spawn(lab: &Lab, directory: &str, further: &[&str]) -> Result<Daemon> {
    let arguments = ["run", "--interface", INTERFACES, "--no-announce", "--pin", directory];
    Daemon::spawn(&lab.host, &[&arguments, further].concat())
}

pub(crate) fn end(mut daemon: Daemon, signal: i32) -> Result<String> {
    daemon.signal(signal)?;
    Ok(daemon.wait_end(PATIENCE)?.stderr)
}

/// How a command ended, and what it said.
pub(crate) fn command(ns: &NetNs, words: &[&str]) -> Result<(Option<i32>, String, String)> {
    let output = Daemon::command(ns)?.args(words).output()?;
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    Ok((output.status.code(), stdout, stderr))
}

pub(crate) fn unload(ns: &NetNs, directory: &str) -> Result<String> {
    let (status, stdout, stderr) = command(ns, &["unload", "--pin", directory])?;
    ensure!(status == Some(0), "{status:?}: {stdout}{stderr}");
    Ok(stdout)
}

/// Whether a packet with another interface's source leaves through the owner.
pub(crate) fn is_enforced(lab: &Lab) -> Result<bool> {
    let recording = lab.record();
    lab.emit(0, lab.address(1))?;
    recording.wait_datagram_from(lab.address(1))?;
    Ok(recording.ports_of(lab.address(1))? == BTreeSet::from([1]))
}

pub(crate) fn programs(ns: &NetNs, interface: &str) -> Result<usize> {
    let count = |hook| Ok::<_, anyhow::Error>(tcx::programs(ns, interface, hook)?.len());
    Ok(count(tcx::Hook::Ingress)? + count(tcx::Hook::Egress)?)
}

/// The directories of network namespaces.
pub(crate) fn namespaces(directory: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("reading {directory}"))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

pub(crate) fn names(directory: &Path) -> Result<BTreeSet<String>> {
    let entries = fs::read_dir(directory)?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// The directory of maps of this version, by their number.
pub(crate) fn maps(number: u32) -> String {
    format!("maps-{}-{number}", mhebpf_ebpf::LAYOUT)
}
