//! The tasks of the workspace, run as `cargo xtask TASK`.
//!
//! One module per task. There are no dependencies, so that the first `cargo xtask` on a machine starts at once.

use std::{env, ffi::OsString, process::ExitCode};

mod apt;
mod bench;
mod build;
mod demo;
mod doctor;
mod machine;
mod oracle;
mod plan;
mod setup;
mod step;
mod summary;
mod test;
mod toolchain;
mod vm;

const HELP: &str = "\
The tasks of mhebpf. Usage: cargo xtask TASK

  demo   [ARGS]         build mhebpf and show what it does in a lab of network namespaces (as root)
  lab    [COMMAND]      the same lab, with a shell or COMMAND on its multihomed host (as root)
  test   [--no-vm] [-- ARGS]
                        format check, lints and all tests (as root), then a short round of vm; ARGS go to the test
                        programs, a filter for example, and leave vm out
  vm     [--kernel SERIES]... [--test FILE]... [--list] [-- ARGS]
                        the tests on other kernels, in emulated machines; ARGS go to the test programs
  oracle                300 random hosts with 10,000 random packets each through the programs, compared with the tests'
                        own reading of the rules (MHEBPF_ORACLE_HOSTS, _PACKETS, _SEED)
  bench  [datapath] [peers] [control] [--routes NUMBER]... [--quick] [--json FILE] [--svg FILE]
                        what mhebpf costs (as root): its programs, beside nftables, iptables and policy routing, and
                        its daemon; all parts unless some are named. With --routes of the daemon only what it takes
                        on hosts with so many routes. It fails where a figure is over its bar
  build  [ARGS]         release build of mhebpf; ARGS go to cargo
  setup  [--way WAY]    install what building, demo and test need and the machine lacks
  doctor                show the tool chain and the kernel, and what is wrong with them
  help                  this text

demo, lab, test, vm, oracle, bench and build call setup first. WAY is how setup gets a compiler for the eBPF programs:
  rustup   a nightly toolchain with its rust-src component
  debian   the packages rustc-web, cargo-web and libstd-rust-web-dev-bpf
Without --way it takes the first that is there or that can be installed. MHEBPF_EBPF_TOOLCHAIN names a compiler to
build with: a rustup toolchain (mhebpf-debian is Debian's), or empty for the rustc on PATH that is not rustup's.
";

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    let task = arguments.next().unwrap_or_else(|| OsString::from("help"));
    let rest: Vec<OsString> = arguments.collect();
    match task.to_str() {
        Some("demo") => demo::task("demo", &rest),
        Some("lab") => demo::task("lab", &rest),
        Some("test") => test::task(&rest),
        Some("vm") => vm::task(&rest),
        Some("bench") => bench::task(&rest),
        Some("build") => build::task(&rest),
        Some("setup") => setup::task(&rest),
        Some("oracle") => oracle::task(&rest),
        Some("doctor") if rest.is_empty() => doctor::task(),
        Some("help" | "--help" | "-h") => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        _ => usage(&format!("no such task: {} {}", task.display(), rest.join(" ".as_ref()).display())),
    }
}

/// Reports a command line that makes no sense.
fn usage(problem: &str) -> ExitCode {
    eprintln!("xtask: {}\n\n{HELP}", problem.trim_end());
    ExitCode::from(2)
}
