//! Where others come first and can't be passed, it is said in every place: log, status, metrics and audit.

#[expect(dead_code, reason = "one metric is asked for")]
mod openmetrics;
#[expect(dead_code, reason = "one metric is asked for")]
mod scrape;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mhebpf_tests::{
    Daemon, Lab, PATIENCE,
    features::{self, Feature},
    scaled,
    tcx::{self, Answer, Hook},
    wait_until,
};
use scrape::{scrape, start};
use serde_json::Value;

/// What the daemon says when nothing can be done.
const TOLD: &str = "are not judged";
/// What it says when there are no others any more.
const OVER: &str = "come before those of mhebpf on eth0_int any more";

/// How soon the programs are first again, where they can be.
const SOON: Duration = scaled(Duration::from_millis(1500));

/// The findings of an audit of this kind, as they are about interfaces and programs.
fn found(lab: &Lab, id: &str) -> Result<Vec<String>> {
    let output = Daemon::command(&lab.host)?.args(["audit", "-o", "json"]).output()?;
    let document: Value = serde_json::from_slice(&output.stdout)?;
    let findings = document["findings"].as_array().context("findings")?.iter();
    Ok(findings.filter(|finding| finding["id"] == id).map(|finding| finding["objects"].to_string()).collect())
}

/// Whether status, metrics and audit say that others come first on egress of the first interface, and nowhere else.
fn is_told(lab: &Lab) -> Result<bool> {
    let status = |words: &[&str]| {
        Daemon::command(&lab.host)?.arg("status").args(words).output().map_err(anyhow::Error::from)
    };
    let text = String::from_utf8_lossy(&status(&[])?.stdout).into_owned();
    let json: Value = serde_json::from_slice(&status(&["-o", "json"])?.stdout)?;
    let is_behind =
        |interface: &Value| ["egress", "ingress"].map(|way| interface[format!("{way}_chain")]["place"] != 1);
    let behind: Vec<_> = json["interfaces"].as_array().context("interfaces")?.iter().map(is_behind).collect();
    let metrics = scrape(&lab.host)?;
    let metric = |name| metrics.sum("mhebpf_interface_behind_others", &[("interface", name)]) == 1.0;
    let found = found(lab, "behind-others")?;
    let told = [
        text.contains("others come first on egress: packets"),
        behind == [[true, false], [false; 2]],
        metric("eth0_int"),
        found.len() == 1 && found[0].contains("eth0_int"),
    ];
    let not = [
        !text.contains("others come first"),
        behind == [[false; 2]; 2],
        !metric("eth0_int"),
        found.is_empty(),
    ];
    ensure!(!metric("eth1_int"));
    ensure!(
        told == [true; 4] || not == [true; 4],
        "told {told:?}, not {not:?}:\n{text}\n{json:#}\n{found:?}"
    );
    Ok(told[0])
}

#[test]
fn programs_of_tcx_that_insist_on_being_first() -> Result<()> {
    if !features::require(Feature::Tcx)? {
        return Ok(());
    }
    let lab = Lab::builder().links(2).build()?;
    let daemon = start(&lab, &[])?;
    ensure!(!is_told(&lab)?);
    let first = || Ok::<_, anyhow::Error>(tcx::programs(&lab.host, "eth0_int", Hook::Egress)?[0]);
    let ours = first()?;
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(tcx::attach_first(&lab.host, "eth0_int", Hook::Egress, Answer::Next)?);
        wait_until("the programs to be first again", SOON, || Ok((first()? == ours).then_some(())))?;
    }
    others.push(tcx::attach_first(&lab.host, "eth0_int", Hook::Egress, Answer::Next)?);
    daemon.wait_for_line(TOLD, PATIENCE)?;
    ensure!(is_told(&lab)?);
    drop(others);
    daemon.wait_for_line(OVER, PATIENCE)?;
    ensure!(!is_told(&lab)?);
    daemon.stop()?;
    lab.finish()
}

/// Theirs may have been there before, or come later; both are seen within a second or so.
#[test]
fn filters_of_a_priority_above_ours() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let add = |priority| {
        lab.host.tc(&format!(
            "filter add dev eth0_int egress protocol all prio {priority} u32 match u32 0 0 classid 1:1"
        ))
    };
    let delete = |priority| lab.host.tc(&format!("filter del dev eth0_int egress prio {priority}"));
    lab.host.tc("qdisc add dev eth0_int clsact")?;
    add(1)?;
    let daemon = start(&lab, &["--hook", "clsact"])?;
    daemon.wait_for_line(TOLD, PATIENCE)?;
    ensure!(is_told(&lab)?, "one that was there before");
    delete(1)?;
    daemon.wait_for_line(OVER, PATIENCE)?;
    // One that comes behind is nobody's business.
    add(8)?;
    ensure!(!is_told(&lab)?);
    add(2)?;
    wait_until("the later one to be told of", PATIENCE, || {
        Ok((daemon.stderr().matches(TOLD).count() == 2).then_some(()))
    })?;
    ensure!(is_told(&lab)?);
    daemon.stop()?;
    lab.finish()
}

/// Programs of TCX run before all filters.
#[test]
fn programs_of_tcx_before_filters() -> Result<()> {
    if !features::require(Feature::Tcx)? {
        return Ok(());
    }
    let lab = Lab::builder().links(2).build()?;
    let daemon = start(&lab, &["--hook", "clsact"])?;
    let other = tcx::attach(&lab.host, "eth0_int", Hook::Egress, Answer::Next)?;
    daemon.wait_for_line(TOLD, PATIENCE)?;
    ensure!(is_told(&lab)?);
    drop(other);
    daemon.wait_for_line(OVER, PATIENCE)?;
    ensure!(!is_told(&lab)?);
    daemon.stop()?;
    lab.finish()
}

/// Filters outlive a daemon that is killed.
#[test]
fn an_audit_names_what_a_killed_daemon_has_left() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let mut daemon = start(&lab, &["--hook", "clsact"])?;
    ensure!(found(&lab, "left-in-force")?.is_empty(), "it runs");
    daemon.signal(libc::SIGKILL)?;
    daemon.wait_end(PATIENCE)?;
    let left = found(&lab, "left-in-force")?;
    ensure!(left.len() == 1 && left[0].contains("eth0_int") && left[0].contains("eth1_int"), "{left:?}");
    ensure!(Daemon::command(&lab.host)?.arg("unload").output()?.status.success());
    ensure!(found(&lab, "left-in-force")?.is_empty());
    lab.finish()
}
