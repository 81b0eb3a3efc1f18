//! Starting, stopping, and refusing to start.

use std::{
    collections::BTreeSet,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Result;
use mhebpf_tests::{
    Captured, Daemon, Ended, Lab, Mac, PATIENCE, confined,
    daemon::READY,
    features::{self, Feature},
    lab::INTERFACES,
    scaled, tcx, wait_until,
};

/// What `tc` and the kernel know of traffic control in the host.
fn traffic_control(lab: &Lab) -> Result<String> {
    let mut text = lab.host.tc("qdisc show")?;
    for port in lab.ports() {
        let interface = format!("eth{port}_int");
        for hook in [tcx::Hook::Ingress, tcx::Hook::Egress] {
            text += &format!("{interface} {hook:?} {:?}\n", tcx::programs(&lab.host, &interface, hook)?);
        }
        for parent in ["root", "ingress", "egress"] {
            // Where there is no clsact qdisc, `tc` says so by an error.
            text += &lab.host.tc(&format!("filter show dev {interface} {parent}")).unwrap_or_default();
        }
    }
    Ok(text)
}

/// Whether the host is the weak end system that Linux is.
fn is_weak(lab: &Lab) -> Result<bool> {
    let recording = lab.record();
    lab.emit(0, lab.address(1))?;
    lab.ask(0, lab.address(1), Mac::BROADCAST)?;
    let sent = recording.ports_of(lab.address(1))? == BTreeSet::from([0]);
    let answered = recording.arp_replies_for(lab.address(1))?.len() == 1;
    assert_eq!(sent, answered, "half a strong end system");
    Ok(sent)
}

/// Runs `mhebpf` until it ends by itself.
fn run(lab: &Lab, arguments: &[&str]) -> Result<Ended> {
    Daemon::spawn(&lab.host, arguments)?.wait_end(PATIENCE)
}

#[test]
fn nothing_is_left_after_either_signal() -> Result<()> {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let lab = Lab::article()?;
        let before = traffic_control(&lab)?;
        let mut daemon = lab.mhebpf(&[])?;
        assert!(!is_weak(&lab)?);
        assert_ne!(traffic_control(&lab)?, before, "something is attached");
        daemon.signal(signal)?;
        let ended = daemon.wait_end(PATIENCE)?;
        assert!(ended.status.success(), "{}: {}", ended.status, ended.stderr);
        assert!(ended.summary.total("redirected") > 0, "a summary: {}", ended.stderr);
        assert_eq!(traffic_control(&lab)?, before);
        assert!(is_weak(&lab)?);
        lab.finish()?;
    }
    Ok(())
}

/// Links of TCX programs end with the process that holds them; clsact filters do not.
#[test]
fn a_killed_daemon_leaves_no_tcx_programs() -> Result<()> {
    let lab = Lab::article()?;
    if !features::require(Feature::Tcx)? {
        return lab.finish();
    }
    let before = traffic_control(&lab)?;
    let mut daemon = lab.mhebpf(&["--hook", "tcx"])?;
    assert!(!is_weak(&lab)?);
    daemon.signal(libc::SIGKILL)?;
    daemon.wait_end(PATIENCE)?;
    wait_until("the programs to go", PATIENCE, || Ok((traffic_control(&lab)? == before).then_some(())))?;
    assert!(is_weak(&lab)?);
    // And the next one starts.
    lab.mhebpf(&[])?.stop()?;
    lab.finish()
}

#[test]
fn with_the_option_for_it_stops_by_itself() -> Result<()> {
    let lab = Lab::article()?;
    let before = traffic_control(&lab)?;
    let (start, time) = (Instant::now(), scaled(Duration::from_secs(1)));
    let length = format!("{}s", time.as_secs());
    let mut daemon = Daemon::spawn(&lab.host, &["run", "--interface", INTERFACES, "--for", &length])?;
    daemon.wait_ready()?;
    assert!(!is_weak(&lab)?);
    let ended = daemon.wait_end(PATIENCE)?;
    assert!(start.elapsed() >= time, "{:?}", start.elapsed());
    assert!(ended.status.success(), "{}: {}", ended.status, ended.stderr);
    assert!(ended.summary.total("redirected") > 0, "a summary: {}", ended.stderr);
    assert_eq!(traffic_control(&lab)?, before);
    assert!(is_weak(&lab)?);
    lab.finish()
}

