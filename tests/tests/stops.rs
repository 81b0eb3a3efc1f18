//! A daemon that is told to end does so, whatever it is doing.

use std::{
    os::unix::process::ExitStatusExt as _,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use mhebpf_tests::{Daemon, Lab, NetNs, PATIENCE, lab::INTERFACES, scaled};

/// How long that may take: a second, and three more for a daemon that was built without optimisation, on a busy machine.
const END: Duration = scaled(Duration::from_secs(4));

/// So many that a synchronisation takes longer.
const ROUTES: u32 = 40_000;

fn add_routes(ns: &NetNs) -> Result<()> {
    let routes = (0..ROUTES)
        .map(|n| format!("route add 10.{}.{}.{}/32 via 192.168.0.1\n", n >> 16, n >> 8 & 255, n & 255));
    ns.ip_batch(&routes.collect::<String>())
}

/// How long a daemon takes to end once it has run for some time.
fn end_after(lab: &Lab, time: Duration, further: &[&str]) -> Result<Duration> {
    let arguments = [&["run", "--interface", INTERFACES, "--no-announce"], further].concat();
    let mut daemon = Daemon::spawn(&lab.host, &arguments)?;
    thread::sleep(time);
    let begin = Instant::now();
    daemon.signal(libc::SIGTERM)?;
    let ended = daemon.wait_end(PATIENCE * 3)?;
    // Before it handles signals it has done nothing that would have to be undone.
    let at_once = ended.status.signal() == Some(libc::SIGTERM);
    ensure!(ended.status.success() || at_once, "{}: {}", ended.status, ended.stderr);
    Ok(begin.elapsed())
}

#[test]
fn a_start_can_be_ended_at_any_moment() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    add_routes(&lab.host)?;
    let rules = lab.host.ip("rule")?;
    let begin = Instant::now();
    let daemon = lab.run_mhebpf(&["run", "--interface", INTERFACES, "--no-announce", "--steer", "rules"])?;
    let start = begin.elapsed();
    drop(daemon);
    for moment in 1..12 {
        let took = end_after(&lab, start * moment / 12, &["--steer", "rules"])?;
        ensure!(took < END, "{took:?} at moment {moment} of 12 of {start:?}");
        ensure!(lab.host.ip("rule")? == rules, "rules are left");
    }
    lab.finish()
}
