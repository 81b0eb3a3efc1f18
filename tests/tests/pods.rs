//! A container with a second network: `net1`, a macvlan whose device below is on the node, beside `eth0`, the end of a pair.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddrV4},
};

use anyhow::{Context as _, Result};
use mhebpf_tests::{
    FAR, Lab, NetNs, PATIENCE, PEER, SECOND_PEER,
    device::wait_running,
    features::{self, Feature},
    traffic::{ARTICLE_PORT, icmp, tcp},
};

/// The container's address in its second network.
const NET1: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 201);
/// A virtual router's, on a macvlan of its own.
const VIP: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 210);

/// The lab's host is the container: its second link goes to the node, and a macvlan on it is the container's.
fn pod(gateway: &str) -> Result<Option<(Lab, NetNs)>> {
    if !features::require(Feature::Macvlan)? {
        return Ok(None);
    }
    let (lab, node) = (Lab::builder().links(1).links_in_second_subnet(1).build()?, NetNs::new("node")?);
    lab.release(1, lab.address(1), std::time::Duration::ZERO);
    lab.claim(1, NET1, std::time::Duration::ZERO);
    lab.host.ip(&format!("link set eth1_int netns {}", node.path()))?;
    node.ip_batch(&format!(
        "link set eth1_int up\n\
         link add link eth1_int name net1 netns {} type macvlan mode bridge",
        lab.host.path()
    ))?;
    lab.host.ip_batch(&format!(
        "address add {NET1}/24 dev net1\n\
         link set net1 up\n\
         route add default via {PEER}\n{gateway}"
    ))?;
    wait_running(&lab.host, "net1")?;
    Ok(Some((lab, node)))
}

/// A client asks for an address, and this is by which ports it is answered.
fn ways(lab: &Lab, client: Ipv4Addr, address: Ipv4Addr) -> Result<BTreeSet<usize>> {
    let server = tcp::EchoServer::start(&lab.host, Ipv4Addr::UNSPECIFIED, ARTICLE_PORT)?;
    let recording = lab.record();
    let to = SocketAddrV4::new(address, server.address().port());
    tcp::echo_bulk(&tcp::connect(&lab.switch, client, to)?, 100_000)?;
    recording.ports_of(address)
}

#[test]
fn a_far_client_of_the_second_network_is_answered_by_it() -> Result<()> {
    let by_metric = format!("route add default via {SECOND_PEER} dev net1 metric 4096");
    let by_rule =
        format!("route add default via {SECOND_PEER} dev net1 table 100\nrule add from {NET1} lookup 100");
    for gateway in [&by_metric, &by_rule] {
        let Some((lab, _node)) = pod(gateway)? else { return Ok(()) };
        if *gateway == by_metric {
            assert_eq!(ways(&lab, FAR, NET1)?, BTreeSet::from([0]), "without mhebpf");
        }
        let daemon = lab.run_mhebpf(&["run", "--all"])?;
        for name in ["eth0_int", "net1"] {
            assert!(daemon.stderr().contains(&format!("enforcing on {name}\n")), "{}", daemon.stderr());
        }
        for client in [FAR, SECOND_PEER] {
            assert_eq!(ways(&lab, client, NET1)?, BTreeSet::from([1]), "{client}");
        }
        assert_eq!(ways(&lab, FAR, lab.address(0))?, BTreeSet::from([0]));
        icmp::ping(&lab.host, lab.address(0), FAR, PATIENCE)?;
        daemon.stop()?;
        lab.finish()?;
    }
    Ok(())
}

/// As keepalived makes it in a container: all are the container's ways out, and the virtual address is the first one's.
#[test]
fn a_virtual_router_changes_nothing_about_that() -> Result<()> {
    for length in [32, 21] {
        let gateway = format!("route add default via {SECOND_PEER} dev net1 metric 4096");
        let Some((lab, _node)) = pod(&gateway)? else { return Ok(()) };
        lab.host.ip_batch(&format!(
            "link add vrrp link eth0_int address 00:00:5e:00:01:33 type macvlan mode private\n\
             address add {VIP}/{length} dev vrrp\n\
             link set vrrp up"
        ))?;
        // As keepalived sets them.
        for (name, key) in [("vrrp", "accept_local"), ("vrrp", "arp_ignore"), ("eth0_int", "arp_ignore")] {
            lab.host.sysctl(&format!("net.ipv4.conf.{name}.{key}"), "1")?;
        }
        lab.claim(0, VIP, std::time::Duration::ZERO);
        let daemon = lab.run_mhebpf(&["run", "--all"])?;
        for name in ["eth0_int", "net1"] {
            assert!(daemon.stderr().contains(&format!("enforcing on {name}\n")), "{}", daemon.stderr());
        }
        lab.forget_neighbours()?;
        for (address, port) in [(lab.address(0), 0), (NET1, 1), (VIP, 0)] {
            let what = || format!("{address}, /{length}");
            assert_eq!(ways(&lab, FAR, address).with_context(what)?, BTreeSet::from([port]), "{}", what());
        }
        daemon.stop()?;
        lab.finish()?;
    }
    Ok(())
}
