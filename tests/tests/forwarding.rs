//! Forwarded traffic is nobody's violation, whatever its source.

use std::{collections::BTreeSet, net::Ipv4Addr};

use anyhow::Result;
use mhebpf_tests::{
    Lab, NetNs, PATIENCE, PEER, nat,
    traffic::{ARTICLE_PORT, icmp, tcp, udp},
};

/// The modes in which something is enforced, with the strictest policy for unknown sources.
const ENFORCING: [&[&str]; 2] =
    [&["--mode", "redirect", "--unknown", "drop"], &["--mode", "drop", "--unknown", "drop"]];

#[test]
fn a_containers_own_address_is_forwarded_by_the_kernels_route() -> Result<()> {
    for arguments in ENFORCING {
        let lab = Lab::article()?;
        let container = lab.add_container()?;
        let server = tcp::EchoServer::start(&lab.switch, PEER, ARTICLE_PORT)?;
        let daemon = lab.mhebpf_quietly(arguments)?;
        let recording = lab.record();
        let stream = tcp::connect(&container.ns, container.address, server.address())?;
        tcp::echo_bulk(&stream, 100_000)?;
        icmp::ping(&lab.switch, PEER, container.address, PATIENCE)?;
        assert_eq!(recording.ports_of(container.address)?, BTreeSet::from([0]), "{arguments:?}");
        drop(stream);
        // Nothing was sent by the host itself but what ARP needs.
        let summary = daemon.stop()?.summary;
        assert_eq!(summary.total("redirected") + summary.total("wrong_source"), 0, "{summary:?}");
        assert_eq!(summary.total("unknown_source") + summary.total("wrong_destination"), 0, "{summary:?}");
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn a_masqueraded_container_talks_with_the_address_of_the_way_out() -> Result<()> {
    for arguments in ENFORCING {
        let lab = Lab::article()?;
        let container = lab.add_container()?;
        nat::masquerade(&lab.host)?;
        let server = udp::EchoServer::start(&lab.switch, PEER, ARTICLE_PORT)?;
        let daemon = lab.mhebpf_quietly(arguments)?;
        for way_out in [0, 1] {
            let recording = lab.record();
            let socket = udp::bind(&container.ns, container.address, 0)?;
            udp::echo(&socket, server.address(), b"from a container")?;
            udp::echo(&socket, server.address(), &[7; 4000])?;
            let sources = recording.ports_by_source()?;
            let expected = (lab.address(way_out).into(), BTreeSet::from([way_out]));
            assert_eq!(sources.into_iter().collect::<Vec<_>>(), [expected], "{arguments:?}");
            lab.reorder_routes(way_out)?;
        }
        daemon.stop()?;
        lab.finish()?;
    }
    Ok(())
}

/// It arrives on a link that is not enforced, and so does not meet the receive filter.
#[test]
fn a_container_reaches_every_address_of_its_host() -> Result<()> {
    let lab = Lab::article()?;
    let container = lab.add_container()?;
    let daemon = lab.mhebpf(&[])?;
    for address in lab.addresses() {
        icmp::ping(&container.ns, container.address, address, PATIENCE)?;
    }
    daemon.stop()?;
    lab.finish()
}

/// A datagram for a foreign address arrives and goes on: neither its destination nor its source is anybody's.
#[test]
fn a_container_is_reached_through_any_interface() -> Result<()> {
    let lab = Lab::article()?;
    let container = lab.add_container()?;
    let daemon = lab.mhebpf_quietly(&["--unknown", "drop"])?;
    for port in lab.ports() {
        lab.switch.ip(&format!("route replace 172.31.0.0/24 via {} src {PEER}", lab.address(port)))?;
        icmp::ping(&lab.switch, PEER, container.address, PATIENCE)?;
    }
    let summary = daemon.stop()?.summary;
    assert_eq!(summary.total("wrong_destination") + summary.total("unknown_source"), 0, "{summary:?}");
    lab.finish()
}

/// Its address is in the same subnet, its frames cross a port of the host's bridge, and neither is the host's business.
#[test]
fn a_bridged_container_is_left_alone() -> Result<()> {
    for arguments in ENFORCING {
        let lab = Lab::builder().links(2).links_without_address(1).build()?;
        let container = NetNs::new("bridged")?;
        let address: Ipv4Addr = "192.168.0.200".parse()?;
        lab.host.ip_batch(&format!(
            "link add hb0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
             link set eth2_int master hb0\n\
             link add c0 type veth peer name eth0 netns {}\n\
             link set c0 master hb0 up\n\
             link set hb0 up",
            container.path()
        ))?;
        container.ip_batch(&format!("address add {address}/21 dev eth0\nlink set eth0 up"))?;
        let daemon = lab.mhebpf_quietly(arguments)?;
        let recording = lab.record();
        let server = tcp::EchoServer::start(&lab.switch, PEER, ARTICLE_PORT)?;
        tcp::echo_bulk(&tcp::connect(&container, address, server.address())?, 100_000)?;
        icmp::ping(&lab.switch, PEER, address, PATIENCE)?;
        assert_eq!(recording.ports_of(address)?, BTreeSet::from([2]), "{arguments:?}");
        let summary = daemon.stop()?.summary;
        assert_eq!(summary.total("unknown_source") + summary.total("wrong_destination"), 0, "{summary:?}");
        lab.finish()?;
    }
    Ok(())
}

/// Its frames look as if the host had sent them, but its address is foreign.
#[test]
fn a_macvlan_container_is_left_alone() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let container = NetNs::new("macvlan")?;
    let address: Ipv4Addr = "192.168.0.200".parse()?;
    lab.host.ip(&format!("link add link eth1_int name eth0 netns {} type macvlan", container.path()))?;
    container.ip_batch(&format!("address add {address}/21 dev eth0\nlink set eth0 up"))?;
    let daemon = lab.mhebpf(&[])?;
    let recording = lab.record();
    let server = tcp::EchoServer::start(&lab.switch, PEER, ARTICLE_PORT)?;
    tcp::echo_bulk(&tcp::connect(&container, address, server.address())?, 100_000)?;
    icmp::ping(&lab.switch, PEER, address, PATIENCE)?;
    assert_eq!(recording.ports_of(address)?, BTreeSet::from([1]));
    daemon.stop()?;
    lab.finish()
}
