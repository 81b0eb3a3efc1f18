//! `mhebpf audit` in the lab: it finds what the lab shows, and changes nothing.

mod inspection;

use anyhow::{Result, ensure};
use inspection::{Printed, assert_fits, document, expect, mhebpf, mhebpf_without_privileges, state};
use mhebpf_tests::{
    Lab, NetNs, PEER, SECOND_PEER,
    features::{self, Feature},
    lab::PROBE_PORT,
    tcx,
    traffic::{tcp, udp},
};
use serde_json::Value;

const README: &str = include_str!("../../README.md");
const SCHEMA: &str = include_str!("../../mhebpf/schema/audit.json");

const CLEAN: Option<i32> = Some(0);
const USAGE: Option<i32> = Some(2);
const FINDINGS: Option<i32> = Some(3);

fn audit(ns: &NetNs, words: &[&str]) -> Result<(Option<i32>, Value)> {
    let printed = mhebpf(ns, &[&["audit", "-o", "json"], words].concat())?;
    Ok((printed.status, document(&printed, SCHEMA)?))
}

/// The findings with this id.
fn found<'a>(document: &'a Value, id: &str) -> Vec<&'a Value> {
    let findings = document["findings"].as_array().into_iter().flatten();
    findings.filter(|finding| finding["id"] == id).collect()
}

/// The only finding with this id.
fn only<'a>(document: &'a Value, id: &str) -> Result<&'a Value> {
    let found = found(document, id);
    ensure!(found.len() == 1, "{} findings {id} in {document:#}", found.len());
    Ok(found[0])
}

/// What a finding is about, of one kind.
fn about<'a>(finding: &'a Value, kind: &str) -> Vec<&'a str> {
    let objects = finding["objects"].as_array().into_iter().flatten();
    objects.filter(|object| object["kind"] == kind).filter_map(|object| object["name"].as_str()).collect()
}

