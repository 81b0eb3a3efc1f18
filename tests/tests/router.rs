//! A router with two uplinks and a network of its own: a strong end system towards the uplinks, and a router as before towards
//! its network (RFC 1812 section 5.2.3).

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddrV4},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use mhebpf_tests::{
    Daemon, FAR, Lab, Monitor, PATIENCE, PEER, SECOND_PEER,
    features::{self, Feature},
    lab::{INTERFACES, LAN, LAN_CLIENT, LAN_HOST, LAN_SERVER, Lan},
    nat, scaled, tcx,
    traffic::{ARTICLE_PORT, icmp, tcp, udp},
};

/// The port that the router forwards to a server in its network.
const FORWARDED: u16 = 8080;

/// Selects all interfaces of the router by name.
const NAMED: [&str; 4] = ["--interface", INTERFACES, "--interface", LAN];

/// The router, and the network behind it; `None` on a kernel that can't have them.
fn router() -> Result<Option<(Lab, Lan)>> {
    if !features::require(Feature::Macvlan)? || !features::require(Feature::Nftables)? {
        return Ok(None);
    }
    let lab = Lab::builder().links(1).links_in_second_subnet(1).build()?;
    let lan = lab.add_lan()?;
    lab.host.ip_batch(&format!(
        "route add default via {PEER}\n\
         route add default via {SECOND_PEER} metric 20"
    ))?;
    nat::masquerade(&lab.host)?;
    nat::publish(&lab.host, FORWARDED, LAN_SERVER)?;
    Ok(Some((lab, lan)))
}

fn run(lab: &Lab, arguments: &[&str]) -> Result<Daemon> {
    lab.run_mhebpf(&[&["run", "--no-announce"], arguments].concat())
}

/// By which ports a far client's connection to the forwarded port of the second uplink is answered.
fn ways_of_forwarded(lab: &Lab, lan: &Lan) -> Result<BTreeSet<usize>> {
    let recording = lab.record();
    let _server = tcp::EchoServer::start(&lan.server, LAN_SERVER, FORWARDED)?;
    let stream = tcp::connect(&lab.switch, FAR, SocketAddrV4::new(lab.address(1), FORWARDED))?;
    tcp::echo_bulk(&stream, 100_000)?;
    tcp::close(stream)?;
    recording.ports_of(lab.address(1))
}

#[test]
fn a_forwarded_port_and_a_ping_of_the_second_uplink_are_answered_by_it() -> Result<()> {
    let Some((lab, lan)) = router()? else { return Ok(()) };
    let ping = || -> Result<BTreeSet<usize>> {
        let recording = lab.record();
        icmp::ping(&lab.switch, FAR, lab.address(1), PATIENCE)?;
        recording.ports_of(lab.address(1))
    };
    assert_eq!((ways_of_forwarded(&lab, &lan)?, ping()?), ([0].into(), [0].into()), "without mhebpf");
    for arguments in [&["--all"][..], &NAMED, &["--all", "--steer", "rules"]] {
        let daemon = run(&lab, arguments)?;
        let answered = (ways_of_forwarded(&lab, &lan)?, ping()?);
        assert_eq!(answered, ([1].into(), [1].into()), "{arguments:?}");
        icmp::ping(&lan.client, LAN_CLIENT, FAR, PATIENCE)?;
        daemon.stop()?;
    }
    lab.finish()
}

#[test]
fn in_drop_mode_no_answer_of_the_second_uplink_leaves_by_the_first() -> Result<()> {
    let Some((lab, lan)) = router()? else { return Ok(()) };
    let daemon = run(&lab, &["--all", "--mode", "drop"])?;
    let _server = tcp::EchoServer::start(&lan.server, LAN_SERVER, FORWARDED)?;
    let recording = lab.record();
    let to = SocketAddrV4::new(lab.address(1), FORWARDED);
    let connected = tcp::connect_timed(&lab.switch, FAR, to, scaled(Duration::from_millis(300)));
    assert!(connected.is_err());
    assert_eq!(recording.ports_of(lab.address(1))?, BTreeSet::new());
    let summary = daemon.stop()?.summary;
    assert!(summary.count("eth0_int", "wrong_source") > 0, "{summary:?}");
    lab.finish()
}

