//! Neighbour discovery: an interface answers for its own addresses only, and announces no other.

use std::{collections::BTreeSet, net::Ipv6Addr};

use anyhow::Result;
use mhebpf_tests::{
    Lab, PEER6,
    craft::{self, Stations},
};

/// The modes in which something is enforced.
const ENFORCING: [&str; 2] = ["redirect", "drop"];

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

const EXTRA: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x777);

/// An advertisement to all nodes that a process sends through a port, with an own source.
fn advertise(lab: &Lab, port: usize, target: Ipv6Addr) -> Result<()> {
    let stations = Stations { source: lab.mac(port), destination: craft::group_mac(ALL_NODES) };
    let addresses = (lab.address6(port), ALL_NODES);
    lab.send_from_host(port, &craft::advertisement(stations, addresses, target))
}

#[test]
fn an_advertisement_of_another_interfaces_address_does_not_leave() -> Result<()> {
    for mode in ENFORCING {
        let lab = Lab::article6()?;
        let daemon = lab.mhebpf_quietly(&["--mode", mode])?;
        for port in lab.ports() {
            for other in lab.ports().filter(|other| *other != port) {
                for target in [lab.address6(other), lab.link_local(other)] {
                    let recording = lab.record();
                    advertise(&lab, port, target)?;
                    assert_eq!(recording.advertisements_of(target)?, [], "mode {mode}");
                }
            }
        }
        let summary = daemon.stop()?.summary;
        for port in lab.ports() {
            let count = summary.count(&format!("eth{port}_int"), "ndp_sender");
            assert_eq!(count, 6, "mode {mode}: {summary:?}");
        }
        lab.finish()?;
    }
    Ok(())
}

/// A proxy's advertisements are for addresses that are not the host's.
#[test]
fn an_advertisement_of_an_own_or_a_foreign_address_leaves() -> Result<()> {
    let lab = Lab::builder().links(2).ipv6().build()?;
    let daemon = lab.mhebpf_quietly(&[])?;
    for target in [lab.address6(1), lab.link_local(1), EXTRA] {
        let recording = lab.record();
        advertise(&lab, 1, target)?;
        assert_eq!(recording.advertisements_of(target)?, [(1, lab.mac(1))], "{target}");
    }
    assert_eq!(daemon.stop()?.summary.total("ndp_sender"), 0);
    lab.finish()
}

