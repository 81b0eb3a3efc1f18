//! What mhebpf announces by itself: only what the kernel would answer for too.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use mhebpf_tests::{
    Captured, Daemon, Lab, PATIENCE,
    lab::{INTERFACES, Recording},
    scaled, skip, wait_until,
};
use serde_json::Value;

/// An address for this host alone, by its scope.
const OF_HOST: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 150);
/// One that is added while mhebpf runs.
const LATER: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 160);
const OF_HOST_LATER: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 161);

/// `ANNOUNCE_INTERVAL` of RFC 5227 section 1.1.
const INTERVAL: Duration = Duration::from_secs(2);

/// The address that a frame announces, of either family.
fn announced_of_any(frame: &Captured) -> Option<IpAddr> {
    let advertised = || {
        let ipv6 = frame.ipv6().filter(|ipv6| ipv6.icmp_type == 136 && ipv6.destination.is_multicast())?;
        Some(ipv6.target?.into())
    };
    announced(frame).map(IpAddr::from).or_else(advertised)
}

/// The address that a frame announces.
fn announced(frame: &Captured) -> Option<Ipv4Addr> {
    frame.arp().filter(|arp| arp.sender == arp.target).map(|arp| arp.sender)
}

/// What the second of three interfaces announces, at the start and later. The third announces after it.
fn announced_by_the_second(arp_ignore: &str) -> Result<BTreeSet<Ipv4Addr>> {
    let lab = Lab::builder().links(3).build()?;
    let add =
        |address: Ipv4Addr, options: &str| lab.host.ip(&format!("address add {address}{options}")).map(drop);
    add(OF_HOST, "/32 dev eth1_int scope host")?;
    lab.host.sysctl("net.ipv4.conf.eth1_int.arp_ignore", arp_ignore)?;
    let recording = lab.record();
    let wait = |address: Ipv4Addr| {
        recording
            .wait_from_host(&format!("{address} to be announced"), |frame| announced(frame) == Some(address))
    };
    let daemon = lab.mhebpf(&[])?;
    wait(lab.address(0))?;
    wait(lab.address(2))?;
    add(OF_HOST_LATER, "/32 dev eth1_int scope host")?;
    add(LATER, "/21 dev eth1_int")?;
    let last = Ipv4Addr::new(192, 168, 0, 170);
    lab.add_address(2, last)?;
    wait(last)?;
    daemon.stop()?;
    let frames = recording.from_host()?;
    lab.finish()?;
    Ok(frames.iter().filter(|frame| frame.port == 1).filter_map(|frame| announced(frame)).collect())
}

#[test]
fn an_address_that_the_kernel_does_not_answer_for_is_not_announced() -> Result<()> {
    let own = Ipv4Addr::new(192, 168, 0, 101);
    let all = BTreeSet::from([own, OF_HOST, LATER, OF_HOST_LATER]);
    let global = BTreeSet::from([own, LATER]);
    for (arp_ignore, expected) in
        [("0", &all), ("1", &all), ("2", &all), ("3", &global), ("8", &BTreeSet::new())]
    {
        assert_eq!(announced_by_the_second(arp_ignore)?, *expected, "arp_ignore {arp_ignore}");
    }
    Ok(())
}

/// Thousands of announcements wait on a slow link; the daemon does not.
#[test]
fn a_slow_link_does_not_keep_the_daemon_from_its_work() -> Result<()> {
    const PROMPT: Duration = scaled(Duration::from_secs(4));
    let lab = Lab::builder().links(3).build()?;
    if let Err(error) = lab.host.tc("qdisc add dev eth2_int root handle 1: htb default 1") {
        skip(&format!("this kernel has no HTB: {error:#}").replace('\n', " "));
        return lab.finish();
    }
    lab.host.tc("class add dev eth2_int parent 1: classid 1:1 htb rate 64kbit")?;
    lab.host.tc("qdisc add dev eth2_int parent 1:1 handle 2: pfifo limit 20000")?;
    let daemon = lab.run_mhebpf(&["run", "--interface", INTERFACES])?;
    // More than a socket has room for.
    let addresses: String = (0..12_000)
        .map(|n| format!("address add 10.9.{}.{}/32 dev eth2_int\n", n / 250, n % 250 + 1))
        .collect();
    lab.host.ip_batch(&addresses)?;
    let moved = lab.address(1).to_string();
    for (from, to) in [(1, 0), (0, 1), (1, 0)] {
        let (begin, recording) = (Instant::now(), lab.record());
        lab.move_address(from, to, lab.address(1))?;
        wait_until("the move to be seen", PATIENCE, || {
            let output = Daemon::command(&lab.host)?.args(["status", "-o", "json"]).output()?;
            let status: Value = serde_json::from_slice(&output.stdout)?;
            let owned = status["interfaces"][to]["owned"].as_array().into_iter().flatten();
            Ok({ owned }.any(|owned| owned["address"] == moved.as_str()).then_some(()))
        })?;
        ensure!(begin.elapsed() < PROMPT, "it was seen after {:?}", begin.elapsed());
        // What waits for the slow link keeps no other from being announced.
        recording.wait_from_host_within(PROMPT, "the move to be announced", |frame| {
            frame.port == to && announced(frame) == Some(lab.address(1))
        })?;
    }
    daemon.stop()?;
    lab.host.tc("qdisc del dev eth2_int root")?;
    lab.finish()
}

