//! `mhebpf explain` in the lab: what it says is what mhebpf does, and wrong questions are answered with what to do.

mod inspection;
mod live_maps;

use std::collections::BTreeSet;

use anyhow::Result;
use inspection::{assert_fits, document, expect, mhebpf, mhebpf_without_privileges, state};
use mhebpf_tests::{FAR, Lab, PEER, PEER6, SECOND_PEER};
use serde_json::Value;

const SCHEMA: &str = include_str!("../../mhebpf/schema/explain.json");

const DONE: Option<i32> = Some(0);
const USAGE: Option<i32> = Some(2);

fn explain(lab: &Lab, words: &str) -> Result<Value> {
    let words: Vec<&str> = ["explain", "-o", "json"].into_iter().chain(words.split(' ')).collect();
    let printed = mhebpf(&lab.host, &words)?;
    assert_eq!(printed.status, DONE, "{printed:?}");
    document(&printed, SCHEMA)
}

/// Action, reason, owner and address of a verdict.
fn verdict(document: &Value) -> [Option<&str>; 4] {
    ["action", "reason", "owner", "address"].map(|key| document["verdict"][key].as_str())
}

#[test]
fn what_is_said_is_what_happens_on_the_wire() -> Result<()> {
    let lab = Lab::builder().links(3).build()?;
    let said: Vec<(usize, usize, Value)> = lab
        .ports()
        .flat_map(|through| lab.ports().map(move |source| (through, source)))
        .map(|(through, source)| {
            let words = format!("--egress eth{through}_int --src {} --dst {PEER}", lab.address(source));
            Ok((through, source, explain(&lab, &words)?))
        })
        .collect::<Result<_>>()?;
    let daemon = lab.mhebpf_quietly(&[])?;
    for (through, source, document) in said {
        let leaves_by = match verdict(&document) {
            [Some("pass"), None, None, None] => format!("eth{through}_int"),
            [Some("redirect"), Some("redirected"), Some(owner), Some(next_hop)] => {
                assert_eq!(next_hop, PEER.to_string());
                owner.to_owned()
            }
            other => panic!("{other:?}"),
        };
        let recording = lab.record();
        lab.emit(through, lab.address(source))?;
        recording.wait_datagram_from(lab.address(source))?;
        let ports: BTreeSet<String> = recording
            .ports_of(lab.address(source))?
            .into_iter()
            .map(|port| format!("eth{port}_int"))
            .collect();
        assert_eq!(ports, BTreeSet::from([leaves_by]));
        assert_eq!(document["kernel"][0]["leaves_by"], "eth0_int", "without mhebpf it is the first route");
    }
    daemon.stop()?;
    lab.finish()
}

#[test]
fn owners_next_hops_and_routes_are_named() -> Result<()> {
    let lab = Lab::builder().links(2).links_in_second_subnet(1).ipv6().build()?;
    lab.host.ip_batch(&format!(
        "route add default via {PEER} metric 7\naddress add 203.0.113.9/32 dev lo\n\
         route add local 10.5.0.0/16 dev eth1_int\n"
    ))?;
    // A gateway that another interface's route knows.
    let document = explain(&lab, &format!("--egress eth0_int --src {} --dst {FAR}", lab.address(1)))?;
    let peer = PEER.to_string();
    assert_eq!(
        verdict(&document),
        [Some("redirect"), Some("redirected"), Some("eth1_int"), Some(peer.as_str())]
    );
    let owner = &document["owners"][0];
    assert_eq!((&owner["route_through"], &owner["metric"]), (&"eth0_int".into(), &7.into()));
    assert_eq!(document["kernel"][1]["bound_to"], "eth0_int");

    // None at all.
    let document = explain(&lab, &format!("--egress eth0_int --src {} --dst {FAR}", lab.address(2)))?;
    assert_eq!(verdict(&document), [Some("drop"), Some("no_route"), None, None]);
    assert_eq!(document["owners"][0]["state"], "no_route");

    // IPv6 is looked up in the kernel like IPv4.
    let document = explain(&lab, &format!("--egress eth0_int --src {} --dst {PEER6}", lab.address6(1)))?;
    for lookup in document["kernel"].as_array().into_iter().flatten() {
        assert_eq!((&lookup["leaves_by"], &lookup["table"]), (&"eth0_int".into(), &254.into()), "{lookup}");
    }

    for (address, standing, rule) in [
        ("192.168.0.100", "own", Some("configured")),
        ("203.0.113.9", "own", Some("host-wide")),
        ("10.5.1.2", "elsewhere", Some("local-route")),
        ("192.0.2.1", "foreign", None),
        ("127.0.0.1", "loopback", Some("host-wide")),
        ("0.0.0.0", "unspecified", None),
    ] {
        let document = explain(&lab, &format!("--egress eth0_int --src {address} --dst {SECOND_PEER}"))?;
        let judged = &document["judged"][0];
        assert_eq!(
            (&judged["standing"], judged["owned"][0]["rule"].as_str()),
            (&standing.into(), rule),
            "{judged}"
        );
    }
    lab.finish()
}

