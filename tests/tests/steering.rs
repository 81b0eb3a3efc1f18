//! Traffic with `--steer rules`: the kernel chooses the owner by itself, and nothing needs to be redirected.

mod all_kinds;
mod steered;

use std::{
    collections::BTreeSet,
    io::Read as _,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use all_kinds::{Servers, peer};
use anyhow::{Context as _, Result};
use mhebpf_tests::{
    Daemon, Family, Lab, NetNs, PATIENCE, scaled,
    traffic::{ARTICLE_PORT, icmp, tcp, udp},
    wait_until,
};
use socket2::{Domain, SockRef, Socket, Type};
use steered::{lab, ours, table};

/// Longer than a connection takes where nothing is in its way, and shorter than a neighbour's failure.
const SOON: Duration = scaled(Duration::from_millis(1500));

/// Ways to lose the first route's interface.
const LOSSES: [&str; 2] = ["link set eth0_ext nomaster", "link set eth0_ext down"];

/// Takes the first route's interface out, and waits until the host has taken note of that.
fn lose_port_0(lab: &Lab, loss: &str) -> Result<()> {
    lab.switch.ip(loss)?;
    if !loss.ends_with("down") {
        return Ok(());
    }
    wait_until("eth0_int to have no carrier", PATIENCE, || {
        Ok(lab.host.ip("route show")?.contains("linkdown").then_some(()))
    })
}

#[test]
fn without_the_first_routes_interface_the_other_addresses_work() -> Result<()> {
    for loss in LOSSES {
        let lab = lab()?;
        let daemon = lab.mhebpf(&["--steer", "rules"])?;
        lose_port_0(&lab, loss)?;
        for family in Family::BOTH {
            let servers = Servers::start(&lab, family)?;
            for port in 1..4 {
                let address = lab.address_in(family, port);
                let recording = lab.record();
                servers
                    .exchange(&lab, address, PATIENCE)
                    .with_context(|| format!("{address} after {loss}"))?;
                assert_eq!(recording.ports_of(address)?, BTreeSet::from([port]));
            }
        }
        assert_eq!(daemon.stop()?.summary.total("redirected"), 0);
        lab.finish()?;
    }
    Ok(())
}

/// The hole that steering closes: such packets never reach a program.
#[test]
fn without_steering_they_fail() -> Result<()> {
    for loss in LOSSES {
        let lab = lab()?;
        let daemon = lab.mhebpf(&[])?;
        lose_port_0(&lab, loss)?;
        for family in Family::BOTH {
            let servers = Servers::start(&lab, family)?;
            let address = lab.address_in(family, 1);
            for is_far in [false, true] {
                let connected = servers.connect(&lab, address, is_far, SOON);
                assert!(connected.is_err(), "{address}, far: {is_far}, after {loss}");
            }
        }
        daemon.stop()?;
        lab.finish()?;
    }
    Ok(())
}

/// Connections of one address in one direction: from the client's namespace to a server that closes at once.
fn many_connections(client: (&NetNs, IpAddr), server: (&NetNs, IpAddr), count: usize) -> Result<()> {
    let listener = server.0.run(|| Ok(TcpListener::bind((server.1, 0))?))?;
    let to = listener.local_addr()?;
    thread::scope(|scope| {
        let accepting = scope.spawn(|| listener.incoming().take(count).filter(Result::is_ok).count());
        client.0.run(|| {
            for _ in 0..count {
                let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
                socket.bind(&SocketAddr::new(client.1, 0).into())?;
                socket.connect_timeout(&to.into(), PATIENCE)?;
                let rest = TcpStream::from(socket).read(&mut [0; 1])?;
                assert_eq!(rest, 0, "the server closes");
            }
            Ok(())
        })?;
        assert_eq!(accepting.join().unwrap_or_default(), count);
        Ok(())
    })
}

#[test]
fn of_ten_thousand_connections_nothing_is_redirected() -> Result<()> {
    let lab = lab()?;
    let daemon = lab.mhebpf(&["--steer", "rules"])?;
    let mut all = 0;
    for family in Family::BOTH {
        let server = udp::EchoServer::start(&lab.switch, peer(family), ARTICLE_PORT)?;
        for port in lab.ports() {
            let (host, switch) = ((&lab.host, lab.address_in(family, port)), (&lab.switch, peer(family)));
            many_connections(host, switch, 450)?;
            many_connections(switch, host, 450)?;
            for _ in 0..250 {
                let socket = udp::bind(&lab.host, host.1, 0)?;
                udp::echo(&socket, server.address(), b"hello")?;
            }
            for _ in 0..50 {
                icmp::ping(&lab.host, host.1, switch.1, PATIENCE)?;
                icmp::ping(&lab.switch, switch.1, host.1, PATIENCE)?;
            }
            all += 450 + 450 + 250 + 50 + 50;
        }
    }
    assert_eq!(all, 10_000);
    let summary = daemon.stop()?.summary;
    assert_eq!(summary.total("redirected"), 0, "{summary:?}");
    lab.finish()
}

/// The largest segment that the peer is told to send, less 12 bytes for time stamps.
fn announced_segment(lab: &Lab, family: Family, port: usize) -> Result<u32> {
    let listener = lab.switch.run(|| Ok(TcpListener::bind((peer(family), 0))?))?;
    let connection = tcp::connect(&lab.host, lab.address_in(family, port), listener.local_addr()?)?;
    let (accepted, _) = listener.accept()?;
    drop(connection);
    Ok(SockRef::from(&accepted).tcp_mss()?)
}

#[test]
fn the_announced_segment_size_follows_the_owners_mtu() -> Result<()> {
    let lab = lab()?;
    lab.host.ip("link set eth1_int mtu 1400")?;
    for (arguments, ipv4, ipv6) in [(&["--steer", "rules"][..], 1348, 1328), (&[], 1448, 1428)] {
        let daemon = lab.mhebpf(arguments)?;
        assert_eq!(announced_segment(&lab, Family::V4, 1)?, ipv4, "{arguments:?}");
        assert_eq!(announced_segment(&lab, Family::V6, 1)?, ipv6, "{arguments:?}");
        assert_eq!(announced_segment(&lab, Family::V4, 2)?, 1448);
        daemon.stop()?;
    }
    lab.finish()
}

/// The kernel looks up the way back by the rules too.
#[test]
fn a_strict_reverse_path_filter_is_right() -> Result<()> {
    let lab = lab()?;
    for port in lab.ports() {
        lab.host.sysctl(&format!("net.ipv4.conf.eth{port}_int.rp_filter"), "1")?;
    }
    let servers = Servers::start(&lab, Family::V4)?;
    let daemon = lab.mhebpf(&["--steer", "rules"])?;
    for address in lab.addresses() {
        servers.exchange(&lab, address.into(), PATIENCE)?;
    }
    assert!(!daemon.stop()?.stderr.contains("rp_filter"));
    lab.finish()
}

/// Programs stay the guarantee: for sockets that insist on an interface, say, which no rule can help.
#[test]
fn what_no_rule_helps_is_redirected_and_told() -> Result<()> {
    let lab = lab()?;
    let daemon = lab.mhebpf(&["--steer", "rules"])?;
    let recording = lab.record();
    for _ in 0..3 {
        lab.emit(0, lab.address(1))?;
    }
    assert_eq!(recording.ports_of(lab.address(1))?, BTreeSet::from([1]));
    let told = wait_until("the flow to be told", PATIENCE, || {
        let output = Daemon::command(&lab.host)?.args(["status", "-o", "json"]).output()?;
        let status: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let steering = status["steering"].clone();
        Ok((steering["flows"].as_array().is_some_and(|flows| !flows.is_empty())).then_some(steering))
    })?;
    assert_eq!((&told["rules"], &told["tables"], &told["redirected"]), (&8.into(), &4.into(), &3.into()));
    let flow = told["flows"][0].as_str().unwrap_or_default();
    assert!(flow.contains("eth0_int") && flow.contains(&lab.address(1).to_string()), "{flow}");
    let ended = daemon.stop()?;
    assert!(ended.stderr.contains("had to be redirected all the same"), "{}", ended.stderr);
    lab.finish()
}

/// The prefix of a rule may hold other hosts' addresses, whose packets this one may forward.
#[test]
fn what_is_forwarded_is_not_steered() -> Result<()> {
    let lab = lab()?;
    let _container = lab.add_container()?;
    for last in [0, 3] {
        lab.add_address(1, std::net::Ipv4Addr::new(192, 168, 3, last))?;
    }
    let daemon = lab.mhebpf(&["--steer", "rules"])?;
    let table = table(&lab, 1)?;
    assert!(ours(&lab.host)?.iter().any(|line| line.contains("from 192.168.3.0/30 fwmark 0 iif lo")));
    let of = |source: &str| lab.host.ip(&format!("route get 203.0.113.1 from {source}"));
    assert!(of("192.168.3.3")?.contains(&format!("dev eth1_int table {table}")), "{}", of("192.168.3.3")?);
    let forwarded = of("192.168.3.1 iif c0")?;
    assert!(forwarded.contains("dev eth0_int") && !forwarded.contains("table"), "{forwarded}");
    daemon.stop()?;
    lab.finish()
}

/// Where main leads through what is not enforced, or nowhere, it has the word.
#[test]
fn what_is_not_enforced_keeps_its_routes() -> Result<()> {
    let lab = lab()?;
    let _container = lab.add_container()?;
    lab.host.ip_batch(
        "route add 10.8.0.0/16 via 172.31.0.2\n\
         route add blackhole 10.9.0.0/16\n\
         route add 10.8.1.0/24 via 192.168.0.1 mtu 1300\n\
         route add prohibit 2001:db8:9::/48",
    )?;
    let daemon = lab.mhebpf(&["--steer", "rules"])?;
    let way = |to: &str| lab.host.ip(&format!("route get {to} from {}", lab.address(1)));
    let table = table(&lab, 1)?;
    let through_owner = format!("via 192.168.0.1 dev eth1_int table {table}");
    assert!(way("10.8.0.1")?.contains("via 172.31.0.2 dev c0"), "{}", way("10.8.0.1")?);
    assert!(way("172.31.0.2")?.contains("dev c0"), "{}", way("172.31.0.2")?);
    assert!(way("10.8.1.1")?.contains(&through_owner), "{}", way("10.8.1.1")?);
    assert!(way("203.0.113.1")?.contains(&through_owner), "{}", way("203.0.113.1")?);
    assert!(way("10.9.0.1").is_err());
    let prohibited = lab.host.ip(&format!("route get 2001:db8:9::1 from {}", lab.address6(1)));
    assert!(prohibited.is_err() || prohibited?.contains("prohibit"));
    let mtu = ours(&lab.host)?
        .into_iter()
        .find(|line| line.starts_with("10.8.1.0/24") && line.contains("eth1_int"));
    assert!(mtu.is_some_and(|line| line.contains("mtu 1300")), "{:?}", ours(&lab.host)?);
    daemon.stop()?;
    lab.finish()
}
