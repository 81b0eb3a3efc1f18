//! IPsec: what was decrypted is not judged again by the interface that brought it.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
};

use anyhow::Result;
use mhebpf_tests::{
    Daemon, FAR, Lab, PATIENCE, PEER, Recording,
    device::{LISTENING, MODES, delivered_until, start},
    features::{self, Feature},
    ipsec::{self, REQUEST_ID},
    lab::INTERFACES,
    traffic::udp,
    wait_until,
};

/// The protocol number of ESP.
const ESP: u8 = 50;

/// Between the host's address on a port and the peer, a security association in each direction, in both namespaces.
fn add_states(lab: &Lab, mode: &str, port: usize) -> Result<()> {
    let (own, spi) = (lab.address(port), 0x100 * (port as u32 + 1));
    let script = ipsec::add_state(PEER, own, spi, mode) + &ipsec::add_state(own, PEER, spi + 1, mode);
    [&lab.host, &lab.switch].into_iter().try_for_each(|ns| ns.ip_batch(&script))
}

/// What goes from the peer's `far` to the host's `near` and back is to be protected, between the ends `outer` if in a tunnel.
fn add_policies(lab: &Lab, far: Ipv4Addr, near: Ipv4Addr, outer: Option<(Ipv4Addr, Ipv4Addr)>) -> Result<()> {
    let template = |inward: bool| match outer {
        None => format!("tmpl proto esp {REQUEST_ID} mode transport"),
        Some((far, near)) => {
            let (from, to) = if inward { (far, near) } else { (near, far) };
            format!("tmpl src {from} dst {to} proto esp {REQUEST_ID} mode tunnel")
        }
    };
    let (inward, outward) = (template(true), template(false));
    lab.host.ip_batch(&format!(
        "xfrm policy add src {far}/32 dst {near}/32 dir in {inward}\n\
         xfrm policy add src {near}/32 dst {far}/32 dir out {outward}"
    ))?;
    lab.switch.ip_batch(&format!(
        "xfrm policy add src {far}/32 dst {near}/32 dir out {inward}\n\
         xfrm policy add src {near}/32 dst {far}/32 dir in {outward}"
    ))
}

fn started(lab: &Lab, mode: Option<&str>) -> Result<Option<Daemon>> {
    mode.map(|mode| start(lab, &["--interface", INTERFACES], mode)).transpose()
}

/// Sends a datagram by a socket from an address of the switch.
fn send_from_peer(lab: &Lab, from: Ipv4Addr, to: Ipv4Addr, payload: &str) -> Result<UdpSocket> {
    let socket = udp::bind(&lab.switch, from, 0)?;
    socket.send_to(payload.as_bytes(), SocketAddrV4::new(to, LISTENING))?;
    Ok(socket)
}

/// The ports through which ESP left with this outer source, and whether something else did.
fn ways_of_esp(recording: &Recording<'_>, source: Ipv4Addr) -> Result<BTreeSet<usize>> {
    let frames = recording.from_host()?;
    let datagrams = frames.iter().filter_map(|frame| Some((frame.port, frame.ipv4()?)));
    Ok(datagrams
        .filter(|(_, datagram)| datagram.source == source)
        .map(|(port, datagram)| {
            assert_eq!(datagram.protocol, ESP, "{datagram:?}");
            port
        })
        .collect())
}

