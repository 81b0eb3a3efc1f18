//! `mhebpf monitor`: packets that do not simply pass, as it happens.

use std::{
    fs,
    io::Write as _,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use aya::maps::{Array, Map, MapData, MapInfo};
use mhebpf_tests::{
    Daemon, Lab, Monitor, PATIENCE, PEER,
    frame::Arp,
    mac::Mac,
    scaled,
    traffic::{ARTICLE_PORT, tcp, udp},
    wait_until,
};
use serde_json::Value;

/// How soon a packet is shown.
const SOON: Duration = scaled(Duration::from_millis(100));

/// What `-o json` promises of each line.
const SCHEMA: &str = include_str!("../../mhebpf/schema/monitor.json");

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_default()
}

/// Holds the lines of a monitor against the schema.
fn check(monitor: &Monitor) -> Result<()> {
    let validator = jsonschema::validator_for(&serde_json::from_str(SCHEMA)?)?;
    for line in monitor.stdout().lines() {
        let errors: Vec<String> = validator.iter_errors(&json(line)).map(|error| error.to_string()).collect();
        ensure!(errors.is_empty(), "{errors:?}: {line}");
    }
    Ok(())
}

#[test]
fn a_violation_is_shown_at_once_with_its_flow_and_its_owner() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = lab.mhebpf_quietly(&[])?;
    let monitor = Monitor::start(&lab.host, &[])?;
    let mut delays = Vec::new();
    for _ in 0..9 {
        let sent = Instant::now();
        lab.emit(0, lab.address(1))?;
        let (seen, line) = monitor.wait_for(sent, |line| line.contains("out eth0_int"))?;
        let expected = "udp 192.168.0.101:4000 > 192.168.0.1:4000: redirected to eth1_int \
                        (redirected, 192.168.0.101 is of eth1_int)";
        assert!(line.ends_with(expected), "{line}");
        delays.push(seen - sent);
    }
    delays.sort();
    eprintln!("shown after {delays:?}");
    assert!(delays[delays.len() / 2] < SOON, "{delays:?}");
    daemon.stop()?;
    lab.finish()
}

#[test]
fn two_monitors_see_the_same_and_each_shows_what_it_is_asked_for() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = lab.mhebpf_quietly(&["--mode", "drop"])?;
    let all = Monitor::start(&lab.host, &["-o", "json"])?;
    let some = Monitor::start(&lab.host, &["-i", "eth1*", "--reason", "arp_target", "-o", "json"])?;
    let sent = Instant::now();
    lab.emit(0, lab.address(1))?;
    lab.ask(0, lab.address(1), Mac::BROADCAST)?;
    lab.ask(1, lab.address(0), Mac::BROADCAST)?;
    let (_, dropped) = all.wait_for(sent, |line| json(line)["reason"] == "wrong_source")?;
    let dropped = json(&dropped);
    assert_eq!((&dropped["act"], &dropped["owners"][0]), (&"drop".into(), &"eth1_int".into()), "{dropped}");
    assert_eq!(
        (&dropped["schema"], &dropped["packet"]["source_port"]),
        (&1.into(), &4000.into()),
        "{dropped}"
    );
    for monitor in [&all, &some] {
        let (_, asked) = monitor.wait_for(sent, |line| json(line)["interface"] == "eth1_int")?;
        let asked = json(&asked);
        assert_eq!(asked["packet"]["target"], lab.address(0).to_string(), "{asked}");
        assert_eq!(
            (&asked["judged"], &asked["owners"][0]),
            (&lab.address(0).to_string().into(), &"eth0_int".into())
        );
    }
    assert_eq!(some.stdout().lines().count(), 1, "{}", some.stdout());
    check(&all)?;
    daemon.stop()?;
    lab.finish()
}

#[test]
fn ipv6_and_neighbour_discovery_are_shown() -> Result<()> {
    let lab = Lab::article6()?;
    let daemon = lab.mhebpf_quietly(&["--mode", "observe"])?;
    let monitor = Monitor::start(&lab.host, &[])?;
    let documents = Monitor::start(&lab.host, &["-o", "json"])?;
    let sent = Instant::now();
    lab.emit(0, lab.address6(1))?;
    lab.solicit(0, lab.address6(1))?;
    let wanted = format!("would be redirected to eth1_int (redirected, {} is of eth1_int)", lab.address6(1));
    monitor.wait_for(sent, |line| line.ends_with(&wanted))?;
    let wanted = format!("in  eth0_int ndp solicitation of {}", lab.address6(1));
    monitor.wait_for(sent, |line| line.contains(&wanted) && line.contains("would be dropped (ndp_target"))?;
    documents.wait_for(sent, |line| json(line)["packet"]["message"] == "solicitation")?;
    check(&documents)?;
    daemon.stop()?;
    lab.finish()
}

#[test]
fn interrupted_it_sums_up_and_succeeds() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = lab.mhebpf_quietly(&[])?;
    let monitor = Monitor::start(&lab.host, &[])?;
    let sent = Instant::now();
    lab.send_from_host(0, &Arp::announcement(lab.mac(0), lab.address(1)).frame(Mac::BROADCAST))?;
    monitor.wait_for(sent, |line| line.contains("arp_sender"))?;
    monitor.signal(libc::SIGINT)?;
    let (status, stderr) = monitor.wait_end()?;
    assert!(status.success(), "{status}: {stderr}");
    let summary = stderr.lines().find(|line| line.starts_with("arp_sender")).unwrap_or_default();
    assert!(summary.ends_with(" 1"), "{stderr}");
    daemon.stop()?;
    lab.finish()
}

