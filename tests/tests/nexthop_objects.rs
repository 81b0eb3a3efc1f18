//! Routes by nexthop objects (`ip nexthop`), as FRR installs them: with `nexthop_compat_mode=0` the kernel tells no more of
//! such a route's gateway than the object's id.

mod hops;

use std::net::IpAddr;

use anyhow::Result;
use hops::{OWNER, ROUTERS, ROUTERS6, Sender, destinations, hops, know, lab, shares, wait_all_by};
use mhebpf_tests::{
    Family, Lab, Mac,
    lab::{PROBE_PORT, Router},
    traffic::udp,
};

/// Each sender with what mhebpf is started with.
const SENDERS: [(Sender, &[&str]); 2] =
    [(Sender::Redirected, &["--no-announce"]), (Sender::Routed, &["--no-announce", "--steer", "rules"])];

/// The prefix of all [`destinations`].
fn prefix(family: Family) -> &'static str {
    family.choose("198.51.100.0/24", "2001:db8:ffff::/48")
}

/// A lab whose host tells ids only, with the routers known and an object for each: 1 and 2.
fn lab_of_objects(family: Family) -> Result<(Lab, [Router; 2])> {
    let (lab, routers) = lab(family)?;
    know(&lab, &routers, family)?;
    lab.host.sysctl("net.ipv4.nexthop_compat_mode", "0")?;
    for n in [0, 1] {
        lab.host.ip(&object(family, "add", n + 1, n))?;
    }
    Ok((lab, routers))
}

/// A command about an object that is one of the routers.
fn object(family: Family, verb: &str, id: usize, router: usize) -> String {
    let address: IpAddr = family.choose(ROUTERS[router].into(), ROUTERS6[router].into());
    format!("nexthop {verb} id {id} via {address} dev eth1_int")
}

/// A command about a route by an object.
fn route(family: Family, verb: &str, prefix: &str, id: usize) -> String {
    format!("{} route {verb} {prefix} nhid {id} metric 2000", family.choose("-4", "-6"))
}

fn each(check: impl Fn(Family, Sender, &[&str]) -> Result<()>) -> Result<()> {
    for family in Family::BOTH {
        for (sender, arguments) in SENDERS {
            check(family, sender, arguments)?;
        }
    }
    Ok(())
}

fn way(routers: &[Router; 2], n: usize) -> (usize, Mac) {
    (OWNER, routers[n].mac)
}

#[test]
fn a_default_route_by_an_object_is_used() -> Result<()> {
    each(|family, sender, arguments| {
        let (lab, routers) = lab_of_objects(family)?;
        lab.host.ip(&route(family, "add", "default", 1))?;
        let daemon = lab.mhebpf(arguments)?;
        let from = lab.address_in(family, OWNER);
        wait_all_by(&lab, sender, from, &destinations(family, 8), way(&routers, 0))?;
        daemon.stop()?;
        lab.finish()
    })
}

#[test]
fn a_more_specific_route_by_an_object_comes_first() -> Result<()> {
    each(|family, sender, arguments| {
        let (lab, routers) = lab_of_objects(family)?;
        let daemon = lab.mhebpf(arguments)?;
        // While it runs, and where there was another before.
        lab.host.ip(&route(family, "add", "default", 1))?;
        lab.host.ip(&route(family, "add", prefix(family), 2))?;
        let from = lab.address_in(family, OWNER);
        wait_all_by(&lab, sender, from, &destinations(family, 8), way(&routers, 1))?;
        lab.host.ip(&route(family, "delete", prefix(family), 2))?;
        wait_all_by(&lab, sender, from, &destinations(family, 8), way(&routers, 0))?;
        daemon.stop()?;
        lab.finish()
    })
}

/// The only event is that of the object.
#[test]
fn an_object_that_is_replaced_takes_its_routes_with_it() -> Result<()> {
    each(|family, sender, arguments| {
        let (lab, routers) = lab_of_objects(family)?;
        lab.host.ip(&route(family, "add", prefix(family), 1))?;
        let daemon = lab.mhebpf(arguments)?;
        let (from, to) = (lab.address_in(family, OWNER), destinations(family, 8));
        for router in [1, 0, 1] {
            lab.host.ip(&object(family, "replace", 1, router))?;
            wait_all_by(&lab, sender, from, &to, way(&routers, router))?;
        }
        daemon.stop()?;
        lab.finish()
    })
}

