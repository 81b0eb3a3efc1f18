//! `cargo xtask bench`: what mhebpf costs, beside others that do a part of its work.

use std::{
    env,
    ffi::OsString,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use crate::{apt, machine, setup, step, toolchain::find_program};

/// What mhebpf is compared with, and its Debian packages.
const PEERS: [(&str, &str); 2] = [("nft", "nftables"), ("iptables", "iptables")];

/// Sets up what is missing, builds in release mode, and becomes the benchmark.
///
/// It replaces this process, and not a child of it, so that signals reach what has to clean up.
pub(crate) fn task(arguments: &[OsString]) -> ExitCode {
    if !machine::is_root() && find_program("sudo").is_none() {
        eprintln!("bench: network namespaces and eBPF need root, and there is no sudo here: run it as root");
        return ExitCode::FAILURE;
    }
    let mut build = Command::new("cargo");
    build.args(["build", "--release", "--package", "mhebpf", "--package", "mhebpf-bench", "--bins"]);
    if setup::ensure(None).and_then(|()| step::run("bench", "building", &mut build)).is_err() {
        return ExitCode::FAILURE;
    }
    install_peers(arguments);
    let Some(bench) = release_directory().map(|directory| directory.join("bench")) else {
        eprintln!("bench: cannot tell where this program is, and so where cargo has put the benchmark");
        return ExitCode::FAILURE;
    };
    let mut command = if machine::is_root() { Command::new(&bench) } else { Command::new("sudo") };
    if !machine::is_root() {
        command.arg(&bench);
    }
    let error = command.args(arguments).exec();
    eprintln!("bench: cannot run {}: {error}", step::show(&command));
    ExitCode::FAILURE
}

/// Failing to is no failure: the benchmark says what it leaves out.
fn install_peers(arguments: &[OsString]) {
    let names_parts = ["datapath", "control"].iter().any(|part| arguments.iter().any(|word| word == part));
    if names_parts && !arguments.iter().any(|word| word == "peers") {
        return;
    }
    let missing = setup::missing_among(&PEERS);
    if !missing.is_empty() && apt::available() && apt::install("bench", &missing).is_err() {
        println!("bench: going on without {}", missing.join(" "));
    }
}

/// Returns the directory where cargo puts programs of the release profile: beside that of this program's profile.
fn release_directory() -> Option<PathBuf> {
    let this = env::current_exe().ok()?;
    Some(this.parent().and_then(Path::parent)?.join("release"))
}
