//! The same behaviour where the programs are filters of a clsact qdisc, as on kernels before Linux 6.6.

use std::collections::BTreeSet;

use anyhow::Result;
use mhebpf_tests::{
    Daemon, Lab, Mac, PATIENCE, PEER,
    features::{self, Feature},
    traffic::{ARTICLE_PORT, icmp, tcp, udp},
};

const HOOK: [&str; 2] = ["--hook", "clsact"];

#[test]
fn every_address_talks_through_its_own_interface() -> Result<()> {
    let lab = Lab::article()?;
    let server = tcp::EchoServer::start(&lab.switch, PEER, ARTICLE_PORT)?;
    let datagrams = udp::EchoServer::start(&lab.switch, PEER, ARTICLE_PORT)?;
    let daemon = lab.mhebpf(&HOOK)?;
    lab.forget_neighbours()?;
    let recording = lab.record();
    for address in lab.addresses() {
        let mut stream = tcp::connect(&lab.host, address, server.address())?;
        tcp::echo(&mut stream, b"hello")?;
        udp::echo(&udp::bind(&lab.host, address, 0)?, datagrams.address(), &[7; 4000])?;
        icmp::ping(&lab.switch, PEER, address, PATIENCE)?;
    }
    for (port, address) in lab.addresses().into_iter().enumerate() {
        assert_eq!(recording.ways_of(address)?, BTreeSet::from([(port, lab.mac(port))]));
    }
    daemon.stop()?;
    lab.finish()
}

#[test]
fn ten_megabytes_cross_each_way() -> Result<()> {
    let lab = Lab::article()?;
    let server = tcp::EchoServer::start(&lab.switch, PEER, ARTICLE_PORT)?;
    let daemon = lab.mhebpf(&HOOK)?;
    let recording = lab.record();
    let stream = tcp::connect(&lab.host, lab.address(3), server.address())?;
    tcp::echo_bulk(&stream, 10_000_000)?;
    assert_eq!(recording.ways_of(lab.address(3))?, BTreeSet::from([(3, lab.mac(3))]));
    daemon.stop()?;
    lab.finish()
}

#[test]
fn arp_request_for_another_interfaces_address_is_not_answered() -> Result<()> {
    for mode in ["redirect", "drop"] {
        let lab = Lab::article()?;
        let daemon = lab.mhebpf_quietly(&[HOOK[0], HOOK[1], "--mode", mode])?;
        let recording = lab.record();
        for port in lab.ports() {
            for other in lab.ports().filter(|other| *other != port) {
                lab.ask(port, lab.address(other), Mac::BROADCAST)?;
            }
        }
        assert_eq!(recording.arp_from_host()?, []);
        lab.ask_all(lab.address(2))?;
        assert_eq!(recording.arp_replies_for(lab.address(2))?, [(2, lab.mac(2))]);
        daemon.stop()?;
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn drop_mode_drops_and_observe_mode_only_counts() -> Result<()> {
    for (mode, ports) in [("drop", BTreeSet::new()), ("observe", BTreeSet::from([0]))] {
        let lab = Lab::builder().links(2).build()?;
        let daemon = lab.mhebpf_quietly(&[HOOK[0], HOOK[1], "--mode", mode])?;
        let recording = lab.record();
        lab.emit(0, lab.address(1))?;
        assert_eq!(recording.ports_of(lab.address(1))?, ports, "mode {mode}");
        let summary = daemon.stop()?.summary;
        let counted = (summary.count("eth0_int", "wrong_source"), summary.observed("eth0_int", "redirected"));
        assert_eq!(counted, if mode == "drop" { (1, 0) } else { (0, 1) }, "{summary:?}");
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn the_filters_are_seen_by_tc_and_gone_afterwards() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let before = lab.host.tc("qdisc show")?;
    let daemon = lab.mhebpf(&HOOK)?;
    for hook in ["ingress", "egress"] {
        let filters = lab.host.tc(&format!("filter show dev eth0_int {hook}"))?;
        assert!(filters.contains("bpf") && filters.contains("direct-action"), "{filters}");
    }
    daemon.stop()?;
    assert_eq!(lab.host.tc("qdisc show")?, before);
    lab.finish()
}

/// Filters outlive a process that is killed. The next one takes their place, and cleans up at its own end.
#[test]
fn what_a_killed_daemon_left_is_taken_over() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let mut daemon = lab.mhebpf(&HOOK)?;
    daemon.signal(libc::SIGKILL)?;
    daemon.wait_end(PATIENCE)?;
    let daemon = lab.mhebpf(&HOOK)?;
    let filters = lab.host.tc("filter show dev eth0_int egress")?;
    assert_eq!(filters.matches("direct-action").count(), 1, "{filters}");
    let recording = lab.record();
    lab.emit(0, lab.address(1))?;
    recording.wait_datagram_from(lab.address(1))?;
    assert_eq!(recording.ports_of(lab.address(1))?, BTreeSet::from([1]));
    daemon.stop()?;
    assert_eq!(lab.host.tc("filter show dev eth0_int egress").unwrap_or_default(), "");
    lab.finish()
}

/// They would judge beside the new programs, by tables that nobody keeps in step.
#[test]
fn what_a_killed_daemon_left_is_found_and_removed_whatever_hook_is_next() -> Result<()> {
    let left =
        |lab: &Lab| lab.host.tc("filter show dev eth0_int egress").map(|shown| shown.contains("mhebpf"));
    let killed = || -> Result<Lab> {
        let lab = Lab::builder().links(2).build()?;
        let mut daemon = lab.mhebpf_quietly(&HOOK)?;
        daemon.signal(libc::SIGKILL)?;
        daemon.wait_end(PATIENCE)?;
        assert!(left(&lab)?);
        Ok(lab)
    };
    let lab = killed()?;
    let output = Daemon::command(&lab.host)?.arg("status").output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("left on eth0_int, eth1_int") && said.contains("`mhebpf unload`"), "{said}");
    let output = Daemon::command(&lab.host)?.arg("unload").output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("removed 4 filters"), "{said}");
    assert!(!left(&lab)?);
    lab.finish()?;

    if features::require(Feature::Tcx)? {
        let lab = killed()?;
        let daemon = lab.mhebpf(&["--hook", "tcx"])?;
        assert!(!left(&lab)?);
        // A new address is not lost to the old tables.
        lab.wait_in_step(0, 1)?;
        let said = daemon.stop()?.stderr;
        assert!(said.contains("removed 2 filters that an earlier run has left on eth0_int"), "{said}");
        lab.finish()?;
    }
    Ok(())
}
