//! Routes with several next hops: flows are spread by the hops' weights, keep their hop, and never go to one that is dead.

mod hops;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use hops::{OWNER, ROUTERS, ROUTERS6, Sender, destinations, hops, know, lab, shares, wait_all_by};
use mhebpf_tests::{Daemon, Family, Lab, PATIENCE, lab::Router, wait_until};

/// Each sender with what mhebpf is started with.
const SENDERS: [(Sender, &[&str]); 2] =
    [(Sender::Redirected, &["--no-announce"]), (Sender::Routed, &["--no-announce", "--steer", "rules"])];

/// The default route of the owner's: by both routers, behind the one that the kernel takes for everyone else.
fn add_default(lab: &Lab, family: Family, weights: [u8; 2]) -> Result<()> {
    let routers = family.choose(ROUTERS.map(Into::into), ROUTERS6.map(Into::into));
    let [first, second]: [std::net::IpAddr; 2] = routers;
    let [one, other] = weights;
    let flag = family.choose("-4", "-6");
    lab.host
        .ip(&format!(
            "{flag} route add default metric 2000 nexthop via {first} dev eth1_int weight {one} \
             nexthop via {second} dev eth1_int weight {other}"
        ))
        .map(drop)
}

/// The router is gone, and the host has found that out.
fn lose(lab: &Lab, router: &Router, family: Family, n: usize) -> Result<()> {
    lab.switch.ip(&format!("link delete r{}_ext", router.address.octets()[3]))?;
    let address = family.choose(ROUTERS[n].into(), std::net::IpAddr::from(ROUTERS6[n]));
    lab.host.ip(&format!("neighbour replace {address} dev eth1_int nud failed")).map(drop)
}

/// Whether a number of flows is three quarters of 256, give or take more than four standard deviations.
fn is_three_quarters(count: Option<&usize>) -> bool {
    count.is_some_and(|count| (160..=224).contains(count))
}

