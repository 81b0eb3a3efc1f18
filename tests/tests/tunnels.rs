//! Tunnels between host and peer: what is inside is judged on the tunnel, and what carries it on the interface below.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddrV4},
};

use anyhow::{Context as _, Result};
use mhebpf_tests::{
    Daemon, FAR, Lab, PATIENCE, PEER,
    device::{Device, LISTENING, MODES, delivered_until, start},
    features::{self, Feature},
    lab::{INTERFACES, PROBE_PORT},
    traffic::{icmp, udp},
};

/// The addresses of host and peer inside the tunnel.
const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 2);
const PEER_INSIDE: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 1);
/// An address of the peer that the main table says is behind the tunnel.
const BEHIND: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 1);

/// The protocol numbers of IP in IP and GRE.
const TUNNELS: [(Feature, &str, u8); 2] = [(Feature::Ipip, "ipip", 4), (Feature::Gre, "gre", 47)];

/// Two links, the first with the default route, and a tunnel from its address to the peer.
fn lab_with_tunnel(kind: &str) -> Result<Lab> {
    let lab = Lab::builder().links(2).build()?;
    let own = lab.address(0);
    lab.host.ip_batch(&format!(
        "link add tun type {kind} local {own} remote {PEER}\n\
         address add {INSIDE}/24 dev tun\n\
         link set tun up\n\
         route add default via {PEER} dev eth0_int\n\
         route add default via {PEER} dev eth1_int metric 800\n\
         route add default dev tun metric 900\n\
         route add 172.16.0.0/12 dev tun"
    ))?;
    lab.switch.ip_batch(&format!(
        "link add tun type {kind} local {PEER} remote {own}\n\
         address add {PEER_INSIDE}/24 dev tun\n\
         address add {BEHIND}/32 dev lo\n\
         link set tun up"
    ))?;
    Ok(lab)
}

fn started(lab: &Lab, mode: Option<&str>) -> Result<Option<Daemon>> {
    mode.map(|mode| start(lab, &["--interface", INTERFACES, "--interface", "tun"], mode)).transpose()
}

