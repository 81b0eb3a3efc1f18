//! A node with containers behind routed veths, with everything selected that `--all` selects.

use std::{collections::BTreeSet, net::Ipv4Addr};

use anyhow::Result;
use mhebpf_tests::{
    FAR, Lab, NetNs, PATIENCE, PEER, nat, tcx,
    traffic::{ARTICLE_PORT, icmp, tcp, udp},
    wait_until,
};

/// The container's address, which the node has a route to.
const CONTAINER: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 2);
/// What the container knows of the node: an address for itself alone.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// An address of a service, on a device without a wire.
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

/// A node with a container, as network plugins with routed veths make it.
fn node() -> Result<(Lab, NetNs)> {
    let lab = Lab::builder().links(2).build()?;
    let container = NetNs::new("container")?;
    lab.host.ip_batch(&format!(
        "link add c0 type veth peer name eth0 netns {}\naddress add {GATEWAY}/32 dev c0\nlink set c0 up\n\
         route add {CONTAINER}/32 dev c0\naddress add {SERVICE}/32 dev lo\nroute add default via {PEER}",
        container.path()
    ))?;
    container.ip_batch(&format!(
        "address add {CONTAINER}/32 dev eth0\nlink set eth0 up\nroute add {GATEWAY} dev eth0\n\
         route add default via {GATEWAY}"
    ))?;
    lab.host.sysctl("net.ipv4.ip_forward", "1")?;
    lab.switch.ip(&format!("route add {CONTAINER}/32 via {}", lab.address(0)))?;
    Ok((lab, container))
}

#[test]
fn all_takes_the_uplinks_and_says_what_it_leaves_out() -> Result<()> {
    let (lab, _container) = node()?;
    let daemon = lab.run_mhebpf(&["run", "--all"])?;
    for hook in [tcx::Hook::Ingress, tcx::Hook::Egress] {
        assert_eq!(tcx::programs(&lab.host, "c0", hook)?, []);
    }
    let said = daemon.stderr();
    for line in ["leaving out c0: its other end is in another network namespace", "leaving out lo: no packet"]
    {
        assert!(said.contains(line), "{said}");
    }
    assert!(said.contains("on eth0_int, eth1_int"), "{said}");
    daemon.stop()?;
    lab.finish()
}

#[test]
fn host_and_container_reach_each_other() -> Result<()> {
    for mode in ["redirect", "drop"] {
        let (lab, container) = node()?;
        let daemon = lab.run_mhebpf(&["run", "--all", "--mode", mode, "--no-announce"])?;
        for address in [lab.address(0), lab.address(1), SERVICE, GATEWAY] {
            icmp::ping(&container, CONTAINER, address, PATIENCE)?;
        }
        for source in [lab.address(0), lab.address(1), SERVICE] {
            icmp::ping(&lab.host, source, CONTAINER, PATIENCE)?;
        }
        assert_eq!(daemon.stop()?.summary.counts(), []);
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn a_container_reaches_the_world_with_its_own_address_and_masqueraded() -> Result<()> {
    for masqueraded in [false, true] {
        let (lab, container) = node()?;
        if masqueraded {
            nat::masquerade(&lab.host)?;
        }
        let server = tcp::EchoServer::start(&lab.switch, PEER, ARTICLE_PORT)?;
        let daemon = lab.run_mhebpf(&["run", "--all", "--unknown", "drop", "--no-announce"])?;
        let recording = lab.record();
        let stream = tcp::connect(&container, CONTAINER, server.address())?;
        tcp::echo_bulk(&stream, 100_000)?;
        icmp::ping(&container, CONTAINER, FAR, PATIENCE)?;
        let source = if masqueraded { lab.address(0) } else { CONTAINER };
        assert_eq!(recording.ports_of(source)?, BTreeSet::from([0]));
        drop(stream);
        daemon.stop()?;
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn a_published_port_is_reached_through_the_owner_of_its_address() -> Result<()> {
    let (lab, container) = node()?;
    nat::publish(&lab.host, ARTICLE_PORT, CONTAINER)?;
    let server = tcp::EchoServer::start(&container, CONTAINER, ARTICLE_PORT)?;
    let daemon = lab.run_mhebpf(&["run", "--all", "--no-announce"])?;
    let published = std::net::SocketAddrV4::new(lab.address(0), server.address().port());
    let stream = tcp::connect(&lab.switch, PEER, published)?;
    tcp::echo_bulk(&stream, 100_000)?;
    drop(stream);
    daemon.stop()?;
    lab.finish()
}

/// An address of a service is everyone's: kube-proxy's, or that of a load balancer that answers directly.
#[test]
fn a_service_address_is_served_through_every_uplink() -> Result<()> {
    let (lab, _container) = node()?;
    let socket = udp::bind(&lab.host, SERVICE, ARTICLE_PORT)?;
    let daemon = lab.run_mhebpf(&["run", "--all", "--no-announce"])?;
    for port in lab.ports() {
        lab.claim(port, SERVICE, std::time::Duration::ZERO);
        lab.deliver(port, std::net::SocketAddrV4::new(SERVICE, ARTICLE_PORT), b"for the service")?;
        wait_until("the datagram", PATIENCE, || Ok(udp::take_delivered(&socket)?.map(drop)))?;
    }
    assert_eq!(daemon.stop()?.summary.counts(), []);
    lab.finish()
}
