//! IPv4 that arrives, judged by its destination: the ingress side of the decision, packet by packet.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::Result;
use mhebpf_tests::{
    Lab, Mac, PEER,
    craft::{self, Stations},
    traffic::udp,
};

/// The port that the host listens on.
const SERVICE: u16 = 7000;

/// How many datagrams have been delivered to the socket.
fn delivered(socket: &std::net::UdpSocket) -> Result<usize> {
    let mut count = 0;
    while udp::take_delivered(socket)?.is_some() {
        count += 1;
    }
    Ok(count)
}

#[test]
fn a_datagram_for_another_interfaces_address_is_discarded() -> Result<()> {
    for mode in ["redirect", "drop"] {
        let lab = Lab::article()?;
        let socket = udp::bind(&lab.host, Ipv4Addr::UNSPECIFIED, SERVICE)?;
        let daemon = lab.mhebpf_quietly(&["--mode", mode])?;
        for port in lab.ports() {
            for other in lab.ports().filter(|other| *other != port) {
                lab.deliver(port, SocketAddrV4::new(lab.address(other), SERVICE), b"stray")?;
            }
        }
        lab.fence()?;
        assert_eq!(delivered(&socket)?, 0, "mode {mode}");
        let summary = daemon.stop()?.summary;
        for port in lab.ports() {
            assert_eq!(summary.count(&format!("eth{port}_int"), "wrong_destination"), 3, "{summary:?}");
        }
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn a_datagram_for_an_own_address_is_delivered() -> Result<()> {
    for mode in ["redirect", "drop"] {
        let lab = Lab::article()?;
        let socket = udp::bind(&lab.host, Ipv4Addr::UNSPECIFIED, SERVICE)?;
        let daemon = lab.mhebpf_quietly(&["--mode", mode])?;
        for port in lab.ports() {
            lab.deliver(port, SocketAddrV4::new(lab.address(port), SERVICE), b"for you")?;
        }
        lab.fence()?;
        assert_eq!(delivered(&socket)?, 4, "mode {mode}");
        assert_eq!(daemon.stop()?.summary.counts(), []);
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn broadcast_and_multicast_are_delivered_on_every_interface() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let group = Ipv4Addr::new(239, 1, 2, 3);
    let socket = udp::bind(&lab.host, Ipv4Addr::UNSPECIFIED, SERVICE)?;
    for port in lab.ports() {
        socket.join_multicast_v4(&group, &lab.address(port))?;
    }
    let daemon = lab.mhebpf_quietly(&[])?;
    for port in lab.ports() {
        for (to, mac) in [
            (Ipv4Addr::BROADCAST, Mac::BROADCAST),
            (Ipv4Addr::new(192, 168, 7, 255), Mac::BROADCAST),
            (group, Mac([0x01, 0, 0x5e, 1, 2, 3])),
        ] {
            let stations = Stations { source: lab.peer_mac(port), destination: mac };
            let from = SocketAddrV4::new(PEER, SERVICE);
            lab.send_to_host(port, &craft::udp(stations, from, SocketAddrV4::new(to, SERVICE), b"all")?)?;
        }
    }
    lab.fence()?;
    assert_eq!(delivered(&socket)?, 6);
    assert_eq!(daemon.stop()?.summary.counts(), []);
    lab.finish()
}

#[test]
fn receive_off_and_observe_deliver_and_only_observe_counts() -> Result<()> {
    for (receive, observed) in [("off", 0), ("observe", 1)] {
        let lab = Lab::builder().links(2).build()?;
        let socket = udp::bind(&lab.host, lab.address(1), SERVICE)?;
        let daemon = lab.mhebpf_quietly(&["--receive", receive])?;
        lab.deliver(0, SocketAddrV4::new(lab.address(1), SERVICE), b"stray")?;
        lab.fence()?;
        assert_eq!(delivered(&socket)?, 1, "--receive {receive}");
        let summary = daemon.stop()?.summary;
        assert_eq!(summary.observed("eth0_int", "wrong_destination"), observed, "{summary:?}");
        assert_eq!(summary.count("eth0_int", "wrong_destination"), 0, "{summary:?}");
        lab.finish()?;
    }
    Ok(())
}

/// A closed port would answer a SYN with a reset, and an echo request is answered by the kernel itself.
#[test]
fn nothing_is_answered_that_comes_to_the_wrong_interface() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let request = |port| craft::echo_request(lab.inward(port), PEER, lab.address(1), 1);
    let closed = |port| lab.deliver(port, SocketAddrV4::new(lab.address(1), SERVICE), b"closed");

    let recording = lab.record();
    lab.send_to_host(0, &request(0)?)?;
    closed(0)?;
    recording.wait_datagram_from(lab.address(1))?;
    assert_eq!(
        recording.from_host()?.iter().filter(|f| f.ipv4().is_some()).count(),
        2,
        "the weak host answers"
    );

    let daemon = lab.mhebpf_quietly(&[])?;
    let recording = lab.record();
    lab.send_to_host(0, &request(0)?)?;
    closed(0)?;
    assert_eq!(recording.from_host()?.len(), 0);
    lab.send_to_host(1, &request(1)?)?;
    assert_eq!(recording.wait_datagram_from(lab.address(1))?.port, 1, "the owner answers");
    assert_eq!(daemon.stop()?.summary.count("eth0_int", "wrong_destination"), 2);
    lab.finish()
}

#[test]
fn every_fragment_for_another_interfaces_address_is_discarded() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = lab.mhebpf_quietly(&[])?;
    let socket = udp::bind(&lab.host, lab.address(1), SERVICE)?;
    // The peer believes that the address is behind the other link: its entry decides where the fragments go.
    lab.switch.ip(&format!("neighbour replace {} lladdr {} dev br0", lab.address(1), lab.mac(0)))?;
    udp::bind(&lab.switch, PEER, 0)?.send_to(&[7; 4000], (lab.address(1), SERVICE))?;
    lab.fence()?;
    assert_eq!(delivered(&socket)?, 0);
    assert_eq!(daemon.stop()?.summary.count("eth0_int", "wrong_destination"), 3);
    lab.finish()
}

/// 127/8 on a wire is dropped, and with `route_localnet` the operator has asked for it.
#[test]
fn a_loopback_destination_is_delivered_only_with_route_localnet() -> Result<()> {
    for (route_localnet, expected) in [("0", (0, 1)), ("1", (1, 0))] {
        let lab = Lab::builder().links(2).build()?;
        let socket = udp::bind(&lab.host, Ipv4Addr::LOCALHOST, SERVICE)?;
        lab.host.sysctl("net.ipv4.conf.eth0_int.route_localnet", route_localnet)?;
        let daemon = lab.mhebpf_quietly(&[])?;
        lab.deliver(0, SocketAddrV4::new(Ipv4Addr::LOCALHOST, SERVICE), b"martian")?;
        lab.fence()?;
        let counted = daemon.stop()?.summary.count("eth0_int", "loopback");
        assert_eq!((delivered(&socket)?, counted), expected, "route_localnet {route_localnet}");
        lab.finish()?;
    }
    Ok(())
}
