//! What each command says where it can't do its work: what is wrong with what, and what to do, in one clear message.

use std::{
    env, fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::PathBuf,
    process::{self, Command, Stdio},
};

use anyhow::{Context as _, Result};
use mhebpf_tests::{Daemon, Lab, NetNs, PATIENCE, binary, wait_until};

const DONE: i32 = 0;
const FAILED: i32 = 1;
const USAGE: i32 = 2;
const FINDINGS: i32 = 3;

/// Has a daemon end that starts although it should not.
const BRIEFLY: (&str, &str) = ("MHEBPF_FOR", "10s");

/// Any user but root.
const NOBODY: u32 = 65534;

/// How a command ended, and what it printed.
struct Printed {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Asserts a status and parts of a message, which is one and no accident.
#[track_caller]
fn assert_says(printed: &Printed, status: i32, parts: &[&str], words: &[&str]) {
    let said = &printed.stderr;
    assert_eq!(printed.status, Some(status), "{words:?}: {said}");
    for part in parts {
        assert!(said.contains(part), "{words:?} does not say `{part}`: {said}");
    }
    assert!(!said.contains("panicked") && !said.contains("backtrace"), "{words:?}: {said}");
    if status == FAILED || status == USAGE {
        assert_eq!(printed.stdout, "", "{words:?}");
        assert_eq!(said.matches("error: ").count(), 1, "{words:?}: {said}");
    }
}

/// Runs mhebpf with these words in a namespace.
fn mhebpf(ns: &NetNs, words: &[&str]) -> Result<Printed> {
    printed(Daemon::command(ns)?.args(words).env(BRIEFLY.0, BRIEFLY.1))
}

fn printed(command: &mut Command) -> Result<Printed> {
    let output = command.output()?;
    let [stdout, stderr] = [output.stdout, output.stderr].map(String::from_utf8);
    Ok(Printed { status: output.status.code(), stdout: stdout?, stderr: stderr? })
}

/// A copy of mhebpf that every user can run, wherever it was built.
struct ForEverybody(PathBuf);

impl ForEverybody {
    fn new() -> Result<Self> {
        let copy = Self(env::temp_dir().join(format!("mhebpf-{}", process::id())));
        fs::copy(binary::mhebpf()?, &copy.0)?;
        fs::set_permissions(&copy.0, fs::Permissions::from_mode(0o755))?;
        Ok(copy)
    }

