//! A VPN's tunnel beside an interface: what is asked by the interface's address is answered by it, whatever the routes say.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use anyhow::Result;
use mhebpf_tests::{
    FAR, Lab, PATIENCE, PEER,
    features::{self, Feature},
    lab::INTERFACES,
    scaled,
    traffic::{ARTICLE_PORT, icmp, tcp, udp},
    tun::Tun,
};

/// The host's address on the tunnel.
const TUNNEL: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 2);

/// How a VPN client takes the default route.
#[derive(Clone, Copy, Debug)]
enum Takeover {
    /// In a table of its own, for what is not marked as its own: wg-quick.
    Table,
    /// In two halves of the address space: OpenVPN's `redirect-gateway def1`.
    Halves,
}

impl Takeover {
    const ALL: [Self; 2] = [Self::Table, Self::Halves];

    /// Gives it back.
    fn end(self) -> &'static str {
        match self {
            Self::Table => "route flush table 51820",
            Self::Halves => "route delete 0.0.0.0/1\nroute delete 128.0.0.0/1",
        }
    }

    fn commands(self) -> &'static str {
        match self {
            Self::Table => {
                "route add default dev tun0 table 51820\n\
                 rule add not fwmark 51820 table 51820 pref 32765\n\
                 rule add table main suppress_prefixlength 0 pref 32764"
            }
            Self::Halves => "route add 0.0.0.0/1 via 10.8.0.1\nroute add 128.0.0.0/1 via 10.8.0.1",
        }
    }
}

/// A host with two links in one subnet and the default route by the first, and a tunnel; `None` on a kernel without.
fn lab() -> Result<Option<(Lab, Tun)>> {
    if !features::require(Feature::Tun)? {
        return Ok(None);
    }
    let lab = Lab::builder().links(2).build()?;
    let tun = Tun::new(&lab.host, "tun0", &["10.8.0.2/24"])?;
    lab.host.ip(&format!("route add default via {PEER}"))?;
    Ok(Some((lab, tun)))
}

fn source_of(packet: &[u8]) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    Some(octets.into())
}

/// Asks for an address of the host from far away, and looks by which ports it is answered; nothing may be in the tunnel.
fn ports_of_answers(lab: &Lab, tun: &Tun, address: Ipv4Addr) -> Result<BTreeSet<usize>> {
    let recording = lab.record();
    let server = tcp::EchoServer::start(&lab.host, Ipv4Addr::UNSPECIFIED, ARTICLE_PORT)?;
    let to = SocketAddrV4::new(address, server.address().port());
    tcp::echo_bulk(&tcp::connect(&lab.switch, FAR, to)?, 100_000)?;
    icmp::ping(&lab.switch, FAR, address, PATIENCE)?;
    let ports = recording.ports_of(address)?;
    let sources = tun.packets()?.iter().filter_map(|packet| source_of(packet)).collect::<BTreeSet<_>>();
    assert!(!sources.contains(&address), "{sources:?} in the tunnel");
    Ok(ports)
}

#[test]
fn answers_leave_by_the_interface_of_their_address_and_not_into_the_tunnel() -> Result<()> {
    for takeover in Takeover::ALL {
        let Some((lab, tun)) = lab()? else { return Ok(()) };
        lab.host.ip_batch(takeover.commands())?;
        icmp::send_request(&lab.switch, FAR, lab.address(0))?;
        tun.wait_for("the answer, without mhebpf", |packet| source_of(packet) == Some(lab.address(0)))?;

        let daemon = lab.run_mhebpf(&["run", "--all", "--no-announce"])?;
        assert!(daemon.stderr().contains("enforcing on tun0"), "{}", daemon.stderr());
        // The peer may have the wrong interface's from before.
        lab.forget_neighbours()?;
        for port in lab.ports() {
            let ports = ports_of_answers(&lab, &tun, lab.address(port))?;
            assert_eq!(ports, BTreeSet::from([port]), "{takeover:?}");
        }
        // What has no address of its own yet goes into the tunnel as before.
        let recording = lab.record();
        udp::bind(&lab.host, Ipv4Addr::UNSPECIFIED, 0)?.send_to(b"own", (FAR, ARTICLE_PORT))?;
        tun.wait_for("the host's own traffic", |packet| source_of(packet) == Some(TUNNEL))?;
        assert_eq!(recording.ports_of(TUNNEL)?, BTreeSet::new());
        daemon.stop()?;
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn a_tunnel_that_takes_the_default_route_later_is_taken_and_let_go() -> Result<()> {
    for takeover in Takeover::ALL {
        let Some((lab, tun)) = lab()? else { return Ok(()) };
        let daemon = lab.run_mhebpf(&["run", "--all", "--no-announce"])?;
        assert!(daemon.stderr().contains("leaving out tun0"), "{}", daemon.stderr());
        lab.host.ip_batch(takeover.commands())?;
        daemon.wait_for_line("enforcing on tun0", PATIENCE)?;
        lab.forget_neighbours()?;
        for port in lab.ports() {
            let ports = ports_of_answers(&lab, &tun, lab.address(port))?;
            assert_eq!(ports, BTreeSet::from([port]), "{takeover:?}");
        }
        lab.host.ip_batch(takeover.end())?;
        daemon.wait_for_line("nothing is enforced on tun0 any more: a tunnel or tap without", PATIENCE)?;
        daemon.stop()?;
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn in_drop_mode_no_answer_is_in_the_tunnel() -> Result<()> {
    for takeover in Takeover::ALL {
        let Some((lab, tun)) = lab()? else { return Ok(()) };
        lab.host.ip_batch(takeover.commands())?;
        let daemon = lab.run_mhebpf(&["run", "--all", "--mode", "drop", "--no-announce"])?;
        icmp::send_request(&lab.switch, FAR, lab.address(0))?;
        lab.fence()?;
        let packets = tun.packets()?;
        assert!(packets.iter().all(|packet| source_of(packet) != Some(lab.address(0))), "{packets:?}");
        let summary = daemon.stop()?.summary;
        assert_eq!(summary.count("tun0", "wrong_source"), 1, "{takeover:?}: {summary:?}");
        lab.finish()?;
    }
    Ok(())
}

/// The tunnel of a VPN's server, or one to a site: its address is the host's.
#[test]
fn the_address_of_a_tunnel_without_a_default_route_is_reached_from_every_side() -> Result<()> {
    let Some((lab, _tun)) = lab()? else { return Ok(()) };
    let daemon = lab.run_mhebpf(&["run", "--all", "--no-announce"])?;
    let said = daemon.stderr();
    assert!(said.contains("leaving out tun0: a tunnel or tap without a default route"), "{said}");
    for port in lab.ports() {
        lab.switch.ip(&format!("route replace 10.8.0.0/24 via {} src {PEER}", lab.address(port)))?;
        icmp::ping(&lab.switch, PEER, TUNNEL, PATIENCE)?;
    }
    assert_eq!(daemon.stop()?.summary.total("wrong_destination"), 0);
    // Who names it has its address keep to it.
    let daemon = lab.run_mhebpf(&["run", "--interface", INTERFACES, "--interface", "tun0"])?;
    let limit = scaled(Duration::from_millis(200));
    assert!(icmp::ping(&lab.switch, PEER, TUNNEL, limit).is_err());
    let summary = daemon.stop()?.summary;
    assert_eq!(summary.count("eth1_int", "wrong_destination"), 1, "{summary:?}");
    lab.finish()
}
