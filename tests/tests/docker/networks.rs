//! Networks of containers: the host's own, and macvlans on an interface that mhebpf enforces.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddrV4},
};

use anyhow::Result;
use mhebpf_tests::{
    Lab, PATIENCE, PEER,
    docker::{self, Engine, IMAGE},
    traffic::{ARTICLE_PORT, icmp, tcp},
    wait_until,
};

/// The container's address in the lab's first subnet, and the range for containers that it is from.
const CONTAINER: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 193);
const RANGE: &str = "192.168.0.192/28";
/// The host's address towards the containers.
const SHIM: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 210);

#[test]
fn a_server_in_the_hosts_network_answers_by_the_owner_of_each_address() -> Result<()> {
    if !docker::is_available()? {
        return Ok(());
    }
    let lab = Lab::builder().links(2).build()?;
    let engine = Engine::start(&lab.host, &[])?;
    let port = ARTICLE_PORT.to_string();
    let server = ["nc", "-ll", "-p", &port, "-e", "cat"];
    engine.docker(&[&["run", "--detach", "--network", "host", IMAGE], &server[..]].concat())?;
    let daemon = lab.run_mhebpf(&["run", "--all"])?;
    for port in lab.ports() {
        let address = lab.address(port);
        let recording = lab.record();
        // Until the server listens, nobody does.
        let mut stream = wait_until("the server to listen", PATIENCE, || {
            Ok(tcp::connect(&lab.switch, PEER, SocketAddrV4::new(address, ARTICLE_PORT)).ok())
        })?;
        tcp::echo(&mut stream, &[7; 20_000])?;
        tcp::close(stream)?;
        assert_eq!(recording.ports_of(address)?, BTreeSet::from([port]));
    }
    daemon.stop()?;
    lab.finish()
}

/// A macvlan's parent does not reach it, hence the usual "shim": a macvlan of the host's own beside those of the containers.
#[test]
fn a_container_on_a_macvlan_reaches_the_host_and_the_lan() -> Result<()> {
    if !docker::is_available()? {
        return Ok(());
    }
    for mode in ["redirect", "drop"] {
        let lab = Lab::builder().links(2).build()?;
        let engine = Engine::start(&lab.host, &[])?;
        let network = ["network", "create", "--driver", "macvlan", "--opt", "parent=eth1_int"];
        let (gateway, range) = (format!("--gateway={PEER}"), format!("--ip-range={RANGE}"));
        engine.docker(&[&network[..], &["--subnet=192.168.0.0/21", &gateway, &range, "lan"]].concat())?;
        let address = CONTAINER.to_string();
        let container = engine.run_idle("server", &["--network", "lan", "--ip", &address])?;
        lab.host.ip_batch(&format!(
            "link add shim link eth1_int type macvlan mode bridge\naddress add {SHIM}/32 dev shim\n\
             link set shim up\nroute add {RANGE} dev shim"
        ))?;
        let daemon = lab.run_mhebpf(&["run", "--all", "--mode", mode])?;
        assert!(daemon.stderr().contains("on eth0_int, eth1_int"), "{}", daemon.stderr());

        let recording = lab.record();
        let on_the_lan = tcp::EchoServer::start(&lab.switch, PEER, ARTICLE_PORT)?;
        tcp::echo_bulk(&tcp::connect(&container, CONTAINER, on_the_lan.address())?, 100_000)?;
        assert_eq!(recording.ports_of(CONTAINER)?, BTreeSet::from([1]));
        icmp::ping(&lab.switch, PEER, CONTAINER, PATIENCE)?;

        let in_the_container = tcp::EchoServer::start(&container, CONTAINER, ARTICLE_PORT)?;
        for source in [SHIM, lab.address(1)] {
            lab.host_forgets_neighbours()?;
            tcp::echo_bulk(&tcp::connect(&lab.host, source, in_the_container.address())?, 100_000)?;
        }
        let on_the_host = tcp::EchoServer::start(&lab.host, Ipv4Addr::UNSPECIFIED, ARTICLE_PORT)?;
        for target in [SHIM, lab.address(1), lab.address(0)] {
            lab.forget_neighbours()?;
            container.ip("neighbour flush dev eth0")?;
            let target = SocketAddrV4::new(target, on_the_host.address().port());
            tcp::echo_bulk(&tcp::connect(&container, CONTAINER, target)?, 100_000)?;
        }
        daemon.stop()?;
        lab.finish()?;
    }
    Ok(())
}
