//! `cargo xtask demo` and `cargo xtask lab`: a lab of network namespaces that shows what mhebpf does, and one to try it in.

use std::{
    env,
    ffi::OsString,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use crate::{machine, setup, step, toolchain::find_program};

/// Sets up what is missing, builds, and becomes the program of that name.
///
/// It replaces this process, and not a child of it, so that signals reach what has to clean up.
pub(crate) fn task(name: &str, arguments: &[OsString]) -> ExitCode {
    if !machine::is_root() && find_program("sudo").is_none() {
        eprintln!("{name}: network namespaces and eBPF need root, and there is no sudo here: run it as root");
        return ExitCode::FAILURE;
    }
    let mut build = Command::new("cargo");
    // The same profile as that of the tests: it builds sooner, and the demo is about ways, not speed.
    build.args(["build", "--package", "mhebpf", "--package", "mhebpf-tests", "--bins"]);
    if setup::ensure(None).and_then(|()| step::run(name, "building", &mut build)).is_err() {
        return ExitCode::FAILURE;
    }
    let Some(program) = own_directory().map(|directory| directory.join(name)) else {
        eprintln!("{name}: cannot tell where this program is, and so where cargo has put the others");
        return ExitCode::FAILURE;
    };
    let mut command = if machine::is_root() { Command::new(&program) } else { Command::new("sudo") };
    if !machine::is_root() {
        command.arg(&program);
    }
    let error = command.args(arguments).exec();
    eprintln!("{name}: cannot run {}: {error}", step::show(&command));
    ExitCode::FAILURE
}

/// Returns the directory of this program, where cargo puts the others of the same profile.
fn own_directory() -> Option<PathBuf> {
    env::current_exe().ok()?.parent().map(Path::to_path_buf)
}