    /// Runs it in a namespace as a user without rights.
    fn as_nobody(&self, ns: &NetNs, words: &[&str]) -> Result<Printed> {
        let mut command: Command = ns.command(self.0.to_str().context("a path")?);
        command
            .args(words)
            .env("NO_COLOR", "1")
            .env(BRIEFLY.0, BRIEFLY.1)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null());
        // SAFETY: system calls without pointers, which are async-signal-safe; nothing is allocated.
        unsafe {
            command.pre_exec(|| {
                // The namespace was entered as root.
                if libc::setgid(NOBODY) != 0 || libc::setuid(NOBODY) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        printed(&mut command)
    }
}

impl Drop for ForEverybody {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn who_is_not_root_is_told_so_and_can_still_look() -> Result<()> {
    let (program, lab) = (ForEverybody::new()?, Lab::builder().links(2).build()?);
    let question = ["explain", "--egress", "eth0_int", "--src", "192.168.0.101", "--dst", "192.168.0.1"];
    let cases: [(&[&str], i32, &[&str]); 5] = [
        (&["run", "--all"], FAILED, &["missing privileges: CAP_BPF and CAP_NET_ADMIN", "as root", "sudo"]),
        (&["status"], FAILED, &["no mhebpf is running in this network namespace", "mhebpf run --all"]),
        (&["monitor"], FAILED, &["no mhebpf is running in this network namespace", "mhebpf run --all"]),
        (&["audit"], FINDINGS, &[]),
        (&question, DONE, &[]),
    ];
    for (words, status, parts) in cases {
        assert_says(&program.as_nobody(&lab.host, words)?, status, parts, words);
    }
    let daemon = lab.mhebpf(&[])?;
    for words in [&["status"][..], &["status", "-o", "json"], &["monitor"]] {
        let refused = program.as_nobody(&lab.host, words)?;
        assert_says(&refused, FAILED, &["only root", "use sudo"], words);
    }
    daemon.stop()?;
    lab.finish()
}

#[test]
fn without_a_daemon_it_is_said_how_to_start_one() -> Result<()> {
    let ns = NetNs::new("empty")?;
    for words in [
        &["status"][..],
        &["status", "-o", "json"],
        &["status", "--watch"],
        &["monitor"],
        &["monitor", "-i", "eth*", "--reason", "redirected"],
        &["monitor", "-o", "json"],
    ] {
        let parts = ["no mhebpf is running in this network namespace", "mhebpf run --all", "ip netns exec"];
        assert_says(&mhebpf(&ns, words)?, FAILED, &parts, words);
    }
    Ok(())
}

#[test]
fn a_wrong_interface_is_named_with_what_there_is_or_what_a_pattern_is() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    for wrong in ["[", "", "eth***"] {
        for command in ["run", "audit", "monitor"] {
            let words = [command, "--interface", wrong];
            assert_says(&mhebpf(&lab.host, &words)?, USAGE, &["--interface", "such as 'eth*'"], &words);
        }
    }
    let words = ["run", "--all", "--interface", "eth0_int"];
    assert_says(&mhebpf(&lab.host, &words)?, USAGE, &["cannot be used with", "--all"], &words);
    let words = ["run"];
    assert_says(
        &mhebpf(&lab.host, &words)?,
        USAGE,
        &["--all", "--interface", "eth0_int", "eth1_int"],
        &words,
    );
    let words = ["audit", "--interface", "nosuch"];
    assert_says(&mhebpf(&lab.host, &words)?, USAGE, &["'nosuch' matches no interface", "eth0_int"], &words);
    for way in ["--egress", "--ingress"] {
        let words = ["explain", way, "nosuch", "--src", "192.168.0.100", "--dst", "192.168.0.1"];
        assert_says(&mhebpf(&lab.host, &words)?, USAGE, &["no interface nosuch", "eth0_int"], &words);
    }
    // It may come yet.
    let mut daemon = Daemon::spawn(&lab.host, &["run", "--interface", "nosuch"])?;
    daemon.wait_for_line("no interface matches 'nosuch' yet: waiting for one", PATIENCE)?;
    daemon.signal(libc::SIGTERM)?;
    let ended = daemon.wait_end(PATIENCE)?;
    assert!(ended.status.success(), "{}", ended.stderr);
    lab.finish()
}

#[test]
fn a_wrong_address_is_named_with_what_one_looks_like() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let explain = |source: &'static str, destination: &'static str| {
        vec!["explain", "--egress", "eth0_int", "--src", source, "--dst", destination]
    };
    let arp = |sender: &'static str| {
        vec![
            "explain",
            "--egress",
            "eth0_int",
            "--arp",
            "request",
            "--sender",
            sender,
            "--target",
            "192.168.0.1",
        ]
    };
    let an_address = "write an IPv4 or IPv6 address";
    let cases: [(Vec<&str>, &[&str]); 9] = [
        (explain("192.168.0", "192.168.0.1"), &["192.168.0", an_address]),
        (explain("192.168.0.100", "peer"), &["peer", an_address]),
        (explain("192.168.0.100/21", "192.168.0.1"), &["192.168.0.100/21", "without a prefix length"]),
        (explain("2001:db8::1", "192.168.0.1"), &["different families"]),
        (arp("2001:db8::1"), &["ARP is for IPv4"]),
        (arp("192.168.0.256"), &["192.168.0.256", an_address]),
        (vec!["run", "--all", "--metrics", "127.0.0.1"], &["--metrics", "127.0.0.1:9469"]),
        (vec!["run", "--all", "--metrics", "[::1]"], &["--metrics", "[::1]:9469"]),
        (vec!["run", "--all", "--metrics", "localhost:9469"], &["--metrics", "127.0.0.1:9469"]),
    ];
    for (words, parts) in &cases {
        assert_says(&mhebpf(&lab.host, words)?, USAGE, parts, words);
    }
    let file = env::temp_dir().join(format!("mhebpf-errors-{}.toml", process::id()));
    let path = file.to_str().context("a path")?;
    for (contents, parts) in [
        (
            "all = true\n[[interface]]\nname = \"eth0\"\nallow = [\"10.0.0\"]",
            &["line 4", "10.0.0", "203.0.113.0/24"][..],
        ),
        ("all = true\nmetrics = \"9469\"", &["line 2", "9469", "127.0.0.1:9469"]),
        ("interfaces = [\"\"]", &["line 1", "empty", "such as 'eth*'"]),
    ] {
        fs::write(&file, contents)?;
        let words = ["run", "--config", path];
        assert_says(&mhebpf(&lab.host, &words)?, USAGE, &[parts, &[path]].concat(), &words);
    }
    fs::remove_file(&file)?;
    lab.finish()
}

#[test]
fn wrong_values_of_variables_are_found_as_those_of_options_are() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    for (variable, value, part) in [
        ("MHEBPF_METRICS", "9469", "127.0.0.1:9469"),
        ("MHEBPF_MODE", "dorp", "redirect, drop, observe"),
        ("MHEBPF_FOR", "soon", "90s"),
        ("MHEBPF_ALL", "maybe", "true, false"),
        ("MHEBPF_LOG_FORMAT", "yaml", "human, json"),
        ("MHEBPF_VERBOSE", "very", "--verbose"),
        ("MHEBPF_INTERFACE", "[", "such as 'eth*'"),
    ] {
        let mut command = Daemon::command(&lab.host)?;
        let output = command.arg("run").env(BRIEFLY.0, BRIEFLY.1).env(variable, value).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(USAGE), "{variable}: {said}");
        assert!(said.contains(value) && said.contains(part), "{variable}: {said}");
    }
    lab.finish()
}

/// A second one is refused while the first goes on, in every mode.
#[test]
fn a_second_daemon_names_the_first() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = lab.mhebpf(&["--metrics", "127.0.0.1:9469"])?;
    let process = format!("process {}", daemon.pid());
    for words in
        [&["run", "--all"][..], &["run", "--all", "--mode", "observe", "--metrics", "127.0.0.1:9469"]]
    {
        let parts = ["already running in this network namespace", &process, "stop it first"];
        assert_says(&mhebpf(&lab.host, words)?, FAILED, &parts, words);
    }
    wait_until("the first to go on", PATIENCE, || {
        Ok((mhebpf(&lab.host, &["status"])?.status == Some(DONE)).then_some(()))
    })?;
    daemon.stop()?;
    lab.finish()
}
