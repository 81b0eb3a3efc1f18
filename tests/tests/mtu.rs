//! An owner with a smaller MTU than the interface that the kernel routed to.

use std::{collections::BTreeSet, net::SocketAddrV4, time::Duration};

use anyhow::Result;
use mhebpf_tests::{
    Lab, PATIENCE, PEER, Recording,
    traffic::{ARTICLE_PORT, tcp, udp},
    wait_until,
};

/// The largest Ethernet frame on a link with an MTU of 1500.
const LARGEST: usize = 1514;

/// A lab in which the first route's interface takes jumbo frames, and so does the peer, but port 3 does not.
fn lab() -> Result<Lab> {
    let lab = Lab::builder().links(4).build()?;
    lab.switch.ip_batch("link set eth0_ext mtu 9000\nlink set br0 mtu 9000")?;
    lab.host.ip("link set eth0_int mtu 9000")?;
    // The peer knows better than to send large segments to port 3, but offers to take them.
    lab.switch.ip(&format!("route add {} dev br0 mtu 1500 advmss 8960", lab.address(3)))?;
    Ok(lab)
}

/// Asserts that port 3's address has kept to its port, and that no ICMP was seen outside.
fn assert_undisturbed(lab: &Lab, recording: &Recording<'_>) -> Result<()> {
    assert_eq!(recording.ports_of(lab.address(3))?, BTreeSet::from([3]));
    let frames = recording.from_host()?;
    assert!(frames.iter().all(|frame| frame.ipv4().is_none_or(|datagram| datagram.protocol != 1)));
    Ok(())
}

/// Without help TCP sends the same large segment again and again.
#[test]
fn tcp_adapts_to_the_owners_mtu() -> Result<()> {
    let lab = lab()?;
    let server = tcp::EchoServer::start(&lab.switch, PEER, ARTICLE_PORT)?;
    let daemon = lab.mhebpf_quietly(&[])?;
    let recording = lab.record();
    let (stream, _) = tcp::connect_timed(&lab.host, lab.address(3), server.address(), PATIENCE)?;
    tcp::echo_bulk(&stream, 1_000_000)?;
    assert_undisturbed(&lab, &recording)?;
    let summary = daemon.stop()?.summary;
    assert!(summary.count("eth0_int", "too_big") > 0, "{summary:?}");
    lab.finish()
}

#[test]
fn udp_adapts_to_the_owners_mtu() -> Result<()> {
    let lab = lab()?;
    let server = udp::EchoServer::start(&lab.switch, PEER, ARTICLE_PORT)?;
    let daemon = lab.mhebpf_quietly(&[])?;
    let socket = udp::bind(&lab.host, lab.address(3), 0)?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let recording = lab.record();
    let to = SocketAddrV4::new(PEER, server.address().port());
    // The first is lost, as on any path with a smaller MTU; then the kernel knows, and sends fragments.
    wait_until("a datagram to get through", PATIENCE, || {
        Ok(udp::echo(&socket, to, &[7; 4000]).is_ok().then_some(()))
    })?;
    assert_undisturbed(&lab, &recording)?;
    assert!(recording.from_host()?.iter().all(|frame| frame.length <= LARGEST));
    let summary = daemon.stop()?.summary;
    assert!(summary.count("eth0_int", "too_big") > 0, "{summary:?}");
    lab.finish()
}
