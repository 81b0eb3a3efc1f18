//! The lab itself: without mhebpf the host is the weak end system that Linux is, and the judge finds what leaks.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use anyhow::Result;
use mhebpf_tests::{
    FAR, Lab, Mac, PATIENCE, PEER,
    frame::Arp,
    traffic::{ARTICLE_PORT, icmp, tcp, udp},
};

#[test]
fn all_addresses_leave_by_the_first_routes_interface() -> Result<()> {
    let lab = Lab::article()?;
    let server = tcp::EchoServer::start(&lab.switch, PEER, ARTICLE_PORT)?;
    for port in [0, 3] {
        let recording = lab.record();
        let mut stream = tcp::connect(&lab.host, lab.address(port), server.address())?;
        tcp::echo(&mut stream, b"hello")?;
        assert_eq!(recording.ways_of(lab.address(port))?, BTreeSet::from([(0, lab.mac(0))]));
    }
    lab.reorder_routes(0)?;
    for port in [0, 3] {
        let recording = lab.record();
        let mut stream = tcp::connect(&lab.host, lab.address(port), server.address())?;
        tcp::echo(&mut stream, b"hello")?;
        assert_eq!(recording.ways_of(lab.address(port))?, BTreeSet::from([(1, lab.mac(1))]));
    }
    lab.finish()
}

#[test]
fn every_interface_answers_arp_requests_for_every_address() -> Result<()> {
    let lab = Lab::article()?;
    for asked in lab.ports() {
        let recording = lab.record();
        for port in lab.ports() {
            let request = Arp::request(lab.peer_mac(port), PEER, lab.address(asked));
            lab.send_to_host(port, &request.frame(Mac::BROADCAST))?;
        }
        let replies = recording.arp_replies_for(lab.address(asked))?;
        let expected: Vec<_> = lab.ports().map(|port| (port, lab.mac(port))).collect();
        assert_eq!(BTreeSet::from_iter(replies), BTreeSet::from_iter(expected));
    }
    lab.finish()
}

#[test]
fn a_datagram_is_taken_on_any_interface() -> Result<()> {
    let lab = Lab::article()?;
    let socket = udp::bind(&lab.host, lab.address(3), 7000)?;
    let (from, to) = (SocketAddrV4::new(PEER, 7000), SocketAddrV4::new(lab.address(3), 7000));
    lab.send_to_host(1, &mhebpf_tests::craft::udp(lab.inward(1), from, to, b"hello")?)?;
    lab.fence()?;
    assert_eq!(udp::take_delivered(&socket)?.unwrap().0, b"hello");
    lab.finish()
}

#[test]
fn traffic_of_every_kind_goes_through_the_lab() -> Result<()> {
    let lab = Lab::builder().links(2).links_in_second_subnet(1).build()?;
    let server = udp::EchoServer::start(&lab.switch, PEER, 9001)?;
    udp::echo(&udp::bind(&lab.host, lab.address(1), 0)?, server.address(), &[7; 4000])?;
    icmp::ping(&lab.host, lab.address(2), lab.peer(2), PATIENCE)?;
    lab.host.ip(&format!("route add default via {PEER}"))?;
    icmp::ping(&lab.host, lab.address(0), FAR, PATIENCE)?;
    let error = icmp::ping(&lab.host, lab.address(0), Ipv4Addr::new(10, 1, 0, 77), Duration::from_millis(50));
    assert!(format!("{:#}", error.unwrap_err()).contains("no echo reply"));
    lab.finish()
}

/// Were it not for this, a judge that sees nothing would please every test.
#[test]
fn the_judge_finds_a_frame_that_left_through_the_wrong_interface() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    // Port 1 is not enforced.
    let daemon = lab.run_mhebpf(&["run", "--interface", "eth0_int", "--no-announce"])?;
    lab.emit(0, lab.address(0))?;
    lab.emit(1, lab.address(0))?;
    lab.send_from_host(1, &Arp::announcement(lab.mac(1), lab.address(0)).frame(Mac::BROADCAST))?;
    lab.fence()?;
    daemon.stop()?;
    let verdict = format!("{:#}", lab.finish().unwrap_err());
    assert!(verdict.starts_with("2 frames left through an interface"), "{verdict}");
    Ok(())
}
