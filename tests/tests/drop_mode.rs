//! Drop mode: what a socket sends from the wrong interface is seen, counted and dropped.

use std::{collections::BTreeSet, net::SocketAddrV4, time::Duration};

use anyhow::Result;
use mhebpf_tests::{
    Lab, PEER,
    frame::ARP_REQUEST,
    lab::PROBE_PORT,
    traffic::{ARTICLE_PORT, icmp, tcp, udp},
};

/// Long enough for a first SYN to arrive, short enough to wait for its failure.
const SHORT: Duration = Duration::from_millis(300);

#[test]
fn only_addresses_that_are_routed_through_their_own_interface_get_out() -> Result<()> {
    let lab = Lab::article()?;
    let server = tcp::EchoServer::start(&lab.switch, PEER, ARTICLE_PORT)?;
    let daemon = lab.mhebpf_quietly(&["--mode", "drop"])?;
    let recording = lab.record();
    for port in 1..4 {
        let refused = tcp::connect_timed(&lab.host, lab.address(port), server.address(), SHORT);
        assert!(refused.is_err(), "from {}", lab.address(port));
    }
    let mut stream = tcp::connect(&lab.host, lab.address(0), server.address())?;
    tcp::echo(&mut stream, b"the first route's interface")?;

    let sources = recording.ports_by_source()?;
    assert_eq!(sources.into_iter().collect::<Vec<_>>(), [(lab.address(0).into(), BTreeSet::from([0]))]);
    let summary = daemon.stop()?.summary;
    assert!(summary.count("eth0_int", "wrong_source") >= 3, "{summary:?}");
    lab.finish()
}

/// Were the request for the next hop dropped, the datagram would never be seen, and so never counted.
#[test]
fn the_next_hop_is_asked_for_with_the_interfaces_own_address() -> Result<()> {
    let lab = Lab::article()?;
    let daemon = lab.mhebpf_quietly(&["--mode", "drop"])?;
    let recording = lab.record();
    udp::bind(&lab.host, lab.address(3), 0)?.send_to(b"hello", (PEER, PROBE_PORT))?;
    let request =
        recording.wait_from_host("a request", |f| f.arp().is_some_and(|arp| arp.operation == ARP_REQUEST))?;
    assert_eq!((request.port, request.frame.speaker()), (0, Some(lab.address(0).into())));
    // The reply has come when the host knows the neighbour; the datagram went to the programs in the same breath.
    mhebpf_tests::wait_until("the neighbour", mhebpf_tests::PATIENCE, || {
        Ok(lab.host_neighbours(0)?.contains_key(&PEER).then_some(()))
    })?;
    assert_eq!(recording.ports_of(lab.address(3))?, BTreeSet::new());
    let summary = daemon.stop()?.summary;
    assert_eq!(summary.count("eth0_int", "arp_rewritten"), 1, "{summary:?}");
    assert_eq!(summary.count("eth0_int", "wrong_source"), 1, "{summary:?}");
    lab.finish()
}

#[test]
fn udp_fragments_and_icmp_are_dropped_one_by_one() -> Result<()> {
    let lab = Lab::article()?;
    let daemon = lab.mhebpf_quietly(&["--mode", "drop"])?;
    // The next hop is known, so that nothing has to wait for it.
    icmp::ping(&lab.host, lab.address(0), PEER, mhebpf_tests::PATIENCE)?;
    let recording = lab.record();
    let socket = udp::bind(&lab.host, lab.address(2), 0)?;
    socket.send_to(b"hello", SocketAddrV4::new(PEER, PROBE_PORT))?;
    socket.send_to(&[7; 4000], SocketAddrV4::new(PEER, PROBE_PORT))?;
    icmp::send_request(&lab.host, lab.address(2), PEER)?;
    assert_eq!(recording.ports_of(lab.address(2))?, BTreeSet::new());
    let summary = daemon.stop()?.summary;
    let counted = summary.count("eth0_int", "wrong_source");
    // The kernel gives up on a datagram when its first fragment is dropped.
    assert!((3..=5).contains(&counted), "{summary:?}");
    lab.finish()
}

/// A peer that reaches the host by the right interface gets its answer only if the route to it goes the same way.
#[test]
fn answers_are_judged_like_everything_else() -> Result<()> {
    let lab = Lab::article()?;
    let daemon = lab.mhebpf_quietly(&["--mode", "drop"])?;
    let recording = lab.record();
    icmp::ping(&lab.switch, PEER, lab.address(0), mhebpf_tests::PATIENCE)?;
    icmp::send_request(&lab.switch, PEER, lab.address(1))?;
    lab.fence()?;
    assert_eq!(recording.ports_of(lab.address(0))?, BTreeSet::from([0]));
    assert_eq!(recording.ports_of(lab.address(1))?, BTreeSet::new());
    daemon.stop()?;
    lab.finish()
}