/// Indices differ from run to run.
fn without_indices(text: &str) -> String {
    let is_index = |line: &&str| !line.trim_start().starts_with("\"ifindex\":");
    text.lines().filter(is_index).map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_articles_host_shows_both_rules() -> Result<()> {
    let lab = Lab::article()?;
    let (status, document) = audit(&lab.host, &[])?;
    assert_eq!((status, &document["weak"]), (FINDINGS, &Value::Bool(true)));
    let rule_1 = only(&document, "first-route-wins")?;
    assert_eq!(rule_1["severity"], "error");
    assert_eq!(about(rule_1, "interface"), ["eth0_int"]);
    assert_eq!(about(rule_1, "address"), ["192.168.0.101", "192.168.0.102", "192.168.0.103"]);
    let rule_2 = only(&document, "arp-wrong-mac")?;
    assert_eq!(about(rule_2, "interface"), ["eth0_int", "eth1_int", "eth2_int", "eth3_int"]);
    assert_eq!(about(rule_2, "address").len(), 4);
    assert!(rule_2["consequence"].as_str().unwrap().contains("12 wrong answers"), "{rule_2}");
    assert_eq!(document["run"], "mhebpf run --all");

    // As in the article, all moves to the next interface.
    lab.reorder_routes(0)?;
    let (_, document) = audit(&lab.host, &[])?;
    assert_eq!(about(only(&document, "first-route-wins")?, "interface"), ["eth1_int"]);
    lab.finish()
}

#[test]
fn what_is_said_of_the_articles_host_is_what_the_documentation_shows() -> Result<()> {
    let lab = Lab::article()?;
    let text = mhebpf(&lab.host, &["audit"])?;
    assert_eq!((text.status, text.stderr.as_str()), (FINDINGS, ""));
    assert_fits(&text.stdout);
    expect(&text.stdout, include_str!("expected/audit.txt"), "audit.txt")?;
    let two_findings = text.stdout.split("\n\n").filter(|part| part.contains("  error ")).take(2);
    let verdict = text.stdout.rsplit("\n\n").take(1);
    for shown in two_findings.chain(verdict) {
        let shown = shown.trim_start_matches("Findings\n").trim_end();
        assert!(README.contains(shown), "README.md does not show:\n{shown}");
    }
    let nft = mhebpf(&lab.host, &["audit", "--nft", "--interface", "eth[01]_int"])?;
    assert_fits(&nft.stdout);
    expect(&nft.stdout, include_str!("expected/audit-nft.txt"), "audit-nft.txt")?;
    let json = mhebpf(&lab.host, &["audit", "-o", "json", "--interface", "eth[01]_int"])?;
    expect(&without_indices(&json.stdout), include_str!("expected/audit.json"), "audit.json")?;
    lab.finish()
}

#[test]
fn a_host_with_one_interface_is_clean() -> Result<()> {
    let lab = Lab::builder().links(1).build()?;
    lab.host.ip(&format!("route add default via {PEER}"))?;
    let (status, document) = audit(&lab.host, &[])?;
    assert_eq!(status, CLEAN);
    assert_eq!((&document["findings"], &document["run"]), (&Value::Array(Vec::new()), &Value::Null));
    let text = mhebpf(&lab.host, &["audit"])?;
    assert_eq!(text.status, CLEAN);
    assert!(text.stdout.contains("Nothing is wrong here"), "{}", text.stdout);
    lab.finish()
}

#[test]
fn ipv6_is_looked_at_too() -> Result<()> {
    let lab = Lab::builder().links(2).ipv6().build()?;
    let (status, document) = audit(&lab.host, &[])?;
    assert_eq!(status, FINDINGS);
    let subnets: Vec<_> = found(&document, "first-route-wins")
        .into_iter()
        .flat_map(|finding| about(finding, "subnet"))
        .collect();
    assert_eq!(subnets, ["192.168.0.0/21", "2001:db8::/64"]);
    let gateway = only(&document, "asymmetric-gateway")?;
    assert_eq!(about(gateway, "address"), ["2001:db8::101"]);
    // NDP is not weak: an interface answers for its own addresses only.
    assert_eq!(about(only(&document, "arp-wrong-mac")?, "subnet"), ["192.168.0.0/21"]);
    lab.finish()
}

#[test]
fn an_interface_is_seen_in_the_company_of_the_others() -> Result<()> {
    let lab = Lab::builder().links(3).links_in_second_subnet(1).build()?;
    let (status, document) = audit(&lab.host, &["--interface", "eth2_int"])?;
    assert_eq!(status, FINDINGS);
    assert_eq!(about(only(&document, "first-route-wins")?, "address"), ["192.168.0.101", "192.168.0.102"]);
    assert_eq!(document["interfaces"].as_array().map(Vec::len), Some(1));
    assert_eq!(document["run"], "mhebpf run --interface eth2_int");
    let (_, document) = audit(&lab.host, &["--interface", "eth3_int"])?;
    assert_eq!(found(&document, "first-route-wins"), [&Value::Null; 0]);
    only(&document, "weak-receive")?;
    lab.finish()
}

#[test]
fn each_vrf_is_looked_at_by_itself() -> Result<()> {
    if !features::require(Feature::Vrf)? {
        return Ok(());
    }
    let lab = Lab::builder().links(3).build()?;
    lab.host.ip_batch(
        "link add red type vrf table 1000\nlink set red up\n\
         link set eth1_int master red\nlink set eth2_int master red\n",
    )?;
    let (status, document) = audit(&lab.host, &[])?;
    assert_eq!(status, FINDINGS);
    let rule_1 = only(&document, "first-route-wins")?;
    assert_eq!(about(rule_1, "interface"), ["eth1_int"]);
    assert_eq!(about(rule_1, "address"), ["192.168.0.102"]);
    assert_eq!(about(only(&document, "shared-subnet")?, "interface"), ["eth1_int", "eth2_int"]);
    assert_eq!(about(only(&document, "arp-wrong-mac")?, "address"), ["192.168.0.101", "192.168.0.102"]);
    lab.finish()
}

#[test]
fn nothing_changes() -> Result<()> {
    let lab = Lab::builder().links(2).links_in_second_subnet(1).ipv6().build()?;
    lab.host.ip(&format!("route add default via {PEER}"))?;
    lab.host.ip("rule add from 192.168.0.101 lookup 1000")?;
    let before = state(&lab.host)?;
    for words in [&["audit"][..], &["audit", "-o", "json"], &["audit", "--nft"]] {
        assert_eq!(mhebpf(&lab.host, words)?.status, FINDINGS);
    }
    assert_eq!(state(&lab.host)?, before);
    lab.finish()
}

#[test]
fn sysctls_are_reported_as_they_count() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    lab.host.sysctl("net.ipv4.conf.all.arp_ignore", "1")?;
    lab.host.sysctl("net.ipv4.conf.eth1_int.arp_announce", "2")?;
    lab.host.sysctl("net.ipv4.conf.eth1_int.rp_filter", "1")?;
    let (_, document) = audit(&lab.host, &[])?;
    let value = |port: usize, name: &str| document["interfaces"][port]["sysctls"][name].clone();
    assert_eq!(value(0, "arp_ignore"), serde_json::json!({"own": 0, "effective": 1}));
    assert_eq!(value(1, "arp_announce"), serde_json::json!({"own": 2, "effective": 2}));
    assert_eq!(document["all"]["arp_ignore"], 1);
    assert_eq!(found(&document, "arp-wrong-mac"), [&Value::Null; 0]);
    assert_eq!(about(only(&document, "strict-reverse-path")?, "interface"), ["eth1_int"]);
    lab.finish()
}

