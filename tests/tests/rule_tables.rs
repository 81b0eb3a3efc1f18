//! The gateway of the second interface is only in the table that a rule `from` its address leads to, as agents of clouds make
//! it.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddrV4},
};

use anyhow::Result;
use mhebpf_tests::{
    FAR, FAR6, Family, Lab, Mac, PATIENCE, PEER, craft,
    features::{self, Feature},
    interface,
    lab::PROBE_PORT,
    nat,
    traffic::tcp,
    wait_until,
};

/// The published port.
const PORT: u16 = 8080;

/// Two interfaces in two subnets, the first with the default route.
fn lab(family: Family) -> Result<Lab> {
    let lab = Lab::builder().links(1).links_in_second_subnet(1).family(family).build()?;
    lab.host.ip(&format!("route add default via {PEER}"))?;
    Ok(lab)
}

/// The words with which `ip` is told of the family.
fn words(family: Family) -> &'static str {
    family.choose("", "-6 ")
}

/// A default route through the second interface, in a table of its own.
fn add_table(lab: &Lab, family: Family) -> Result<()> {
    let (family_words, gateway) = (words(family), lab.peer_in(family, 1));
    lab.host.ip(&format!("{family_words}route add default via {gateway} dev eth1_int table 101")).map(drop)
}

/// Adds or deletes a rule that leads to this table; the address is the second interface's.
fn rule(lab: &Lab, family: Family, change: &str, selects: &str) -> Result<()> {
    lab.host.ip(&format!("{}rule {change} {selects} lookup 101", words(family))).map(drop)
}

fn from(lab: &Lab, family: Family) -> String {
    format!("from {}", lab.address_in(family, 1))
}

/// Where a datagram to the far address leaves that is sent through the first interface with the second's address, as by a socket
/// that insists on that interface, and to which stations.
fn ways(lab: &Lab, family: Family) -> Result<BTreeSet<(usize, Mac)>> {
    let source = lab.address_in(family, 1);
    let far: IpAddr = family.choose(FAR.into(), FAR6.into());
    let recording = lab.record();
    let frame = craft::udp(lab.outward(0), (source, PROBE_PORT), (far, PROBE_PORT), b"far")?;
    lab.send_from_host(0, &frame)?;
    // What is redirected may have to wait for its neighbour.
    lab.fence()?;
    let mut frames = recording.from_host()?;
    frames.retain(|frame| frame.frame.datagram_source() == Some(source));
    Ok(frames.iter().map(|frame| (frame.port, frame.frame.destination)).collect())
}

/// By the second interface, to its gateway.
fn through_owner(lab: &Lab) -> BTreeSet<(usize, Mac)> {
    BTreeSet::from([(1, lab.peer_mac(1))])
}

fn wait_until_through_owner(lab: &Lab, family: Family) -> Result<()> {
    wait_until("the gateway to be used", PATIENCE, || {
        Ok((ways(lab, family)? == through_owner(lab)).then_some(()))
    })
}