#[test]
fn a_second_instance_is_refused_and_the_first_goes_on() -> Result<()> {
    let lab = Lab::article()?;
    let daemon = lab.mhebpf(&[])?;
    let second = run(&lab, &["run", "--interface", INTERFACES])?;
    assert_eq!(second.status.code(), Some(1), "{}", second.stderr);
    assert!(second.stderr.contains("already running"), "{}", second.stderr);
    assert!(!is_weak(&lab)?);
    daemon.stop()?;
    // Another namespace is another matter.
    let (one, other) = (lab.mhebpf(&[])?, Lab::builder().links(2).build()?);
    other.mhebpf(&[])?.stop()?;
    other.finish()?;
    one.stop()?;
    lab.finish()
}

#[test]
fn it_waits_for_an_interface_that_is_not_there_yet() -> Result<()> {
    let lab = Lab::article()?;
    let mut daemon = Daemon::spawn(&lab.host, &["run", "--interface", "late*"])?;
    daemon.wait_for_line("late*", PATIENCE)?;
    assert!(is_weak(&lab)?, "{}", daemon.stderr());
    lab.host.ip_batch("link set eth0_int down\nlink set eth0_int name late0\nlink set late0 up")?;
    daemon.wait_for_line(READY, PATIENCE)?;
    wait_until("the late interface to be enforced", PATIENCE, || {
        let recording = lab.record();
        lab.ask(0, lab.address(1), Mac::BROADCAST)?;
        lab.ask(0, lab.address(0), Mac::BROADCAST)?;
        let of_its_own = |f: &Captured| f.arp().is_some_and(|arp| arp.sender == lab.address(0));
        if recording.wait_from_host_within(PATIENCE / 4, "an answer", of_its_own).is_err() {
            return Ok(None);
        }
        Ok(recording.arp_replies_for(lab.address(1))?.is_empty().then_some(()))
    })?;
    daemon.signal(libc::SIGTERM)?;
    assert!(daemon.wait_end(PATIENCE)?.status.success());
    lab.finish()
}

#[test]
fn without_a_selection_it_names_the_interfaces_that_share_a_subnet() -> Result<()> {
    let lab = Lab::builder().links(3).links_in_second_subnet(1).build()?;
    let Ended { status, stderr: said, .. } = run(&lab, &["run"])?;
    assert_eq!(status.code(), Some(2), "{said}");
    for expected in ["eth0_int", "eth1_int", "eth2_int", "192.168.0.0/21", "--interface", "--all"] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert!(!said.contains("eth3_int"), "it shares its subnet with no other: {said}");
    assert_no_accident(&said);
    lab.finish()
}

#[test]
fn a_wrong_command_line_is_a_usage_error() -> Result<()> {
    let lab = Lab::builder().links(1).build()?;
    for arguments in [
        &["run", "--interface", "eth*", "--mode", "sideways"] as &[&str],
        &["run", "--interface", "["],
        &["run", "--interface", "eth*", "--for", "soon"],
        &["run", "--interface", "eth*", "--no-such-option"],
        &["walk"],
        &[],
    ] {
        let Ended { status, stderr: said, .. } = run(&lab, arguments)?;
        assert_eq!(status.code(), Some(2), "{arguments:?}: {said}");
        assert_no_accident(&said);
    }
    lab.finish()
}

/// The command that starts mhebpf as root with these capabilities at most.
fn with_capabilities(lab: &Lab, kept: &[libc::c_ulong]) -> Result<Command> {
    let mut command = Daemon::command(&lab.host)?;
    confined::keep(&mut command, kept.to_vec());
    command.args(["run", "--interface", INTERFACES]);
    Ok(command)
}

