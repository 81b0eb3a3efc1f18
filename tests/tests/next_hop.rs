//! The owner's own next hop: `route(src, dst, TOS) -> gateway` of RFC 1122 section 3.3.4.2.

use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use anyhow::Result;
use mhebpf_tests::{
    FAR, Lab, PATIENCE, PEER,
    lab::{PROBE_PORT, Router},
    stay_on_one_cpu,
    traffic::{ARTICLE_PORT, icmp, tcp, udp},
    wait_until,
};

const SECOND_ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 2);

/// The prefix of the far address.
const FAR_PREFIX: &str = "198.51.100.0/24";

/// Sends a datagram to the far address, and returns the frame in which it left.
fn send_far(lab: &Lab, from: Ipv4Addr) -> Result<std::sync::Arc<mhebpf_tests::Captured>> {
    let recording = lab.record();
    udp::bind(&lab.host, from, 0)?.send_to(b"far", (FAR, PROBE_PORT))?;
    recording.wait_datagram_from(from)
}

/// The router that a port's datagrams go to.
fn assert_through(lab: &Lab, port: usize, router: &Router) -> Result<()> {
    let sent = send_far(lab, lab.address(port))?;
    assert_eq!((sent.port, sent.frame.source, sent.frame.destination), (port, lab.mac(port), router.mac));
    Ok(())
}

#[test]
fn one_default_route_serves_the_addresses_of_all_interfaces() -> Result<()> {
    let lab = Lab::article()?;
    lab.host.ip(&format!("route add default via {PEER} dev eth0_int"))?;
    let server = tcp::EchoServer::start(&lab.switch, FAR, ARTICLE_PORT)?;
    let daemon = lab.mhebpf(&[])?;
    lab.forget_neighbours()?;
    let recording = lab.record();
    for address in lab.addresses() {
        let mut stream = tcp::connect(&lab.host, address, server.address())?;
        tcp::echo(&mut stream, b"hello out there")?;
        icmp::ping(&lab.host, address, FAR, PATIENCE)?;
    }
    for (port, address) in lab.addresses().into_iter().enumerate() {
        assert_eq!(recording.ways_of(address)?, BTreeSet::from([(port, lab.mac(port))]));
    }
    // Nobody asked on the wire for an address that is not on it.
    assert!(recording.arp_from_host()?.iter().all(|(_, arp)| arp.target != FAR));
    daemon.stop()?;
    lab.finish()
}

#[test]
fn with_a_default_route_on_each_interface_each_uses_its_own() -> Result<()> {
    let lab = Lab::article()?;
    let router = lab.add_router(SECOND_ROUTER)?;
    lab.host.ip_batch(&format!(
        "route add default via {PEER} dev eth0_int metric 100\n\
         route add default via {SECOND_ROUTER} dev eth1_int metric 200"
    ))?;
    let daemon = lab.mhebpf(&[])?;
    let first = send_far(&lab, lab.address(0))?;
    assert_eq!((first.port, first.frame.destination), (0, lab.peer_mac(0)));
    assert_through(&lab, 1, &router)?;
    // Of the others' gateways that are on-link here, that of the better route.
    let third = send_far(&lab, lab.address(2))?;
    assert_eq!((third.port, third.frame.destination), (2, lab.peer_mac(2)));
    daemon.stop()?;
    lab.finish()
}

#[test]
fn the_owners_route_with_the_lowest_metric_wins() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let router = lab.add_router(SECOND_ROUTER)?;
    lab.host.ip_batch(&format!(
        "route add default via {PEER} dev eth0_int metric 10\n\
         route add default via {PEER} dev eth1_int metric 300\n\
         route add default via {SECOND_ROUTER} dev eth1_int metric 200"
    ))?;
    let daemon = lab.mhebpf(&[])?;
    assert_through(&lab, 1, &router)?;
    daemon.stop()?;
    lab.finish()
}

