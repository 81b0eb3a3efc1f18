//! Datagrams that leave, judged by their source: the egress side of the decision, packet by packet, in both families.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4},
    time::Duration,
};

use anyhow::Result;
use mhebpf_tests::{
    Family, Lab, Mac, PEER,
    craft::{self, Stations},
    lab::PROBE_PORT,
};

fn foreign(family: Family) -> IpAddr {
    family.choose([203, 0, 113, 7].into(), [0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 7].into())
}

/// The addresses of groups, with their hardware addresses.
fn groups(family: Family) -> Vec<(IpAddr, Mac)> {
    let mdns = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
    family.choose(
        vec![
            (Ipv4Addr::BROADCAST.into(), Mac::BROADCAST),
            (Ipv4Addr::new(192, 168, 7, 255).into(), Mac::BROADCAST),
            (Ipv4Addr::new(224, 0, 0, 251).into(), Mac([0x01, 0, 0x5e, 0, 0, 0xfb])),
        ],
        vec![(mdns.into(), craft::group_mac(mdns))],
    )
}

/// The host sends a datagram to a group through the first port.
fn send_to_group(lab: &Lab, from: IpAddr, (group, mac): (IpAddr, Mac)) -> Result<()> {
    let stations = Stations { source: lab.mac(0), destination: mac };
    lab.send_from_host(0, &craft::udp(stations, (from, PROBE_PORT), (group, PROBE_PORT), b"all")?)
}

#[test]
fn a_datagram_with_an_own_source_passes_untouched() -> Result<()> {
    for (family, mode) in in_modes(&["redirect", "drop", "observe"]) {
        let lab = Lab::article_in(family)?;
        let daemon = lab.mhebpf_quietly(&["--mode", mode, "--unknown", "drop"])?;
        for port in lab.ports() {
            for own in lab.addresses_on(family, port) {
                let recording = lab.record();
                lab.emit(port, own)?;
                assert_eq!(
                    recording.ways_of(own)?,
                    BTreeSet::from([(port, lab.mac(port))]),
                    "{own} in mode {mode}"
                );
            }
        }
        assert_eq!(daemon.stop()?.summary.counts(), [], "{family} in mode {mode}");
        lab.finish()?;
    }
    Ok(())
}

/// Each family with each of these modes.
fn in_modes<'a>(modes: &'a [&'a str]) -> impl Iterator<Item = (Family, &'a str)> {
    Family::BOTH.into_iter().flat_map(|family| modes.iter().map(move |mode| (family, *mode)))
}

