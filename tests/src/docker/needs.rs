//! What an engine needs of the machine. A lack of it is no mistake of anybody's; an engine that fails nevertheless is one.

use std::process::Command;

use anyhow::{Context as _, Result};

use super::{cgroups, program};
use crate::{netns::NetNs, skip::skip};

/// The programs that tests with an engine run, or that the engine does.
const PROGRAMS: [&str; 9] = [
    "dockerd",
    "docker",
    "containerd",
    "containerd-shim-runc-v2",
    "runc",
    "iptables",
    "busybox",
    "unshare",
    "tar",
];

/// Rules such as an engine's: without these matches and targets it publishes no port.
const RULES: [&str; 3] = [
    "-t nat -A PREROUTING -p tcp -m addrtype --dst-type LOCAL -j DNAT --to-destination 192.0.2.1:7",
    "-t nat -A POSTROUTING -s 192.0.2.0/24 -j MASQUERADE",
    "-t filter -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
];

/// Tells whether a Docker engine can run here. If not, this says why the test is skipped.
///
/// # Errors
///
/// Without root.
pub fn is_available() -> Result<bool> {
    let lack = lack()?;
    if let Some(why) = &lack {
        skip(&why.replace('\n', " "));
    }
    Ok(lack.is_none())
}

fn lack() -> Result<Option<String>> {
    if let Some(missing) = PROGRAMS.into_iter().find(|name| program::find(name).is_none()) {
        return Ok(Some(format!("{missing} is not installed")));
    }
    if !cgroups::are_mounted() {
        return Ok(Some("no control groups are mounted".to_owned()));
    }
    let ns = NetNs::new("probe")?;
    if let Err(why) = ns.ip("link add probed type bridge") {
        return Ok(Some(format!("this kernel has no bridges: {why:#}")));
    }
    let isolated = "--mount --pid --fork --mount-proc true";
    if let Some(why) = complaint(ns.command("unshare").args(isolated.split(' ')))? {
        return Ok(Some(format!("no namespaces of mounts and processes can be had here: {why}")));
    }
    for rule in RULES {
        let mut iptables = ns.command("iptables");
        iptables.env("PATH", program::search_path()?).args(rule.split(' '));
        if let Some(why) = complaint(&mut iptables)? {
            return Ok(Some(format!("iptables has no `{rule}` on this kernel: {why}")));
        }
    }
    Ok(None)
}

/// What a command says when it fails.
fn complaint(command: &mut Command) -> Result<Option<String>> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    let failed = !output.status.success();
    Ok(failed.then(|| String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
