//! Virtual addresses that no interface has, bound to one by `owns`: those of MetalLB in layer 2 mode with kube-proxy, and of
//! 1:1 NAT.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use anyhow::Result;
use mhebpf_tests::{
    Daemon, FAR, File, Lab,
    features::{self, Feature},
    frame::Arp,
    lab::{Container, PROBE_PORT},
    nat, scaled,
    traffic::tcp,
};

/// The virtual address, in the second interface's subnet.
const VIP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 77);
/// The published port.
const PORT: u16 = 8080;

/// Two uplinks, and a container whose port is published on the virtual address; `None` on a kernel without translation.
fn lab() -> Result<Option<(Lab, Container)>> {
    if !features::require(Feature::Nftables)? {
        return Ok(None);
    }
    let lab = Lab::builder().links(1).links_in_second_subnet(1).build()?;
    let container = lab.add_container()?;
    lab.host.ip_batch(&format!(
        "route add default via {}\n\
         route add default via {} metric 500",
        lab.peer(0),
        lab.peer(1)
    ))?;
    nat::publish(&lab.host, PORT, container.address)?;
    // What the speaker has said.
    lab.switch.ip(&format!("neighbour add {VIP} lladdr {} dev br1", lab.mac(1)))?;
    Ok(Some((lab, container)))
}

/// Runs with a table for the second interface; the judge is told whose the address is.
fn run(lab: &Lab, table: &str, mode: &str) -> Result<(Daemon, File)> {
    let file = File::new(&format!(
        "interfaces = [\"eth*_int\"]\nmode = \"{mode}\"\n[[interface]]\nname = \"eth1_int\"\n{table}"
    ))?;
    let daemon = lab.run_mhebpf(&["run", "--no-announce", "--config", file.path()])?;
    Ok((daemon, file))
}

/// By which ports a client gets its answers, if it gets any.
fn ways(lab: &Lab, container: &Container, client: Ipv4Addr, limit: Duration) -> Result<BTreeSet<usize>> {
    let recording = lab.record();
    let _server = tcp::EchoServer::start(&container.ns, container.address, PORT)?;
    let connected = tcp::connect_timed(&lab.switch, client, SocketAddrV4::new(VIP, PORT), limit);
    if let Ok((stream, _)) = connected {
        tcp::echo_bulk(&stream, 100_000)?;
        tcp::close(stream)?;
    }
    recording.ports_of(VIP)
}

#[test]
fn answers_leave_by_the_interface_that_owns_the_address() -> Result<()> {
    let Some((lab, container)) = lab()? else { return Ok(()) };
    let limit = mhebpf_tests::PATIENCE;
    let (daemon, _file) = run(&lab, "", "redirect")?;
    assert_eq!(ways(&lab, &container, FAR, limit)?, BTreeSet::from([0]), "foreign to all interfaces");
    daemon.stop()?;
    lab.claim(1, VIP, Duration::ZERO);
    for prefix in ["10.1.0.77/32", "10.1.0.72/29"] {
        let (daemon, _file) = run(&lab, &format!("owns = [\"{prefix}\"]"), "redirect")?;
        for client in [FAR, lab.peer(1)] {
            assert_eq!(ways(&lab, &container, client, limit)?, BTreeSet::from([1]), "{client}, {prefix}");
        }
        assert!(daemon.stop()?.summary.count("eth0_int", "redirected") > 0);
    }
    let (daemon, _file) = run(&lab, "owns = [\"10.1.0.77/32\"]", "drop")?;
    let limit = scaled(Duration::from_millis(300));
    assert_eq!(ways(&lab, &container, FAR, limit)?, BTreeSet::new());
    assert!(daemon.stop()?.summary.count("eth0_int", "wrong_source") > 0);
    lab.finish()
}

#[test]
fn what_arrives_for_it_on_another_interface_is_dropped() -> Result<()> {
    let Some((lab, _container)) = lab()? else { return Ok(()) };
    // What is allowed is not made local.
    for (key, expected) in [("allow", [0, 0]), ("owns", [1, 0])] {
        let (daemon, _file) = run(&lab, &format!("{key} = [\"{VIP}/32\"]"), "redirect")?;
        for port in lab.ports() {
            lab.deliver(port, (VIP, PROBE_PORT), b"hello")?;
        }
        lab.fence()?;
        let summary = daemon.stop()?.summary;
        let counts = [0, 1].map(|port| summary.count(&format!("eth{port}_int"), "wrong_destination"));
        assert_eq!(counts, expected, "{key}: {summary:?}");
    }
    lab.finish()
}

/// The speaker answers by itself, with a raw socket.
#[test]
fn it_is_answered_for_on_its_interface_only() -> Result<()> {
    let Some((lab, _container)) = lab()? else { return Ok(()) };
    for (table, expected) in [("", &[0, 1][..]), ("owns = [\"10.1.0.77/32\"]", &[1])] {
        let (daemon, _file) = run(&lab, table, "redirect")?;
        let recording = lab.record();
        for port in lab.ports() {
            let reply = Arp::reply(lab.mac(port), VIP, lab.peer_mac(port), lab.peer(port));
            lab.send_from_host(port, &reply.frame(lab.peer_mac(port)))?;
            lab.send_from_host(
                port,
                &Arp::announcement(lab.mac(port), VIP).frame(mhebpf_tests::Mac::BROADCAST),
            )?;
        }
        let ports: Vec<_> = recording.arp_replies_for(VIP)?.into_iter().map(|(port, _)| port).collect();
        assert_eq!(ports, expected, "{table}");
        let announced = recording.arp_from_host()?.into_iter().filter(|(_, arp)| arp.sender == arp.target);
        assert_eq!(announced.map(|(port, _)| port).collect::<Vec<_>>(), expected, "{table}");
        let summary = daemon.stop()?.summary;
        assert_eq!(
            summary.count("eth0_int", "arp_sender"),
            if table.is_empty() { 0 } else { 2 },
            "{summary:?}"
        );
    }
    lab.finish()
}