#[test]
fn the_gateway_of_a_rules_table_is_used() -> Result<()> {
    for family in Family::BOTH {
        let lab = lab(family)?;
        let daemon = lab.mhebpf_quietly(&[])?;
        assert_eq!(ways(&lab, family)?, BTreeSet::new(), "nobody knows a gateway");
        let summary = daemon.stop()?.summary;
        assert_eq!(summary.count("eth0_int", "no_route"), 1, "{summary:?}");
        add_table(&lab, family)?;
        rule(&lab, family, "add", &from(&lab, family))?;
        let daemon = lab.mhebpf_quietly(&[])?;
        assert_eq!(ways(&lab, family)?, through_owner(&lab), "{family}");
        daemon.stop()?;
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn a_rule_for_the_subnet_is_for_its_addresses() -> Result<()> {
    let lab = lab(Family::V4)?;
    add_table(&lab, Family::V4)?;
    rule(&lab, Family::V4, "add", "from 10.1.0.0/24")?;
    let daemon = lab.mhebpf_quietly(&[])?;
    assert_eq!(ways(&lab, Family::V4)?, through_owner(&lab));
    daemon.stop()?;
    lab.finish()
}

/// The kernel looks up the way of a container's answer by the container's address, which the rule does not see.
#[test]
fn the_gateway_of_a_rules_table_is_used_for_translated_sources() -> Result<()> {
    if !features::require(Feature::Nftables)? {
        return Ok(());
    }
    let lab = lab(Family::V4)?;
    let container = lab.add_container()?;
    nat::publish(&lab.host, PORT, container.address)?;
    add_table(&lab, Family::V4)?;
    rule(&lab, Family::V4, "add", &from(&lab, Family::V4))?;
    let _server = tcp::EchoServer::start(&container.ns, container.address, PORT)?;
    let ways = || -> Result<BTreeSet<(usize, Mac)>> {
        let recording = lab.record();
        let stream = tcp::connect(&lab.switch, FAR, SocketAddrV4::new(lab.address(1), PORT))?;
        tcp::echo_bulk(&stream, 100_000)?;
        tcp::close(stream)?;
        let mut frames = recording.from_host()?;
        frames.retain(|frame| frame.frame.datagram_source() == Some(lab.address(1).into()));
        Ok(frames.iter().map(|frame| (frame.port, frame.frame.destination)).collect())
    };
    assert_eq!(ways()?, BTreeSet::from([(0, lab.peer_mac(0))]), "without mhebpf");
    let daemon = lab.run_mhebpf(&["run", "--all", "--no-announce"])?;
    assert_eq!(ways()?, through_owner(&lab));
    daemon.stop()?;
    lab.finish()
}

#[test]
fn a_rule_that_is_added_later_is_heeded_and_its_gateway_is_remembered() -> Result<()> {
    for family in Family::BOTH {
        for what_goes in [&["rule"][..], &["table"], &["rule", "table"], &["table", "rule"]] {
            let lab = lab(family)?;
            let daemon = lab.mhebpf_quietly(&[])?;
            assert_eq!(ways(&lab, family)?, BTreeSet::new());
            add_table(&lab, family)?;
            rule(&lab, family, "add", &from(&lab, family))?;
            wait_until_through_owner(&lab, family)?;

            for what in what_goes {
                match *what {
                    "rule" => rule(&lab, family, "delete", &from(&lab, family))?,
                    _ => _ = lab.host.ip(&format!("{}route flush table 101", words(family)))?,
                }
            }
            let warning =
                daemon.wait_for_line("was known only to the table 101 of a rule, which is gone", PATIENCE)?;
            let remedy = format!("route add default via {} dev eth1_int metric 4096", lab.peer_in(family, 1));
            assert!(warning.contains("WARN") && warning.contains(&remedy), "{warning}");
            assert_eq!(ways(&lab, family)?, through_owner(&lab), "{family} without {what_goes:?}");
            daemon.stop()?;

            let daemon = lab.mhebpf_quietly(&[])?;
            assert_eq!(ways(&lab, family)?, BTreeSet::new(), "a new one has nothing to remember");
            daemon.stop()?;
            lab.finish()?;
        }
    }
    Ok(())
}

/// The interface has moved to another network.
#[test]
fn a_gateway_is_forgotten_when_the_interface_leaves_its_subnet() -> Result<()> {
    let lab = lab(Family::V4)?;
    add_table(&lab, Family::V4)?;
    rule(&lab, Family::V4, "add", &from(&lab, Family::V4))?;
    let daemon = lab.mhebpf_quietly(&[])?;
    rule(&lab, Family::V4, "delete", &from(&lab, Family::V4))?;
    daemon.wait_for_line("was known only to the table 101", PATIENCE)?;
    lab.host.ip_batch(&format!(
        "address add {0}/32 dev eth1_int\n\
         address delete {0}/24 dev eth1_int",
        lab.address(1)
    ))?;
    wait_until("the gateway to be forgotten", PATIENCE, || {
        Ok(ways(&lab, Family::V4)?.is_empty().then_some(()))
    })?;
    daemon.stop()?;
    lab.finish()
}

#[test]
fn rules_with_further_conditions_do_not_count() -> Result<()> {
    let from = |lab: &Lab| from(lab, Family::V4);
    let rules: [&dyn Fn(&Lab) -> String; 4] = [
        &|_| "fwmark 1".to_owned(),
        &|lab| format!("{} fwmark 1", from(lab)),
        &|lab| format!("{} to 203.0.113.0/24", from(lab)),
        &|lab| format!("{} iif eth0_int", from(lab)),
    ];
    for selects in rules {
        let lab = lab(Family::V4)?;
        add_table(&lab, Family::V4)?;
        rule(&lab, Family::V4, "add", &selects(&lab))?;
        let daemon = lab.mhebpf_quietly(&[])?;
        assert_eq!(ways(&lab, Family::V4)?, BTreeSet::new(), "{}", selects(&lab));
        let summary = daemon.stop()?.summary;
        assert_eq!(summary.count("eth0_int", "no_route"), 1, "{summary:?}");
        lab.finish()?;
    }
    Ok(())
}

/// The rule `from` the address comes first while it is there; the table that steers knows the gateway then, and later.
#[test]
fn steering_knows_the_gateway_while_the_rule_is_there_and_after() -> Result<()> {
    let lab = lab(Family::V4)?;
    add_table(&lab, Family::V4)?;
    rule(&lab, Family::V4, "add", &from(&lab, Family::V4))?;
    let daemon = lab.mhebpf_quietly(&["--steer", "rules"])?;
    let gateway = format!("via {} dev eth1_int", lab.peer(1));
    let way = || lab.host.ip(&format!("route get {FAR} from {}", lab.address(1)));
    let table = format!("{gateway} table {}", 280_080_000 + lab.host.run(|| interface::index("eth1_int"))?);
    assert!(way()?.contains(&gateway), "{}", way()?);
    for what in ["rule", "table"] {
        match what {
            "rule" => rule(&lab, Family::V4, "delete", &from(&lab, Family::V4))?,
            _ => _ = lab.host.ip("route flush table 101")?,
        }
        wait_until("the gateway to be steered to", PATIENCE, || Ok(way()?.contains(&table).then_some(())))?;
        assert_eq!(ways(&lab, Family::V4)?, through_owner(&lab));
    }
    daemon.stop()?;
    lab.finish()
}
