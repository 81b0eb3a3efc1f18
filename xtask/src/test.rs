//! `cargo xtask test`: format check, lints and all tests, here and on other kernels, with their sum in the last line.

use std::{
    ffi::OsString,
    io::{self, BufRead as _, BufReader, Write},
    process::{Command, ExitCode, Stdio},
};

use crate::{
    apt, machine, setup,
    step::{Failed, run, show},
    summary::Summary,
    toolchain::find_program,
    vm,
};

/// Sets up what is missing and runs all checks and tests; what follows `--` goes to the test programs.
pub(crate) fn task(arguments: &[OsString]) -> ExitCode {
    let (without_vm, arguments) = match arguments {
        [flag, rest @ ..] if flag == "--no-vm" => (true, rest),
        all => (false, all),
    };
    let to_tests = match arguments {
        [] => arguments,
        [separator, rest @ ..] if separator == "--" => rest,
        [other, ..] => {
            return crate::usage(&format!("test: {} must come after --", other.display()));
        }
    };
    let mut sum = Summary::default();
    match setup::ensure(None) {
        Ok(()) => {
            install_what_some_tests_use();
            check_and_test(to_tests, &mut sum);
            // Who asks for some tests only is waiting for them.
            if !without_vm && to_tests.is_empty() {
                sum += vm::short_round();
            }
        }
        Err(Failed) => sum += Summary::of_check(false),
    }
    println!("{sum}");
    if sum.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Programs that only some tests run, which say so where they are missing, and their Debian packages. Where the client is not in
/// the package of the engine it has one of its own, hence the order.
const OPTIONAL_TOOLS: [(&str, &str); 6] = [
    ("keepalived", "keepalived"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("busybox", "busybox-static"),
    ("dockerd", "docker.io"),
    ("docker", "docker-cli"),
];

/// Failing to is no failure: the tests that want them are skipped. One by one, since a distribution may lack some.
fn install_what_some_tests_use() {
    for tool in OPTIONAL_TOOLS {
        let missing = setup::missing_among(&[tool]);
        if !missing.is_empty() && apt::available() && apt::install("test", &missing).is_err() {
            println!("test: going on without {}", missing.join(" "));
        }
    }
}

fn check_and_test(to_tests: &[OsString], sum: &mut Summary) {
    let mut check = |what, arguments: &[&str]| {
        let passed = run("test", what, Command::new("cargo").args(arguments)).is_ok();
        *sum += Summary::of_check(passed);
        passed
    };
    check("format", &["fmt", "--all", "--check"]);
    check("lints", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    // The live tests run mhebpf, which cargo would not build for the tests of another package. Built together with
    // the tests it has their features, so that nothing, the eBPF programs least of all, is compiled twice.
    if check("building", &["build", "--workspace", "--all-targets"]) {
        *sum += run_tests(to_tests);
    }
}

/// Runs the tests of all packages, as root where that is possible: namespaces and programs need it.
fn run_tests(to_tests: &[OsString]) -> Summary {
    let mut command = Command::new("cargo");
    command.args(["test", "--workspace", "--no-fail-fast"]);
    if !machine::is_root() && find_program("sudo").is_some() {
        command.args(["--config", "target.'cfg(unix)'.runner=['sudo', '--preserve-env']"]);
    }
    if !to_tests.is_empty() {
        command.arg("--").args(to_tests);
    }
    println!("test: running {}", show(&command));
    let mut sum = Summary::default();
    let succeeded = match forward(&mut command, &mut io::stdout(), &mut sum) {
        Ok(succeeded) => succeeded,
        Err(error) => {
            eprintln!("test: cannot run {}: {error}", show(&command));
            false
        }
    };
    // Tests that were not compiled or that died have no result line.
    if !succeeded && sum.failed == 0 {
        sum += Summary::of_check(false);
    }
    sum
}

/// Runs a command, copies its standard output to `to` line by line as it comes, and adds up the results in it.
fn forward(command: &mut Command, to: &mut impl Write, sum: &mut Summary) -> io::Result<bool> {
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    if let Some(output) = child.stdout.take() {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line)? > 0 {
            to.write_all(&line)?;
            if let Some(result) = Summary::parse(&String::from_utf8_lossy(&line)) {
                *sum += result;
            }
            line.clear();
        }
    }
    Ok(child.wait()?.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_in_the_output_of_a_command_are_added_up_and_the_output_is_copied() {
        let said = "test result: ok. 2 passed; 0 failed; 0 ignored; x\nnoise\n\
                    test result: FAILED. 1 passed; 1 failed; 1 ignored; x\nlast";
        let mut command = Command::new("sh");
        command.args(["-c", "printf %s \"$0\"; exit 1", said]);
        let (mut copy, mut sum) = (Vec::new(), Summary::default());
        let succeeded = forward(&mut command, &mut copy, &mut sum);
        assert!(matches!(succeeded, Ok(false)));
        assert_eq!(String::from_utf8_lossy(&copy), said);
        assert_eq!(sum, Summary { passed: 3, failed: 1, skipped: 1 });
    }
}