fn spread_by_weight(family: Family) -> Result<()> {
    for (sender, arguments) in SENDERS {
        let (lab, routers) = lab(family)?;
        know(&lab, &routers, family)?;
        add_default(&lab, family, [3, 1])?;
        let daemon = lab.mhebpf(arguments)?;
        let to = destinations(family, 256);
        let hops = hops(&lab, sender, lab.address_in(family, OWNER), &to)?;
        let shares = shares(&hops);
        assert_eq!(hops.len(), to.len(), "{sender:?}: {shares:?}");
        assert!(is_three_quarters(shares.get(&(OWNER, routers[0].mac))), "{sender:?}: {shares:?}");
        assert_eq!(shares.len(), 2, "{sender:?}: {shares:?}");
        daemon.stop()?;
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn flows_are_spread_by_the_weights_of_the_hops() -> Result<()> {
    spread_by_weight(Family::V4)
}

#[test]
fn flows_of_ipv6_are_spread_by_the_weights_of_the_hops() -> Result<()> {
    spread_by_weight(Family::V6)
}

/// The way in which routing daemons add one hop after the other.
#[test]
fn hops_of_ipv6_that_are_appended_share_the_flows() -> Result<()> {
    let family = Family::V6;
    let (lab, routers) = lab(family)?;
    know(&lab, &routers, family)?;
    let daemon = lab.mhebpf(&["--no-announce"])?;
    for router in ROUTERS6 {
        lab.host.ip(&format!("-6 route append default via {router} dev eth1_int metric 2000"))?;
    }
    let to = destinations(family, 256);
    wait_until("both hops to be used", PATIENCE, || {
        let shares = shares(&hops(&lab, Sender::Redirected, lab.address6(OWNER), &to)?);
        let even = |router: &Router| {
            shares.get(&(OWNER, router.mac)).is_some_and(|count| (96..=160).contains(count))
        };
        Ok(routers.iter().all(even).then_some(()))
    })?;
    // One of them is withdrawn: it has no flows any more.
    lab.host.ip(&format!("-6 route delete default via {} dev eth1_int metric 2000", ROUTERS6[0]))?;
    wait_all_by(&lab, Sender::Redirected, lab.address6(OWNER), &to, (OWNER, routers[1].mac))?;
    daemon.stop()?;
    lab.finish()
}

#[test]
fn a_flow_keeps_its_hop_over_many_packets_and_unrelated_changes() -> Result<()> {
    let families = [Family::V4, Family::V6];
    for family in families {
        let (lab, routers) = lab(family)?;
        know(&lab, &routers, family)?;
        add_default(&lab, family, [1, 1])?;
        let daemon = lab.mhebpf(&["--no-announce"])?;
        let to = destinations(family, 256);
        let from = lab.address_in(family, OWNER);
        let once = hops(&lab, Sender::Redirected, from, &to)?;
        assert_eq!(shares(&once).len(), 2, "{:?}", shares(&once));
        for _ in 0..4 {
            assert_eq!(hops(&lab, Sender::Redirected, from, &to)?, once);
        }
        lab.add_address(2, [192, 168, 3, 7])?;
        lab.host.ip_batch(&format!(
            "route add 203.0.113.0/24 via {} dev eth1_int\n\
             route add 100.64.0.0/10 via {} dev eth2_int\n\
             neighbour replace 192.168.0.77 lladdr 02:00:00:00:77:77 dev eth1_int",
            ROUTERS[0], ROUTERS[1]
        ))?;
        lab.wait_in_step(2, 0)?;
        assert_eq!(hops(&lab, Sender::Redirected, from, &to)?, once, "after changes of others");
        daemon.stop()?;
        lab.finish()?;
    }
    Ok(())
}

/// An L3 hash is one of the source too: addresses of one interface do not all go one way.
#[test]
fn sources_of_one_interface_are_spread_too() -> Result<()> {
    let (lab, routers) = lab(Family::V4)?;
    know(&lab, &routers, Family::V4)?;
    add_default(&lab, Family::V4, [1, 1])?;
    let sources: Vec<std::net::Ipv4Addr> = (1..=64).map(|n| [192, 168, 4, n].into()).collect();
    for source in &sources {
        lab.add_address(OWNER, *source)?;
    }
    let daemon = lab.mhebpf(&["--no-announce"])?;
    let to = destinations(Family::V4, 1);
    let mut shares: BTreeMap<_, usize> = BTreeMap::new();
    for source in sources {
        for way in hops(&lab, Sender::Redirected, source, &to)?.into_values() {
            *shares.entry(way).or_default() += 1;
        }
    }
    let even =
        |router: &Router| shares.get(&(OWNER, router.mac)).is_some_and(|count| (14..=50).contains(count));
    assert!(routers.iter().all(even), "{shares:?}");
    daemon.stop()?;
    lab.finish()
}

/// With `fib_multipath_use_neigh` the kernel sends nothing to a gateway that does not answer; IPv6 never does.
fn unreachable(family: Family) -> Result<()> {
    for (sender, arguments) in SENDERS {
        for dead in [0, 1] {
            let (lab, routers) = lab(family)?;
            lab.host.sysctl("net.ipv4.fib_multipath_use_neigh", "1")?;
            add_default(&lab, family, [1, 1])?;
            let daemon = lab.mhebpf(arguments)?;
            lose(&lab, &routers[dead], family, dead)?;
            let live = (OWNER, routers[1 - dead].mac);
            let from = lab.address_in(family, OWNER);
            wait_all_by(&lab, sender, from, &destinations(family, 64), live)?;
            daemon.stop()?;
            lab.finish()?;
        }
    }
    Ok(())
}

#[test]
fn no_flow_goes_to_a_gateway_that_does_not_answer() -> Result<()> {
    unreachable(Family::V4)
}

#[test]
fn no_flow_of_ipv6_goes_to_a_gateway_that_does_not_answer() -> Result<()> {
    unreachable(Family::V6)
}

#[test]
fn a_gateway_that_answers_again_gets_its_flows_back() -> Result<()> {
    let family = Family::V4;
    let (lab, routers) = lab(family)?;
    lab.host.sysctl("net.ipv4.fib_multipath_use_neigh", "1")?;
    add_default(&lab, family, [1, 1])?;
    let daemon = lab.mhebpf(&["--no-announce"])?;
    let (to, from) = (destinations(family, 64), lab.address(OWNER));
    let first = hops(&lab, Sender::Redirected, from, &to)?;
    let by_it =
        to.iter().find(|to| first.get(to) == Some(&(OWNER, routers[0].mac))).context("a flow by it")?;
    // It is there all the while, but the host was told otherwise. Packets to it would find out, so none are sent yet.
    lab.host.ip(&format!("neighbour replace {} dev eth1_int nud failed", ROUTERS[0]))?;
    wait_until("the gateway to be left out", PATIENCE, || {
        let mut explain = Daemon::command(&lab.host)?;
        explain.args(["explain", "--egress", "eth0_int", "--src", &from.to_string()]);
        let said = explain.args(["--dst", &by_it.to_string()]).output()?.stdout;
        Ok(String::from_utf8_lossy(&said).contains(&format!("next hop {};", ROUTERS[1])).then_some(()))
    })?;
    wait_all_by(&lab, Sender::Redirected, from, &to, (OWNER, routers[1].mac))?;
    let known =
        format!("neighbour replace {} lladdr {} dev eth1_int nud reachable", ROUTERS[0], routers[0].mac);
    lab.host.ip(&known)?;
    wait_until("both hops to be used", PATIENCE, || {
        Ok((shares(&hops(&lab, Sender::Redirected, from, &to)?).len() == 2).then_some(()))
    })?;
    daemon.stop()?;
    lab.finish()
}

/// A default route whose first hop is through another interface, with a gateway that is on-link on the owner too.
fn over_two_interfaces(
    start: impl Fn(&Lab) -> Result<Daemon>,
    loss: impl Fn(&Lab) -> Result<()>,
) -> Result<()> {
    let (lab, routers) = lab(Family::V4)?;
    know(&lab, &routers, Family::V4)?;
    lab.host.ip_batch(&format!(
        "route delete default\n\
         route add default nexthop via {} dev eth2_int nexthop via {} dev eth1_int",
        ROUTERS[0], ROUTERS[1]
    ))?;
    let daemon = start(&lab)?;
    let to = destinations(Family::V4, 64);
    // Its own hop comes first, as for every owner.
    wait_all_by(&lab, Sender::Redirected, lab.address(OWNER), &to, (OWNER, routers[1].mac))?;
    loss(&lab)?;
    wait_all_by(&lab, Sender::Redirected, lab.address(OWNER), &to, (OWNER, routers[1].mac))?;
    // An owner with no hop of its own: the gateway of the one that lives.
    let found = wait_until("the hop that is left", PATIENCE, || {
        let shares = emitted(&lab, &to)?;
        Ok((shares == BTreeMap::from([((0, routers[1].mac), to.len())])).then_some(()))
    });
    assert!(found.is_ok(), "{found:?}: {:?}", emitted(&lab, &to)?);
    daemon.stop()?;
    lab.finish()
}

/// Flows of port 0's address that are sent through port 1.
fn emitted(lab: &Lab, to: &[std::net::IpAddr]) -> Result<BTreeMap<(usize, mhebpf_tests::Mac), usize>> {
    let (from, recording) = (lab.address(0), lab.record());
    for destination in to {
        let frame = mhebpf_tests::craft::udp(lab.outward(1), (from, 4000), (*destination, 4000), b"flow")?;
        lab.send_from_host(1, &frame)?;
    }
    let mut shares = BTreeMap::new();
    for frame in recording.from_host()? {
        if frame.ipv4().is_some_and(|ip| ip.source == from) {
            *shares.entry((frame.port, frame.frame.destination)).or_default() += 1;
        }
    }
    Ok(shares)
}

#[test]
fn a_hop_whose_interface_is_down_is_left_out() -> Result<()> {
    over_two_interfaces(|lab| lab.mhebpf(&["--no-announce"]), |lab| lab.down(2))
}

#[test]
fn a_hop_whose_interface_has_no_carrier_is_left_out_where_the_kernel_ignores_it() -> Result<()> {
    let ignoring = |lab: &Lab| {
        lab.host.sysctl("net.ipv4.conf.eth2_int.ignore_routes_with_linkdown", "1")?;
        lab.mhebpf(&["--no-announce"])
    };
    over_two_interfaces(ignoring, |lab| {
        lab.switch.ip("link set eth2_ext down")?;
        wait_until("eth2_int to have no carrier", PATIENCE, || {
            Ok(lab.host.ip("route show")?.contains("linkdown").then_some(()))
        })
    })
}