#[test]
fn a_tunnels_own_traffic_passes_and_its_source_leaves_through_it() -> Result<()> {
    for (feature, kind, protocol) in TUNNELS {
        if !features::require(feature)? {
            continue;
        }
        let lab = lab_with_tunnel(kind)?;
        let outer = lab.address(0);
        for mode in MODES {
            let daemon = started(&lab, mode)?;
            icmp::ping(&lab.host, INSIDE, PEER_INSIDE, PATIENCE)?;
            icmp::ping(&lab.switch, PEER_INSIDE, INSIDE, PATIENCE)?;
            // By the first link's default route, into the tunnel if redirected.
            let recording = lab.record();
            udp::bind(&lab.host, INSIDE, 0)?.send_to(b"hello", (FAR, PROBE_PORT))?;
            let bare = if mode.is_none() { BTreeSet::from([0]) } else { BTreeSet::new() };
            assert_eq!(recording.ports_of(INSIDE)?, bare, "{kind} in mode {mode:?}");
            let carried: Vec<_> = recording
                .from_host()?
                .iter()
                .filter_map(|frame| Some((frame.port, *frame.ipv4()?)))
                .filter(|(_, datagram)| datagram.protocol == protocol)
                .map(|(port, datagram)| (port, datagram.source))
                .collect();
            let expected = if mode == Some("redirect") { vec![(0, outer)] } else { Vec::new() };
            assert_eq!(carried, expected, "{kind} in mode {mode:?}");
            drop(daemon);
        }
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn another_source_leaves_its_own_interface_instead_of_the_tunnel() -> Result<()> {
    for (feature, kind, _) in TUNNELS {
        if !features::require(feature)? {
            continue;
        }
        let lab = lab_with_tunnel(kind)?;
        let socket = udp::bind(&lab.switch, BEHIND, LISTENING)?;
        for mode in MODES {
            let daemon = started(&lab, mode)?;
            let recording = lab.record();
            for (source, payload) in [(lab.address(1), "another's"), (INSIDE, "own")] {
                let from = udp::bind(&lab.host, source, 0)?;
                from.send_to(payload.as_bytes(), SocketAddrV4::new(BEHIND, LISTENING))?;
            }
            let through: BTreeSet<_> = match mode {
                Some("redirect") => BTreeSet::from([1]),
                _ => BTreeSet::new(),
            };
            assert_eq!(recording.ports_of(lab.address(1))?, through, "{kind} in mode {mode:?}");
            let messages = delivered_until(&socket, "own")?;
            assert_eq!(messages.len(), if mode == Some("drop") { 1 } else { 2 }, "{messages:?} in {mode:?}");
            drop(daemon);
        }
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn what_arrives_through_the_tunnel_is_judged() -> Result<()> {
    for (feature, kind, _) in TUNNELS {
        if !features::require(feature)? {
            continue;
        }
        let lab = lab_with_tunnel(kind)?;
        lab.switch.ip(&format!("route add {}/32 dev tun", lab.address(1)))?;
        let socket = udp::bind(&lab.host, Ipv4Addr::UNSPECIFIED, LISTENING)?;
        for mode in MODES {
            let daemon = started(&lab, mode)?;
            let sender = udp::bind(&lab.switch, PEER_INSIDE, 0)?;
            for (to, payload) in [(lab.address(1), "another's"), (INSIDE, "own")] {
                sender.send_to(payload.as_bytes(), SocketAddrV4::new(to, LISTENING))?;
            }
            let expected = if mode.is_some() { &["own"][..] } else { &["another's", "own"] };
            assert_eq!(delivered_until(&socket, "own")?, expected, "{kind} in mode {mode:?}");
            drop(daemon);
        }
        lab.finish()?;
    }
    Ok(())
}

/// A tunnel from the second link's address, whose packets the main table sends by the first.
#[test]
fn the_packets_of_a_vxlan_leave_by_the_interface_of_their_source() -> Result<()> {
    if !features::require(Feature::Vxlan)? {
        return Ok(());
    }
    let lab = Lab::builder().links(3).build()?;
    let outer = lab.address(1);
    for (ns, local, remote, address) in
        [(&lab.host, outer, PEER, INSIDE), (&lab.switch, PEER, outer, PEER_INSIDE)]
    {
        ns.ip_batch(&format!(
            "link add vx type vxlan id 7 local {local} remote {remote} dstport 4789\n\
             address add {address}/24 dev vx\n\
             link set vx up"
        ))?;
    }
    for mode in MODES {
        let daemon = mode.map(|mode| start(&lab, &["--interface", INTERFACES], mode)).transpose()?;
        let recording = lab.record();
        let socket = udp::bind(&lab.host, INSIDE, 0)?;
        socket.send_to(b"hello", (PEER_INSIDE, PROBE_PORT))?;
        if mode == Some("drop") {
            // Neither a question for the neighbour nor the datagram gets out.
            assert_eq!(recording.ports_of(outer)?, BTreeSet::new());
        } else {
            icmp::ping(&lab.host, INSIDE, PEER_INSIDE, PATIENCE).context("through the VXLAN")?;
            icmp::ping(&lab.switch, PEER_INSIDE, INSIDE, PATIENCE).context("through the VXLAN")?;
            let port = if mode.is_none() { 0 } else { 1 };
            assert_eq!(recording.ports_of(outer)?, BTreeSet::from([port]), "{mode:?}");
        }
        drop(daemon);
    }
    // By its own interface's route it passes in drop mode as well, and is judged when selected itself.
    lab.host.ip(&format!("route add {PEER}/32 dev eth1_int"))?;
    let device = Device {
        name: "vx",
        address: INSIDE,
        peer: PEER_INSIDE,
        peer_interface: "vx",
        through: &[("vx", 1)],
        other: 2,
    };
    let host = mhebpf_tests::device::Sender::new(&lab.host)?;
    let station = mhebpf_tests::device::mac_of(&lab.switch, "vx")?;
    let others = lab.address(device.other);
    for mode in ["redirect", "drop"] {
        let daemon = start(&lab, &["--interface", INTERFACES, "--interface", "vx"], mode)?;
        icmp::ping(&lab.host, INSIDE, PEER_INSIDE, PATIENCE)?;
        let recording = lab.record();
        host.datagram("vx", station, others, SocketAddrV4::new(PEER, PROBE_PORT), b"another's")?;
        let expected = if mode == "redirect" { BTreeSet::from([2]) } else { BTreeSet::new() };
        assert_eq!(recording.ports_of(others)?, expected, "{mode}");
        assert_eq!(recording.ports_of(outer)?, BTreeSet::new(), "nothing was carried in mode {mode}");
        drop(daemon);
    }
    lab.finish()
}