/// A client in the network reaches the uplinks' addresses: the forwarded port (NAT loopback), a service of the router, a ping.
fn try_uplinks_from_inside(lab: &Lab, lan: &Lan) -> Result<()> {
    let _server = tcp::EchoServer::start(&lan.server, LAN_SERVER, FORWARDED)?;
    let _service = tcp::EchoServer::start(&lab.host, Ipv4Addr::UNSPECIFIED, ARTICLE_PORT)?;
    for address in lab.addresses() {
        for port in [FORWARDED, ARTICLE_PORT] {
            let stream = tcp::connect(&lan.client, LAN_CLIENT, SocketAddrV4::new(address, port))
                .with_context(|| format!("{address}, port {port}"))?;
            tcp::echo_bulk(&stream, 100_000)?;
        }
        icmp::ping(&lan.client, LAN_CLIENT, address, PATIENCE)?;
    }
    Ok(())
}

#[test]
fn a_client_inside_reaches_the_addresses_of_the_uplinks() -> Result<()> {
    let Some((lab, lan)) = router()? else { return Ok(()) };
    let said = [
        (&["--all"][..], "leaving out br-lan: a downlink: this host forwards there"),
        (&NAMED, "br-lan is a downlink: this host forwards there"),
    ];
    for (arguments, line) in said {
        for more in [&["--mode", "redirect"], &["--mode", "drop"], &["--steer", "rules"]] {
            let daemon = run(&lab, &[arguments, more].concat())?;
            assert!(daemon.stderr().contains(line), "{}", daemon.stderr());
            try_uplinks_from_inside(&lab, &lan).with_context(|| format!("{arguments:?} {more:?}"))?;
            assert_eq!(daemon.stop()?.summary.counts(), []);
        }
    }
    lab.finish()
}

/// Sends a request for an uplink's address from inside, and one for the network's own address, which is answered.
fn ask_from_inside(lab: &Lab, lan: &Lan) -> Result<()> {
    icmp::send_request(&lan.client, LAN_CLIENT, lab.address(0))?;
    icmp::ping(&lan.client, LAN_CLIENT, LAN_HOST, PATIENCE)
}

#[test]
fn downlinks_are_held_to_their_own_addresses_when_asked_for() -> Result<()> {
    let Some((lab, lan)) = router()? else { return Ok(()) };
    for arguments in [&["--all"][..], &NAMED] {
        let daemon = run(&lab, &[arguments, &["--downlinks"]].concat())?;
        ask_from_inside(&lab, &lan)?;
        let summary = daemon.stop()?.summary;
        assert_eq!(summary.count(LAN, "wrong_destination"), 1, "{arguments:?}: {summary:?}");
    }
    lab.finish()
}

/// As a DHCP server does to a relay, whose address is that of the clients' network.
#[test]
fn a_server_behind_an_uplink_answers_to_the_address_of_the_network() -> Result<()> {
    let Some((lab, _lan)) = router()? else { return Ok(()) };
    lab.switch.ip(&format!("route add {LAN_HOST}/32 via {}", lab.address(0)))?;
    let relay = udp::EchoServer::start(&lab.host, LAN_HOST, ARTICLE_PORT)?;
    let socket = udp::bind(&lab.switch, PEER, 0)?;
    for arguments in [&["--all"][..], &NAMED] {
        let daemon = run(&lab, arguments)?;
        let recording = lab.record();
        udp::echo(&socket, relay.address(), b"to the relay")?;
        assert_eq!(recording.ports_of(LAN_HOST)?, BTreeSet::from([0]));
        assert_eq!(daemon.stop()?.summary.counts(), [], "{arguments:?}");

        let daemon = run(&lab, &[arguments, &["--downlinks"]].concat())?;
        socket.send_to(b"to the relay", relay.address())?;
        lab.fence()?;
        let summary = daemon.stop()?.summary;
        assert_eq!(summary.count("eth0_int", "wrong_destination"), 1, "{arguments:?}: {summary:?}");
    }
    lab.finish()
}

