//! `mhebpf unload` where nothing is pinned.

use anyhow::{Result, ensure};
use mhebpf_tests::{Daemon, Lab, NetNs, PATIENCE};

fn unload(ns: &NetNs) -> Result<(Option<i32>, String, String)> {
    let output = Daemon::command(ns)?.arg("unload").output()?;
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    Ok((output.status.code(), stdout, stderr))
}

#[test]
fn policy_routing_that_a_killed_daemon_has_left_is_removed() -> Result<()> {
    let lab = Lab::builder().links(2).ipv6().build()?;
    let routing = || {
        let words = ["rule", "-6 rule", "-4 route show table all", "-6 route show table all"];
        words.iter().map(|words| lab.host.ip(words)).collect::<Result<String>>()
    };
    let before = routing()?;
    let mut daemon = lab.mhebpf_quietly(&["--steer", "rules"])?;
    let (status, _, stderr) = unload(&lab.host)?;
    ensure!(status == Some(1) && stderr.contains("stop it first"), "beside a daemon: {stderr}");
    daemon.signal(libc::SIGKILL)?;
    daemon.wait_end(PATIENCE)?;
    assert_ne!(routing()?, before);
    let (status, stdout, stderr) = unload(&lab.host)?;
    ensure!(status == Some(0) && stdout.starts_with("removed 4 rules"), "{status:?}: {stdout}{stderr}");
    assert_eq!(routing()?, before);
    let (status, stdout, _) = unload(&lab.host)?;
    ensure!(status == Some(0) && stdout.starts_with("nothing"), "{stdout}");
    lab.finish()
}
