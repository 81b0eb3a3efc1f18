//! A node of a cluster whose kube-proxy is in its mode `ipvs`: the addresses of all services are on a device without a wire.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use anyhow::{Context as _, Result};
use mhebpf_tests::{
    FAR, FAR6, Family, Lab, Mac, NetNs, PEER, SECOND_PEER, Service,
    features::{self, Feature},
    ipvs::{self, Forwarding},
    nat,
    traffic::{tcp, udp},
};

/// The address of a service, and its port.
const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd96, 0, 0, 0, 0, 0, 0, 10);
const PORT: u16 = 80;
const NODE_PORT: u16 = 30_080;
/// The port of the pod.
const POD_PORT: u16 = 8000;

/// A node with two uplinks in two subnets, each with its gateway, and a pod.
struct Node {
    lab: Lab,
    pod: NetNs,
    pod_address: IpAddr,
    family: Family,
}

impl Node {
    fn new(family: Family) -> Result<Self> {
        let lab = Lab::builder().links(1).links_in_second_subnet(1).family(family).build()?;
        let pod = lab.add_container()?;
        lab.host.ip_batch(&format!(
            "route add default via {PEER}\n\
             route add default via {SECOND_PEER} metric 500\n\
             link add kube-ipvs0 arp off type dummy\n\
             address add {VIP}/32 dev kube-ipvs0"
        ))?;
        // For the masquerading that kube-proxy leaves to netfilter.
        lab.host.sysctl("net.ipv4.vs.conntrack", "1")?;
        let pod_address = match family {
            Family::V4 => pod.address.into(),
            Family::V6 => {
                // The kernel takes an IPv6 address into use when its device is up.
                lab.host.ip_batch(&format!(
                    "route add default via {} metric 2000 dev eth1_int\n\
                     link set kube-ipvs0 up\n\
                     address add {VIP6}/128 dev kube-ipvs0 nodad",
                    lab.peer6(1)
                ))?;
                pod.add_ipv6(&lab)?.into()
            }
        };
        Ok(Self { lab, pod: pod.ns, pod_address, family })
    }

    fn publish(&self, service: SocketAddr, pod: IpAddr) -> Result<()> {
        let pod = SocketAddr::new(pod, POD_PORT);
        ipvs::add_service(&self.lab.host, service, pod, Forwarding::Masquerading)
    }

    fn vip(&self) -> IpAddr {
        self.family.choose(VIP.into(), VIP6.into())
    }

    /// Publishes the pod on this node, and names a far client.
    fn service(&self, address: IpAddr, port: u16) -> Result<Service<'_>> {
        let client = self.family.choose(FAR.into(), FAR6.into());
        let published = SocketAddr::new(address, port);
        self.publish(published, self.pod_address)?;
        Ok(Service { lab: &self.lab, client, published, server: &self.pod, port: POD_PORT })
    }

    /// The network knows the way to the service through an uplink of this node.
    fn lead_through(&self, port: usize) -> Result<()> {
        let (vip, node) = (self.vip(), self.lab.address_in(self.family, port));
        self.lab.switch.ip(&format!("route replace {vip} via {node}")).map(drop)
    }
}

/// As `strictARP` of kube-proxy, and as it does without.
fn set_strict_arp(host: &NetNs, strict: bool) -> Result<()> {
    let (ignore, announce) = if strict { ("1", "2") } else { ("0", "0") };
    host.sysctl("net.ipv4.conf.all.arp_ignore", ignore)?;
    host.sysctl("net.ipv4.conf.all.arp_announce", announce)
}

#[test]
fn a_service_is_reached_through_either_uplink() -> Result<()> {
    if !features::require(Feature::Ipvs)? || !features::require(Feature::Dummy)? {
        return Ok(());
    }
    for family in Family::BOTH {
        let node = Node::new(family)?;
        let service = node.service(node.vip(), PORT)?;
        for mode in [None, Some("redirect"), Some("drop")] {
            let arguments = mode.map(|mode| ["run", "--all", "--mode", mode, "--unknown", "drop"]);
            let daemon = arguments.map(|words| node.lab.run_mhebpf(&words)).transpose()?;
            for port in [0, 1] {
                node.lead_through(port)?;
                // The address is everyone's, and its packets go where the routes lead.
                service.is_answered_by(0).with_context(|| format!("{family} through {port}, {mode:?}"))?;
            }
            let Some(ended) = daemon.map(mhebpf_tests::Daemon::stop).transpose()? else { continue };
            assert!(ended.stderr.contains("leaving out kube-ipvs0"), "{}", ended.stderr);
            assert_eq!(ended.summary.counts(), [], "{family}, {mode:?}");
        }
        node.lab.finish()?;
    }
    Ok(())
}

/// With `externalTrafficPolicy: Local`, and with `Cluster`, which masquerades.
#[test]
fn a_node_port_answers_by_the_owner_of_its_address() -> Result<()> {
    if !features::require(Feature::Ipvs)? || !features::require(Feature::Nftables)? {
        return Ok(());
    }
    for (family, masqueraded) in [(Family::V4, false), (Family::V4, true), (Family::V6, false)] {
        let node = Node::new(family)?;
        if masqueraded {
            nat::masquerade(&node.lab.host)?;
        }
        let services = [0, 1].map(|port| node.service(node.lab.address_in(family, port), NODE_PORT));
        let services = services.into_iter().collect::<Result<Vec<_>>>()?;
        for service in &services {
            service.is_answered_by(0).context("without mhebpf")?;
        }
        let daemon = node.lab.run_mhebpf(&["run", "--all"])?;
        for (port, service) in services.iter().enumerate() {
            service.is_answered_by(port).with_context(|| format!("{family}, masqueraded: {masqueraded}"))?;
        }
        daemon.stop()?;
        node.lab.finish()?;
    }
    Ok(())
}

