//! What `mhebpf audit` says is to be done: done, it is right, and nothing else is wrong because of it.

#[expect(dead_code, reason = "what is printed, and that nothing changes, is the other test's affair")]
mod inspection;
mod remedies;

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use anyhow::{Result, ensure};
use mhebpf_tests::{
    FAR, Lab, Mac, NetNs, PEER, SECOND_PEER,
    features::{self, Feature},
    ipvs::{self, Forwarding},
    lab::PROBE_PORT,
    nat, skip,
    traffic::{tcp, udp},
};
use remedies::{Audit, File, commands, configuration};

/// Two interfaces in one subnet.
fn one_subnet() -> Result<Lab> {
    Lab::builder().links(2).build()
}

/// Two interfaces in two subnets, with a default route by the first.
fn two_subnets() -> Result<Lab> {
    let lab = Lab::builder().links(1).links_in_second_subnet(1).build()?;
    lab.host.ip(&format!("route add default via {PEER}"))?;
    Ok(lab)
}

/// Where a datagram to the far address leaves.
fn ways_to_far(lab: &Lab, source: Ipv4Addr) -> Result<BTreeSet<usize>> {
    let recording = lab.record();
    udp::bind(&lab.host, source, 0)?.send_to(b"far", (FAR, PROBE_PORT))?;
    recording.wait_datagram_from(source)?;
    recording.ports_of(source)
}

/// Whether an address is answered for by its own interface.
fn is_answered(lab: &Lab, port: usize) -> Result<bool> {
    let recording = lab.record();
    lab.ask(port, lab.address(port), Mac::BROADCAST)?;
    Ok(recording.arp_replies_for(lab.address(port))?.iter().any(|(by, _)| *by == port))
}

/// Does what the remedy of a finding says, with this gateway where it asks for one, and looks again.
fn carry_out(host: &NetNs, words: &[&str], id: &str, gateway: Ipv4Addr) -> Result<Audit> {
    let before = Audit::of(host, words)?;
    let remedy = before.remedy(id)?;
    let commands = commands(&remedy, gateway);
    ensure!(!commands.is_empty(), "no command in {remedy:?}");
    commands.iter().try_for_each(|command| command.run(host))?;
    let after = Audit::of(host, words)?;
    after.assert_mended(&before, id);
    Ok(after)
}

