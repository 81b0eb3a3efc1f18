//! Published ports: the engine translates addresses before mhebpf sees a packet, and what is on the wire counts.
//!
//! Each test first shows that the host is weak: without mhebpf the answers leave by the other interface.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result};
use mhebpf_tests::{
    FAR, Family, Lab, NetNs, PEER,
    docker::{self, Engine},
    scaled, tcx,
    traffic::{ARTICLE_PORT, tcp, udp},
};

/// Options of the engine for the ways by which it publishes a port.
const TRANSLATED: [&[&str]; 2] = [&[], &["--userland-proxy=false"]];
const PROXIED: &[&str] = &["--iptables=false"];

/// A host with a published port on the address of its second interface, and who asks for it.
struct Site {
    lab: Lab,
    client: IpAddr,
    published: IpAddr,
    container: NetNs,
    // Dropped last: it ends the container.
    _engine: Engine,
}

impl Site {
    /// Two interfaces in one subnet.
    fn one_subnet(family: Family, options: &[&str]) -> Result<Self> {
        let lab = Lab::builder().links(2).family(family).build()?;
        let (client, published) = (lab.peer_in(family, 1), lab.address_in(family, 1));
        Self::new(lab, client, published, options)
    }

    /// Two interfaces in two subnets, the second one's gateway in a table for its address only, and a client far away.
    fn two_subnets(options: &[&str]) -> Result<Self> {
        let lab = Lab::builder().links(1).links_in_second_subnet(1).build()?;
        let (published, gateway) = (lab.address(1), lab.peer(1));
        lab.host.ip_batch(&format!(
            "route add default via {PEER} dev eth0_int\n\
             route add default via {gateway} dev eth1_int table 101\n\
             rule add from {published} lookup 101"
        ))?;
        Self::new(lab, FAR.into(), published.into(), options)
    }

    fn new(lab: Lab, client: IpAddr, published: IpAddr, options: &[&str]) -> Result<Self> {
        let engine = Engine::start(&lab.host, options)?;
        let ports = ["tcp", "udp"].map(|protocol| {
            format!("--publish={}:{ARTICLE_PORT}/{protocol}", SocketAddr::new(published, ARTICLE_PORT))
        });
        let [tcp, udp] = &ports;
        let mut run = vec![tcp.as_str(), udp];
        if published.is_ipv6() {
            engine.docker(&["network", "create", "--ipv6", "--subnet", "fd00:28::/64", "six"])?;
            run.extend(["--network", "six"]);
        }
        let container = engine.run_idle("server", &run)?;
        Ok(Self { lab, client, published, container, _engine: engine })
    }

    fn target(&self) -> SocketAddr {
        SocketAddr::new(self.published, ARTICLE_PORT)
    }

    fn any(&self) -> IpAddr {
        Family::of(self.published).unspecified()
    }

    /// Asks by TCP and UDP, and gets what was asked for.
    fn talk(&self) -> Result<()> {
        let _tcp = tcp::EchoServer::start(&self.container, self.any(), ARTICLE_PORT)?;
        let _udp = udp::EchoServer::start(&self.container, self.any(), ARTICLE_PORT)?;
        let stream = tcp::connect(&self.lab.switch, self.client, self.target())?;
        tcp::echo_bulk(&stream, 200_000)?;
        tcp::close(stream)?;
        let socket = udp::bind(&self.lab.switch, self.client, 0)?;
        udp::echo(&socket, self.target(), b"to a container")?;
        udp::echo(&socket, self.target(), &[7; 4000])
    }

    /// Asks by TCP and UDP, and returns when all that the container says to it has been said.
    fn ask_in_vain(&self) -> Result<()> {
        let _tcp = tcp::EchoServer::start(&self.container, self.any(), ARTICLE_PORT)?;
        let limit = scaled(Duration::from_millis(300));
        // Whether it comes about is seen on the wire.
        let _ = tcp::connect_timed(&self.lab.switch, self.client, self.target(), limit);
        let server = udp::bind(&self.container, self.any(), ARTICLE_PORT)?;
        let socket = udp::bind(&self.lab.switch, self.client, 0)?;
        socket.send_to(b"to a container", self.target())?;
        let mut buffer = [0; 100];
        let (_, from) = server.recv_from(&mut buffer).context("the container waits for a datagram")?;
        server.send_to(b"in vain", from)?;
        Ok(())
    }

