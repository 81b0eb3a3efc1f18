//! Tunnels between host and peer: what is inside is judged on the tunnel, and what carries it on the interface below.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4},
};

use anyhow::{Context as _, Result};
use mhebpf_tests::{
    Lab, PATIENCE, PEER,
    device::{MODES, Sender, give_addresses, interfaces, mac_of, start, ways_of_anothers},
    family::Family,
    features::{self, Feature},
    lab::{INTERFACES, PROBE_PORT},
    traffic::{icmp, udp},
    tunnel::{Kind, Tunnel},
};

/// The addresses of host and peer inside the VXLAN.
const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 2);
const PEER_INSIDE: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 1);

/// What a tunnel's packets have outside, and no other interface has.
const OUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 65);

/// Those without keys.
const KINDS: [Kind; 4] = [Kind::Ipip, Kind::Gre, Kind::Sit, Kind::Ip6Tunnel];

#[test]
fn a_tunnels_own_traffic_passes_and_its_source_leaves_through_it() -> Result<()> {
    KINDS.into_iter().try_for_each(|kind| Tunnel::with(kind, Tunnel::try_own_source))
}

#[test]
fn another_source_leaves_its_own_interface_instead_of_the_tunnel() -> Result<()> {
    KINDS.into_iter().try_for_each(|kind| Tunnel::with(kind, Tunnel::try_anothers_source))
}

#[test]
fn what_arrives_through_the_tunnel_is_judged() -> Result<()> {
    KINDS.into_iter().try_for_each(|kind| Tunnel::with(kind, |tunnel| tunnel.try_arriving(false)))
}

/// A router's identifier can be on the tunnel that it is an end of: there is no other way out for what the tunnel sends.
#[test]
fn a_tunnel_that_has_its_outer_address_itself_is_not_cut_off() -> Result<()> {
    for (feature, kind, family) in [
        (Feature::Ipip, "ipip", Family::V4),
        (Feature::Gre, "gre", Family::V4),
        (Feature::Ip6Tunnel, "ip6tnl mode any", Family::V6),
    ] {
        if !features::require(feature)? {
            continue;
        }
        let lab = Lab::builder().links(2).ipv6().build()?;
        let (peer, link) = (lab.peer_in(family, 0), lab.address_in(family, 0));
        let outer: IpAddr =
            family.choose(OUTER.into(), Ipv6Addr::new(0x2001, 0xdb8, 0x65, 0, 0, 0, 0, 1).into());
        for (ns, local, remote, inside) in
            [(&lab.host, outer, peer, INSIDE), (&lab.switch, peer, outer, PEER_INSIDE)]
        {
            ns.ip_batch(&format!(
                "link add tun type {kind} local {local} remote {remote}\n\
                 address add {inside}/24 dev tun\n\
                 link set tun up"
            ))?;
        }
        give_addresses(&lab.host, "tun", &[outer])?;
        lab.switch.ip(&format!("route add {outer} via {link}"))?;
        for mode in MODES {
            let daemon = mode.map(|mode| start(&lab, &interfaces(&[INTERFACES, "tun"]), mode)).transpose()?;
            icmp::ping(&lab.host, INSIDE, PEER_INSIDE, PATIENCE).context("to the peer")?;
            icmp::ping(&lab.switch, PEER_INSIDE, INSIDE, PATIENCE).context("from the peer")?;
            if let Some(daemon) = daemon {
                let summary = daemon.stop()?.summary;
                for reason in ["redirected", "no_route", "wrong_source", "wrong_destination"] {
                    assert_eq!(summary.total(reason), 0, "{kind} in mode {mode:?}: {summary:?}");
                }
            }
        }
        lab.finish()?;
    }
    Ok(())
}

/// A tunnel from the second link's address, whose packets the main table sends by the first.
#[test]
fn the_packets_of_a_vxlan_leave_by_the_interface_of_their_source() -> Result<()> {
    if !features::require(Feature::Vxlan)? {
        return Ok(());
    }
    let lab = Lab::builder().links(3).build()?;
    let outer = lab.address(1);
    for (ns, local, remote, address) in
        [(&lab.host, outer, PEER, INSIDE), (&lab.switch, PEER, outer, PEER_INSIDE)]
    {
        ns.ip_batch(&format!(
            "link add vx type vxlan id 7 local {local} remote {remote} dstport 4789\n\
             address add {address}/24 dev vx\n\
             link set vx up"
        ))?;
    }
    for mode in MODES {
        let daemon = mode.map(|mode| start(&lab, &interfaces(&[INTERFACES]), mode)).transpose()?;
        let recording = lab.record();
        let socket = udp::bind(&lab.host, INSIDE, 0)?;
        socket.send_to(b"hello", (PEER_INSIDE, PROBE_PORT))?;
        if mode == Some("drop") {
            // Neither a question for the neighbour nor the datagram gets out.
            assert_eq!(recording.ports_of(outer)?, BTreeSet::new());
        } else {
            icmp::ping(&lab.host, INSIDE, PEER_INSIDE, PATIENCE).context("through the VXLAN")?;
            icmp::ping(&lab.switch, PEER_INSIDE, INSIDE, PATIENCE).context("through the VXLAN")?;
            let port = if mode.is_none() { 0 } else { 1 };
            assert_eq!(recording.ports_of(outer)?, BTreeSet::from([port]), "{mode:?}");
        }
        drop(daemon);
    }
    // By its own interface's route it passes in drop mode as well, and is judged when selected itself.
    lab.host.ip(&format!("route add {PEER}/32 dev eth1_int"))?;
    let (host, station) = (Sender::new(&lab.host)?, mac_of(&lab.switch, "vx")?);
    let others = lab.address(2);
    for mode in ["redirect", "drop"] {
        let daemon = start(&lab, &interfaces(&[INTERFACES, "vx"]), mode)?;
        icmp::ping(&lab.host, INSIDE, PEER_INSIDE, PATIENCE)?;
        let recording = lab.record();
        host.datagram("vx", station, others, SocketAddrV4::new(PEER, PROBE_PORT), b"another's")?;
        assert_eq!(recording.ports_of(others)?, ways_of_anothers(Some(mode), 1, 2), "{mode}");
        assert_eq!(recording.ports_of(outer)?, BTreeSet::new(), "nothing was carried in mode {mode}");
        drop(daemon);
    }
    lab.finish()
}
