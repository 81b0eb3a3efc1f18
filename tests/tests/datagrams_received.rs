//! Datagrams that arrive, judged by their destination: the ingress side of the decision, packet by packet, in both families.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4};

use anyhow::Result;
use mhebpf_tests::{
    Family, Lab, Mac, PEER,
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
    for (family, mode) in in_enforcing_modes() {
        let lab = Lab::article_in(family)?;
        let socket = udp::bind(&lab.host, family.unspecified(), SERVICE)?;
        let daemon = lab.mhebpf_quietly(&["--mode", mode])?;
        for port in lab.ports() {
            for other in lab.ports().filter(|other| *other != port) {
                for address in lab.addresses_on(family, other) {
                    lab.deliver(port, (address, SERVICE), b"stray")?;
                }
            }
        }
        lab.fence()?;
        assert_eq!(delivered(&socket)?, 0, "{family} in mode {mode}");
        let summary = daemon.stop()?.summary;
        for port in lab.ports() {
            let count = 3 * lab.addresses_on(family, port).len() as u64;
            assert_eq!(summary.count(&format!("eth{port}_int"), "wrong_destination"), count, "{summary:?}");
        }
        lab.finish()?;
    }
    Ok(())
}

fn in_enforcing_modes() -> impl Iterator<Item = (Family, &'static str)> {
    Family::BOTH.into_iter().flat_map(|family| ["redirect", "drop"].map(|mode| (family, mode)))
}

#[test]
fn a_datagram_for_an_own_address_is_delivered() -> Result<()> {
    for (family, mode) in in_enforcing_modes() {
        let lab = Lab::article_in(family)?;
        let socket = udp::bind(&lab.host, family.unspecified(), SERVICE)?;
        let daemon = lab.mhebpf_quietly(&["--mode", mode, "--unknown", "drop"])?;
        for port in lab.ports() {
            for own in lab.addresses_on(family, port) {
                lab.deliver(port, (own, SERVICE), b"for you")?;
                lab.fence()?;
                assert_eq!(delivered(&socket)?, 1, "{own} through port {port} in mode {mode}");
            }
        }
        let summary = daemon.stop()?.summary;
        assert_eq!(summary.total("wrong_destination"), 0, "{summary:?}");
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn broadcast_and_multicast_are_delivered_on_every_interface() -> Result<()> {
    let lab = Lab::builder().links(2).ipv6().build()?;
    let group = Ipv4Addr::new(239, 1, 2, 3);
    // Every node is in IPv6's group of all nodes, on every link.
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let socket = udp::bind(&lab.host, Ipv4Addr::UNSPECIFIED, SERVICE)?;
    let socket6 = udp::bind(&lab.host, Ipv6Addr::UNSPECIFIED, SERVICE)?;
    for port in lab.ports() {
        socket.join_multicast_v4(&group, &lab.address(port))?;
    }
    let daemon = lab.mhebpf_quietly(&["--unknown", "drop"])?;
    for port in lab.ports() {
        let destinations: [(IpAddr, Mac); 4] = [
            (Ipv4Addr::BROADCAST.into(), Mac::BROADCAST),
            (Ipv4Addr::new(192, 168, 7, 255).into(), Mac::BROADCAST),
            (group.into(), Mac([0x01, 0, 0x5e, 1, 2, 3])),
            (all_nodes.into(), craft::group_mac(all_nodes)),
        ];
        for (to, mac) in destinations {
            let stations = Stations { source: lab.peer_mac(port), destination: mac };
            let from = (lab.peer_in(Family::of(to), port), SERVICE);
            lab.send_to_host(port, &craft::udp(stations, from, (to, SERVICE), b"all")?)?;
        }
    }
    lab.fence()?;
    assert_eq!((delivered(&socket)?, delivered(&socket6)?), (6, 2));
    let summary = daemon.stop()?.summary;
    assert_eq!(summary.total("wrong_destination"), 0, "{summary:?}");
    lab.finish()
}

#[test]
fn receive_off_and_observe_deliver_and_only_observe_counts() -> Result<()> {
    for family in Family::BOTH {
        for (option, value, observed) in
            [("--receive", "off", 0), ("--receive", "observe", 1), ("--mode", "observe", 1)]
        {
            let lab = Lab::builder().links(2).family(family).build()?;
            let address = lab.address_in(family, 1);
            let socket = udp::bind(&lab.host, address, SERVICE)?;
            let daemon = lab.mhebpf_quietly(&[option, value])?;
            lab.deliver(0, (address, SERVICE), b"stray")?;
            lab.fence()?;
            assert_eq!(delivered(&socket)?, 1, "{family} with {option} {value}");
            let summary = daemon.stop()?.summary;
            assert_eq!(summary.observed("eth0_int", "wrong_destination"), observed, "{summary:?}");
            assert_eq!(summary.count("eth0_int", "wrong_destination"), 0, "{summary:?}");
            lab.finish()?;
        }
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

/// Linux itself takes none, so that mhebpf has dropped it shows in the counters only.
#[test]
fn ipv6s_loopback_destination_is_dropped() -> Result<()> {
    let lab = Lab::builder().links(2).ipv6().build()?;
    let socket = udp::bind(&lab.host, Ipv6Addr::LOCALHOST, SERVICE)?;
    let daemon = lab.mhebpf_quietly(&[])?;
    lab.deliver(0, (Ipv6Addr::LOCALHOST, SERVICE), b"martian")?;
    lab.fence()?;
    assert_eq!(delivered(&socket)?, 0);
    assert_eq!(daemon.stop()?.summary.count("eth0_int", "loopback"), 1);
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
