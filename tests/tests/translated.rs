//! Sources that translation makes, other than those of a published port's answers: containers translated to a certain address,
//! and the errors (ICMP) that are sent about translated packets.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, UdpSocket},
};

use anyhow::{Context as _, Result, ensure};
use mhebpf_tests::{
    FAR, FAR6, Family, Lab, NetNs, PATIENCE, PEER, SECOND_PEER, nat,
    traffic::{ARTICLE_PORT, icmp, tcp, udp},
    wait_until,
};
use socket2::SockRef;

/// The published port.
const PORT: u16 = 8080;
/// ICMP's types of an unreachable destination, and ICMPv6's of that and of a packet that is too big.
const UNREACHABLE: u8 = 3;
const UNREACHABLE_6: u8 = 1;
const TOO_BIG_6: u8 = 2;

/// Two uplinks in two subnets, each with its gateway, and a container with addresses of both families.
struct Node {
    lab: Lab,
    container: NetNs,
    family: Family,
    /// The container's address of the family.
    inside: IpAddr,
}

impl Node {
    fn new(family: Family) -> Result<Self> {
        let lab = Lab::builder().links(1).links_in_second_subnet(1).family(family).build()?;
        let container = lab.add_container()?;
        lab.host.ip_batch(&format!(
            "route add default via {PEER}\n\
             route add default via {SECOND_PEER} metric 500"
        ))?;
        let inside = match family {
            Family::V4 => container.address.into(),
            Family::V6 => {
                lab.host.ip(&format!("route add default via {} metric 2000 dev eth1_int", lab.peer6(1)))?;
                container.add_ipv6(&lab)?.into()
            }
        };
        Ok(Self { lab, container: container.ns, family, inside })
    }

    fn far(&self) -> IpAddr {
        self.family.choose(FAR.into(), FAR6.into())
    }

    /// The first uplink's address.
    fn first(&self) -> IpAddr {
        self.lab.address_in(self.family, 0)
    }

    /// The second uplink's address.
    fn second(&self) -> IpAddr {
        self.lab.address_in(self.family, 1)
    }

    /// Translates: `rules` in the chain of this hook, for the family.
    fn translate(&self, hook: &str, rules: &str) -> Result<()> {
        let (table, priority) =
            (self.family.choose("ip", "ip6"), if hook == "prerouting" { "dstnat" } else { "srcnat" });
        self.lab.host.nft(&format!(
            "table {table} lab {{ chain {hook} {{ type nat hook {hook} priority {priority}; {rules} }}\n}}\n"
        ))
    }

    /// Publishes the port on the second uplink's address.
    fn publish(&self) -> Result<()> {
        let words = self.family.choose("ip", "ip6");
        let inside = SocketAddr::new(self.inside, PORT);
        let rule = format!(
            "{words} daddr {} meta l4proto {{ tcp, udp }} th dport {PORT} dnat to {inside};",
            self.second()
        );
        self.translate("prerouting", &rule)
    }

    /// The ports, sources and ICMP types of the errors.
    fn errors(&self, recording: &mhebpf_tests::Recording<'_>) -> Result<BTreeSet<(usize, IpAddr, u8)>> {
        let frames = recording.from_host()?;
        let errors = frames.iter().filter_map(|frame| {
            let (source, kind): (IpAddr, u8) = match (frame.ipv4(), frame.ipv6()) {
                (Some(header), _) => (header.source.into(), header.icmp_type),
                (_, Some(header)) if !header.is_housekeeping() => (header.source.into(), header.icmp_type),
                _ => return None,
            };
            let is_error = kind == self.family.choose(UNREACHABLE, TOO_BIG_6) || kind == UNREACHABLE_6;
            is_error.then_some((frame.port, source, kind))
        });
        Ok(errors.collect())
    }
}

#[test]
fn a_container_that_is_translated_to_the_second_address_leaves_by_the_second_uplink() -> Result<()> {
    if !nat::has_nft()? {
        return Ok(());
    }
    for family in Family::BOTH {
        let node = Node::new(family)?;
        let lab = &node.lab;
        node.translate(
            "postrouting",
            &format!("oifname {{ eth0_int, eth1_int }} snat to {};", node.second()),
        )?;
        let server = tcp::EchoServer::start(&lab.switch, node.far(), ARTICLE_PORT)?;
        let ways = || -> Result<BTreeSet<usize>> {
            let recording = lab.record();
            let stream = tcp::connect(&node.container, node.inside, server.address())?;
            tcp::echo_bulk(&stream, 200_000)?;
            tcp::close(stream)?;
            icmp::ping(&node.container, node.inside, node.far(), PATIENCE)?;
            recording.ports_of(node.second())
        };
        assert_eq!(ways()?, BTreeSet::from([0]), "{family}, without mhebpf");
        let daemon = lab.run_mhebpf(&["run", "--all"])?;
        assert_eq!(ways().with_context(|| family.to_string())?, BTreeSet::from([1]), "{family}");
        daemon.stop()?;
        node.lab.finish()?;
    }
    Ok(())
}

/// A connected socket of the far client, which hears of errors.
fn client(node: &Node) -> Result<UdpSocket> {
    let socket = udp::bind(&node.lab.switch, node.far(), 0)?;
    socket.connect((node.second(), PORT))?;
    Ok(socket)
}

