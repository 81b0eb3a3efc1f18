//! IPv6 that arrives, judged by its destination: the ingress side of the decision.

use std::net::{Ipv6Addr, SocketAddrV6};

use anyhow::Result;
use mhebpf_tests::{
    Lab,
    craft::{self, Stations},
    lab::PROBE_PORT,
    traffic::udp,
};

const PORT: u16 = 4321;

/// The modes in which something is enforced.
const ENFORCING: [&str; 2] = ["redirect", "drop"];

#[test]
fn a_datagram_for_an_own_address_is_delivered() -> Result<()> {
    let lab = Lab::article6()?;
    let socket = udp::bind(&lab.host, Ipv6Addr::UNSPECIFIED, PORT)?;
    let daemon = lab.mhebpf_quietly(&["--unknown", "drop"])?;
    for port in lab.ports() {
        for own in [lab.address6(port), lab.link_local(port)] {
            lab.deliver6(port, own, PORT, b"for you")?;
            lab.fence()?;
            assert!(udp::take_delivered(&socket)?.is_some(), "{own} through port {port}");
        }
    }
    let summary = daemon.stop()?.summary;
    assert_eq!(summary.total("wrong_destination"), 0, "{summary:?}");
    lab.finish()
}

#[test]
fn a_datagram_for_another_interfaces_address_is_discarded() -> Result<()> {
    for mode in ENFORCING {
        let lab = Lab::article6()?;
        let socket = udp::bind(&lab.host, Ipv6Addr::UNSPECIFIED, PORT)?;
        let daemon = lab.mhebpf_quietly(&["--mode", mode])?;
        for port in lab.ports() {
            for other in lab.ports().filter(|other| *other != port) {
                lab.deliver6(port, lab.address6(other), PORT, b"not for you")?;
                lab.deliver6(port, lab.link_local(other), PORT, b"not for you")?;
            }
        }
        lab.fence()?;
        assert_eq!(udp::take_delivered(&socket)?, None, "mode {mode}");
        let summary = daemon.stop()?.summary;
        for port in lab.ports() {
            assert_eq!(
                summary.count(&format!("eth{port}_int"), "wrong_destination"),
                6,
                "mode {mode}: {summary:?}"
            );
        }
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn observing_only_counts() -> Result<()> {
    let lab = Lab::builder().links(2).ipv6().build()?;
    let socket = udp::bind(&lab.host, Ipv6Addr::UNSPECIFIED, PORT)?;
    let daemon = lab.mhebpf_quietly(&["--mode", "observe"])?;
    lab.deliver6(0, lab.address6(1), PORT, b"weak")?;
    lab.fence()?;
    assert!(udp::take_delivered(&socket)?.is_some());
    assert_eq!(daemon.stop()?.summary.observed("eth0_int", "wrong_destination"), 1);
    lab.finish()
}

#[test]
fn multicast_is_delivered() -> Result<()> {
    let lab = Lab::builder().links(2).ipv6().build()?;
    // Every node is in the group of all nodes, on every link.
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let socket = udp::bind(&lab.host, Ipv6Addr::UNSPECIFIED, PORT)?;
    let daemon = lab.mhebpf_quietly(&["--unknown", "drop"])?;
    for port in lab.ports() {
        let stations = Stations { source: lab.peer_mac(port), destination: craft::group_mac(group) };
        let (from, to) =
            (SocketAddrV6::new(lab.peer6(port), PROBE_PORT, 0, 0), SocketAddrV6::new(group, PORT, 0, 0));
        lab.send_to_host(port, &craft::udp6(stations, from, to, b"all")?)?;
        lab.fence()?;
        assert!(udp::take_delivered(&socket)?.is_some(), "port {port}");
    }
    let summary = daemon.stop()?.summary;
    assert_eq!(summary.total("wrong_destination"), 0, "{summary:?}");
    lab.finish()
}