#[test]
fn a_longer_prefix_wins_over_the_default_route() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let router = lab.add_router(SECOND_ROUTER)?;
    lab.host.ip_batch(&format!(
        "route add default via {PEER} dev eth1_int\n\
         route add {FAR_PREFIX} via {SECOND_ROUTER} dev eth0_int"
    ))?;
    let daemon = lab.mhebpf(&[])?;
    // The longer prefix is another interface's, but its gateway is on-link on the owner.
    assert_through(&lab, 1, &router)?;
    daemon.stop()?;
    lab.finish()
}

#[test]
fn a_changed_gateway_is_followed() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let router = lab.add_router(SECOND_ROUTER)?;
    lab.host.ip(&format!("route add default via {PEER} dev eth0_int"))?;
    let daemon = lab.mhebpf(&[])?;
    stay_on_one_cpu()?;
    assert_eq!(send_far(&lab, lab.address(1))?.frame.destination, lab.peer_mac(1));
    lab.host.ip(&format!("route replace default via {SECOND_ROUTER} dev eth0_int"))?;
    wait_until("the new gateway", PATIENCE, || {
        Ok((send_far(&lab, lab.address(1))?.frame.destination == router.mac).then_some(()))
    })?;
    lab.host.ip("route delete default")?;
    lab.host.ip(&format!("route add {FAR_PREFIX} via {PEER} dev eth0_int"))?;
    wait_until("the route that is left", PATIENCE, || {
        let recording = lab.record();
        udp::bind(&lab.host, lab.address(1), 0)?.send_to(b"far", (FAR, PROBE_PORT))?;
        let frames = recording.from_host()?;
        let to_peer = |f: &mhebpf_tests::Captured| f.port == 1 && f.frame.destination == lab.peer_mac(1);
        Ok(frames.iter().any(|f| f.ipv4().is_some() && to_peer(f)).then_some(()))
    })?;
    daemon.stop()?;
    lab.finish()
}

/// The default route's gateway is on a wire that the owner is not on: never sent or asked for on the wrong one.
#[test]
fn without_a_route_that_the_owner_can_use_nothing_leaves() -> Result<()> {
    let lab = Lab::builder().links(2).links_in_second_subnet(1).build()?;
    lab.host.ip(&format!("route add default via {PEER} dev eth0_int"))?;
    let daemon = lab.mhebpf_quietly(&[])?;
    // The gateway is known, so that the datagrams come to the program at once.
    icmp::ping(&lab.host, lab.address(0), FAR, PATIENCE)?;
    let recording = lab.record();
    let socket = udp::bind(&lab.host, lab.address(2), 0)?;
    for _ in 0..3 {
        socket.send_to(b"far", (FAR, PROBE_PORT))?;
    }
    icmp::send_request(&lab.host, lab.address(2), FAR)?;
    let left = recording.from_host()?;
    assert!(left.is_empty(), "{left:?}");
    // Its own subnet is reached as ever.
    icmp::ping(&lab.host, lab.address(2), lab.peer(2), PATIENCE)?;
    let summary = daemon.stop()?.summary;
    assert_eq!(summary.count("eth0_int", "no_route"), 4, "{summary:?}");
    lab.finish()
}

/// The other subnet is on-link for the host, but not for the owner of the source.
#[test]
fn a_subnet_of_another_interface_is_not_on_link_for_the_owner() -> Result<()> {
    let lab = Lab::builder().links(1).links_in_second_subnet(1).build()?;
    let daemon = lab.mhebpf_quietly(&[])?;
    icmp::ping(&lab.host, lab.address(0), PEER, PATIENCE)?;
    let recording = lab.record();
    udp::bind(&lab.host, lab.address(1), 0)?.send_to(b"to the other subnet", (PEER, PROBE_PORT))?;
    assert_eq!(recording.from_host()?.len(), 0);
    assert_eq!(daemon.stop()?.summary.count("eth0_int", "no_route"), 1);

    // With a gateway of its own the owner gets there.
    lab.host.ip(&format!("route add 192.168.0.0/16 via {} dev eth1_int", lab.peer(1)))?;
    let daemon = lab.mhebpf_quietly(&[])?;
    let recording = lab.record();
    udp::bind(&lab.host, lab.address(1), 0)?.send_to(b"to the other subnet", (PEER, PROBE_PORT))?;
    let sent = recording.wait_datagram_from(lab.address(1))?;
    assert_eq!((sent.port, sent.frame.destination), (1, lab.peer_mac(1)));
    daemon.stop()?;
    lab.finish()
}