/// As Docker does when it starts, and makes its bridge.
#[test]
fn forwarding_that_is_turned_on_makes_a_downlink_of_an_uplink() -> Result<()> {
    let Some((lab, lan)) = router()? else { return Ok(()) };
    let said = [
        (&["--all"][..], "WARN nothing is enforced on br-lan any more: a downlink: this host forwards there"),
        (&NAMED, "WARN br-lan is a downlink: this host forwards there"),
    ];
    for (arguments, line) in said {
        lab.host.sysctl("net.ipv4.ip_forward", "0")?;
        let daemon = run(&lab, arguments)?;
        ask_from_inside(&lab, &lan)?;
        lab.host.sysctl("net.ipv4.ip_forward", "1")?;
        daemon.wait_for_line(line, PATIENCE)?;
        try_uplinks_from_inside(&lab, &lan)?;
        if arguments == ["--all"] {
            for hook in [tcx::Hook::Ingress, tcx::Hook::Egress] {
                assert_eq!(tcx::programs(&lab.host, LAN, hook)?, []);
            }
        }
        daemon.stop()?;
    }
    lab.finish()
}

/// A network that is left by a gateway of its own is none of which this host is the only router.
#[test]
fn a_gateway_makes_an_uplink_of_a_downlink() -> Result<()> {
    let Some((lab, lan)) = router()? else { return Ok(()) };
    let daemon = run(&lab, &["--all"])?;
    try_uplinks_from_inside(&lab, &lan)?;
    lab.host.ip(&format!("route add default via {LAN_SERVER} metric 900"))?;
    daemon.wait_for_line("enforcing on br-lan", PATIENCE)?;
    ask_from_inside(&lab, &lan)?;
    let summary = daemon.stop()?.summary;
    assert_eq!(summary.count(LAN, "wrong_destination"), 1, "{summary:?}");
    lab.finish()
}

#[test]
fn what_is_forwarded_has_a_switch_of_its_own() -> Result<()> {
    let Some((lab, lan)) = router()? else { return Ok(()) };
    for (policy, port) in [("enforce", 1), ("observe", 0), ("off", 0)] {
        // The judge knows of no switches.
        let daemon = Daemon::spawn(&lab.host, &["run", "--all", "--no-announce", "--forwarded", policy])?;
        daemon.wait_ready()?;
        let (monitor, start) = (Monitor::start(&lab.host, &[])?, Instant::now());
        assert_eq!(ways_of_forwarded(&lab, &lan)?, BTreeSet::from([port]), "{policy}");
        let act = match policy {
            "enforce" => Some(": redirected to eth1_int (redirected"),
            "observe" => Some(": would be redirected to eth1_int (redirected"),
            _ => None,
        };
        if let Some(act) = act {
            let shown = format!("fwd eth0_int tcp {}:{FORWARDED} > {FAR}:", lab.address(1));
            monitor.wait_for(start, |line| line.contains(&shown) && line.contains(act))?;
        }
        // What the host itself sends is held to the owner all the same.
        let recording = lab.record();
        icmp::ping(&lab.switch, FAR, lab.address(1), PATIENCE)?;
        assert_eq!(recording.ports_of(lab.address(1))?, BTreeSet::from([1]), "{policy}");
        drop(monitor);
        let ended = daemon.stop()?;
        let counts = ["count", "observed"].map(|way| match way {
            "count" => ended.summary.count("eth0_int", "redirected"),
            _ => ended.summary.observed("eth0_int", "redirected"),
        });
        match policy {
            "enforce" => assert!(counts[0] > 1 && counts[1] == 0, "{}", ended.stderr),
            "observe" => assert!(counts[0] == 1 && counts[1] > 1, "{}", ended.stderr),
            _ => assert_eq!(counts, [1, 0], "{}", ended.stderr),
        }
    }
    lab.finish()
}

#[test]
fn in_observe_mode_the_summary_names_what_is_forwarded() -> Result<()> {
    let Some((lab, lan)) = router()? else { return Ok(()) };
    let daemon = run(&lab, &["--all", "--mode", "observe"])?;
    assert_eq!(ways_of_forwarded(&lab, &lan)?, BTreeSet::from([0]));
    let said = daemon.stop()?.stderr;
    assert!(!said.contains("safe to enforce"), "{said}");
    let flow = format!("{} > {FAR}", lab.address(1));
    let told = said.lines().find(|line| line.contains(&flow)).context(said.clone())?;
    assert!(told.contains("forwarded") && told.contains("redirected to eth1_int"), "{told}");
    lab.finish()
}
