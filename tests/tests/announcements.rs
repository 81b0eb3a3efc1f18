//! What mhebpf announces by itself: only what the kernel would answer for too.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use mhebpf_tests::{Captured, Daemon, Lab, PATIENCE, lab::INTERFACES, scaled, skip, wait_until};
use serde_json::Value;

/// An address for this host alone, by its scope.
const OF_HOST: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 150);
/// One that is added while mhebpf runs.
const LATER: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 160);
const OF_HOST_LATER: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 161);

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
    const PROMPT: Duration = scaled(Duration::from_secs(2));
    let lab = Lab::builder().links(3).build()?;
    if let Err(error) = lab.host.tc("qdisc add dev eth2_int root handle 1: htb default 1") {
        skip(&format!("this kernel has no HTB: {error:#}").replace('\n', " "));
        return lab.finish();
    }
    lab.host.tc("class add dev eth2_int parent 1: classid 1:1 htb rate 64kbit")?;
    lab.host.tc("qdisc add dev eth2_int parent 1:1 handle 2: pfifo limit 20000")?;
    let daemon = lab.run_mhebpf(&["run", "--interface", INTERFACES])?;
    let addresses: String = (0..4000)
        .map(|n| format!("address add 10.9.{}.{}/32 dev eth2_int\n", n / 250, n % 250 + 1))
        .collect();
    lab.host.ip_batch(&addresses)?;
    let moved = lab.address(1).to_string();
    for (from, to) in [(1, 0), (0, 1), (1, 0)] {
        let begin = Instant::now();
        lab.move_address(from, to, lab.address(1))?;
        wait_until("the move to be seen", PATIENCE, || {
            let output = Daemon::command(&lab.host)?.args(["status", "-o", "json"]).output()?;
            let status: Value = serde_json::from_slice(&output.stdout)?;
            let owned = status["interfaces"][to]["owned"].as_array().into_iter().flatten();
            Ok({ owned }.any(|owned| owned["address"] == moved.as_str()).then_some(()))
        })?;
        ensure!(begin.elapsed() < PROMPT, "it was seen after {:?}", begin.elapsed());
    }
    daemon.stop()?;
    lab.host.tc("qdisc del dev eth2_int root")?;
    lab.finish()
}
