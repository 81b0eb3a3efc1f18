//! Observe mode: everything is decided and counted, and nothing is changed, ARP included.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
};

use anyhow::Result;
use mhebpf_tests::{
    Lab, Mac, PATIENCE, PEER,
    frame::{Arp, Packet},
    traffic::{ARTICLE_PORT, icmp, tcp, udp},
};

/// What a frame is, without what differs from run to run: ephemeral ports, and how often TCP acknowledges.
type Kind = (usize, Mac, Mac, String);

/// Does a bit of everything, right and wrong, and returns what the host sent.
fn behaviour(lab: &Lab) -> Result<BTreeMap<Kind, usize>> {
    let recording = lab.record();
    let echo = tcp::EchoServer::start(&lab.switch, PEER, ARTICLE_PORT)?;
    let service = udp::EchoServer::start(&lab.host, Ipv4Addr::UNSPECIFIED, ARTICLE_PORT)?;
    for port in lab.ports() {
        lab.host_forgets_neighbours()?;
        let stream = tcp::connect(&lab.host, lab.address(port), echo.address())?;
        tcp::close(stream)?;
        icmp::ping(&lab.host, lab.address(port), PEER, PATIENCE)?;
        icmp::ping(&lab.switch, PEER, lab.address(port), PATIENCE)?;
    }
    for port in lab.ports() {
        for address in lab.addresses() {
            lab.ask(port, address, Mac::BROADCAST)?;
            lab.deliver(port, SocketAddrV4::new(address, service.address().port()), b"?")?;
            lab.emit(port, address)?;
            lab.send_from_host(port, &Arp::announcement(lab.mac(port), address).frame(Mac::BROADCAST))?;
            lab.send_from_host(port, &Arp::request(lab.mac(port), address, PEER).frame(Mac::BROADCAST))?;
        }
        lab.emit(port, Ipv4Addr::LOCALHOST)?;
        lab.emit(port, Ipv4Addr::new(203, 0, 113, 7))?;
    }
    let mut kinds = BTreeMap::new();
    for frame in recording.from_host()? {
        let what = match &frame.frame.packet {
            Packet::Arp(arp) => arp.to_string(),
            Packet::Ipv4(ip) if ip.protocol == 6 => format!("TCP from {} to {}", ip.source, ip.destination),
            Packet::Ipv4(ip) => format!("{} from {} to {}", ip.protocol, ip.source, ip.destination),
            Packet::Ipv6(ip) => ip.to_string(),
            Packet::Other(ethertype) => format!("{ethertype:#06x}"),
        };
        let is_tcp = what.starts_with("TCP");
        let count: &mut usize =
            kinds.entry((frame.port, frame.frame.source, frame.frame.destination, what)).or_default();
        *count = if is_tcp { 1 } else { *count + 1 };
    }
    Ok(kinds)
}

#[test]
fn the_host_behaves_exactly_as_without_mhebpf() -> Result<()> {
    let lab = Lab::article()?;
    let without = behaviour(&lab)?;
    lab.finish()?;

    let lab = Lab::article()?;
    let before = lab.record();
    let daemon = lab.mhebpf(&["--mode", "observe", "--unknown", "drop"])?;
    assert_eq!(before.from_host()?.len(), 0, "not even an announcement");
    let with = behaviour(&lab)?;
    let summary = daemon.stop()?.summary;
    lab.finish()?;

    let difference: BTreeSet<_> =
        without.iter().filter(|(kind, count)| with.get(kind) != Some(count)).collect();
    assert_eq!(difference, BTreeSet::new(), "missing or different");
    assert_eq!(with.len(), without.len(), "more than without");

    // And all of it was seen.
    for reason in [
        "redirected",
        "arp_rewritten",
        "arp_sender",
        "arp_target",
        "wrong_destination",
        "loopback",
        "unknown_source",
    ] {
        assert!(summary.observed("eth0_int", reason) > 0, "{reason}: {summary:?}");
    }
    assert!(summary.counts().iter().all(|count| count.observed), "{summary:?}");
    Ok(())
}

#[test]
fn every_violation_is_counted_once() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let _service = udp::bind(&lab.host, lab.address(1), ARTICLE_PORT)?;
    let daemon = lab.mhebpf(&["--mode", "observe"])?;
    lab.emit(0, lab.address(1))?;
    lab.emit(1, lab.address(0))?;
    lab.deliver(0, SocketAddrV4::new(lab.address(1), ARTICLE_PORT), b"stray")?;
    // The host's answer to this is the first wrong sender; the announcement is the second.
    lab.ask(0, lab.address(1), lab.mac(0))?;
    lab.send_from_host(0, &Arp::announcement(lab.mac(0), lab.address(1)).frame(Mac::BROADCAST))?;
    // The peer's answer to this is the second wrong target.
    lab.send_from_host(0, &Arp::request(lab.mac(0), lab.address(1), PEER).frame(Mac::BROADCAST))?;
    lab.fence()?;
    let summary = daemon.stop()?.summary;
    for (interface, reason, count) in [
        ("eth0_int", "redirected", 1),
        ("eth1_int", "redirected", 1),
        ("eth0_int", "wrong_destination", 1),
        ("eth0_int", "arp_target", 2),
        ("eth0_int", "arp_sender", 2),
        ("eth0_int", "arp_rewritten", 1),
    ] {
        assert_eq!(summary.observed(interface, reason), count, "{interface} {reason}: {summary:?}");
    }
    lab.finish()
}

#[test]
fn the_end_says_which_flows_would_change_or_that_none_would() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = lab.mhebpf(&["--mode", "observe"])?;
    lab.emit(0, lab.address(0))?;
    lab.fence()?;
    let stderr = daemon.stop()?.stderr;
    assert!(stderr.ends_with("\nsafe to enforce"), "{stderr}");

    let daemon = lab.mhebpf(&["--mode", "observe"])?;
    for _ in 0..3 {
        lab.emit(0, lab.address(1))?;
    }
    lab.fence()?;
    let stderr = daemon.stop()?.stderr;
    let flow =
        "  eth0_int egress udp 192.168.0.101 > 192.168.0.1 port 4000: redirected to eth1_int (redirected)";
    assert_eq!(stderr.lines().filter(|line| *line == flow).count(), 1, "{stderr}");
    assert!(!stderr.contains("safe to enforce"), "{stderr}");
    lab.finish()
}