/// Waits until an address was announced through a port that often, and returns how long it took from the first to the last time.
fn wait_announced(
    lab: &Lab,
    recording: &Recording<'_>,
    (port, address): (usize, IpAddr),
    times: usize,
) -> Result<Duration> {
    let mut at = Vec::new();
    wait_until(&format!("{address} to be announced {times} times"), PATIENCE, || {
        let frames = recording.from_host()?;
        at = frames
            .iter()
            .filter(|frame| frame.port == port && announced_of_any(frame) == Some(address))
            .map(|frame| frame.at)
            .collect();
        Ok((at.len() >= times).then_some(()))
    })?;
    lab.fence()?;
    ensure!(at.len() == times, "{address} was announced {} times", at.len());
    Ok(at.last().context("none")?.duration_since(*at.first().context("none")?)?)
}

#[test]
fn an_address_is_announced_twice() -> Result<()> {
    let lab = Lab::builder().links(2).ipv6().build()?;
    let recording = lab.record();
    let daemon = lab.mhebpf(&[])?;
    lab.add_address(1, LATER)?;
    for (port, address) in [(0, lab.address(0).into()), (0, lab.address6(0).into()), (1, LATER.into())] {
        let took = wait_announced(&lab, &recording, (port, address), 2)?;
        // A frame is noted when the kernel comes to it, which can be a little later.
        ensure!(took >= INTERVAL * 3 / 4, "{address} was announced again after {took:?}");
    }
    daemon.stop()?;
    lab.finish()
}

#[test]
fn an_address_that_moves_is_announced_again_only_where_it_is() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let recording = lab.record();
    let daemon = lab.mhebpf(&[])?;
    lab.add_address(0, LATER)?;
    wait_announced(&lab, &recording, (0, LATER.into()), 1)?;
    lab.move_address(0, 1, LATER)?;
    wait_announced(&lab, &recording, (1, LATER.into()), 2)?;
    // That was later than the first interface's turn would have been.
    wait_announced(&lab, &recording, (0, LATER.into()), 1)?;
    // It comes back, and is a new one there.
    lab.move_address(1, 0, LATER)?;
    wait_announced(&lab, &recording, (0, LATER.into()), 3)?;
    daemon.stop()?;
    lab.finish()
}

/// An interface's queue has room for a few frames only.
#[test]
fn what_finds_no_room_is_announced_later() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    if let Err(error) = lab.host.tc("qdisc add dev eth1_int root tbf rate 8kbit burst 1600 limit 200") {
        skip(&format!("this kernel has no TBF: {error:#}").replace('\n', " "));
        return lab.finish();
    }
    let daemon = lab.run_mhebpf(&["run", "--interface", INTERFACES])?;
    let recording = lab.record();
    let addresses: Vec<Ipv4Addr> = (1..=80).map(|n| Ipv4Addr::new(10, 9, 0, n)).collect();
    lab.host.ip_batch(
        &addresses.iter().map(|each| format!("address add {each}/32 dev eth1_int\n")).collect::<String>(),
    )?;
    // Others are not kept from being announced.
    lab.add_address(0, LATER)?;
    recording.wait_from_host_within(INTERVAL, "another interface's address", |frame| {
        announced(frame) == Some(LATER)
    })?;
    let mut left: BTreeMap<Ipv4Addr, u32> = addresses.into_iter().map(|address| (address, 2)).collect();
    recording.wait_from_host_within(
        scaled(Duration::from_secs(30)),
        "all to be announced twice",
        |frame| {
            if let Some(times) = announced(frame).and_then(|address| left.get_mut(&address)) {
                *times = times.saturating_sub(1);
            }
            left.values().all(|times| *times == 0)
        },
    )?;
    ensure!(!daemon.stderr().contains("announcing addresses to the peers"), "{}", daemon.stderr());
    daemon.stop()?;
    lab.host.tc("qdisc del dev eth1_int root")?;
    lab.finish()
}
