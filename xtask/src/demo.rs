//! `cargo xtask demo`: shows in a lab of network namespaces what mhebpf does.

use std::{
    env,
    ffi::OsString,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use crate::{machine, setup, step, toolchain::find_program};

/// Sets up what is missing, builds, and becomes the demo.
///
/// The demo replaces this process, and not a child of it, so that signals reach what has to clean up.
pub(crate) fn task(arguments: &[OsString]) -> ExitCode {
    if !machine::is_root() && find_program("sudo").is_none() {
        eprintln!("demo: network namespaces and eBPF need root, and there is no sudo here: run it as root");
        return ExitCode::FAILURE;
    }
    let mut build = Command::new("cargo");
    // The same profile as that of the tests: it builds sooner, and the demo is about ways, not speed.
    build.args(["build", "--package", "mhebpf", "--package", "mhebpf-tests", "--bins"]);
    if setup::ensure(None).and_then(|()| step::run("demo", "building", &mut build)).is_err() {
        return ExitCode::FAILURE;
    }
    let Some(demo) = own_directory().map(|directory| directory.join("demo")) else {
        eprintln!("demo: cannot tell where this program is, and so where cargo has put the demo");
        return ExitCode::FAILURE;
    };
    let mut command = if machine::is_root() { Command::new(&demo) } else { Command::new("sudo") };
    if !machine::is_root() {
        command.arg(&demo);
    }
    let error = command.args(arguments).exec();
    eprintln!("demo: cannot run {}: {error}", step::show(&command));
    ExitCode::FAILURE
}

/// Returns the directory of this program, where cargo puts the others of the same profile.
fn own_directory() -> Option<PathBuf> {
    env::current_exe().ok()?.parent().map(Path::to_path_buf)
}
