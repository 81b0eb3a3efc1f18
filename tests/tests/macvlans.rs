//! Macvlans of the host itself and of its containers: their frames carry a hardware address of their own, which the device below
//! has no part in.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use anyhow::{Context as _, Result};
use mhebpf_tests::{
    Lab, Mac, NetNs, PATIENCE, PEER,
    device::{mac_of, wait_running},
    features::{self, Feature},
    traffic::{ARTICLE_PORT, icmp, tcp},
};

/// The address of the host's macvlan, in the subnet of the device below.
const OWN: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 150);
/// A container's, and the range that it is from.
const CONTAINER: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 193);
const RANGE: &str = "192.168.0.192/28";
/// The host's address towards the containers.
const SHIM: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 210);

/// A lab of two links whose host has a macvlan on the first, with its own address.
fn with_macvlan() -> Result<Option<(Lab, Mac)>> {
    if !features::require(Feature::Macvlan)? {
        return Ok(None);
    }
    let lab = Lab::builder().links(2).build()?;
    lab.host.ip_batch(&format!(
        "link add link eth0_int name top type macvlan mode bridge\n\
         address add {OWN}/21 dev top\n\
         link set top up"
    ))?;
    wait_running(&lab.host, "top")?;
    lab.claim(0, OWN, Duration::ZERO);
    let mac = mac_of(&lab.host, "top")?;
    Ok(Some((lab, mac)))
}

/// With which hardware addresses the host answers for an address that is asked for through all its ports.
fn answers(lab: &Lab, address: Ipv4Addr) -> Result<BTreeSet<(usize, Mac)>> {
    let recording = lab.record();
    lab.ask_all(address)?;
    Ok(recording.arp_replies_for(address)?.into_iter().collect())
}