/// The container's kernel says that nobody listens; the error has the published address as its source.
#[test]
fn an_error_of_a_container_leaves_by_the_owner_of_the_published_address() -> Result<()> {
    if !nat::has_nft()? {
        return Ok(());
    }
    for family in Family::BOTH {
        let node = Node::new(family)?;
        node.publish()?;
        let unreachable = family.choose(UNREACHABLE, UNREACHABLE_6);
        for port in [0, 1] {
            let daemon = (port == 1).then(|| node.lab.run_mhebpf(&["run", "--all"])).transpose()?;
            let (recording, socket) = (node.lab.record(), client(&node)?);
            socket.send(b"hello")?;
            let refused = wait_until("the error", PATIENCE, || Ok(socket.take_error()?))?;
            ensure!(refused.kind() == std::io::ErrorKind::ConnectionRefused, refused);
            assert_eq!(
                node.errors(&recording)?,
                BTreeSet::from([(port, node.second(), unreachable)]),
                "{family}"
            );
            daemon.map(mhebpf_tests::Daemon::stop).transpose()?;
        }
        node.lab.finish()?;
    }
    Ok(())
}

/// The host itself says that a packet is too large for the container's link, with the address of the uplink that it came in by. It
/// takes the way to the client that the routes say, as an error of the uplink that this is: the other one may have no way back.
#[test]
fn an_error_about_what_is_forwarded_reaches_its_sender() -> Result<()> {
    for family in Family::BOTH {
        let node = Node::new(family)?;
        node.lab.host.ip("link set c0 mtu 1300")?;
        // As IPv6 does by itself.
        node.lab.host.sysctl("net.ipv4.icmp_errors_use_inbound_ifaddr", "1")?;
        let network = family.choose("172.31.0.0/24", "fd17::/64");
        node.lab.switch.ip(&format!("route replace {network} via {}", node.second()))?;
        let gateway = node.lab.peer_in(family, 1);
        let flag = family.choose("", "-6 ");
        for mode in [None, Some("redirect"), Some("drop")] {
            if mode == Some("redirect") {
                // Its gateway does not lead to the client.
                let elsewhere = family.choose("10.50.0.0/16", "fd50::/16");
                node.lab.host.ip(&format!("{flag}route add {elsewhere} via {gateway} dev eth1_int"))?;
                node.lab.host.ip(&format!("{flag}route del default via {gateway} dev eth1_int"))?;
            }
            let run = |mode| node.lab.run_mhebpf(&["run", "--all", "--mode", mode]);
            let daemon = mode.map(run).transpose()?;
            // The peer forgets what it has learnt of the path.
            node.lab.switch.ip(family.choose("route flush cache", "-6 route flush cache"))?;
            let recording = node.lab.record();
            let socket = udp::bind(&node.lab.switch, node.far(), 0)?;
            socket.connect((node.inside, PORT))?;
            // Neither fragments nor more than the path takes.
            match family {
                Family::V4 => set(&socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO)?,
                Family::V6 => {
                    set(&socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DO)?;
                }
            }
            socket.send(&[7; 1400])?;
            wait_until("the error", PATIENCE, || {
                Ok(match socket.send(&[7; 1400]) {
                    Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => Some(()),
                    _ => None,
                })
            })
            .with_context(|| family.to_string())?;
            let kind = family.choose(UNREACHABLE, TOO_BIG_6);
            let source = if daemon.is_some() { node.first() } else { node.second() };
            assert_eq!(node.errors(&recording)?, BTreeSet::from([(0, source, kind)]), "{family}, {mode:?}");
            if let Some(daemon) = daemon {
                let summary = daemon.stop()?.summary;
                assert!(summary.count("eth0_int", "icmp_rewritten") > 0, "{family}: {summary:?}");
            }
        }
        node.lab.finish()?;
    }
    Ok(())
}

/// The container has sized its packets for the first route's interface. The error that tells it better is translated like any
/// other, and reaches it.
#[test]
fn the_answers_of_a_published_port_adapt_to_the_owners_smaller_mtu() -> Result<()> {
    if !nat::has_nft()? {
        return Ok(());
    }
    for family in Family::BOTH {
        let node = Node::new(family)?;
        let lab = &node.lab;
        lab.host.ip("link set eth1_int mtu 1300")?;
        // The peer knows better than to send large segments there, but offers to take them.
        let shown = lab.switch.ip(&format!("route get {}", node.second()))?;
        let device = shown.split_whitespace().skip_while(|word| *word != "dev").nth(1);
        let device = device.context("the peer's way to the second uplink")?;
        lab.switch.ip(&format!("route add {} dev {device} mtu 1300 advmss 1440", node.second()))?;
        node.publish()?;
        let _server = tcp::EchoServer::start(&node.container, node.inside, PORT)?;
        let daemon = lab.run_mhebpf(&["run", "--all"])?;
        let recording = lab.record();
        let stream = tcp::connect(&lab.switch, node.far(), SocketAddr::new(node.second(), PORT))?;
        tcp::echo_bulk(&stream, 300_000).with_context(|| family.to_string())?;
        drop(stream);
        assert_eq!(recording.ports_of(node.second())?, BTreeSet::from([1]), "{family}");
        let summary = daemon.stop()?.summary;
        assert!(summary.total("too_big") > 0, "{family}: {summary:?}");
        node.lab.finish()?;
    }
    Ok(())
}

fn set(socket: &UdpSocket, level: i32, option: i32, value: i32) -> Result<()> {
    use std::os::fd::AsRawFd as _;
    let descriptor = SockRef::from(socket).as_raw_fd();
    // SAFETY: the option takes an int, which lives through the call.
    let result = unsafe {
        libc::setsockopt(
            descriptor,
            level,
            option,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    ensure!(result == 0, std::io::Error::last_os_error());
    Ok(())
}