/// The tunnel ends at the first interface's address; inside is a datagram for the second's.
#[test]
fn what_comes_out_of_a_tunnel_is_taken_for_any_interfaces_address() -> Result<()> {
    if !features::require(Feature::Esp)? {
        return Ok(());
    }
    let lab = Lab::builder().links(2).build()?;
    let (outer, inner) = (lab.address(0), lab.address(1));
    lab.switch.ip(&format!("route add {inner}/32 dev br0 src {FAR}"))?;
    lab.host.ip(&format!("route add {FAR}/32 via {PEER} dev eth0_int"))?;
    add_states(&lab, "tunnel", 0)?;
    add_policies(&lab, FAR, inner, Some((PEER, outer)))?;
    let socket = udp::bind(&lab.host, Ipv4Addr::UNSPECIFIED, LISTENING)?;
    for mode in MODES {
        let daemon = started(&lab, mode)?;
        // From an address that the policies say nothing about.
        lab.deliver(0, SocketAddrV4::new(inner, LISTENING), b"bare")?;
        let recording = lab.record();
        let far = send_from_peer(&lab, FAR, inner, "protected")?;
        let expected = if mode.is_some() { &["protected"][..] } else { &["bare", "protected"] };
        assert_eq!(delivered_until(&socket, "protected")?, expected, "{mode:?}");
        // On the wire it was as meant, so it was the inner address that mhebpf might have minded. The weak host alone may have
        // told the peer the hardware address of the other interface.
        if mode.is_some() {
            let frames = recording.frames()?;
            let inward = frames.iter().filter(|frame| !frame.from_host);
            let came: Vec<_> = inward
                .filter_map(|frame| Some((frame.port, frame.ipv4()?)))
                .map(|(port, datagram)| (port, datagram.destination, datagram.protocol))
                .collect();
            assert_eq!(came, [(0, outer, ESP)], "{mode:?}");
        }

        // And the answer, whose outer source is the first interface's.
        let recording = lab.record();
        let answering = udp::bind(&lab.host, inner, 0)?;
        answering.send_to(b"answer", SocketAddrV4::new(FAR, far.local_addr()?.port()))?;
        assert_eq!(delivered_until(&far, "answer")?, ["answer"]);
        assert_eq!(ways_of_esp(&recording, outer)?, BTreeSet::from([0]), "{mode:?}");
        assert_eq!(recording.ports_of(inner)?, BTreeSet::new(), "{mode:?}");
        if let Some(daemon) = daemon {
            let summary = daemon.stop()?.summary;
            assert_eq!(summary.count("eth0_int", "wrong_destination"), 1, "{summary:?}");
            assert_eq!(summary.total("wrong_destination") + summary.total("redirected"), 1, "{summary:?}");
        }
    }
    lab.finish()
}

/// In transport mode the header on the wire is that of the datagram, and is judged before it is decrypted.
#[test]
fn in_transport_mode_the_addresses_on_the_wire_are_judged() -> Result<()> {
    if !features::require(Feature::Esp)? {
        return Ok(());
    }
    let lab = Lab::builder().links(2).build()?;
    for port in lab.ports() {
        add_states(&lab, "transport", port)?;
        add_policies(&lab, PEER, lab.address(port), None)?;
    }
    let socket = udp::bind(&lab.host, Ipv4Addr::UNSPECIFIED, LISTENING)?;
    for mode in MODES {
        let daemon = started(&lab, mode)?;
        // The peer believes that both addresses are behind the first link.
        for port in lab.ports() {
            lab.switch.ip(&format!(
                "neighbour replace {} lladdr {} dev br0",
                lab.address(port),
                lab.mac(0)
            ))?;
        }
        send_from_peer(&lab, PEER, lab.address(1), "another's")?;
        send_from_peer(&lab, PEER, lab.address(0), "own")?;
        let expected = if mode.is_some() { &["own"][..] } else { &["another's", "own"] };
        assert_eq!(delivered_until(&socket, "own")?, expected, "{mode:?}");

        let recording = lab.record();
        let answers = udp::bind(&lab.switch, PEER, 0)?;
        let to = SocketAddrV4::new(PEER, answers.local_addr()?.port());
        for (port, expected) in [
            (0, BTreeSet::from([0])),
            (
                1,
                match mode {
                    None => BTreeSet::from([0]),
                    Some("redirect") => BTreeSet::from([1]),
                    Some(_) => BTreeSet::new(),
                },
            ),
        ] {
            udp::bind(&lab.host, lab.address(port), 0)?.send_to(b"sent", to)?;
            if !expected.is_empty() {
                wait_until("the datagram", PATIENCE, || udp::take_delivered(&answers))?;
            }
            assert_eq!(ways_of_esp(&recording, lab.address(port))?, expected, "port {port} in mode {mode:?}");
        }
        drop(daemon);
    }
    lab.finish()
}
