//! Published ports: the engine translates addresses before mhebpf sees a packet, and what is on the wire counts.
//!
//! Each test first shows that the host is weak: without mhebpf the answers leave by the other interface.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result};
use mhebpf_tests::{
    Daemon, FAR, Family, Lab, NetNs, PEER, Service,
    docker::{self, Engine},
    tcx,
    traffic::ARTICLE_PORT,
};
use serde_json::Value;

/// Options of the engine for the ways by which it publishes a port: by rules, with a proxy for what they don't catch or without;
/// by the proxy alone.
const TRANSLATED: [&[&str]; 2] = [&[], &["--userland-proxy=false"]];
const PROXIED: &[&str] = &["--iptables=false"];

/// A host with a published port on the address of its second interface, and who asks for it.
struct Site {
    lab: Lab,
    client: IpAddr,
    published: SocketAddr,
    container: NetNs,
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

    fn new(lab: Lab, client: IpAddr, address: IpAddr, options: &[&str]) -> Result<Self> {
        let engine = Engine::start(&lab.host, options)?;
        let published = SocketAddr::new(address, ARTICLE_PORT);
        let [tcp, udp] =
            ["tcp", "udp"].map(|protocol| format!("--publish={published}:{ARTICLE_PORT}/{protocol}"));
        let mut run = vec![tcp.as_str(), &udp];
        if address.is_ipv6() {
            engine.docker(&["network", "create", "--ipv6", "--subnet", "fd00:28::/64", "six"])?;
            run.extend(["--network", "six"]);
        }
        let container = engine.run_idle("server", &run)?;
        Ok(Self { lab, client, published, container, _engine: engine })
    }

    fn service(&self) -> Service<'_> {
        let Self { lab, client, published, container, .. } = self;
        Service { lab, client: *client, published: *published, server: container, port: ARTICLE_PORT }
    }

    fn redirects_answers_to_the_owner(self) -> Result<()> {
        self.service().is_answered_by(0).context("without mhebpf")?;
        let daemon = self.lab.run_mhebpf(&["run", "--all"])?;
        for hook in [tcx::Hook::Ingress, tcx::Hook::Egress] {
            assert!(tcx::programs(&self.lab.host, "docker0", hook)?.is_empty());
        }
        self.service().is_answered_by(1)?;
        daemon.stop()?;
        self.lab.finish()
    }

    fn drops_answers_elsewhere(self) -> Result<()> {
        self.service().is_answered_by(0).context("without mhebpf")?;
        let daemon = self.lab.run_mhebpf(&["run", "--all", "--mode", "drop"])?;
        self.service().is_not_answered()?;
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
        site.redirects_answers_to_the_owner().with_context(|| format!("{options:?}"))?;
    }
    Ok(())
}

/// Beforehand, so that nobody is surprised.
#[test]
fn an_audit_names_the_ports_that_the_engine_publishes() -> Result<()> {
    if !docker::is_available()? {
        return Ok(());
    }
    let site = Site::one_subnet(Family::V4, &[])?;
    let output = Daemon::command(&site.lab.host)?.args(["audit", "-o", "json"]).output()?;
    let document: Value = serde_json::from_slice(&output.stdout)?;
    let mut findings = document["findings"].as_array().into_iter().flatten();
    let moved = findings.find(|finding| finding["id"] == "translated-answers");
    let objects = moved.with_context(|| format!("{document:#}"))?["objects"].as_array().into_iter().flatten();
    let ports: Vec<&Value> =
        objects.filter(|object| object["kind"] == "port").map(|object| &object["name"]).collect();
    assert_eq!(ports, [&format!("tcp {}", site.published), &format!("udp {}", site.published)]);
    site.lab.finish()
}

#[test]
fn in_drop_mode_no_answer_leaves_by_another_interface() -> Result<()> {
    if !docker::is_available()? {
        return Ok(());
    }
    for options in TRANSLATED.into_iter().chain([PROXIED]) {
        let site = Site::one_subnet(Family::V4, options)?;
        site.drops_answers_elsewhere().with_context(|| format!("{options:?}"))?;
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
        site.redirects_answers_to_the_owner().with_context(|| format!("{options:?}"))?;
    }
    Ok(())
}

#[test]
fn in_drop_mode_no_answer_leaves_by_the_default_route() -> Result<()> {
    if !docker::is_available()? {
        return Ok(());
    }
    for options in TRANSLATED {
        let site = Site::two_subnets(options)?;
        site.drops_answers_elsewhere().with_context(|| format!("{options:?}"))?;
    }
    Ok(())
}

/// Engines before 27 translate IPv6 only if they are told to, and call that an experiment.
const IPV6: &[&str] = &["--experimental", "--ip6tables"];

#[test]
fn answers_of_ipv6_leave_by_the_owner_of_the_published_address() -> Result<()> {
    if !docker::is_available()? {
        return Ok(());
    }
    Site::one_subnet(Family::V6, IPV6)?.redirects_answers_to_the_owner()
}

#[test]
fn in_drop_mode_no_answer_of_ipv6_leaves_by_another_interface() -> Result<()> {
    if !docker::is_available()? {
        return Ok(());
    }
    Site::one_subnet(Family::V6, IPV6)?.drops_answers_elsewhere()
}