/// What audit says of ARP is what the wire shows, whatever the sysctls.
#[test]
fn wrong_answers_are_foretold() -> Result<()> {
    let lab = Lab::builder().links(3).build()?;
    for (sysctls, wrong) in [
        (&[][..], 6),
        (&[("all.arp_ignore", "1")], 0),
        (&[("all.arp_ignore", "3")], 6),
        (&[("eth1_int.arp_ignore", "2")], 4),
        (&[("all.arp_filter", "1")], 2),
        (&[("eth2_int.arp_filter", "1")], 4),
        (&[("all.arp_ignore", "8")], 0),
        (&[("all.rp_filter", "1")], 2),
        (&[("eth1_int.rp_filter", "2")], 6),
    ] {
        for (key, value) in sysctls {
            lab.host.sysctl(&format!("net.ipv4.conf.{key}"), value)?;
        }
        let (_, document) = audit(&lab.host, &[])?;
        let foretold: usize = found(&document, "arp-wrong-mac")
            .iter()
            .filter_map(|finding| finding["consequence"].as_str()?.split(" wrong answers").next())
            .filter_map(|text| text.rsplit(' ').next()?.parse::<usize>().ok())
            .sum();
        let mut seen = 0;
        for asked in lab.ports() {
            let recording = lab.record();
            lab.ask_all(lab.address(asked))?;
            let replies = recording.arp_replies_for(lab.address(asked))?;
            seen += replies.iter().filter(|(port, _)| *port != asked).count();
        }
        assert_eq!((foretold, seen), (wrong, wrong), "{sysctls:?}: {document:#}");
        for (key, _) in sysctls {
            lab.host.sysctl(&format!("net.ipv4.conf.{key}"), "0")?;
        }
    }
    lab.finish()
}

/// The same of requests in the name of other interfaces' addresses.
#[test]
fn wrong_senders_are_foretold() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let socket = udp::bind(&lab.host, lab.address(1), 0)?;
    for (arp_announce, wrong) in [("0", true), ("1", true), ("2", false)] {
        lab.host.sysctl("net.ipv4.conf.all.arp_announce", arp_announce)?;
        let (_, document) = audit(&lab.host, &[])?;
        lab.host_forgets_neighbours()?;
        let recording = lab.record();
        socket.send_to(b"hello", (PEER, PROBE_PORT))?;
        recording.wait_datagram_from(lab.address(1))?;
        let requests = recording.arp_from_host()?;
        let seen = requests.iter().any(|(port, arp)| *port == 0 && arp.sender == lab.address(1));
        let foretold = !found(&document, "arp-wrong-sender").is_empty();
        assert_eq!((foretold, seen), (wrong, wrong), "arp_announce {arp_announce}: {requests:?}");
    }
    lab.finish()
}

#[test]
fn foreign_programs_and_filters_are_listed() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    lab.host.tc("qdisc add dev eth1_int clsact")?;
    lab.host.tc("filter add dev eth1_int egress protocol all prio 10 u32 match u32 0 0 classid 1:1")?;
    let (_, document) = audit(&lab.host, &[])?;
    let filters = only(&document, "foreign-program")?;
    assert_eq!(about(filters, "interface"), ["eth1_int"]);
    assert!(about(filters, "program").contains(&"tc egress a filter of kind u32"), "{filters}");
    let xdp = tcx::attach_xdp(&lab.host, "eth0_int")?;
    let (_, document) = audit(&lab.host, &[])?;
    let programs = &document["interfaces"][0]["programs"];
    assert_eq!((&programs[0]["hook"], &programs[0]["name"]), (&"xdp".into(), &"lab_foreign".into()));
    let text = found(&document, "foreign-program")[0]["consequence"].as_str().unwrap_or_default();
    assert!(text.contains("What an XDP program sends by itself mhebpf does not see"), "{text}");
    drop(xdp);
    if !features::require(Feature::Tcx)? {
        return lab.finish();
    }
    let _foreign = tcx::attach(&lab.host, "eth0_int", tcx::Hook::Ingress, tcx::Answer::Next)?;
    // Its own programs are none of them.
    let daemon = lab.mhebpf_quietly(&[])?;
    let (_, document) = audit(&lab.host, &[])?;
    let programs = &document["interfaces"][0]["programs"];
    assert_eq!(programs.as_array().map(Vec::len), Some(1), "{programs}");
    assert_eq!((&programs[0]["hook"], &programs[0]["name"]), (&"tcx-ingress".into(), &"lab_foreign".into()));
    only(&document, "daemon-running")?;
    daemon.stop()?;
    assert_eq!(found(&audit(&lab.host, &[])?.1, "daemon-running"), [&Value::Null; 0]);
    lab.finish()
}