#[test]
fn arp_and_neighbour_discovery_are_explained() -> Result<()> {
    let lab = Lab::builder().links(2).ipv6().build()?;
    let (own, other) = (lab.address(0), lab.address(1));
    let mine = own.to_string();
    for (words, expected) in [
        (
            format!("--arp request --egress eth0_int --sender {own} --target {PEER}"),
            [Some("pass"), None, None],
        ),
        (
            format!("--arp request --egress eth0_int --sender {other} --target {PEER}"),
            [Some("rewrite-sender"), Some("arp_rewritten"), Some(mine.as_str())],
        ),
        (
            format!("--arp request --egress eth0_int --sender {other} --target {other}"),
            [Some("drop"), Some("arp_sender"), None],
        ),
        (
            format!("--arp reply --egress eth0_int --sender {other} --target {PEER}"),
            [Some("drop"), Some("arp_sender"), None],
        ),
        (
            format!("--arp request --ingress eth0_int --sender {PEER} --target {other}"),
            [Some("drop"), Some("arp_target"), None],
        ),
        (
            format!("--ndp solicitation --ingress eth0_int --target {}", lab.address6(1)),
            [Some("drop"), Some("ndp_target"), None],
        ),
        (
            format!("--ndp advertisement --egress eth0_int --target {}", lab.address6(1)),
            [Some("drop"), Some("ndp_sender"), None],
        ),
        (
            format!("--ndp advertisement --egress eth0_int --target {}", lab.address6(0)),
            [Some("pass"), None, None],
        ),
        (
            format!("--egress eth0_int --src {} --dst {PEER6}", lab.address6(1)),
            [Some("redirect"), Some("redirected"), Some("2001:db8::1")],
        ),
        (
            format!("--egress eth0_int --src {other} --dst 192.168.7.255"),
            [Some("redirect-group"), Some("redirected"), None],
        ),
    ] {
        let document = explain(&lab, &words)?;
        let [action, reason, _, address] = verdict(&document);
        assert_eq!([action, reason, address], expected, "{words}: {document:#}");
    }
    lab.finish()
}