#[test]
fn each_address_is_answered_for_with_its_own_hardware_address() -> Result<()> {
    for selected in [&["--all"][..], &["--interface", "eth*_int"], &["--interface", "*"]] {
        let Some((lab, mac)) = with_macvlan()? else { return Ok(()) };
        let all = BTreeSet::from([(0, mac), (0, lab.mac(0)), (1, lab.mac(1))]);
        for address in [OWN, lab.address(0)] {
            assert_eq!(answers(&lab, address)?, all, "without mhebpf");
        }
        let daemon = lab.run_mhebpf(&[&["run", "--no-announce"], selected].concat())?;
        assert_eq!(answers(&lab, OWN)?, BTreeSet::from([(0, mac)]), "{selected:?}");
        for port in lab.ports() {
            let mut answered = answers(&lab, lab.address(port))?;
            if selected == ["--interface", "eth*_int"] {
                // That macvlan is nobody's business then.
                answered.remove(&(0, mac));
            }
            assert_eq!(answered, BTreeSet::from([(port, lab.mac(port))]), "{selected:?}");
        }
        daemon.stop()?;
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn its_address_never_leaves_with_the_hardware_address_of_the_device_below() -> Result<()> {
    let Some((lab, mac)) = with_macvlan()? else { return Ok(()) };
    // By a raw socket through the device below.
    let emit = || -> Result<BTreeSet<(usize, Mac)>> {
        let recording = lab.record();
        lab.emit(0, OWN)?;
        lab.fence()?;
        recording.ways_of(OWN)
    };
    let server = tcp::EchoServer::start(&lab.switch, PEER, ARTICLE_PORT)?;
    let connect = |from: Ipv4Addr| -> Result<BTreeSet<(usize, Mac)>> {
        let recording = lab.record();
        tcp::echo_bulk(&tcp::connect(&lab.host, from, server.address())?, 100_000)?;
        recording.ways_of(from)
    };
    assert_eq!((emit()?, connect(OWN)?), ([(0, lab.mac(0))].into(), [(0, lab.mac(0))].into()));
    for (mode, expected) in [("redirect", BTreeSet::from([(0, mac)])), ("drop", BTreeSet::new())] {
        let daemon = lab.run_mhebpf(&["run", "--all", "--mode", mode, "--no-announce"])?;
        lab.forget_neighbours()?;
        assert_eq!(emit()?, expected, "mode {mode}");
        if mode == "redirect" {
            for (from, way) in
                [(OWN, (0, mac)), (lab.address(0), (0, lab.mac(0))), (lab.address(1), (1, lab.mac(1)))]
            {
                assert_eq!(connect(from)?, BTreeSet::from([way]), "{from}");
            }
            icmp::ping(&lab.switch, PEER, OWN, PATIENCE)?;
        }
        daemon.stop()?;
    }
    lab.finish()
}

/// A container on a macvlan in a namespace of its own, beside a "shim" of the host's: a device does not reach the macvlans on it.
fn with_container(shim: bool) -> Result<Option<(Lab, NetNs)>> {
    if !features::require(Feature::Macvlan)? {
        return Ok(None);
    }
    let lab = Lab::builder().links(2).build()?;
    let container = NetNs::new("container")?;
    lab.host.ip(&format!(
        "link add link eth1_int name eth0 netns {} type macvlan mode bridge",
        container.path()
    ))?;
    container.ip_batch(&format!(
        "address add {CONTAINER}/21 dev eth0\n\
         link set eth0 up\n\
         route add default via {PEER}"
    ))?;
    if shim {
        lab.host.ip_batch(&format!(
            "link add shim link eth1_int type macvlan mode bridge\n\
             address add {SHIM}/32 dev shim\n\
             link set shim up\n\
             route add {RANGE} dev shim"
        ))?;
    }
    Ok(Some((lab, container)))
}

#[test]
fn host_and_container_reach_each_other_by_the_shims_address_and_by_the_main_one() -> Result<()> {
    for (selected, mode) in [("--all", "redirect"), ("--all", "drop"), ("--interface=eth*_int", "redirect")] {
        let Some((lab, container)) = with_container(true)? else { return Ok(()) };
        let daemon = lab.run_mhebpf(&["run", selected, "--mode", mode])?;
        if selected == "--all" {
            let said = daemon.stderr();
            assert!(
                said.contains("leaving out shim: it has neither a subnet nor a gateway of its own"),
                "{said}"
            );
        }
        let inside = tcp::EchoServer::start(&container, CONTAINER, ARTICLE_PORT)?;
        let outside = tcp::EchoServer::start(&lab.host, Ipv4Addr::UNSPECIFIED, ARTICLE_PORT)?;
        for own in [SHIM, lab.address(1), lab.address(0)] {
            let what = || format!("{own} in mode {mode} with {selected}");
            lab.forget_neighbours()?;
            container.ip("neighbour flush dev eth0")?;
            tcp::echo_bulk(&tcp::connect(&lab.host, own, inside.address()).with_context(what)?, 100_000)?;
            lab.forget_neighbours()?;
            container.ip("neighbour flush dev eth0")?;
            let to = SocketAddrV4::new(own, outside.address().port());
            tcp::echo_bulk(&tcp::connect(&container, CONTAINER, to).with_context(what)?, 100_000)?;
        }
        if mode == "redirect" {
            // The network outside reaches all of them too; the first route's interface is another one.
            for address in [SHIM, lab.address(1), CONTAINER] {
                icmp::ping(&lab.switch, PEER, address, PATIENCE).with_context(|| address.to_string())?;
            }
        }
        let summary = daemon.stop()?.summary;
        assert_eq!(summary.total("wrong_source") + summary.total("wrong_destination"), 0, "{summary:?}");
        lab.finish()?;
    }
    Ok(())
}

/// A guest is another host.
#[test]
fn a_guest_on_a_macvlan_passes_where_unknown_sources_are_dropped() -> Result<()> {
    for mode in ["redirect", "drop"] {
        let Some((lab, container)) = with_container(false)? else { return Ok(()) };
        let foreign = Ipv4Addr::new(192, 168, 0, 77);
        let daemon = lab.mhebpf_quietly(&["--mode", mode, "--unknown", "drop"])?;
        let recording = lab.record();
        let server = tcp::EchoServer::start(&lab.switch, PEER, ARTICLE_PORT)?;
        tcp::echo_bulk(&tcp::connect(&container, CONTAINER, server.address())?, 100_000)?;
        lab.forget_neighbours()?;
        icmp::ping(&lab.switch, PEER, CONTAINER, PATIENCE)?;
        // The host itself is held to its own.
        lab.emit(1, foreign)?;
        assert_eq!(recording.ways_of(CONTAINER)?, BTreeSet::from([(1, mac_of(&container, "eth0")?)]));
        assert_eq!(recording.ports_of(foreign)?, BTreeSet::new());
        let summary = daemon.stop()?.summary;
        assert_eq!(summary.total("unknown_source"), 1, "{summary:?}");
        lab.finish()?;
    }
    Ok(())
}
