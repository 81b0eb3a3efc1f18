//! Connections of the host itself whose destination it translates (a cluster's service, its own published port): their source
//! was chosen for the destination before. What becomes of them is said, in observe mode above all.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Instant,
};

use anyhow::Result;
use mhebpf_tests::{
    Family, Lab, Monitor, SECOND_PEER, nat,
    traffic::{ARTICLE_PORT, udp},
};

const SERVICE_PORT: u16 = 53;
const ORDINARY_PORT: u16 = 4000;
const ANSWERING_PORT: u16 = 7000;

/// A node of two networks with a service whose endpoint is in the second one, while the route to the service leads through the
/// first.
struct Node {
    lab: Lab,
    service: SocketAddr,
    endpoint: SocketAddr,
}

impl Node {
    fn new(family: Family) -> Result<Self> {
        let lab = Lab::builder().links(1).links_in_second_subnet(1).family(family).build()?;
        let (service, endpoint) = match family {
            Family::V4 => (Ipv4Addr::new(10, 96, 0, 10).into(), SECOND_PEER.into()),
            Family::V6 => ("fd00:96::10".parse()?, lab.peer_in(family, 1)),
        };
        let [service, endpoint] =
            [(service, SERVICE_PORT), (endpoint, ARTICLE_PORT)].map(|(ip, port)| SocketAddr::new(ip, port));
        let flag = family.choose("", "-6 ");
        lab.host.ip(&format!("{flag}route replace default via {}", lab.peer_in(family, 0)))?;
        let ip = family.choose("ip", "ip6");
        lab.host.nft(&format!(
            "table {ip} services {{ chain out {{
                type nat hook output priority -100
                {ip} daddr {} udp dport {SERVICE_PORT} dnat to {endpoint}
            }}
            }}",
            service.ip()
        ))?;
        Ok(Self { lab, service, endpoint })
    }

    /// The host asks the service.
    fn ask(&self) -> Result<SocketAddr> {
        let socket = udp::bind(&self.lab.host, self.own(), 0)?;
        socket.send_to(b"?", self.service)?;
        Ok(socket.local_addr()?)
    }

    /// What the kernel chooses by the route to the service.
    fn own(&self) -> IpAddr {
        self.lab.address_in(if self.service.is_ipv4() { Family::V4 } else { Family::V6 }, 0)
    }
}

#[test]
fn observe_mode_and_monitors_tell_translated_connections_from_others() -> Result<()> {
    if !nat::has_nft()? {
        return Ok(());
    }
    for family in Family::BOTH {
        let node = Node::new(family)?;
        let (lab, Node { service, endpoint, .. }) = (&node.lab, &node);
        let daemon = lab.run_mhebpf(&["run", "--all", "--mode", "observe"])?;
        let monitor = Monitor::start(&lab.host, &[])?;
        let asked = Instant::now();
        let from = node.ask()?;
        let seen =
            format!("udp {from} > {endpoint}, translated from {service}: would be redirected to eth0_int ");
        monitor.wait_for(asked, |line| line.contains(&seen))?;
        // One of the ordinary kind.
        udp::bind(&lab.host, node.own(), 0)?.send_to(b"?", (endpoint.ip(), ORDINARY_PORT))?;
        let seen = format!("{}: would be redirected", SocketAddr::new(endpoint.ip(), ORDINARY_PORT));
        monitor.wait_for(asked, |line| line.contains(&seen))?;
        // Answers to others are translated by nobody.
        let server = udp::bind(&lab.host, node.own(), ANSWERING_PORT)?;
        let peer = udp::bind(&lab.switch, endpoint.ip(), ARTICLE_PORT)?;
        peer.send_to(b"?", (node.own(), ANSWERING_PORT))?;
        let (_, asking) = server.recv_from(&mut [0; 8])?;
        server.send_to(b"!", asking)?;
        let answer = format!("{} > {asking}: would be redirected", server.local_addr()?);
        monitor.wait_for(asked, |line| line.contains(&answer))?;
        let stderr = daemon.stop()?.stderr;
        for flow in [format!("{ARTICLE_PORT}, translated from {service}"), ORDINARY_PORT.to_string()] {
            let (own, to) = (node.own(), endpoint.ip());
            let line = format!(
                "  eth1_int egress udp {own} > {to} port {flow}: redirected to eth0_int (redirected)"
            );
            assert_eq!(stderr.lines().filter(|said| **said == line).count(), 1, "{line}\n{stderr}");
        }
        node.lab.finish()?;
    }
    Ok(())
}
