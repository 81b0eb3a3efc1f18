//! Interfaces with names that are not UTF-8: the kernel takes any byte but blanks, colons and slashes.

use std::{collections::BTreeSet, ffi::OsStr, os::unix::ffi::OsStrExt as _};

use anyhow::{Result, ensure};
use mhebpf_tests::{
    Daemon, Lab, PATIENCE,
    features::{self, Feature},
    wait_until,
};
use serde_json::Value;

/// What the first interface is called.
const NAME: &[u8] = b"v\xff0";
/// As that is shown.
const SHOWN: &str = "v\u{fffd}0";

#[test]
fn an_interface_whose_name_is_not_utf8_is_enforced_under_either_hook() -> Result<()> {
    for hook in ["tcx", "clsact"] {
        if hook == "tcx" && !features::require(Feature::Tcx)? {
            continue;
        }
        let lab = Lab::builder().links(2).build()?;
        let rename = |words: [&[u8]; 5]| -> Result<()> {
            let mut command = lab.host.command("ip");
            ensure!(command.args(words.map(OsStr::from_bytes)).status()?.success(), "renaming");
            Ok(())
        };
        lab.host.ip("link set eth0_int down")?;
        rename([b"link", b"set", b"eth0_int", b"name", NAME])?;
        // An alias may be anything as well.
        rename([b"link", b"set", NAME, b"alias", b"\xfe"])?;
        // What is not UTF-8 is one character.
        let words = ["run", "--interface", "v?0", "--interface", "eth1_int", "--hook", hook, "--no-announce"];
        let daemon = Daemon::spawn(&lab.host, &words)?;
        daemon.wait_ready()?;
        let said = daemon.stderr();
        ensure!(said.contains(SHOWN) && !said.contains("can't be read"), "{said}");
        let status = Daemon::command(&lab.host)?.args(["status", "-o", "json"]).output()?;
        let status: Value = serde_json::from_slice(&status.stdout)?;
        ensure!(
            status["interfaces"][0]["name"] == SHOWN && status["interfaces"][0]["hook"] == hook,
            "{status:#}"
        );

        rename([b"link", b"set", NAME, b"name", b"eth0_int"])?;
        daemon.wait_for_line("is now called eth0_int", PATIENCE)?;
        daemon.stop()?;
        lab.finish()?;
    }
    Ok(())
}

/// Frames of the interface itself, while it is called so.
#[test]
fn what_leaves_by_it_is_judged() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let mut command = lab.host.command("ip");
    command.args([&b"link"[..], b"set", b"eth1_int", b"name", NAME].map(OsStr::from_bytes));
    lab.host.ip("link set eth1_int down")?;
    ensure!(command.status()?.success());
    let mut command = lab.host.command("ip");
    command.args([&b"link"[..], b"set", NAME, b"up"].map(OsStr::from_bytes));
    ensure!(command.status()?.success());
    let daemon =
        Daemon::spawn(&lab.host, &["run", "--interface", "eth0_int", "--interface", "v*", "--no-announce"])?;
    daemon.wait_ready()?;
    let recording = lab.record();
    // The address of the interface with the odd name leaves by it.
    wait_until("a datagram", PATIENCE, || {
        lab.emit(0, lab.address(1))?;
        Ok((!recording.ports_of(lab.address(1))?.is_empty()).then_some(()))
    })?;
    ensure!(recording.ports_of(lab.address(1))? == BTreeSet::from([1]), "{}", daemon.stderr());
    daemon.stop()?;
    lab.finish()
}
