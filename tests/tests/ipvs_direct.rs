//! A load balancer with IPVS that routes directly (LVS-DR): what it sends on has the client's address and that of the service.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use anyhow::{Context as _, Result};
use mhebpf_tests::{
    Family, Lab, Mac, NetNs, Service,
    features::{self, Feature},
    ipvs::{self, Forwarding},
    lab::Router,
    summary::Summary,
    traffic::{ARTICLE_PORT, tcp, udp},
};

/// The other station: a real server, or a director.
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 50);
/// An address of a service that no interface has from the start.
const VIP: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 200);
const OTHER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x50);
const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x200);

/// The policies that are strictest with what is forwarded.
const STRICT: [&[&str]; 2] =
    [&["run", "--all", "--unknown", "drop"], &["run", "--all", "--unknown", "drop", "--mode", "drop"]];

fn add_vip(ns: &NetNs, device: &str, vip: IpAddr) -> Result<()> {
    let length = Family::of(vip).choose("32", "128");
    let option = Family::of(vip).choose("", "nodad");
    ns.ip(&format!("address add {vip}/{length} dev {device} {option}")).map(drop)
}

/// Adds the other station, with an address of each family that the test is about.
fn add_other(lab: &Lab, family: Family) -> Result<(Router, IpAddr)> {
    let other = lab.add_router(OTHER)?;
    if family == Family::V6 {
        other.add_ipv6(OTHER6)?;
    }
    Ok((other, family.choose(OTHER.into(), OTHER6.into())))
}

/// Gives a real server the address of the service, of which it must be silent on the wire.
fn make_real_server(ns: &NetNs, device: &str, vip: IpAddr) -> Result<()> {
    if device != "lo" {
        ns.ip_batch(&format!("link add {device} type dummy\nlink set {device} up"))?;
    }
    add_vip(ns, device, vip)?;
    for (key, value) in [("arp_ignore", "1"), ("arp_announce", "2")] {
        ns.sysctl(&format!("net.ipv4.conf.all.{key}"), value)?;
    }
    Ok(())
}

/// A real server, which answers with the address that it was asked at, and its client.
struct Served<'lab> {
    service: Service<'lab>,
    _servers: (tcp::EchoServer, udp::EchoServer),
}

impl<'lab> Served<'lab> {
    /// `director` sends on to `real_server`, in whose namespace the server is.
    fn start(
        lab: &'lab Lab,
        director: &NetNs,
        vip: IpAddr,
        server: &'lab NetNs,
        real_server: IpAddr,
    ) -> Result<Self> {
        let published = SocketAddr::new(vip, ARTICLE_PORT);
        let real_server = SocketAddr::new(real_server, ARTICLE_PORT);
        ipvs::add_service(director, published, real_server, Forwarding::DirectRouting)?;
        let servers = (
            tcp::EchoServer::start(server, vip, ARTICLE_PORT)?,
            udp::EchoServer::start(server, vip, ARTICLE_PORT)?,
        );
        let service =
            Service { lab, client: lab.peer_in(Family::of(vip), 0), published, server, port: ARTICLE_PORT };
        Ok(Self { service, _servers: servers })
    }

    /// The ports by which the host sends with this source when the client asks, and the stations that it sends to.
    fn ways_of(&self, source: IpAddr) -> Result<BTreeSet<(usize, Mac)>> {
        let recording = self.service.lab.record();
        self.service.ask()?;
        let mut frames = recording.from_host()?;
        frames.retain(|frame| frame.frame.datagram_source() == Some(source));
        Ok(frames.iter().map(|frame| (frame.port, frame.frame.destination)).collect())
    }
}

/// The service has the address of the second uplink, as keepalived gives it one, or is on a device without a wire.
#[test]
fn a_director_sends_on_to_real_servers_what_clients_send() -> Result<()> {
    if !features::require(Feature::Ipvs)? {
        return Ok(());
    }
    for (family, on_uplink) in [(Family::V4, true), (Family::V4, false), (Family::V6, true)] {
        let lab = Lab::builder().links(2).family(family).build()?;
        let vip = if on_uplink { lab.address_in(family, 1) } else { family.choose(VIP.into(), VIP6.into()) };
        let (server, real_server) = add_other(&lab, family)?;
        make_real_server(&server.ns, "lo", vip)?;
        if !on_uplink {
            add_vip(&lab.host, "lo", vip)?;
        }
        let served = Served::start(&lab, &lab.host, vip, &server.ns, real_server)?;
        let (client, ways) = (lab.peer_in(family, 0), BTreeSet::from([(0, server.mac)]));
        assert_eq!(served.ways_of(client)?, ways, "{vip}, without mhebpf");
        for arguments in STRICT {
            let daemon = lab.run_mhebpf(arguments)?;
            lab.forget_neighbours()?;
            let sent_on = served.ways_of(client).with_context(|| format!("{vip} {arguments:?}"))?;
            assert_eq!(sent_on, ways, "{vip} {arguments:?}");
            assert_left_alone(&daemon.stop()?.summary, &format!("{vip} {arguments:?}"));
        }
        drop(served);
        lab.finish()?;
    }
    Ok(())
}

/// Nothing but ARP was held to anything.
#[track_caller]
fn assert_left_alone(summary: &Summary, case: &str) {
    for reason in ["unknown_source", "wrong_source", "redirected", "wrong_destination"] {
        assert_eq!(summary.total(reason), 0, "{case}: {summary:?}");
    }
}

#[test]
fn a_real_server_answers_with_the_address_of_the_service() -> Result<()> {
    if !features::require(Feature::Ipvs)? || !features::require(Feature::Dummy)? {
        return Ok(());
    }
    for (family, device) in [(Family::V4, "lo"), (Family::V4, "vip0"), (Family::V6, "vip0")] {
        let lab = Lab::builder().links(2).family(family).build()?;
        let vip = family.choose(VIP.into(), VIP6.into());
        make_real_server(&lab.host, device, vip)?;
        let (director, _) = add_other(&lab, family)?;
        add_vip(&director.ns, "eth0", vip)?;
        // By its second uplink; the route to the client leads through the first.
        let served = Served::start(&lab, &director.ns, vip, &lab.host, lab.address_in(family, 1))?;
        let ways = BTreeSet::from([(0, lab.peer_mac(0))]);
        assert_eq!(served.ways_of(vip)?, ways, "{vip} on {device}, without mhebpf");
        let recording = lab.record();
        let daemon = lab.run_mhebpf(STRICT[0])?;
        lab.forget_neighbours()?;
        assert_eq!(
            served.ways_of(vip).with_context(|| format!("{vip} on {device}"))?,
            ways,
            "{vip} on {device}"
        );
        // Else it would take the clients away from the director.
        let mut frames = recording.from_host()?;
        frames.retain(|frame| {
            frame.arp().is_some_and(|arp| arp.sender == VIP) || frame.frame.advertised() == Some(VIP6)
        });
        assert!(frames.is_empty(), "{vip} on {device}: {frames:?}");
        assert_left_alone(&daemon.stop()?.summary, &format!("{vip} on {device}"));
        drop(served);
        lab.finish()?;
    }
    Ok(())
}
