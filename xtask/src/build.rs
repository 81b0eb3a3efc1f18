//! `cargo xtask build`: the release build of mhebpf.

use std::{
    ffi::OsString,
    process::{Command, ExitCode},
};

use crate::{setup, step};

/// Sets up what is missing and builds `target/release/mhebpf`; `arguments` go to cargo.
pub(crate) fn task(arguments: &[OsString]) -> ExitCode {
    let mut command = Command::new("cargo");
    command.args(["build", "--release", "--package", "mhebpf"]).args(arguments);
    match setup::ensure(None).and_then(|()| step::run("build", "mhebpf", &mut command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(step::Failed) => ExitCode::FAILURE,
    }
}
