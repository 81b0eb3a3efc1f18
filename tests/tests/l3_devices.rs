//! Interfaces without an Ethernet header, on either side of a redirect.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
};

use anyhow::Result;
use mhebpf_tests::{
    Daemon, FAR, Lab, Mac, PATIENCE, PEER, craft, lab::INTERFACES, traffic::udp, tun::Tun, wait_until,
};

/// The host's address on the tunnel.
const TUNNEL: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 2);
/// Somewhere behind the tunnel, by the route of the main table.
const BEHIND: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 1);
/// The port that nobody listens on.
const PORT: u16 = 7000;

/// Two links, the first with the default route, and a tunnel with a default route of its own that is never taken.
fn lab() -> Result<(Lab, Tun)> {
    let lab = Lab::builder().links(2).build()?;
    let tun = Tun::new(&lab.host, "tun0", &["10.8.0.2/24"])?;
    lab.host.ip_batch(&format!(
        "route add default via {PEER}\nroute add default dev tun0 metric 900\nroute add 172.16.0.0/12 dev tun0"
    ))?;
    Ok((lab, tun))
}

fn mhebpf(lab: &Lab, mode: &str) -> Result<Daemon> {
    let interfaces = ["run", "--interface", INTERFACES, "--interface", "tun0"];
    lab.run_mhebpf(&[&interfaces[..], &["--mode", mode, "--no-announce"]].concat())
}

/// A UDP datagram without an Ethernet header.
fn datagram(from: Ipv4Addr, to: Ipv4Addr) -> Result<Vec<u8>> {
    let stations = craft::Stations { source: Mac::ZERO, destination: Mac::ZERO };
    let frame = craft::udp(stations, SocketAddrV4::new(from, PORT), SocketAddrV4::new(to, PORT), b"hello")?;
    Ok(frame[14..].to_vec())
}

fn source_of(packet: &[u8]) -> Ipv4Addr {
    Ipv4Addr::new(packet[12], packet[13], packet[14], packet[15])
}

fn send(lab: &Lab, from: Ipv4Addr, to: Ipv4Addr) -> Result<UdpSocket> {
    let socket = udp::bind(&lab.host, from, 0)?;
    socket.send_to(b"hello", SocketAddrV4::new(to, PORT))?;
    Ok(socket)
}

