//! IPv4 that leaves, judged by its source: the egress side of the decision, packet by packet.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddrV4},
};

use anyhow::Result;
use mhebpf_tests::{
    Lab, Mac, PEER,
    craft::{self, Stations},
    lab::PROBE_PORT,
};

const FOREIGN: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

#[test]
fn a_datagram_with_an_own_source_passes_untouched() -> Result<()> {
    for mode in ["redirect", "drop", "observe"] {
        let lab = Lab::article()?;
        let daemon = lab.mhebpf_quietly(&["--mode", mode, "--unknown", "drop"])?;
        for port in lab.ports() {
            let recording = lab.record();
            lab.emit(port, lab.address(port))?;
            assert_eq!(
                recording.ways_of(lab.address(port))?,
                BTreeSet::from([(port, lab.mac(port))]),
                "mode {mode}"
            );
        }
        assert_eq!(daemon.stop()?.summary.counts(), [], "mode {mode}");
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn a_datagram_with_another_interfaces_source_leaves_through_that_interface() -> Result<()> {
    let lab = Lab::article()?;
    let daemon = lab.mhebpf_quietly(&[])?;
    for port in lab.ports() {
        for owner in lab.ports().filter(|owner| *owner != port) {
            let recording = lab.record();
            lab.emit(port, lab.address(owner))?;
            let sent = recording.wait_datagram_from(lab.address(owner))?;
            assert_eq!(
                (sent.port, sent.frame.source, sent.frame.destination),
                (owner, lab.mac(owner), lab.peer_mac(owner))
            );
            assert_eq!(recording.ports_of(lab.address(owner))?, BTreeSet::from([owner]), "once");
        }
    }
    let summary = daemon.stop()?.summary;
    for port in lab.ports() {
        assert_eq!(summary.count(&format!("eth{port}_int"), "redirected"), 3, "{summary:?}");
    }
    lab.finish()
}

#[test]
fn a_datagram_with_another_interfaces_source_is_dropped_in_drop_mode() -> Result<()> {
    let lab = Lab::article()?;
    let daemon = lab.mhebpf_quietly(&["--mode", "drop"])?;
    let recording = lab.record();
    for port in lab.ports() {
        for owner in lab.ports().filter(|owner| *owner != port) {
            lab.emit(port, lab.address(owner))?;
        }
    }
    assert_eq!(recording.from_host()?.len(), 0);
    let summary = daemon.stop()?.summary;
    for port in lab.ports() {
        assert_eq!(summary.count(&format!("eth{port}_int"), "wrong_source"), 3, "{summary:?}");
    }
    lab.finish()
}

#[test]
fn a_datagram_without_source_passes() -> Result<()> {
    for mode in ["redirect", "drop"] {
        let lab = Lab::builder().links(2).build()?;
        let daemon = lab.mhebpf_quietly(&["--mode", mode, "--unknown", "drop"])?;
        let recording = lab.record();
        lab.emit(1, Ipv4Addr::UNSPECIFIED)?;
        assert_eq!(recording.ports_of(Ipv4Addr::UNSPECIFIED)?, BTreeSet::from([1]));
        assert_eq!(daemon.stop()?.summary.counts(), [], "mode {mode}");
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn a_datagram_with_a_foreign_source_follows_the_policy_for_the_unknown() -> Result<()> {
    for mode in ["redirect", "drop"] {
        for (unknown, ports) in [("pass", BTreeSet::from([1])), ("drop", BTreeSet::new())] {
            let lab = Lab::builder().links(2).build()?;
            let daemon = lab.mhebpf_quietly(&["--mode", mode, "--unknown", unknown])?;
            let recording = lab.record();
            lab.emit(1, FOREIGN)?;
            assert_eq!(recording.ports_of(FOREIGN)?, ports, "mode {mode}, --unknown {unknown}");
            let summary = daemon.stop()?.summary;
            assert_eq!(summary.count("eth1_int", "unknown_source"), 1 - ports.len() as u64, "{summary:?}");
            lab.finish()?;
        }
    }
    Ok(())
}

/// The group's hardware address stays; the source becomes the owner's.
#[test]
fn broadcast_and_multicast_leave_through_the_owner_for_the_same_group() -> Result<()> {
    let lab = Lab::article()?;
    let daemon = lab.mhebpf_quietly(&[])?;
    for (to, group) in [
        (Ipv4Addr::BROADCAST, Mac::BROADCAST),
        (Ipv4Addr::new(192, 168, 7, 255), Mac::BROADCAST),
        (Ipv4Addr::new(224, 0, 0, 251), Mac([0x01, 0, 0x5e, 0, 0, 0xfb])),
    ] {
        let recording = lab.record();
        let stations = Stations { source: lab.mac(0), destination: group };
        let from = SocketAddrV4::new(lab.address(2), PROBE_PORT);
        lab.send_from_host(0, &craft::udp(stations, from, SocketAddrV4::new(to, PROBE_PORT), b"all")?)?;
        let sent = recording.from_host()?;
        let seen: Vec<_> = sent.iter().map(|f| (f.port, f.frame.source, f.frame.destination)).collect();
        assert_eq!(seen, [(2, lab.mac(2), group)], "to {to}");
    }
    let summary = daemon.stop()?.summary;
    assert_eq!(summary.count("eth0_int", "redirected"), 3, "{summary:?}");
    lab.finish()
}

#[test]
fn broadcast_and_multicast_are_dropped_in_drop_mode() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = lab.mhebpf_quietly(&["--mode", "drop"])?;
    let recording = lab.record();
    let from = SocketAddrV4::new(lab.address(1), PROBE_PORT);
    let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, PROBE_PORT);
    lab.send_from_host(0, &craft::udp(lab.outward_to_all(0), from, to, b"all")?)?;
    assert_eq!(recording.from_host()?.len(), 0);
    assert_eq!(daemon.stop()?.summary.count("eth0_int", "wrong_source"), 1);
    lab.finish()
}

/// RFC 1122 section 3.2.1.3 (g): 127/8 must not appear outside a host.
#[test]
fn a_loopback_source_does_not_reach_the_wire() -> Result<()> {
    for mode in ["redirect", "drop"] {
        let lab = Lab::builder().links(2).build()?;
        let daemon = lab.mhebpf_quietly(&["--mode", mode])?;
        let recording = lab.record();
        lab.emit(1, Ipv4Addr::LOCALHOST)?;
        lab.emit(1, Ipv4Addr::new(127, 9, 8, 7))?;
        assert_eq!(recording.from_host()?.len(), 0, "mode {mode}");
        assert_eq!(daemon.stop()?.summary.count("eth1_int", "loopback"), 2, "mode {mode}");
        lab.finish()?;
    }
    Ok(())
}

/// What is not whole enough to have a source is the kernel's business.
#[test]
fn malformed_datagrams_pass_and_are_not_counted() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = lab.mhebpf_quietly(&[])?;
    let (from, to) = (SocketAddrV4::new(lab.address(0), 1), SocketAddrV4::new(PEER, 1));
    let whole = craft::udp(lab.outward(1), from, to, b"whole")?;
    let changed = |at: usize, byte: u8| {
        let mut frame = whole.clone();
        frame[at] = byte;
        frame
    };
    let recording = lab.record();
    // Version 5; a header of 16 bytes; only half of a header.
    for frame in [changed(14, 0x55), changed(14, 0x44), whole[..24].to_vec()] {
        lab.send_from_host(1, &frame)?;
    }
    let sent = recording.from_host()?;
    assert_eq!(sent.iter().map(|frame| frame.port).collect::<Vec<_>>(), [1, 1, 1]);
    assert_eq!(daemon.stop()?.summary.counts(), []);
    lab.finish()
}