/// What the node itself says to the service: sources, ways and stations.
fn ways_of_own_requests(node: &Node, service: SocketAddr) -> Result<BTreeSet<(IpAddr, usize, Mac)>> {
    let recording = node.lab.record();
    let any = node.family.unspecified();
    let stream = tcp::connect(&node.lab.host, any, service)?;
    tcp::echo_bulk(&stream, 100_000)?;
    tcp::close(stream)?;
    udp::echo(&udp::bind(&node.lab.host, any, 0)?, service, b"of the node itself")?;
    let frames = recording.wanted_from_host()?;
    Ok(frames
        .iter()
        .filter_map(|frame| Some((frame.frame.datagram_source()?, frame.port, frame.frame.destination)))
        .collect())
}

/// The pod is on this node, or on another one behind either uplink. The source was chosen for the address of the service, which is
/// the service's own; kube-proxy has it masqueraded.
#[test]
fn the_nodes_own_requests_are_as_without_mhebpf() -> Result<()> {
    if !features::require(Feature::Ipvs)? || !features::require(Feature::Nftables)? {
        return Ok(());
    }
    for (family, masqueraded) in [(Family::V4, true), (Family::V4, false), (Family::V6, false)] {
        let node = Node::new(family)?;
        if masqueraded {
            nat::masquerade(&node.lab.host)?;
        }
        let any = family.unspecified();
        let serve = |ns: &NetNs| {
            Ok((tcp::EchoServer::start(ns, any, POD_PORT)?, udp::EchoServer::start(ns, any, POD_PORT)?))
        };
        let _servers = [&node.pod, &node.lab.switch].into_iter().map(serve).collect::<Result<Vec<_>>>()?;
        // A service on a port of its own for each place.
        let place = |behind: Option<usize>| -> Result<_> {
            let port = PORT + behind.map_or(0, |port| 1 + port as u16);
            let pod = behind.map_or(node.pod_address, |port| node.lab.peer_in(family, port));
            let service = SocketAddr::new(node.vip(), port);
            node.publish(service, pod)?;
            let source = |port| if masqueraded { node.lab.address_in(family, port) } else { node.vip() };
            let way = |port| (source(port), port, node.lab.peer_mac(port));
            Ok((behind, service, behind.map(way).into_iter().collect::<BTreeSet<_>>()))
        };
        let places = [None, Some(0), Some(1)].into_iter().map(place).collect::<Result<Vec<_>>>()?;
        let try_all = |with: &str| {
            for (behind, service, ways) in &places {
                let case = format!("{family}, masqueraded: {masqueraded}, behind {behind:?}, {with} mhebpf");
                node.lead_through(behind.unwrap_or_default())?;
                assert_eq!(ways_of_own_requests(&node, *service).context(case.clone())?, *ways, "{case}");
            }
            Ok::<_, anyhow::Error>(())
        };
        try_all("without")?;
        let daemon = node.lab.run_mhebpf(&["run", "--all", "--unknown", "drop", "--no-announce"])?;
        try_all("with")?;
        assert_eq!(daemon.stop()?.summary.counts(), [], "{family}, masqueraded: {masqueraded}");
        node.lab.finish()?;
    }
    Ok(())
}

/// The ports by which the host answers for the service's address, each asked on its own link.
fn ports_that_answer(node: &Node) -> Result<BTreeSet<usize>> {
    let recording = node.lab.record();
    for port in [0, 1] {
        node.lab.ask(port, VIP, Mac::BROADCAST)?;
    }
    Ok(recording.arp_replies_for(VIP)?.into_iter().map(|(port, _)| port).collect())
}

#[test]
fn arp_for_a_service_is_answered_as_the_sysctls_say() -> Result<()> {
    if !features::require(Feature::Ipvs)? || !features::require(Feature::Dummy)? {
        return Ok(());
    }
    let node = Node::new(Family::V4)?;
    let service = node.service(VIP.into(), PORT)?;
    node.lead_through(1)?;
    for (strict, expected) in [(false, BTreeSet::from([0, 1])), (true, BTreeSet::new())] {
        set_strict_arp(&node.lab.host, strict)?;
        assert_eq!(ports_that_answer(&node)?, expected, "strict: {strict}, without mhebpf");
        let recording = node.lab.record();
        let daemon = node.lab.run_mhebpf(&["run", "--all"])?;
        // Nothing but its own addresses is announced at the start, and nothing else is asked for in its name.
        let spoken = || -> Result<Vec<_>> {
            let mut spoken = recording.arp_from_host()?;
            spoken.retain(|(_, arp)| arp.sender == VIP);
            Ok(spoken)
        };
        assert_eq!(spoken()?, [], "strict: {strict}");
        node.lab.host_forgets_neighbours()?;
        service.is_answered_by(0).with_context(|| format!("strict: {strict}"))?;
        if strict {
            assert_eq!(spoken()?, []);
        }
        assert_eq!(ports_that_answer(&node)?, expected, "strict: {strict}");
        assert_eq!(daemon.stop()?.summary.counts(), [], "strict: {strict}");
    }
    node.lab.finish()
}