#[test]
fn the_tunnels_own_traffic_passes_in_both_modes() -> Result<()> {
    for mode in ["redirect", "drop"] {
        let (lab, tun) = lab()?;
        let daemon = mhebpf(&lab, mode)?;
        let socket = send(&lab, TUNNEL, BEHIND)?;
        let packet = tun.wait_for("the datagram", |packet| source_of(packet) == TUNNEL)?;
        assert_eq!(packet[0], 0x45, "it starts with its IPv4 header");
        tun.deliver(&{
            let port = socket.local_addr()?.port();
            let mut answer = datagram(BEHIND, TUNNEL)?;
            answer[22..24].copy_from_slice(&port.to_be_bytes());
            // No checksum (RFC 768).
            answer[26..28].fill(0);
            answer
        })?;
        wait_until("the answer", PATIENCE, || Ok(udp::take_delivered(&socket)?.map(drop)))?;
        assert_eq!(daemon.stop()?.summary.counts(), []);
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn a_packet_with_the_tunnels_source_leaves_through_it_without_its_ethernet_header() -> Result<()> {
    let (lab, tun) = lab()?;
    let daemon = mhebpf(&lab, "redirect")?;
    let recording = lab.record();
    send(&lab, TUNNEL, FAR)?;
    let packet = tun.wait_for("the datagram", |packet| source_of(packet) == TUNNEL)?;
    assert_eq!((packet[0], packet.len()), (0x45, 33));
    lab.fence()?;
    assert_eq!(recording.ports_of(TUNNEL)?, BTreeSet::new());
    let summary = daemon.stop()?.summary;
    assert_eq!(summary.count("eth0_int", "redirected"), 1, "{summary:?}");
    lab.finish()
}

#[test]
fn a_packet_with_an_ethernet_interfaces_source_leaves_through_it_with_a_header() -> Result<()> {
    let (lab, tun) = lab()?;
    let daemon = mhebpf(&lab, "redirect")?;
    let recording = lab.record();
    for port in lab.ports() {
        send(&lab, lab.address(port), BEHIND)?;
        let frame = recording.wait_datagram_from(lab.address(port))?;
        assert_eq!(frame.port, port);
        assert_eq!((frame.frame.source, frame.frame.destination), (lab.mac(port), lab.peer_mac(port)));
    }
    lab.fence()?;
    assert!(tun.packets()?.iter().all(|packet| source_of(packet) == TUNNEL || packet[0] != 0x45));
    let summary = daemon.stop()?.summary;
    assert_eq!(summary.count("tun0", "redirected"), 2, "{summary:?}");
    lab.finish()
}

#[test]
fn groups_are_redirected_between_both_kinds() -> Result<()> {
    let (lab, tun) = lab()?;
    let group = Ipv4Addr::new(239, 129, 2, 3);
    lab.host.ip("route add 239.0.0.0/8 dev tun0")?;
    let daemon = mhebpf(&lab, "redirect")?;
    let recording = lab.record();
    send(&lab, lab.address(1), group)?;
    let frame = recording.wait_datagram_from(lab.address(1))?;
    assert_eq!(frame.port, 1);
    // The lower 23 bits of the group (RFC 1112 section 6.4).
    let to = Mac([0x01, 0x00, 0x5e, 0x01, 2, 3]);
    assert_eq!((frame.frame.source, frame.frame.destination), (lab.mac(1), to));
    lab.host.ip("route change 239.0.0.0/8 dev eth0_int")?;
    send(&lab, TUNNEL, group)?;
    let packet = tun.wait_for("the datagram", |packet| source_of(packet) == TUNNEL)?;
    assert_eq!(packet[16..20], group.octets());
    drop(daemon);
    lab.finish()
}

#[test]
fn in_drop_mode_nothing_crosses_over() -> Result<()> {
    let (lab, tun) = lab()?;
    let daemon = mhebpf(&lab, "drop")?;
    let recording = lab.record();
    send(&lab, TUNNEL, FAR)?;
    send(&lab, lab.address(1), BEHIND)?;
    lab.fence()?;
    assert_eq!(recording.ports_by_source()?.len(), 0);
    // What comes after the datagrams on the tunnel: if they were not dropped they would come before.
    send(&lab, TUNNEL, BEHIND)?;
    let packet = tun.wait_for("a datagram", |packet| packet[0] == 0x45)?;
    assert_eq!((source_of(&packet), &packet[16..20]), (TUNNEL, &BEHIND.octets()[..]));
    let summary = daemon.stop()?.summary;
    assert_eq!(summary.count("eth0_int", "wrong_source"), 1, "{summary:?}");
    assert_eq!(summary.count("tun0", "wrong_source"), 1, "{summary:?}");
    lab.finish()
}

#[test]
fn what_arrives_through_the_tunnel_is_judged() -> Result<()> {
    let (lab, tun) = lab()?;
    let socket = udp::bind(&lab.host, Ipv4Addr::UNSPECIFIED, PORT)?;
    let daemon = mhebpf(&lab, "redirect")?;
    for to in [lab.address(0), lab.address(1), TUNNEL] {
        tun.deliver(&datagram(BEHIND, to)?)?;
    }
    // The last one was for the tunnel, and those before it have been judged.
    wait_until("the datagram for the tunnel", PATIENCE, || Ok(udp::take_delivered(&socket)?.map(drop)))?;
    assert!(udp::take_delivered(&socket)?.is_none());
    let summary = daemon.stop()?.summary;
    assert_eq!(summary.count("tun0", "wrong_destination"), 2, "{summary:?}");
    lab.finish()
}

/// In all directions the sender learns of the owner's MTU, and the second datagram comes in fragments.
#[test]
fn senders_learn_of_a_smaller_mtu_behind_a_redirect() -> Result<()> {
    let (lab, tun) = lab()?;
    lab.switch.ip_batch("link set eth0_ext mtu 9000\nlink set br0 mtu 9000")?;
    lab.host.ip_batch("link set eth0_int mtu 9000\nlink set tun0 mtu 1400")?;
    let daemon = mhebpf(&lab, "redirect")?;
    let socket = udp::bind(&lab.host, TUNNEL, 0)?;
    let fragment = wait_until("fragments through the tunnel", PATIENCE, || {
        // The error of the first is reported with the next.
        let _ = socket.send_to(&[7; 4000], SocketAddrV4::new(FAR, PORT));
        Ok(tun.packets()?.into_iter().find(|packet| source_of(packet) == TUNNEL))
    })?;
    assert!(fragment.len() <= 1400);
    lab.host.ip("link set tun0 mtu 9000")?;
    let recording = lab.record();
    let socket = udp::bind(&lab.host, lab.address(1), 0)?;
    wait_until("fragments through the second link", PATIENCE, || {
        let _ = socket.send_to(&[7; 4000], SocketAddrV4::new(BEHIND, PORT));
        lab.fence()?;
        Ok((!recording.ways_of(lab.address(1))?.is_empty()).then_some(()))
    })?;
    assert_eq!(recording.ports_of(lab.address(1))?, BTreeSet::from([1]));
    let summary = daemon.stop()?.summary;
    assert!(summary.count("eth0_int", "too_big") > 0 && summary.count("tun0", "too_big") > 0, "{summary:?}");
    lab.finish()
}
