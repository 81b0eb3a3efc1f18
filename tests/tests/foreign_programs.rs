//! Other people's TC programs, filters and qdiscs: never touched, never bypassed.

use std::collections::BTreeSet;

use anyhow::Result;
use mhebpf_tests::{
    Lab, NetNs,
    features::{self, Feature},
    tcx::{self, Answer, Hook},
};

/// A filter that matches everything and only names a class.
const FOREIGN_FILTER: &str = "protocol all prio 10 u32 match u32 0 0 classid 1:1";

fn add_foreign_filters(ns: &NetNs) -> Result<()> {
    for hook in ["ingress", "egress"] {
        ns.tc(&format!("filter add dev eth0_int {hook} {FOREIGN_FILTER}"))?;
    }
    Ok(())
}

/// The filters of clsact, and the qdiscs without their counters.
fn foreign_objects(ns: &NetNs) -> Result<String> {
    let mut text = String::new();
    for hook in ["ingress", "egress"] {
        text += &ns.tc(&format!("filter show dev eth0_int {hook}"))?;
    }
    for line in ns.tc("qdisc show")?.lines() {
        text += line.split(" refcnt").next().unwrap_or(line).trim();
        text += "\n";
    }
    Ok(text)
}

fn assert_enforced(lab: &Lab) -> Result<()> {
    let recording = lab.record();
    lab.emit(0, lab.address(1))?;
    recording.wait_datagram_from(lab.address(1))?;
    assert_eq!(recording.ports_of(lab.address(1))?, BTreeSet::from([1]));
    Ok(())
}

#[test]
fn foreign_filters_and_qdiscs_survive_under_either_hook() -> Result<()> {
    for hook in ["tcx", "clsact"] {
        let lab = Lab::builder().links(2).build()?;
        if hook == "tcx" && !features::require(Feature::Tcx)? {
            continue;
        }
        lab.host.tc("qdisc add dev eth0_int root handle 1: htb default 1")?;
        lab.host.tc("qdisc add dev eth0_int clsact")?;
        add_foreign_filters(&lab.host)?;
        let before = foreign_objects(&lab.host)?;
        let daemon = lab.mhebpf(&["--hook", hook])?;
        assert_enforced(&lab)?;
        daemon.stop()?;
        assert_eq!(foreign_objects(&lab.host)?, before, "--hook {hook}");
        lab.finish()?;
    }
    Ok(())
}

/// The clsact qdisc that mhebpf added is somebody else's now as well.
#[test]
fn a_filter_that_was_added_meanwhile_keeps_its_qdisc() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = lab.mhebpf(&["--hook", "clsact"])?;
    add_foreign_filters(&lab.host)?;
    daemon.stop()?;
    let after = foreign_objects(&lab.host)?;
    assert!(after.contains("match 00000000/00000000"), "{after}");
    assert!(!after.contains("direct-action"), "{after}");
    assert_eq!(after.matches("qdisc clsact").count(), 1, "only that with the filters: {after}");
    lab.finish()
}

#[test]
fn foreign_tcx_programs_stay_and_have_their_say() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    if !features::require(Feature::Tcx)? {
        return lab.finish();
    }
    let first = tcx::attach(&lab.host, "eth0_int", Hook::Egress, Answer::Next)?;
    let foreign = tcx::programs(&lab.host, "eth0_int", Hook::Egress)?;
    let daemon = lab.mhebpf(&["--hook", "tcx"])?;
    assert_enforced(&lab)?;
    let with = tcx::programs(&lab.host, "eth0_int", Hook::Egress)?;
    assert!(with.len() == 2 && with.contains(&foreign[0]), "{with:?}");

    // A program behind ours drops what ours lets pass: passing must not end the chain.
    let recording = lab.record();
    let last = tcx::attach(&lab.host, "eth0_int", Hook::Egress, Answer::Drop)?;
    lab.emit(0, lab.address(0))?;
    drop(last);
    assert_eq!(recording.ports_of(lab.address(0))?, BTreeSet::new());

    daemon.stop()?;
    assert_eq!(tcx::programs(&lab.host, "eth0_int", Hook::Egress)?, foreign);
    drop(first);
    lab.finish()
}