    /// By which ports the published address speaks during this.
    fn ways(&self, during: impl FnOnce(&Self) -> Result<()>) -> Result<BTreeSet<usize>> {
        let recording = self.lab.record();
        during(self)?;
        recording.ports_of(self.published)
    }

    /// Each answer leaves by the interface that owns the published address, to that interface's next hop.
    fn answers_by_the_owner(self) -> Result<()> {
        let daemon = self.lab.run_mhebpf(&["run", "--all"])?;
        for hook in [tcx::Hook::Ingress, tcx::Hook::Egress] {
            assert_eq!(tcx::programs(&self.lab.host, "docker0", hook)?, []);
        }
        let recording = self.lab.record();
        assert_eq!(self.ways(Self::talk)?, BTreeSet::from([1]));
        let mut answers = recording.from_host()?;
        answers.retain(|frame| frame.frame.datagram_source() == Some(self.published));
        let stations: BTreeSet<_> = answers.iter().map(|frame| frame.frame.destination).collect();
        assert_eq!(stations, BTreeSet::from([self.lab.peer_mac(1)]));
        daemon.stop()?;
        self.lab.finish()
    }

    /// No answer leaves by another interface.
    fn answers_nobody(self) -> Result<()> {
        let daemon = self.lab.run_mhebpf(&["run", "--all", "--mode", "drop"])?;
        assert_eq!(self.ways(Self::ask_in_vain)?, BTreeSet::new());
        daemon.stop()?;
        self.lab.finish()
    }
}

#[test]
fn answers_leave_by_the_owner_of_the_published_address() -> Result<()> {
    if !docker::is_available()? {
        return Ok(());
    }
    for options in TRANSLATED.into_iter().chain([PROXIED]) {
        let site = Site::one_subnet(Family::V4, options)?;
        assert_eq!(site.ways(Site::talk)?, BTreeSet::from([0]), "without mhebpf, {options:?}");
        site.answers_by_the_owner().with_context(|| format!("{options:?}"))?;
    }
    Ok(())
}

#[test]
fn in_drop_mode_no_answer_leaves_by_another_interface() -> Result<()> {
    if !docker::is_available()? {
        return Ok(());
    }
    for options in TRANSLATED.into_iter().chain([PROXIED]) {
        let site = Site::one_subnet(Family::V4, options)?;
        assert_eq!(site.ways(Site::talk)?, BTreeSet::from([0]), "without mhebpf, {options:?}");
        site.answers_nobody().with_context(|| format!("{options:?}"))?;
    }
    Ok(())
}

/// As cloud agents set up a second interface (moby#17212): the container's answers are routed before their source is translated, so that
/// the rule does not help them.
#[test]
fn answers_find_the_gateway_that_only_a_rule_from_the_address_leads_to() -> Result<()> {
    if !docker::is_available()? {
        return Ok(());
    }
    for options in TRANSLATED {
        let site = Site::two_subnets(options)?;
        assert_eq!(site.ways(Site::talk)?, BTreeSet::from([0]), "without mhebpf, {options:?}");
        site.answers_by_the_owner().with_context(|| format!("{options:?}"))?;
    }
    Ok(())
}

#[test]
fn in_drop_mode_no_answer_leaves_by_the_default_route() -> Result<()> {
    if !docker::is_available()? {
        return Ok(());
    }
    let site = Site::two_subnets(&[])?;
    assert_eq!(site.ways(Site::talk)?, BTreeSet::from([0]), "without mhebpf");
    site.answers_nobody()
}

#[test]
fn answers_of_ipv6_leave_by_the_owner_of_the_published_address() -> Result<()> {
    if !docker::is_available()? {
        return Ok(());
    }
    // Engines before 27 translate IPv6 only if they are told to, and call that an experiment.
    for mode in ["redirect", "drop"] {
        let site = Site::one_subnet(Family::V6, &["--experimental", "--ip6tables"])?;
        assert_eq!(site.ways(Site::talk)?, BTreeSet::from([0]), "without mhebpf");
        if mode == "redirect" { site.answers_by_the_owner() } else { site.answers_nobody() }.context(mode)?;
    }
    Ok(())
}
