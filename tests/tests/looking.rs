//! Commands that ask a daemon change nothing in it: what it enforces was right before, and is its own work.

#[expect(dead_code, reason = "other tests use the rest")]
mod hops;
#[expect(dead_code, reason = "other tests use the rest")]
mod many_routes;

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use hops::lab;
use many_routes::add_many;
use mhebpf_tests::{Daemon, Family, Lab, PEER};
use serde_json::Value;

fn ask(lab: &Lab, words: &[&str]) -> Result<Value> {
    let output = Daemon::command(&lab.host)?.args(words).args(["-o", "json"]).output()?;
    ensure!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// How long the process was on a CPU.
fn cpu(daemon: &Daemon) -> Result<Duration> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{}/task", daemon.pid()))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        sum += text.split_whitespace().next().context("schedstat")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(sum))
}

#[test]
fn status_and_explain_synchronise_nothing() -> Result<()> {
    let (lab, _) = lab(Family::V4)?;
    add_many(&lab, 20_000)?;
    let daemon = lab.mhebpf(&["--no-announce"])?;
    let synchronisations = |status: &Value| status["synchronisations"].as_u64().context("synchronisations");
    let before = synchronisations(&ask(&lab, &["status"])?)?;
    let (peer, source) = (PEER.to_string(), lab.address(1).to_string());
    for _ in 0..10 {
        ask(&lab, &["status"])?;
        ask(&lab, &["explain", "--egress", "eth0_int", "--src", &source, "--dst", &peer])?;
    }
    assert_eq!(synchronisations(&ask(&lab, &["status"])?)?, before);
    daemon.stop()?;
    lab.finish()
}

/// Who looks does not have all the routes read again.
#[test]
fn looking_costs_no_more_with_many_routes() -> Result<()> {
    let (lab, _) = lab(Family::V4)?;
    let mut costs = Vec::new();
    for _ in 0..2 {
        let daemon = lab.mhebpf(&["--no-announce"])?;
        ask(&lab, &["status"])?;
        let before = cpu(&daemon)?;
        for _ in 0..10 {
            ask(&lab, &["status"])?;
        }
        costs.push(cpu(&daemon)? - before);
        daemon.stop()?;
        if costs.len() == 1 {
            add_many(&lab, 20_000)?;
        }
    }
    assert!(costs[1] < costs[0] * 3 + Duration::from_millis(20), "{costs:?}");
    lab.finish()
}