#[test]
fn the_end_of_the_daemon_ends_it_with_a_message() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = lab.mhebpf(&[])?;
    let monitor = Monitor::start(&lab.host, &[])?;
    daemon.stop()?;
    let (status, stderr) = monitor.wait_end()?;
    assert!(
        status.success() && stderr.contains("has ended") && !stderr.contains("error"),
        "{status}: {stderr}"
    );
    let output = Daemon::command(&lab.host)?.arg("monitor").output()?;
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("no mhebpf is running"), "{stderr}");
    lab.finish()
}

#[test]
fn one_that_stops_reading_keeps_nobody_waiting_and_learns_what_it_missed() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = lab.mhebpf_quietly(&["--mode", "drop"])?;
    let stuck = Monitor::start(&lab.host, &["-o", "json"])?;
    let other = Monitor::start(&lab.host, &["-o", "json"])?;
    let begun = Instant::now();
    stuck.signal(libc::SIGSTOP)?;
    // More than the rate allows at once, and than there is room for.
    for _ in 0..6000 {
        lab.emit(0, lab.address(1))?;
    }
    other.wait_for(begun, |line| json(line)["reason"] == "wrong_source")?;
    // The daemon follows the host meanwhile, and shows to the other one what comes of it.
    let new = Ipv4Addr::new(192, 168, 0, 200);
    lab.add_address(0, new)?;
    let shown = format!("\"judged\":\"{new}\",\"owners\":[\"eth0_int\"]");
    wait_until("the new address", PATIENCE, || {
        lab.emit(1, new)?;
        Ok(other.stdout().contains(&shown).then_some(()))
    })?;
    let status = Daemon::command(&lab.host)?.args(["status", "-o", "json"]).output()?;
    assert!(status.status.success());
    stuck.signal(libc::SIGCONT)?;
    let (_, line) = stuck.wait_for(begun, |line| json(line)["suppressed"].as_u64() > Some(1000))?;
    assert_eq!(json(&line)["schema"], 1);
    check(&stuck)?;
    daemon.stop()?;
    lab.finish()
}

/// What the map of a daemon says of how many samples are taken.
fn sample_rate(daemon: &Daemon) -> Result<u32> {
    for entry in fs::read_dir(format!("/proc/{}/fdinfo", daemon.pid()))? {
        let info = fs::read_to_string(entry?.path()).unwrap_or_default();
        let Some(id) = info.lines().find_map(|line| line.strip_prefix("map_id:")) else { continue };
        let id = id.trim().parse()?;
        if MapInfo::from_id(id)?.name_as_str() == Some("SAMPLE_RATE") {
            let rates: Array<_, u32> = Map::Array(MapData::from_id(id)?).try_into()?;
            return Ok(rates.get(&0, 0)?);
        }
    }
    bail!("the daemon has no map SAMPLE_RATE")
}

#[test]
fn samples_are_taken_only_while_somebody_watches() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = lab.mhebpf_quietly(&[])?;
    lab.emit(0, lab.address(1))?;
    lab.fence()?;
    assert_eq!(sample_rate(&daemon)?, 0);
    let monitor = Monitor::start(&lab.host, &["-o", "json"])?;
    assert_eq!(sample_rate(&daemon)?, 1000);
    let started = Instant::now();
    lab.emit(1, lab.address(0))?;
    monitor.wait_for(started, |line| json(line)["interface"] == "eth1_int")?;
    // What was there before is not shown.
    assert_eq!(monitor.stdout().lines().count(), 1, "{}", monitor.stdout());
    drop(monitor);
    wait_until("no samples", PATIENCE, || Ok((sample_rate(&daemon)? == 0).then_some(())))?;
    daemon.stop()?;
    lab.finish()
}

/// Not at once: looking for processes takes no more than a part of the monitor's time.
#[test]
fn the_process_that_sends_is_named() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = lab.mhebpf_quietly(&["--mode", "observe"])?;
    let monitor = Monitor::start(&lab.host, &["-o", "json"])?;
    let echo = tcp::EchoServer::start(&lab.switch, PEER, ARTICLE_PORT)?;
    let streams = [0, 1].into_iter().map(|port| tcp::connect(&lab.host, lab.address(port), echo.address()));
    let mut streams = streams.collect::<Result<Vec<_>>>()?;
    let datagrams = [0, 1].into_iter().map(|port| udp::bind(&lab.host, lab.address(port), ARTICLE_PORT));
    let datagrams = datagrams.collect::<Result<Vec<_>>>()?;
    for protocol in ["tcp", "udp"] {
        let named = wait_until("the process", PATIENCE, || {
            streams.iter_mut().try_for_each(|stream| stream.write_all(b"?"))?;
            for socket in &datagrams {
                socket.send_to(b"?", (PEER, ARTICLE_PORT))?;
            }
            let lines = monitor.stdout();
            let mut seen = lines.lines().map(json).filter(|line| line["packet"]["protocol"] == protocol);
            Ok(seen.find(|line| !line["process"].is_null()))
        })?;
        assert_eq!(named["process"]["pid"], std::process::id(), "{named}");
    }
    check(&monitor)?;
    daemon.stop()?;
    lab.finish()
}