/// ECMP spreads the flows of one source over interfaces that do not own it.
#[test]
fn flows_of_one_source_keep_to_its_interface_under_ecmp() -> Result<()> {
    let lab = Lab::article()?;
    lab.host.ip(&format!(
        "route add default nexthop via {PEER} dev eth0_int nexthop via {PEER} dev eth1_int \
         nexthop via {PEER} dev eth2_int"
    ))?;
    lab.host.sysctl("net.ipv4.fib_multipath_hash_policy", "1")?;
    let server = udp::EchoServer::start(&lab.switch, FAR, ARTICLE_PORT)?;
    let spread = |recording: mhebpf_tests::Recording<'_>| {
        for _ in 0..16 {
            udp::echo(&udp::bind(&lab.host, lab.address(3), 0)?, server.address(), b"flow")?;
        }
        recording.ports_of(lab.address(3))
    };
    assert!(spread(lab.record())?.len() > 1, "the kernel spreads the flows");
    let daemon = lab.mhebpf(&[])?;
    assert_eq!(spread(lab.record())?, BTreeSet::from([3]));
    daemon.stop()?;
    lab.finish()
}

/// As in clouds: a single address, a link route to the router, and a default route through it.
#[test]
fn a_link_route_makes_a_router_reachable_from_a_single_address() -> Result<()> {
    let lab = Lab::builder().links(1).links_without_address(1).build()?;
    let address: Ipv4Addr = "172.20.0.9".parse()?;
    lab.host.ip_batch(&format!(
        "address add {address}/32 dev eth1_int\n\
         route add {SECOND_ROUTER} dev eth1_int scope link\n\
         route add default via {PEER} dev eth0_int metric 10\n\
         route add default via {SECOND_ROUTER} dev eth1_int metric 500"
    ))?;
    lab.claim(1, address, Duration::ZERO);
    let router = lab.add_router(SECOND_ROUTER)?;
    router.ns.ip(&format!("route add {address} dev eth0"))?;
    let server = udp::EchoServer::start(&router.ns, FAR, ARTICLE_PORT)?;
    let daemon = lab.mhebpf(&[])?;
    let recording = lab.record();
    udp::echo(&udp::bind(&lab.host, address, 0)?, server.address(), b"hello")?;
    let sent = recording.wait_datagram_from(address)?;
    assert_eq!((sent.port, sent.frame.source, sent.frame.destination), (1, lab.mac(1), router.mac));
    daemon.stop()?;
    lab.finish()
}

/// Rules by source make the kernel choose the owner by itself; mhebpf then has nothing to do.
#[test]
fn with_policy_routing_nothing_needs_to_be_redirected() -> Result<()> {
    let lab = Lab::article()?;
    let mut script = String::new();
    for (port, address) in lab.addresses().into_iter().enumerate() {
        let table = 100 + port;
        script += &format!("rule add from {address} table {table}\n");
        script += &format!("route add 192.168.0.0/21 dev eth{port}_int src {address} table {table}\n");
        script += &format!("route add default via {PEER} dev eth{port}_int table {table}\n");
    }
    lab.host.ip_batch(&script)?;
    let server = tcp::EchoServer::start(&lab.switch, FAR, ARTICLE_PORT)?;
    let daemon = lab.mhebpf_quietly(&[])?;
    let recording = lab.record();
    for (port, address) in lab.addresses().into_iter().enumerate() {
        tcp::echo(&mut tcp::connect(&lab.host, address, server.address())?, b"hello")?;
        assert_eq!(recording.ports_of(address)?, BTreeSet::from([port]));
    }
    let summary = daemon.stop()?.summary;
    assert_eq!(summary.total("redirected"), 0, "{summary:?}");
    lab.finish()
}
