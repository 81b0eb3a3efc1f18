//! `mhebpf routes`: what it prints is policy routing that works.

mod inspection;

use anyhow::Result;
use inspection::{assert_fits, document, expect, mhebpf, mhebpf_without_privileges, state};
use mhebpf_tests::{FAR, FAR6, Family, Lab, NetNs, PEER, PEER6, features, features::Feature};
use serde_json::Value;

const SCHEMA: &str = include_str!("../../mhebpf/schema/routes.json");

/// A lab with two subnets, a default route in each family, and a network that is not enforced on.
fn lab() -> Result<Lab> {
    let lab = Lab::builder().links(3).links_in_second_subnet(1).ipv6().build()?;
    lab.host.ip_batch(&format!(
        "route add default via {PEER} mtu 1400\n\
         link add docker0 type veth peer name container\n\
         address add 172.17.0.1/16 dev docker0\n\
         link set container up\n\
         link set docker0 up"
    ))?;
    Ok(lab)
}

fn printed(lab: &Lab, words: &[&str]) -> Result<String> {
    let printed = mhebpf_without_privileges(&lab.host, words)?;
    assert_eq!((printed.status, printed.stderr.as_str()), (Some(0), ""), "{printed:?}");
    Ok(printed.stdout)
}

/// The interface by which the kernel would send.
fn leaves_by(host: &NetNs, words: &str) -> Result<String> {
    let said = host.ip(&format!("route get {words}"))?;
    let mut words = said.split_whitespace().skip_while(|word| *word != "dev");
    Ok(words.nth(1).unwrap_or_default().to_owned())
}

#[test]
fn the_commands_have_the_kernel_choose_the_owner() -> Result<()> {
    let lab = lab()?;
    for line in printed(&lab, &["routes", "-o", "ip", "--interface", "eth*"])?
        .lines()
        .filter(|line| !line.starts_with('#'))
    {
        lab.host.ip(line.strip_prefix("ip ").unwrap_or(line))?;
    }
    for family in Family::BOTH {
        // The peer of the second subnet is no gateway of any route.
        for port in 0..3 {
            let name = format!("eth{port}_int");
            let source = lab.address_in(family, port);
            for to in [lab.peer_in(family, port), family.choose(FAR.into(), FAR6.into())] {
                assert_eq!(leaves_by(&lab.host, &format!("{to} from {source}"))?, name, "{source} to {to}");
            }
        }
    }
    assert_eq!(leaves_by(&lab.host, &format!("172.17.0.2 from {}", lab.address(1)))?, "docker0");
    assert_eq!(
        leaves_by(&lab.host, &format!("{PEER6}"))?,
        "eth0_int",
        "no rule for a source that is not chosen"
    );
    let shown = lab.host.ip(&format!("route get {FAR} from {}", lab.address(2)))?;
    assert!(shown.contains("mtu 1400"), "{shown}");
    lab.finish()
}

#[test]
fn the_text_fits_and_the_document_says_the_same() -> Result<()> {
    let lab = lab()?;
    let before = state(&lab.host)?;
    let text = printed(&lab, &["routes", "--interface", "eth*"])?;
    assert_fits(&text);
    expect(&text, include_str!("expected/routes.txt"), "routes.txt")?;
    let json = mhebpf(&lab.host, &["routes", "-o", "json", "--interface", "eth*"])?;
    let document: Value = document(&json, SCHEMA)?;
    for rule in document["rules"].as_array().into_iter().flatten() {
        let line = format!("lookup {} ({})", rule["table"], rule["interface"].as_str().unwrap_or_default());
        assert!(text.contains(&line), "{line} in {text}");
    }
    assert_eq!(document["rules"].as_array().map(Vec::len), Some(8), "an address of each family on each link");
    assert_eq!(state(&lab.host)?, before);
    lab.finish()
}

#[test]
fn interfaces_are_those_that_are_asked_for() -> Result<()> {
    let lab = lab()?;
    let text = printed(&lab, &["routes", "--interface", "eth0*", "--interface", "eth1*"])?;
    assert!(text.contains("(eth1_int)") && !text.contains("(eth2_int)"), "{text}");
    // The first route's interface is left alone, and no packet is taken from it.
    let text = printed(&lab, &["routes", "--interface", "eth1*"])?;
    assert!(text.starts_with("No rules"), "{text}");
    let wrong = mhebpf(&lab.host, &["routes", "--interface", "ens*"])?;
    assert_eq!((wrong.status, wrong.stdout.as_str()), (Some(2), ""));
    assert!(wrong.stderr.contains("'ens*' matches no interface of this host; it has lo, "), "{wrong:?}");
    let wrong = mhebpf(&lab.host, &["routes", "--config", "/nonexistent.toml"])?;
    assert_eq!(wrong.status, Some(2));
    assert!(wrong.stderr.contains("/nonexistent.toml"), "{wrong:?}");
    lab.finish()
}

#[test]
fn addresses_of_a_vrf_are_left_to_it() -> Result<()> {
    if !features::require(Feature::Vrf)? {
        return Ok(());
    }
    let lab = Lab::builder().links(2).build()?;
    lab.host.ip_batch(
        "link add red type vrf table 10\n\
         link set red up\n\
         link set eth1_int master red",
    )?;
    let text = printed(&lab, &["routes"])?;
    assert!(text.contains("eth1_int: it is in the VRF red"), "{text}");
    assert!(!text.contains("(eth1_int)") && text.contains("(eth0_int)"), "{text}");
    lab.finish()
}