#[test]
fn the_policy_is_that_of_the_options_and_the_file() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let question = format!("--egress eth0_int --src {} --dst {PEER}", lab.address(1));
    let document = explain(&lab, &format!("{question} --mode drop"))?;
    assert_eq!(verdict(&document)[..2], [Some("drop"), Some("wrong_source")]);
    let document = explain(&lab, &format!("{question} --mode observe"))?;
    assert_eq!(
        (verdict(&document)[0], &document["verdict"]["enforced"]),
        (Some("redirect"), &Value::Bool(false))
    );

    let directory = std::env::temp_dir().join(format!("mhebpf-explain-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let file = directory.join("mhebpf.toml");
    let with_file = |text: &str| {
        std::fs::write(&file, text)?;
        explain(&lab, &format!("{question} --config {}", file.display()))
    };
    let allowed = with_file("[[interface]]\nname = \"eth0_int\"\nallow = [\"192.168.0.101\"]")?;
    assert_eq!(verdict(&allowed)[0], Some("pass"));
    assert_eq!(allowed["judged"][0]["owned"][0]["rule"], "allowed", "{allowed:#}");
    let elsewhere = with_file("interfaces = [\"eth1*\"]")?;
    assert_eq!((verdict(&elsewhere)[0], &elsewhere["policy"]), (Some("pass"), &Value::Null));
    std::fs::remove_dir_all(&directory)?;
    lab.finish()
}

#[test]
fn the_text_is_that_of_the_documentation() -> Result<()> {
    let lab = Lab::article()?;
    lab.host.ip(&format!("route add default via {PEER}"))?;
    let before = state(&lab.host)?;
    let mut text = String::new();
    for words in [
        "--egress eth0_int --src 192.168.0.101 --dst 198.51.100.1",
        "--ingress eth0_int --src 192.168.0.1 --dst 192.168.0.101",
        "--arp request --egress eth0_int --sender 192.168.0.101 --target 192.168.0.1",
        "--arp reply --egress eth0_int --sender 192.168.0.101 --target 192.168.0.1 --mode observe",
        "--egress eth2_int --src 192.168.0.102 --dst 224.0.0.1",
        "--egress eth2_int --src 10.9.9.9 --dst 192.168.0.1 --unknown drop",
    ] {
        let arguments: Vec<&str> = ["explain"].into_iter().chain(words.split(' ')).collect();
        // No privileges are needed.
        let printed = mhebpf_without_privileges(&lab.host, &arguments)?;
        assert_eq!((printed.status, printed.stderr.as_str()), (DONE, ""));
        text += &format!("$ mhebpf explain {words}\n{}\n", printed.stdout);
    }
    assert_fits(&text.lines().filter(|line| !line.starts_with('$')).collect::<Vec<_>>().join("\n"));
    expect(&text, include_str!("expected/explain.txt"), "explain.txt")?;
    assert_eq!(state(&lab.host)?, before);
    lab.finish()
}

#[test]
fn the_document_is_as_published() -> Result<()> {
    let lab = Lab::article()?;
    lab.host.ip(&format!("route add default via {PEER}"))?;
    let words = ["--egress", "eth0_int", "--src", "192.168.0.101", "--dst", "198.51.100.1"];
    let printed = mhebpf_without_privileges(&lab.host, &[&["explain", "-o", "json"][..], &words].concat())?;
    document(&printed, SCHEMA)?;
    expect(&printed.stdout, include_str!("expected/explain.json"), "explain.json")?;
    lab.finish()
}

#[test]
fn wrong_questions_are_answered_with_what_to_do() -> Result<()> {
    let lab = Lab::builder().links(1).build()?;
    for (words, expected) in [
        ("--egress eth9 --src 192.168.0.100 --dst 192.168.0.1", "no interface eth9; it has lo, eth0_int"),
        ("--egress eth0_int --src 192.168.0 --dst 192.168.0.1", "write an IPv4 or IPv6 address"),
        ("--egress eth0_int --src 192.168.0.100/24 --dst 192.168.0.1", "without a prefix length"),
        ("--egress eth0_int --src 192.168.0.100 --dst 2001:db8::1", "are of different families"),
        ("--egress eth0_int --src 192.168.0.100", "--src ADDRESS and --dst ADDRESS"),
        ("--src 192.168.0.100 --dst 192.168.0.1", "--egress INTERFACE"),
        ("--egress eth0_int --ingress eth0_int --src 192.168.0.100 --dst 192.168.0.1", "cannot be used with"),
        ("--egress eth0_int --arp request --sender 2001:db8::1 --target 2001:db8::2", "ARP is for IPv4"),
        ("--egress eth0_int --arp request --sender 192.168.0.100", "--target ADDRESS"),
        ("--egress eth0_int --ndp solicitation --target 192.168.0.100", "neighbour discovery is for IPv6"),
        ("--egress eth0_int --ndp solicitation", "--target ADDRESS"),
        ("--egress eth0_int --arp query --sender 1.1.1.1 --target 1.1.1.1", "possible values"),
        ("--egress eth0_int --src 1.1.1.1 --dst 1.1.1.2 --config /nonexistent.toml", "/nonexistent.toml"),
    ] {
        let arguments: Vec<&str> = ["explain"].into_iter().chain(words.split(' ')).collect();
        let printed = mhebpf(&lab.host, &arguments)?;
        assert_eq!((printed.status, printed.stdout.as_str()), (USAGE, ""), "{words}");
        assert!(printed.stderr.contains(expected), "{words}: {}", printed.stderr);
    }
    lab.finish()
}