#[test]
fn an_interface_that_filters_by_route_answers_again() -> Result<()> {
    for (all, own) in
        [(true, &["arp_filter"][..]), (false, &["arp_filter", "rp_filter"]), (true, &["rp_filter"])]
    {
        let lab = one_subnet()?;
        for key in own {
            let scope = if all { "all" } else { "eth1_int" };
            lab.host.sysctl(&format!("net.ipv4.conf.{scope}.{key}"), "1")?;
        }
        let daemon = lab.mhebpf(&[])?;
        assert!(!is_answered(&lab, 1)?, "{own:?}");
        carry_out(&lab.host, &[], "arp-unanswered", PEER)?;
        assert!(is_answered(&lab, 1)?, "{own:?}");
        daemon.stop()?;
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn steering_makes_it_answer_as_well() -> Result<()> {
    for key in ["arp_filter", "rp_filter"] {
        let lab = one_subnet()?;
        lab.host.sysctl(&format!("net.ipv4.conf.all.{key}"), "1")?;
        let before = Audit::of(&lab.host, &[])?;
        ensure!(before.remedy("arp-unanswered")?.contains("mhebpf run --steer rules"));
        let file = File::new("steer = \"rules\"\n")?;
        let after = Audit::of(&lab.host, &["--config", file.path()])?;
        after.assert_mended(&before, "arp-unanswered");
        let daemon = lab.mhebpf(&["--steer", "rules"])?;
        assert!(is_answered(&lab, 1)?, "{key}");
        daemon.stop()?;
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn an_interface_that_is_silent_altogether_answers_again() -> Result<()> {
    for scope in ["all", "eth1_int"] {
        let lab = one_subnet()?;
        lab.host.sysctl(&format!("net.ipv4.conf.{scope}.arp_ignore"), "8")?;
        assert!(!is_answered(&lab, 1)?);
        let before = Audit::of(&lab.host, &[])?;
        for remedy in before.remedies("arp-unanswered") {
            commands(&remedy, PEER).iter().try_for_each(|command| command.run(&lab.host))?;
        }
        Audit::of(&lab.host, &[])?.assert_mended(&before, "arp-unanswered");
        assert!(is_answered(&lab, 1)?);
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn sysctls_that_are_recommended_do_what_is_said() -> Result<()> {
    let lab = one_subnet()?;
    carry_out(&lab.host, &[], "linkdown-routes", PEER)?;
    lab.host.sysctl("net.ipv4.conf.eth1_int.rp_filter", "1")?;
    carry_out(&lab.host, &[], "strict-reverse-path", PEER)?;
    carry_out(&lab.host, &[], "arp-wrong-sender", PEER)?;
    carry_out(&lab.host, &[], "arp-wrong-mac", PEER)?;
    lab.finish()?;

    let lab = one_subnet()?;
    lab.switch.ip("link set eth0_ext down")?;
    carry_out(&lab.host, &[], "route-without-carrier", PEER)?;
    lab.finish()
}

#[test]
fn the_table_local_comes_first_again() -> Result<()> {
    let lab = one_subnet()?;
    for flag in ["", "-6 "] {
        lab.host.ip(&format!("{flag}rule add priority 32765 lookup local"))?;
        lab.host.ip(&format!("{flag}rule del priority 0"))?;
    }
    carry_out(&lab.host, &[], "local-table-late", PEER)?;
    lab.finish()
}

/// As cloud agents have it: the second gateway is in the table of a rule, and nowhere else.
#[test]
fn rules_can_be_done_without_only_after_what_is_said() -> Result<()> {
    let lab = two_subnets()?;
    let (address, near) = (lab.address(1), lab.address(0));
    lab.host.ip(&format!("route add default via {SECOND_PEER} dev eth1_int table 1001"))?;
    lab.host.ip(&format!("rule add from {address} lookup 1001 priority 100"))?;
    let before = Audit::of(&lab.host, &[])?;
    let remedy = before.remedy("source-rules")?;
    assert!(remedy.starts_with("Keep them: without them eth1_int would lose"), "{remedy}");
    let daemon = lab.mhebpf(&[])?;
    assert_eq!(ways_to_far(&lab, address)?, [1].into());
    commands(&remedy, PEER).iter().try_for_each(|command| command.run(&lab.host))?;
    let said = Audit::of(&lab.host, &[])?;
    said.assert_no_worse(&before);
    let remedy = said.remedy("source-rules")?;
    assert!(remedy.contains("may be removed once mhebpf enforces"), "{remedy}");
    lab.host.ip("rule del priority 100")?;
    lab.host.ip("route flush table 1001")?;
    let after = Audit::of(&lab.host, &[])?;
    assert_eq!((after.remedies("source-rules"), after.remedies("no-next-hop")), (vec![], vec![]));
    assert_eq!((ways_to_far(&lab, address)?, ways_to_far(&lab, near)?), ([1].into(), [0].into()));
    daemon.stop()?;
    lab.finish()
}

#[test]
fn rules_for_marks_are_no_finding() -> Result<()> {
    let lab = two_subnets()?;
    lab.host.ip("rule add fwmark 0x1 lookup 100")?;
    let audit = Audit::of(&lab.host, &[])?;
    assert_eq!(audit.remedies("shadowed-rules"), [""; 0]);
    let rule = &audit.document["rules"][0];
    assert_eq!((&rule["mark"]["value"], &rule["mark"]["mask"]), (&1.into(), &u32::MAX.into()));
    lab.host.ip("rule add not from all fwmark 0xca6c lookup 51820")?;
    let audit = Audit::of(&lab.host, &[])?;
    let shadowed = audit.finding("shadowed-rules")?;
    let text = shadowed["objects"][0]["name"].as_str().unwrap_or_default();
    assert!(text.ends_with(": not from all fwmark 0xca6c lookup 51820"), "{text}");
    lab.finish()
}

#[test]
fn a_gateway_that_is_said_serves_services_too() -> Result<()> {
    let lab = two_subnets()?;
    let _server = tcp::EchoServer::start(&lab.host, lab.address(1), 7000)?;
    let before = Audit::of(&lab.host, &[])?;
    let remedy = before.remedy("service-without-next-hop")?;
    assert_eq!(before.remedies("no-next-hop").len(), 1);
    commands(&remedy, SECOND_PEER).iter().try_for_each(|command| command.run(&lab.host))?;
    let after = Audit::of(&lab.host, &[])?;
    after.assert_mended(&before, "service-without-next-hop");
    assert_eq!(after.remedies("no-next-hop"), [""; 0]);
    let daemon = lab.mhebpf(&[])?;
    assert_eq!(ways_to_far(&lab, lab.address(1))?, [1].into());
    daemon.stop()?;
    lab.finish()
}

/// A container on a node.
const CONTAINER: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 2);

/// A node whose second interface has a gateway for some networks only.
fn node() -> Result<Lab> {
    let lab = two_subnets()?;
    lab.host.sysctl("net.ipv4.ip_forward", "1")?;
    lab.host.ip(&format!("route add 10.50.0.0/16 via {SECOND_PEER} dev eth1_int"))?;
    Ok(lab)
}

#[test]
fn answers_of_published_ports_are_not_lost() -> Result<()> {
    if !features::require(Feature::Nftables)? {
        return Ok(());
    }
    let lab = node()?;
    nat::publish(&lab.host, 8080, CONTAINER)?;
    let before = Audit::of(&lab.host, &[])?;
    let file = File::new(&configuration(&before.remedy("translated-answers-lost")?)?)?;
    let left_alone = Audit::of(&lab.host, &["--config", file.path()])?;
    left_alone.assert_mended(&before, "translated-answers-lost");
    let after = carry_out(&lab.host, &[], "translated-answers-lost", SECOND_PEER)?;
    let moved = after.finding("translated-answers")?;
    assert_eq!(moved["severity"], "note");

    let file = File::new("forwarded = \"off\"\n")?;
    let left_alone = Audit::of(&lab.host, &["--config", file.path()])?;
    left_alone.assert_mended(&after, "translated-answers");
    lab.finish()
}

#[test]
fn answers_of_virtual_services_are_not_lost() -> Result<()> {
    if !features::require(Feature::Ipvs)? {
        return Ok(());
    }
    for forwarding in [Forwarding::Masquerading, Forwarding::DirectRouting] {
        let lab = node()?;
        let service = SocketAddrV4::new(lab.address(1), 8080);
        let server = SocketAddrV4::new(CONTAINER, 8080);
        ipvs::add_service(&lab.host, service.into(), server.into(), forwarding)?;
        let before = Audit::of(&lab.host, &[])?;
        if forwarding == Forwarding::DirectRouting {
            // The real servers answer by themselves.
            for id in ["translated-answers-lost", "output-translated"] {
                assert_eq!(before.remedies(id), [""; 0], "{id}");
            }
        } else {
            before.finding("output-translated")?;
            let after = carry_out(&lab.host, &[], "translated-answers-lost", SECOND_PEER)?;
            assert_eq!(after.finding("translated-answers")?["severity"], "note");
        }
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn an_unnumbered_interface_may_use_the_address_that_it_borrows() -> Result<()> {
    let lab = Lab::builder().links(1).links_without_address(1).build()?;
    let (address, destination) = (lab.address(0), Ipv4Addr::new(192, 168, 0, 77));
    lab.host.ip(&format!("route add {destination} dev eth1_int"))?;
    lab.switch.ip(&format!("address add {destination}/32 dev br0"))?;
    let words = ["--interface", "eth*"];
    let before = Audit::of(&lab.host, &words)?;
    let roles = before.document["roles"].as_array().cloned().unwrap_or_default();
    assert!(roles.iter().any(|role| role["role"] == "unnumbered"), "{roles:?}");
    let file = File::new(&configuration(&before.remedy("borrowed-address")?)?)?;
    let after = Audit::of(&lab.host, &[&words[..], &["--config", file.path()]].concat())?;
    after.assert_mended(&before, "borrowed-address");

    let run = ["run", "--interface", "eth*", "--no-announce"];
    for (further, port) in [(&[][..], 0), (&["--config", file.path()], 1)] {
        lab.claim(port, address, Duration::ZERO);
        let daemon = lab.run_mhebpf(&[&run[..], further].concat())?;
        lab.host_forgets_neighbours()?;
        let recording = lab.record();
        udp::bind(&lab.host, Ipv4Addr::UNSPECIFIED, 0)?.send_to(b"near", (destination, PROBE_PORT))?;
        recording.wait_datagram_from(address)?;
        assert_eq!(recording.ports_of(address)?, [port].into());
        daemon.stop()?;
    }
    lab.finish()
}

#[test]
fn an_address_of_an_interface_that_is_down_can_be_allowed_elsewhere() -> Result<()> {
    let lab = two_subnets()?;
    lab.down(1)?;
    let before = Audit::of(&lab.host, &[])?;
    before.finding("unreachable-address")?;
    let allow = format!("[[interface]]\nname = \"eth0_int\"\nallow = [\"{}/32\"]\n", lab.address(1));
    let file = File::new(&allow)?;
    Audit::of(&lab.host, &["--config", file.path()])?.assert_mended(&before, "unreachable-address");
    lab.finish()
}

#[test]
fn every_address_is_announced_to_multipath_peers() -> Result<()> {
    let lab = two_subnets()?;
    if let Err(error) = lab.host.ip(&format!("mptcp endpoint add {} signal", lab.address(0))) {
        skip(&format!("no endpoints of Multipath TCP: {error:#}").replace('\n', " "));
        return lab.finish();
    }
    carry_out(&lab.host, &[], "mptcp-endpoints", PEER)?;
    lab.finish()
}

#[test]
fn what_all_leaves_out_is_named_with_how_to_take_it() -> Result<()> {
    let lab = one_subnet()?;
    let container = NetNs::new("container")?;
    lab.host.ip_batch(&format!(
        "link add c0 type veth peer name eth0 netns {}\nlink set c0 up\nroute add 10.244.0.2/32 dev c0",
        container.path()
    ))?;
    lab.host.sysctl("net.ipv4.ip_forward", "1")?;
    let audit = Audit::of(&lab.host, &[])?;
    let left_out = &audit.document["left_out"];
    assert_eq!((&left_out[0]["name"], left_out.as_array().map(Vec::len)), (&"c0".into(), Some(1)));
    let why = left_out[0]["why"].as_str().unwrap_or_default();
    assert!(why.ends_with("--interface c0 takes it all the same"), "{why}");
    let roles: Vec<&str> = audit.document["roles"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|role| role["role"].as_str())
        .collect();
    assert_eq!(roles, ["container", "container-node"]);
    assert_eq!(audit.document["run"], "mhebpf run --all");
    lab.finish()
}
