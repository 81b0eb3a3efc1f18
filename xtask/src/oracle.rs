//! `cargo xtask oracle`: very many random packets through the programs, compared with the tests' own reading of the
//! rules.

use std::{
    ffi::OsString,
    process::{Command, ExitCode},
};

use crate::{
    machine, setup,
    step::{Failed, run},
    toolchain::find_program,
};

/// Runs the long round; its size comes from `MHEBPF_ORACLE_HOSTS` and `MHEBPF_ORACLE_PACKETS`, and its random numbers
/// from `MHEBPF_ORACLE_SEED`.
pub(crate) fn task(arguments: &[OsString]) -> ExitCode {
    if let [other, ..] = arguments {
        return crate::usage(&format!("oracle takes no arguments, but {}", other.display()));
    }
    match setup::ensure(None).and_then(|()| long_round()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed) => ExitCode::FAILURE,
    }
}

fn long_round() -> Result<(), Failed> {
    let mut command = Command::new("cargo");
    command.args(["test", "--package", "mhebpf-tests", "--test", "programs"]);
    if !machine::is_root() && find_program("sudo").is_some() {
        command.args(["--config", "target.'cfg(unix)'.runner=['sudo', '--preserve-env']"]);
    }
    command.args(["--", "--ignored", "--nocapture", "very_many"]);
    run("oracle", "random packets on random hosts", &mut command)
}