#[test]
fn a_datagram_with_another_interfaces_source_leaves_through_that_interface() -> Result<()> {
    for family in Family::BOTH {
        let lab = Lab::article_in(family)?;
        let daemon = lab.mhebpf_quietly(&[])?;
        for port in lab.ports() {
            for owner in lab.ports().filter(|owner| *owner != port) {
                let source = lab.address_in(family, owner);
                let recording = lab.record();
                lab.emit(port, source)?;
                let sent = recording.wait_datagram_from(source)?;
                assert_eq!(
                    (sent.port, sent.frame.source, sent.frame.destination),
                    (owner, lab.mac(owner), lab.peer_mac(owner))
                );
                let all = recording.wanted_from_host()?;
                let datagrams = all.iter().filter(|frame| frame.frame.datagram_source().is_some());
                assert_eq!(datagrams.count(), 1, "once: {all:?}");
            }
        }
        let summary = daemon.stop()?.summary;
        for port in lab.ports() {
            assert_eq!(summary.count(&format!("eth{port}_int"), "redirected"), 3, "{summary:?}");
        }
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn a_datagram_with_another_interfaces_source_is_dropped_in_drop_mode() -> Result<()> {
    for family in Family::BOTH {
        let lab = Lab::article_in(family)?;
        let daemon = lab.mhebpf_quietly(&["--mode", "drop"])?;
        let recording = lab.record();
        for port in lab.ports() {
            for owner in lab.ports().filter(|owner| *owner != port) {
                lab.emit(port, lab.address_in(family, owner))?;
            }
        }
        let sent = recording.wanted_from_host()?;
        assert!(sent.is_empty(), "{sent:?}");
        let summary = daemon.stop()?.summary;
        for port in lab.ports() {
            assert_eq!(summary.count(&format!("eth{port}_int"), "wrong_source"), 3, "{summary:?}");
        }
        lab.finish()?;
    }
    Ok(())
}

/// The question of who looks for duplicates of an address, which has none in IPv6, is in `ipv6_sent.rs`.
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
    for (family, mode) in in_modes(&["redirect", "drop"]) {
        for (unknown, ports) in [("pass", BTreeSet::from([1])), ("drop", BTreeSet::new())] {
            let lab = Lab::builder().links(2).family(family).build()?;
            let daemon = lab.mhebpf_quietly(&["--mode", mode, "--unknown", unknown])?;
            let recording = lab.record();
            lab.emit(1, foreign(family))?;
            assert_eq!(recording.ports_of(foreign(family))?, ports, "mode {mode}, --unknown {unknown}");
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
    for family in Family::BOTH {
        let lab = Lab::article_in(family)?;
        let daemon = lab.mhebpf_quietly(&[])?;
        let mut sent = 0;
        for (group, mac) in groups(family) {
            for from in lab.addresses_on(family, 2) {
                let recording = lab.record();
                send_to_group(&lab, from, (group, mac))?;
                let frames = recording.wanted_from_host()?;
                let seen: Vec<_> =
                    frames.iter().map(|f| (f.port, f.frame.source, f.frame.destination)).collect();
                assert_eq!(seen, [(2, lab.mac(2), mac)], "from {from} to {group}");
                sent += 1;
            }
        }
        let summary = daemon.stop()?.summary;
        assert_eq!(summary.count("eth0_int", "redirected"), sent, "{summary:?}");
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn broadcast_and_multicast_are_dropped_in_drop_mode() -> Result<()> {
    for family in Family::BOTH {
        let lab = Lab::builder().links(2).family(family).build()?;
        let daemon = lab.mhebpf_quietly(&["--mode", "drop"])?;
        let recording = lab.record();
        for group in groups(family) {
            send_to_group(&lab, lab.address_in(family, 1), group)?;
        }
        let sent = recording.wanted_from_host()?;
        assert!(sent.is_empty(), "{sent:?}");
        let count = groups(family).len() as u64;
        assert_eq!(daemon.stop()?.summary.count("eth0_int", "wrong_source"), count);
        lab.finish()?;
    }
    Ok(())
}

/// RFC 1122 section 3.2.1.3 (g): 127/8 must not appear outside a host; RFC 4291 section 2.5.3 says the same of ::1.
#[test]
fn a_loopback_source_does_not_reach_the_wire() -> Result<()> {
    for (family, mode) in in_modes(&["redirect", "drop"]) {
        let lab = Lab::builder().links(2).family(family).build()?;
        let daemon = lab.mhebpf_quietly(&["--mode", mode])?;
        let recording = lab.record();
        let further = (family == Family::V4).then_some(Ipv4Addr::new(127, 9, 8, 7).into());
        let sources: Vec<IpAddr> = [family.loopback()].into_iter().chain(further).collect();
        for source in &sources {
            lab.emit(1, *source)?;
        }
        let sent = recording.wanted_from_host()?;
        assert!(sent.is_empty(), "{family} in mode {mode}: {sent:?}");
        let count = daemon.stop()?.summary.count("eth1_int", "loopback");
        assert_eq!(count, sources.len() as u64, "{family} in mode {mode}");
        lab.finish()?;
    }
    Ok(())
}

/// Then the operator has asked for it.
#[test]
fn a_loopback_source_passes_with_route_localnet() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    lab.host.sysctl("net.ipv4.conf.eth1_int.route_localnet", "1")?;
    lab.claim(1, Ipv4Addr::LOCALHOST, Duration::ZERO);
    let daemon = lab.mhebpf_quietly(&["--mode", "drop", "--unknown", "drop"])?;
    for (port, expected) in [(0, BTreeSet::new()), (1, BTreeSet::from([1]))] {
        let recording = lab.record();
        lab.emit(port, Ipv4Addr::LOCALHOST)?;
        assert_eq!(recording.ports_of(Ipv4Addr::LOCALHOST)?, expected, "through port {port}");
    }
    let summary = daemon.stop()?.summary;
    assert_eq!((summary.count("eth0_int", "loopback"), summary.total("loopback")), (1, 1));
    lab.finish()
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
