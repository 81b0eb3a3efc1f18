//! An operator's own rules by connection marks, for a router with two uplinks: they go on working, and nothing is left to be
//! redirected.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddrV4},
};

use anyhow::{Context as _, Result};
use mhebpf_tests::{
    FAR, Lab, PATIENCE, PEER, SECOND_PEER,
    features::{self, Feature},
    lab::{LAN, LAN_CLIENT, LAN_SERVER, Lan},
    nat,
    traffic::{ARTICLE_PORT, icmp, tcp},
};

/// The port that is forwarded to the server.
const FORWARDED: u16 = 8080;

/// Marks each connection by the uplink that it came in by, or by the station inside that begins it, restores the marks for what
/// belongs to it, and translates.
const FIREWALL: &str = "table ip marks {
    chain incoming {
        meta mark and 0x3f00 == 0 iifname eth0_int meta mark set 0x100
        meta mark and 0x3f00 == 0 iifname eth1_int meta mark set 0x200
        meta mark and 0x3f00 == 0 iifname br-lan ip daddr 198.51.100.0/24 ip saddr 172.31.0.20 meta mark set 0x100
        meta mark and 0x3f00 == 0 iifname br-lan ip daddr 198.51.100.0/24 ip saddr 172.31.0.10 meta mark set 0x200
    }
    chain each {
        meta mark set ct mark and 0x3f00
        meta mark and 0x3f00 == 0 jump incoming
        ct mark set meta mark
    }
    chain pre { type filter hook prerouting priority mangle; jump each; }
    chain out { type route hook output priority mangle; jump each; }
}
table ip nat {
    chain pre { type nat hook prerouting priority dstnat; iifname { eth0_int, eth1_int } tcp dport 8080 dnat to 172.31.0.10; }
    chain post { type nat hook postrouting priority srcnat; oifname { eth0_int, eth1_int } ip saddr 172.31.0.0/24 masquerade; }
}\n";

fn add_rules(lab: &Lab, priorities: bool) -> Result<()> {
    let mut script = String::new();
    for (table, gateway) in [(1, PEER), (2, SECOND_PEER)] {
        let priority = if priorities { format!("priority 200{table}") } else { String::new() };
        script += &format!(
            "route add default via {gateway} table {table}\n\
             route add 192.168.0.0/21 dev eth0_int table {table}\n\
             route add 10.1.0.0/24 dev eth1_int table {table}\n\
             route add 172.31.0.0/24 dev {LAN} table {table}\n\
             rule add fwmark 0x{table}00/0x3f00 lookup {table} {priority}\n"
        );
    }
    lab.host.ip_batch(&script)?;
    lab.host.nft(FIREWALL)
}

/// A far client uses the router's own service, the forwarded port and a ping by both uplinks; those from inside leave by the
/// uplink of their mark.
fn try_out(lab: &Lab, lan: &Lan) -> Result<()> {
    let _own = tcp::EchoServer::start(&lab.host, Ipv4Addr::UNSPECIFIED, ARTICLE_PORT)?;
    let _server = tcp::EchoServer::start(&lan.server, LAN_SERVER, FORWARDED)?;
    let far = tcp::EchoServer::start(&lab.switch, FAR, ARTICLE_PORT)?;
    for port in lab.ports() {
        let recording = lab.record();
        for service in [ARTICLE_PORT, FORWARDED] {
            let to = SocketAddrV4::new(lab.address(port), service);
            let stream = tcp::connect(&lab.switch, FAR, to).with_context(|| to.to_string())?;
            tcp::echo_bulk(&stream, 100_000)?;
            tcp::close(stream)?;
        }
        icmp::ping(&lab.switch, FAR, lab.address(port), PATIENCE)?;
        assert_eq!(recording.ports_of(lab.address(port))?, BTreeSet::from([port]));
        // From inside, the uplinks' addresses are the router's.
        let to = SocketAddrV4::new(lab.address(port), ARTICLE_PORT);
        tcp::echo_bulk(&tcp::connect(&lan.client, LAN_CLIENT, to)?, 10_000)?;
    }
    for (port, ns, address) in [(0, &lan.client, LAN_CLIENT), (1, &lan.server, LAN_SERVER)] {
        let recording = lab.record();
        tcp::echo_bulk(&tcp::connect(ns, address, far.address())?, 10_000)?;
        let ways = recording.ports_by_source()?;
        assert_eq!(ways.get(&lab.address(port).into()), Some(&BTreeSet::from([port])), "{ways:?}");
    }
    Ok(())
}

#[test]
fn rules_by_connection_marks_go_on_working() -> Result<()> {
    if !features::require(Feature::Macvlan)? || !nat::has_nft()? {
        return Ok(());
    }
    for arguments in [&["--mode", "redirect"][..], &["--mode", "drop"], &["--steer", "rules"]] {
        for (priorities, come_first) in [(true, true), (false, true), (false, false)] {
            let lab = Lab::builder().links(1).links_in_second_subnet(1).build()?;
            let lan = lab.add_lan()?;
            lab.host.ip_batch(&format!(
                "route add default via {PEER}\n\
                 route add default via {SECOND_PEER} metric 20"
            ))?;
            if come_first {
                add_rules(&lab, priorities)?;
            }
            let daemon = lab.run_mhebpf(&[&["run", "--all", "--no-announce"], arguments].concat())?;
            if !come_first {
                add_rules(&lab, priorities)?;
            }
            try_out(&lab, &lan)
                .with_context(|| format!("{arguments:?}, priorities: {priorities}, first: {come_first}"))?;
            let summary = daemon.stop()?.summary;
            for reason in ["redirected", "wrong_source", "wrong_destination"] {
                assert_eq!(summary.total(reason), 0, "{arguments:?}: {summary:?}");
            }
            lab.finish()?;
        }
    }
    Ok(())
}
