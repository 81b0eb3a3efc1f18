//! The article's lab, to try mhebpf in: a shell, or another command, on the multihomed host.
//!
//! The lab ends with the command, and with it what was started there and is still running.

use std::{
    env, fs, io,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{self, ExitCode, ExitStatus},
};

use anyhow::{Context as _, Result};
use mhebpf_tests::{
    Lab, NetNs, PATIENCE, PEER, binary,
    traffic::{ARTICLE_PORT, tcp},
    wait_until,
};

fn main() -> ExitCode {
    ignore_interrupts();
    let mut words = env::args_os().skip(1);
    let program = words.next();
    if program.is_none() {
        print_welcome();
    }
    let program = program.or_else(|| env::var_os("SHELL")).unwrap_or_else(|| "/bin/sh".into());
    match run(Path::new(&program), words) {
        // As shells do for a command that a signal has ended.
        Ok(status) => {
            ExitCode::from(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()) as u8)
        }
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn print_welcome() {
    println!(
        "This shell is on the lab's host, as root: eth0_int to eth3_int with 192.168.0.100 to .103, and the peer {PEER} \
         behind\nall of them, where TCP port {ARTICLE_PORT} answers. `mhebpf` is on PATH. The lab ends with the shell."
    );
}

fn run(program: &Path, words: impl Iterator<Item = std::ffi::OsString>) -> Result<ExitStatus> {
    let mhebpf = binary::mhebpf()?;
    let lab = Lab::article().context("building the lab")?;
    let _server = tcp::EchoServer::start(&lab.switch, PEER, ARTICLE_PORT)?;
    let directories = mhebpf.parent().map(Path::to_path_buf).into_iter();
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(directories.chain(env::split_paths(&path)))?;
    let mut command = lab.host.command(program.to_str().context("the program's name is not UTF-8")?);
    let mut child = command
        .args(words)
        .env("PATH", path)
        .spawn()
        .with_context(|| format!("starting {}", program.display()))?;
    let status = child.wait()?;
    end_all_in(&lab.host)?;
    Ok(status)
}

/// Ends what still runs in a namespace: it would keep the lab.
fn end_all_in(ns: &NetNs) -> Result<()> {
    let this = fs::metadata(ns.path())?;
    wait_until("the lab's processes to end", PATIENCE, || {
        let left: Vec<i32> = processes()?.filter(|pid| is_in(*pid, &this)).collect();
        for pid in &left {
            // SAFETY: no pointers are passed. That the process has ended meanwhile is no failure.
            unsafe { libc::kill(*pid, libc::SIGTERM) };
        }
        Ok(left.is_empty().then_some(()))
    })
}

/// All processes but this one.
fn processes() -> io::Result<impl Iterator<Item = i32>> {
    let this = process::id().cast_signed();
    let entries = fs::read_dir("/proc")?.filter_map(Result::ok);
    Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(move |pid| *pid != this))
}

fn is_in(pid: i32, ns: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|of| (of.dev(), of.ino()) == (ns.dev(), ns.ino()))
}

/// Ctrl-C is for the command in the lab. A handler that does nothing, not `SIG_IGN`, which the command would inherit.
fn ignore_interrupts() {
    extern "C" fn ignore(_: i32) {}
    let handler: extern "C" fn(i32) = ignore;
    for signal in [libc::SIGINT, libc::SIGQUIT] {
        // SAFETY: the handler does nothing.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
}
