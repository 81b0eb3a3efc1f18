//! Commands that look and change nothing: what they print, how they end, and that the host is as it was.

use std::{env, fs, os::unix::process::CommandExt as _, path::Path};

use anyhow::{Context as _, Result, ensure};
use mhebpf_tests::{Daemon, NetNs};
use serde_json::Value;

/// How a command ended, and what it printed.
#[derive(Debug)]
pub(crate) struct Printed {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs mhebpf with these words in a namespace.
pub(crate) fn mhebpf(ns: &NetNs, words: &[&str]) -> Result<Printed> {
    run(ns, words, false)
}

/// The same without any capability.
pub(crate) fn mhebpf_without_privileges(ns: &NetNs, words: &[&str]) -> Result<Printed> {
    run(ns, words, true)
}

fn run(ns: &NetNs, words: &[&str], unprivileged: bool) -> Result<Printed> {
    let mut command = Daemon::command(ns)?;
    command.args(words);
    if unprivileged {
        // SAFETY: prctl with these arguments takes no pointers, and nothing is allocated.
        unsafe {
            command.pre_exec(|| {
                for capability in 0..64 {
                    // Fails beyond the last capability that the kernel knows.
                    libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0);
                }
                Ok(())
            });
        }
    }
    let output = command.output().with_context(|| format!("running mhebpf {words:?}"))?;
    Ok(Printed {
        status: output.status.code(),
        stdout: String::from_utf8(output.stdout)?,
        stderr: String::from_utf8(output.stderr)?,
    })
}

/// The document that a command prints with `-o json`, checked against its schema.
pub(crate) fn document(printed: &Printed, schema: &str) -> Result<Value> {
    let document: Value = serde_json::from_str(&printed.stdout).with_context(|| format!("{printed:?}"))?;
    let validator = jsonschema::validator_for(&serde_json::from_str(schema)?)?;
    let errors: Vec<String> = validator.iter_errors(&document).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:#?} in {document:#}");
    Ok(document)
}

/// All that a command that only looks could have changed.
pub(crate) fn state(ns: &NetNs) -> Result<String> {
    let mut text = String::new();
    for words in
        ["-d address", "-6 route show table all", "-4 route show table all", "rule", "-6 rule", "neighbour"]
    {
        text += &ns.ip(words)?;
    }
    for words in ["qdisc show", "-d filter show"] {
        text += &ns.tc(words).unwrap_or_default();
    }
    ns.run(|| {
        let mut text = String::new();
        for family in ["ipv4", "ipv6"] {
            sysctls(&Path::new("/proc/sys/net").join(family).join("conf"), &mut text)?;
        }
        Ok(text)
    })
    .map(|sysctls| text + &sysctls)
}

fn sysctls(directory: &Path, text: &mut String) -> Result<()> {
    let mut paths: Vec<_> = fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            sysctls(&path, text)?;
        } else if let Ok(value) = fs::read_to_string(&path) {
            *text += &format!("{} {value}", path.display());
        }
    }
    Ok(())
}

/// Compares a text with the one in `tests/tests/expected`. `MHEBPF_ACCEPT=1` writes it there instead.
pub(crate) fn expect(text: &str, expected: &str, name: &str) -> Result<()> {
    if env::var_os("MHEBPF_ACCEPT").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/expected").join(name);
        return fs::write(&path, text).with_context(|| format!("writing {}", path.display()));
    }
    ensure!(text == expected, "this is not {name} (MHEBPF_ACCEPT=1 makes it so):\n{text}");
    Ok(())
}

/// Whether every line fits a terminal of 80 columns.
#[track_caller]
pub(crate) fn assert_fits(text: &str) {
    for line in text.lines() {
        assert!(line.chars().count() <= 80 && !line.contains('\u{1b}'), "{line}");
    }
}