#[test]
fn a_group_spreads_flows_by_weight_and_follows_its_members() -> Result<()> {
    each(|family, sender, arguments| {
        let (lab, routers) = lab_of_objects(family)?;
        lab.host.ip("nexthop add id 10 group 1,3/2,1")?;
        lab.host.ip(&route(family, "add", "default", 10))?;
        let daemon = lab.mhebpf(arguments)?;
        let (from, to) = (lab.address_in(family, OWNER), destinations(family, 256));
        let shares = shares(&hops(&lab, sender, from, &to)?);
        let most = shares.get(&way(&routers, 0)).copied().unwrap_or_default();
        assert!((160..=224).contains(&most) && shares.values().sum::<usize>() == 256, "{shares:?}");
        lab.host.ip("nexthop replace id 10 group 2")?;
        wait_all_by(&lab, sender, from, &to, way(&routers, 1))?;
        // The member is another router now; nothing is said of the group.
        lab.host.ip(&object(family, "replace", 2, 0))?;
        wait_all_by(&lab, sender, from, &to, way(&routers, 0))?;
        daemon.stop()?;
        lab.finish()
    })
}

/// A member that is deleted leaves the group, which goes on with the others.
#[test]
fn a_group_goes_on_without_a_member_that_is_deleted() -> Result<()> {
    each(|family, sender, arguments| {
        let (lab, routers) = lab_of_objects(family)?;
        lab.host.ip("nexthop add id 10 group 1/2")?;
        lab.host.ip(&route(family, "add", "default", 10))?;
        let daemon = lab.mhebpf(arguments)?;
        lab.host.ip("nexthop delete id 1")?;
        let from = lab.address_in(family, OWNER);
        wait_all_by(&lab, sender, from, &destinations(family, 64), way(&routers, 1))?;
        daemon.stop()?;
        lab.finish()
    })
}

/// Of IPv4's routes by it nothing is said.
#[test]
fn routes_by_an_object_that_is_deleted_are_gone() -> Result<()> {
    each(|family, sender, arguments| {
        let (lab, routers) = lab_of_objects(family)?;
        lab.host.ip(&route(family, "add", "default", 1))?;
        lab.host.ip(&route(family, "add", prefix(family), 2))?;
        let daemon = lab.mhebpf(arguments)?;
        let (from, to) = (lab.address_in(family, OWNER), destinations(family, 8));
        wait_all_by(&lab, sender, from, &to, way(&routers, 1))?;
        lab.host.ip("nexthop delete id 2")?;
        wait_all_by(&lab, sender, from, &to, way(&routers, 0))?;
        daemon.stop()?;
        lab.finish()
    })
}

/// It is what a route of the type blackhole is, and no gateway: nobody is asked for the destination on the wire.
#[test]
fn a_blackhole_object_is_what_a_blackhole_route_is() -> Result<()> {
    for family in Family::BOTH {
        let (lab, routers) = lab_of_objects(family)?;
        let flag = family.choose("-4", "-6");
        lab.host.ip(&route(family, "add", "default", 1))?;
        lab.host.ip(&format!("{flag} nexthop add id 5 blackhole"))?;
        let daemon = lab.mhebpf(&["--no-announce"])?;
        let (from, to) = (lab.address_in(family, OWNER), destinations(family, 8));
        wait_all_by(&lab, Sender::Redirected, from, &to, way(&routers, 0))?;
        let recording = lab.record();
        let mut found = Vec::new();
        for what in ["blackhole PREFIX metric 2000", "PREFIX nhid 5 metric 2000"] {
            let words = what.replace("PREFIX", prefix(family));
            lab.host.ip(&format!("{flag} route add {words}"))?;
            lab.wait_in_step(2, 0)?;
            found.push(hops(&lab, Sender::Redirected, from, &to)?);
            lab.host.ip(&format!("{flag} route delete {words}"))?;
        }
        assert_eq!(found[0], found[1]);
        for (_, arp) in recording.arp_from_host()? {
            assert!(!to.contains(&arp.target.into()), "{arp:?}");
        }
        daemon.stop()?;
        lab.finish()?;
    }
    Ok(())
}

/// The host itself takes the default route by an object, so only a redirect tells who owns what.
#[test]
fn answers_come_back_by_a_default_route_by_an_object() -> Result<()> {
    let (lab, routers) = lab_of_objects(Family::V4)?;
    lab.host.ip(&route(Family::V4, "add", "default", 2))?;
    let server = udp::EchoServer::start(&routers[1].ns, mhebpf_tests::FAR, PROBE_PORT)?;
    let daemon = lab.mhebpf(&[])?;
    let recording = lab.record();
    udp::echo(&udp::bind(&lab.host, lab.address(OWNER), 0)?, server.address(), b"hello")?;
    let sent = recording.wait_datagram_from(lab.address(OWNER))?;
    assert_eq!((sent.port, sent.frame.destination), way(&routers, 1));
    daemon.stop()?;
    lab.finish()
}