#[test]
fn a_solicitation_of_another_interfaces_address_is_not_answered() -> Result<()> {
    for mode in ENFORCING {
        let lab = Lab::article6()?;
        let daemon = lab.mhebpf_quietly(&["--mode", mode])?;
        let recording = lab.record();
        for port in lab.ports() {
            for other in lab.ports().filter(|other| *other != port) {
                lab.solicit(port, lab.address6(other))?;
                // For the interface by its own address, and by the other's: the latter is judged as a datagram already.
                lab.solicit_unicast(port, lab.address6(port), lab.address6(other))?;
                lab.solicit_unicast(port, lab.address6(other), lab.address6(other))?;
            }
        }
        for address in lab.addresses6() {
            assert_eq!(recording.advertisements_of(address)?, [], "mode {mode}");
        }
        let summary = daemon.stop()?.summary;
        for port in lab.ports() {
            let name = format!("eth{port}_int");
            assert_eq!(
                (summary.count(&name, "ndp_target"), summary.count(&name, "wrong_destination")),
                (6, 3),
                "mode {mode}: {summary:?}"
            );
        }
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn a_solicitation_of_an_own_address_is_answered() -> Result<()> {
    let lab = Lab::article6()?;
    let daemon = lab.mhebpf_quietly(&[])?;
    for port in lab.ports() {
        for own in [lab.address6(port), lab.link_local(port)] {
            let recording = lab.record();
            lab.solicit(port, own)?;
            assert_eq!(recording.advertisements_of(own)?, [(port, lab.mac(port))]);
            lab.solicit_unicast(port, own, own)?;
            assert_eq!(recording.advertisements_of(own)?.len(), 2);
        }
    }
    assert_eq!(daemon.stop()?.summary.total("ndp_target"), 0);
    lab.finish()
}

#[test]
fn a_solicitation_to_all_ports_is_answered_once_by_the_owner() -> Result<()> {
    for mode in ENFORCING {
        let lab = Lab::article6()?;
        let daemon = lab.mhebpf_quietly(&["--mode", mode])?;
        for port in lab.ports() {
            let recording = lab.record();
            lab.solicit_all(lab.address6(port))?;
            assert_eq!(
                recording.advertisements_of(lab.address6(port))?,
                [(port, lab.mac(port))],
                "mode {mode}"
            );
        }
        daemon.stop()?;
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn observing_changes_nothing() -> Result<()> {
    let lab = Lab::builder().links(2).ipv6().build()?;
    let daemon = lab.mhebpf(&["--mode", "observe"])?;
    let recording = lab.record();
    advertise(&lab, 1, lab.address6(0))?;
    lab.solicit(1, lab.address6(0))?;
    // Linux itself answers for the addresses of the interface only.
    assert_eq!(recording.advertisements_of(lab.address6(0))?, [(1, lab.mac(1))]);
    lab.solicit(0, lab.address6(0))?;
    assert_eq!(recording.advertisements_of(lab.address6(0))?, [(1, lab.mac(1)), (0, lab.mac(0))]);
    let summary = daemon.stop()?.summary;
    assert_eq!(summary.observed("eth1_int", "ndp_sender"), 1, "{summary:?}");
    assert_eq!(summary.observed("eth1_int", "ndp_target"), 1, "{summary:?}");
    lab.finish()
}

#[test]
fn every_address_is_announced_at_the_start_and_a_new_one_then() -> Result<()> {
    let lab = Lab::article6()?;
    let recording = lab.record();
    let daemon = lab.mhebpf(&[])?;
    for port in lab.ports() {
        for own in [lab.address6(port), lab.link_local(port)] {
            recording.wait_from_host(&format!("an announcement of {own}"), |frame| {
                frame.frame.advertised() == Some(own)
            })?;
            assert_eq!(recording.advertisements_of(own)?, [(port, lab.mac(port))]);
        }
    }
    let recording = lab.record();
    lab.add_address(2, EXTRA)?;
    let announced = recording.wait_from_host("an announcement of the new address", |frame| {
        frame.frame.advertised() == Some(EXTRA)
    })?;
    assert_eq!((announced.port, announced.frame.source), (2, lab.mac(2)));
    let datagram = announced.ipv6().map(|datagram| (datagram.source, datagram.destination));
    assert_eq!(datagram, Some((EXTRA, ALL_NODES)));
    assert_eq!(announced.frame.destination, craft::group_mac(ALL_NODES));
    for address in lab.addresses6() {
        assert_eq!(recording.advertisements_of(address)?, [], "not again");
    }
    daemon.stop()?;
    lab.finish()
}

/// A peer that has learnt the wrong hardware address for another interface's address learns the right one.
#[test]
fn the_peer_believes_an_announcement() -> Result<()> {
    let lab = Lab::builder().links(2).ipv6().build()?;
    lab.switch.ip(&format!(
        "neighbour replace {} lladdr {} dev br0 nud stale",
        lab.address6(1),
        lab.mac(0)
    ))?;
    let daemon = lab.mhebpf(&[])?;
    lab.fence()?;
    let known = lab.switch.ip(&format!("-6 neighbour show {} dev br0", lab.address6(1)))?;
    assert!(known.contains(&lab.mac(1).to_string()), "{known}");
    daemon.stop()?;
    lab.finish()
}

#[test]
fn nothing_is_announced_with_no_announce() -> Result<()> {
    let lab = Lab::article6()?;
    let recording = lab.record();
    let daemon = lab.mhebpf_quietly(&[])?;
    lab.add_address(2, EXTRA)?;
    // That it is known to the daemon shows in a redirect.
    mhebpf_tests::wait_until("mhebpf to be in step", mhebpf_tests::PATIENCE, || {
        let recording = lab.record();
        lab.emit(0, EXTRA)?;
        Ok((recording.ports_of(EXTRA)? == BTreeSet::from([2])).then_some(()))
    })?;
    let all = recording.all_ipv6_from_host()?;
    let to_all = |datagram: &mhebpf_tests::frame::Ipv6| datagram.destination == ALL_NODES;
    assert!(all.iter().all(|(_, datagram)| datagram.target.is_none() || !to_all(datagram)), "{all:?}");
    assert!(all.iter().any(|(_, datagram)| datagram.destination == PEER6));
    daemon.stop()?;
    lab.finish()
}