#[test]
fn without_privileges_it_says_which_are_missing() -> Result<()> {
    let lab = Lab::article()?;
    let command = with_capabilities(&lab, &[])?;
    let Ended { status, stderr: said, .. } = Daemon::spawn_command(command)?.wait_end(PATIENCE)?;
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("CAP_BPF") && said.contains("CAP_NET_ADMIN"), "{said}");
    assert_no_accident(&said);
    assert!(is_weak(&lab)?);
    lab.finish()
}

#[test]
fn three_capabilities_are_enough() -> Result<()> {
    if !features::require(Feature::LoadWithoutPerfmon)? {
        return Ok(());
    }
    /// `CAP_NET_ADMIN`, `CAP_NET_RAW` and `CAP_BPF` of linux/capability.h.
    const ENOUGH: &[libc::c_ulong] = &[12, 13, 39];
    let lab = Lab::article()?;
    let daemon = Daemon::spawn_command(with_capabilities(&lab, ENOUGH)?)?;
    daemon.wait_ready()?;
    assert!(!is_weak(&lab)?);
    // The place among programs of others is known too.
    let output = Daemon::command(&lab.host)?.args(["status", "-o", "json"]).output()?;
    let status: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(status["interfaces"][0]["egress_chain"]["place"], 1, "{status:#}");
    daemon.stop()?;
    lab.finish()
}

/// One clear error, no panic and no backtrace.
fn assert_no_accident(said: &str) {
    assert!(!said.contains("panicked") && !said.contains("backtrace"), "{said}");
}

#[test]
fn all_takes_every_uplink_and_leaves_containers_alone() -> Result<()> {
    let lab = Lab::article()?;
    let daemon = lab.run_mhebpf(&["run", "--all"])?;
    for port in lab.ports() {
        let recording = lab.record();
        lab.emit((port + 1) % 4, lab.address(port))?;
        recording.wait_datagram_from(lab.address(port))?;
        assert_eq!(recording.ports_of(lab.address(port))?, BTreeSet::from([port]));
    }
    for hook in [tcx::Hook::Ingress, tcx::Hook::Egress] {
        assert!(tcx::programs(&lab.host, "lo", hook)?.is_empty());
    }
    daemon.stop()?;
    lab.finish()
}

/// An address has its owners whether or not they are enforced.
#[test]
fn an_owner_that_is_not_enforced_gets_its_packets_all_the_same() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = lab.run_mhebpf(&["run", "--interface", "eth0_int", "--no-announce"])?;
    // What the other interface says is its own business.
    lab.claim(1, lab.address(0), Duration::ZERO);
    let recording = lab.record();
    lab.emit(0, lab.address(1))?;
    recording.wait_datagram_from(lab.address(1))?;
    assert_eq!(recording.ports_of(lab.address(1))?, BTreeSet::from([1]));
    lab.emit(1, lab.address(0))?;
    assert_eq!(recording.ports_of(lab.address(0))?, BTreeSet::from([1]));
    daemon.stop()?;
    lab.finish()
}

/// Stopping and starting again at once is what a package upgrade does.
#[test]
fn it_starts_again_at_once_and_knows_everything_again() -> Result<()> {
    let lab = Lab::article()?;
    for _ in 0..5 {
        let daemon = lab.mhebpf(&[])?;
        assert!(!is_weak(&lab)?);
        daemon.stop()?;
    }
    wait_until("the weak host", PATIENCE, || Ok(is_weak(&lab)?.then_some(())))?;
    lab.finish()
}

#[test]
fn the_log_can_be_json() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = lab.run_mhebpf(&["--log-format", "json", "run", "--interface", INTERFACES])?;
    let line: serde_json::Value = serde_json::from_str(&daemon.wait_for_line(READY, PATIENCE)?)?;
    assert_eq!(line["level"], "INFO");
    assert!(line["message"].as_str().is_some_and(|message| message.starts_with(READY)), "{line}");
    daemon.stop()?;
    lab.finish()
}
