//! Sockets that insist on an interface which does not own their address: their packets never leave through it.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
};

use anyhow::Result;
use mhebpf_tests::{
    Captured, Lab, Mac, PEER, interface,
    lab::PROBE_PORT,
    traffic::{packet_info, udp},
};
use socket2::SockRef;

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
const GROUP_MAC: Mac = Mac([0x01, 0, 0x5e, 1, 2, 3]);

/// The interface that the sockets insist on; the address is that of another.
const WRONG: &str = "eth1_int";

/// What the sockets do.
type Send = fn(&Lab, &UdpSocket) -> Result<()>;

fn bound_to_device(_: &Lab, socket: &UdpSocket) -> Result<()> {
    SockRef::from(socket).bind_device(Some(WRONG.as_bytes()))?;
    socket.send_to(b"bound to a device", (PEER, PROBE_PORT))?;
    Ok(())
}

fn by_packet_info(lab: &Lab, socket: &UdpSocket) -> Result<()> {
    let ifindex = lab.host.run(|| interface::index(WRONG))?;
    packet_info::send(socket, ifindex, lab.address(2), SocketAddrV4::new(PEER, PROBE_PORT), b"packet info")?;
    Ok(())
}

fn by_broadcast(_: &Lab, socket: &UdpSocket) -> Result<()> {
    SockRef::from(socket).bind_device(Some(WRONG.as_bytes()))?;
    SockRef::from(socket).set_broadcast(true)?;
    socket.send_to(b"broadcast", (Ipv4Addr::BROADCAST, PROBE_PORT))?;
    Ok(())
}

fn by_multicast_interface(lab: &Lab, socket: &UdpSocket) -> Result<()> {
    SockRef::from(socket).set_multicast_if_v4(&lab.address(1))?;
    SockRef::from(socket).set_multicast_loop_v4(false)?;
    socket.send_to(b"multicast", (GROUP, PROBE_PORT))?;
    Ok(())
}

/// Sends with the address of port 2 through port 1, and returns the datagram as it left.
fn redirected(send: Send) -> Result<(usize, Mac, Mac)> {
    let lab = Lab::article()?;
    let socket = udp::bind(&lab.host, lab.address(2), 0)?;
    let recording = lab.record();
    send(&lab, &socket)?;
    let weak = recording.wait_datagram_from(lab.address(2))?;
    assert_eq!(weak.port, 1, "without mhebpf the socket has its way");

    lab.forget_neighbours()?;
    let daemon = lab.mhebpf(&[])?;
    let recording = lab.record();
    send(&lab, &socket)?;
    let sent: std::sync::Arc<Captured> = recording.wait_datagram_from(lab.address(2))?;
    assert_eq!(recording.ports_of(lab.address(2))?, BTreeSet::from([2]));
    let summary = daemon.stop()?.summary;
    assert_eq!(summary.count(WRONG, "redirected"), 1, "{summary:?}");
    let seen = (sent.port, sent.frame.source, sent.frame.destination);
    lab.finish()?;
    Ok(seen)
}

/// Sends with the address of port 2 through port 1, which must not happen.
fn dropped(send: Send) -> Result<()> {
    let lab = Lab::article()?;
    // The wrong interface knows its neighbour, so that nothing has to wait.
    lab.host.ip(&format!("neighbour add {PEER} lladdr {} dev {WRONG}", lab.peer_mac(1)))?;
    let socket = udp::bind(&lab.host, lab.address(2), 0)?;
    let daemon = lab.mhebpf_quietly(&["--mode", "drop"])?;
    let recording = lab.record();
    // Whether the sender learns of it is the kernel's business.
    let _ = send(&lab, &socket);
    assert_eq!(recording.ports_of(lab.address(2))?, BTreeSet::new());
    let summary = daemon.stop()?.summary;
    assert_eq!(summary.count(WRONG, "wrong_source"), 1, "{summary:?}");
    lab.finish()
}

#[test]
fn a_socket_bound_to_the_wrong_device_is_redirected() -> Result<()> {
    assert_eq!(redirected(bound_to_device)?, (2, Lab::host_mac(2), Mac::lab(1)));
    Ok(())
}

#[test]
fn packet_info_with_the_wrong_interface_is_redirected() -> Result<()> {
    assert_eq!(redirected(by_packet_info)?, (2, Lab::host_mac(2), Mac::lab(1)));
    Ok(())
}

#[test]
fn broadcast_through_the_wrong_device_is_redirected() -> Result<()> {
    assert_eq!(redirected(by_broadcast)?, (2, Lab::host_mac(2), Mac::BROADCAST));
    Ok(())
}

#[test]
fn multicast_through_the_wrong_interface_is_redirected() -> Result<()> {
    assert_eq!(redirected(by_multicast_interface)?, (2, Lab::host_mac(2), GROUP_MAC));
    Ok(())
}

#[test]
fn in_drop_mode_all_of_them_are_dropped() -> Result<()> {
    for send in [bound_to_device, by_packet_info, by_broadcast, by_multicast_interface] {
        dropped(send)?;
    }
    Ok(())
}