#[test]
fn without_privileges_it_says_what_it_could_not_read() -> Result<()> {
    let lab = Lab::article()?;
    let printed = mhebpf_without_privileges(&lab.host, &["audit", "-o", "json"])?;
    assert_eq!(printed.status, FINDINGS, "{printed:?}");
    let document = document(&printed, SCHEMA)?;
    only(&document, "first-route-wins")?;
    only(&document, "arp-wrong-mac")?;
    let unread = document["unread"].as_array().unwrap();
    if features::has(Feature::Tcx)? {
        assert_eq!(unread.len(), 1, "{unread:?}");
        assert_eq!(unread[0]["what"], "TCX programs");
        assert!(unread[0]["why"].as_str().unwrap().contains("sudo"), "{unread:?}");
    }
    lab.finish()
}

/// Where addresses are translated matters on hosts that forward only.
#[test]
fn without_privileges_it_says_that_translation_could_not_be_read() -> Result<()> {
    if !features::require(Feature::Nftables)? {
        return Ok(());
    }
    let lab = Lab::article()?;
    lab.host.sysctl("net.ipv4.ip_forward", "1")?;
    let printed = mhebpf_without_privileges(&lab.host, &["audit", "-o", "json"])?;
    let document = document(&printed, SCHEMA)?;
    let mut unread = document["unread"].as_array().into_iter().flatten();
    assert!(unread.any(|unread| unread["what"] == "chains of nftables for NAT"), "{document:#}");
    lab.finish()
}

#[test]
fn sessions_and_bound_sockets_are_found() -> Result<()> {
    let lab = Lab::builder().links(2).links_in_second_subnet(1).build()?;
    let server = tcp::EchoServer::start(&lab.switch, PEER, 9000)?;
    let _right = tcp::connect(&lab.host, lab.address(0), server.address())?;
    let wrong = tcp::connect(&lab.host, lab.address(1), server.address())?;
    let _bound = udp::bind(&lab.host, lab.address(1), 7000)?;
    let (_, document) = audit(&lab.host, &[])?;
    let sessions = only(&document, "sockets-leave-elsewhere")?;
    let expected = format!("tcp {} to {PEER}:9000", wrong.local_addr()?);
    assert_eq!(about(sessions, "socket"), [expected.as_str()]);
    assert!(sessions["consequence"].as_str().unwrap().contains("go on through eth1_int"), "{sessions}");

    // Only as a weak end system is the address reachable now.
    lab.down(1)?;
    let (_, document) = audit(&lab.host, &[])?;
    let lost = only(&document, "unreachable-address")?;
    assert_eq!(about(lost, "address"), ["192.168.0.101"]);
    assert!(about(lost, "socket").contains(&"udp 192.168.0.101:7000"), "{lost}");
    lab.finish()
}

#[test]
fn gateways_rules_and_mtus_are_looked_at() -> Result<()> {
    let lab = Lab::builder().links(2).links_in_second_subnet(1).build()?;
    lab.host.ip(&format!("route add default via {PEER}"))?;
    lab.host.ip("link set eth1_int mtu 1400")?;
    let (_, document) = audit(&lab.host, &[])?;
    let gateway = only(&document, "asymmetric-gateway")?;
    assert_eq!(about(gateway, "interface"), ["eth1_int", "eth0_int"]);
    assert!(gateway["remedy"].as_str().unwrap().contains(&format!("{PEER} on eth1_int")), "{gateway}");
    assert_eq!(about(only(&document, "no-next-hop")?, "interface"), ["eth2_int", "eth0_int"]);
    assert_eq!(about(only(&document, "mtu-mismatch")?, "interface"), ["eth0_int", "eth1_int"]);

    // What the operator does about it without mhebpf.
    lab.host.ip(&format!("route add default via {SECOND_PEER} dev eth2_int table 1002"))?;
    lab.host.ip("rule add from 10.1.0.102 lookup 1002")?;
    let (_, document) = audit(&lab.host, &[])?;
    assert_eq!(found(&document, "no-next-hop"), [&Value::Null; 0]);
    let rules = only(&document, "source-rules")?;
    assert_eq!((&rules["severity"], about(rules, "rule").len()), (&"note".into(), 1));
    lab.finish()
}

#[test]
fn wrong_command_lines_are_answered_with_what_to_do() -> Result<()> {
    let lab = Lab::builder().links(1).build()?;
    let Printed { status, stdout, stderr } = mhebpf(&lab.host, &["audit", "--interface", "ens*"])?;
    assert_eq!((status, stdout.as_str()), (USAGE, ""));
    assert!(stderr.contains("'ens*' matches no interface") && stderr.contains("eth0_int"), "{stderr}");
    for words in [&["audit", "-o", "xml"][..], &["audit", "--interface", "eth["], &["audit", "eth0"]] {
        assert_eq!(mhebpf(&lab.host, words)?.status, USAGE, "{words:?}");
    }
    lab.finish()
}
