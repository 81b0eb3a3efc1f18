//! Ports that a host publishes by address translation: an audit names those whose answers mhebpf moves.

#[expect(dead_code, reason = "root looks here")]
mod inspection;

use anyhow::{Context as _, Result};
use inspection::{document, mhebpf};
use mhebpf_tests::{Lab, PEER, SECOND_PEER, nat};

const SCHEMA: &str = include_str!("../../mhebpf/schema/audit.json");

/// What rules may look like: by ports, sets and maps, in chains that others lead to, for one address or interface only.
const RULES: &str = "
table inet lab {
    map nodeports {
        type inet_proto . inet_service : verdict
        elements = { tcp . 30080 : goto service, udp . 30053 : goto service }
    }
    map addresses {
        type ipv4_addr . inet_proto . inet_service : verdict
        elements = { 10.96.0.1 . tcp . 443 : goto service, 10.1.0.101 . tcp . 444 : goto service }
    }
    set many {
        type inet_service; flags interval
        elements = { 100-110, 120, 65000-65535 }
    }
    chain endpoint {
        meta l4proto { tcp, udp } dnat ip to 10.244.0.2:8080
    }
    chain service {
        numgen random mod 2 vmap { 0 : goto endpoint, 1 : goto endpoint }
    }
    chain pre {
        type nat hook prerouting priority -100
        tcp dport 22 accept
        ip daddr . meta l4proto . th dport vmap @addresses
        fib daddr type local meta l4proto . th dport vmap @nodeports
        ip daddr 10.1.0.101 tcp dport @many dnat ip to 10.244.0.3
        ip daddr 192.168.0.100 tcp dport 7001 dnat ip to 10.244.0.3
        iifname eth0_int tcp dport 7002 dnat ip to 10.244.0.3
        iifname \"eth1*\" tcp dport 7003 dnat ip to 10.244.0.3
        ip daddr 10.1.0.0/16 udp dport 600-610 redirect to 53
        tcp dport { 81, 82 } dnat ip to 10.244.0.3
        dnat ip to tcp dport map { 9001 : 10.244.0.3, 9002 : 10.244.0.4 }
    }
    chain output {
        type nat hook output priority -100
        tcp dport 6666 dnat ip to 10.244.0.3
    }
}";

/// Those that can be asked for at 10.1.0.101, on the second interface.
const PUBLISHED: [&str; 12] = [
    "tcp 10.1.0.101:100-110",
    "tcp 10.1.0.101:120",
    "tcp 10.1.0.101:444",
    "tcp 10.1.0.101:65000-65535",
    "tcp 30080",
    "tcp 7003",
    "tcp 81",
    "tcp 82",
    "tcp 9001",
    "tcp 9002",
    "udp 10.1.0.0-10.1.255.255:600-610",
    "udp 30053",
];

#[test]
fn an_audit_names_the_ports_whose_answers_move() -> Result<()> {
    if !nat::has_nft()? {
        return Ok(());
    }
    let lab = Lab::builder().links(1).links_in_second_subnet(1).build()?;
    lab.host.ip(&format!("route add default via {PEER}"))?;
    lab.host.ip(&format!("route add default via {SECOND_PEER} metric 4096"))?;
    lab.host.sysctl("net.ipv4.ip_forward", "1")?;
    lab.host.nft(RULES)?;
    let document = document(&mhebpf(&lab.host, &["audit", "-o", "json"])?, SCHEMA)?;
    let mut findings = document["findings"].as_array().into_iter().flatten();
    let moved = findings.find(|finding| finding["id"] == "translated-answers");
    let moved = moved.with_context(|| format!("{document:#}"))?;
    let objects = moved["objects"].as_array().into_iter().flatten();
    let ports: Vec<&str> = objects
        .filter(|object| object["kind"] == "port")
        .filter_map(|object| object["name"].as_str())
        .collect();
    assert_eq!(ports, PUBLISHED);
    assert_eq!(moved["summary"], "answers of 12 ports published on eth1_int leave by eth0_int today");
    lab.finish()
}
