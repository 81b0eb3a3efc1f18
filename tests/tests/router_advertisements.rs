//! Two routers that advertise themselves (RFC 4191): the one that is preferred, reachable and not out of time is used.

mod hops;

use std::{
    net::Ipv6Addr,
    time::{Duration, Instant},
};

use anyhow::Result;
use hops::{OWNER, ROUTERS6, Sender, destinations, hops, know, lab, shares, wait_all_by};
use mhebpf_tests::{
    Family, Lab, Mac, PATIENCE,
    craft::{self, Preference},
    lab::Router,
    scaled, wait_until,
};

/// For as long as a test takes.
const LONG: u16 = 1800;
/// Long enough to see the router in use, and short enough to wait for the end.
const SHORT: u16 = 4;

/// How late a default route that expires may be left.
const LATE: Duration = scaled(Duration::from_secs(1));

/// Each sender with what mhebpf is started with.
const SENDERS: [(Sender, &[&str]); 2] =
    [(Sender::Redirected, &["--no-announce"]), (Sender::Routed, &["--no-announce", "--steer", "rules"])];

/// The link-local address that a router makes of its hardware address (RFC 4291 appendix A).
fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// A host that listens to routers on the owner's interface, and forgets no route that has expired before it has to.
fn listening() -> Result<(Lab, [Router; 2])> {
    let (lab, routers) = lab(Family::V6)?;
    lab.host.sysctl("net.ipv6.conf.eth1_int.accept_ra", "1")?;
    lab.host.sysctl("net.ipv6.route.gc_interval", "3600")?;
    for router in &routers {
        // Who does not forward is no router, as each of its answers says: the host would take its default route away.
        router.ns.sysctl("net.ipv6.conf.eth0.forwarding", "1")?;
        router.ns.ip("-6 route add blackhole default")?;
    }
    Ok((lab, routers))
}

/// A router says what it is, on the owner's link only, and the host has heard it.
fn advertise(lab: &Lab, router: &Router, preference: Preference, lifetime: u16) -> Result<()> {
    let from = link_local(router.mac);
    let frame = craft::router_advertisement(router.mac, from, preference, lifetime);
    lab.send_to_host(OWNER, &frame)?;
    wait_until("the host to take note of the router", PATIENCE, || {
        let routes = lab.host.ip("-6 route show default dev eth1_int")?;
        let known = routes.contains(&format!("via {from} "));
        Ok((known == (lifetime > 0)).then_some(()))
    })
}

fn way(router: &Router) -> (usize, Mac) {
    (OWNER, router.mac)
}

#[test]
fn the_preferred_router_is_used_whichever_came_first() -> Result<()> {
    for (sender, arguments) in SENDERS {
        for order in [[0, 1], [1, 0]] {
            let (lab, routers) = listening()?;
            let preferences = [Preference::Low, Preference::High];
            let daemon = lab.mhebpf(arguments)?;
            for n in order {
                advertise(&lab, &routers[n], preferences[n], LONG)?;
            }
            let (from, to) = (lab.address6(OWNER), destinations(Family::V6, 8));
            wait_all_by(&lab, sender, from, &to, way(&routers[1]))?;
            daemon.stop()?;
            lab.finish()?;
        }
    }
    Ok(())
}

/// The kernel says so by an event of the route that is there: a preference is part of what has to be followed.
#[test]
fn a_router_that_changes_its_preference_is_believed() -> Result<()> {
    for (sender, arguments) in SENDERS {
        let (lab, routers) = listening()?;
        advertise(&lab, &routers[0], Preference::Low, LONG)?;
        advertise(&lab, &routers[1], Preference::Medium, LONG)?;
        let daemon = lab.mhebpf(arguments)?;
        let (from, to) = (lab.address6(OWNER), destinations(Family::V6, 8));
        wait_all_by(&lab, sender, from, &to, way(&routers[1]))?;
        advertise(&lab, &routers[0], Preference::High, LONG)?;
        wait_all_by(&lab, sender, from, &to, way(&routers[0]))?;
        daemon.stop()?;
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn the_preferred_router_is_used_by_a_daemon_that_starts_later() -> Result<()> {
    for (sender, arguments) in SENDERS {
        let (lab, routers) = listening()?;
        advertise(&lab, &routers[0], Preference::Low, LONG)?;
        advertise(&lab, &routers[1], Preference::High, LONG)?;
        let daemon = lab.mhebpf(arguments)?;
        wait_all_by(&lab, sender, lab.address6(OWNER), &destinations(Family::V6, 8), way(&routers[1]))?;
        daemon.stop()?;
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn a_router_that_does_not_answer_is_left_for_the_other() -> Result<()> {
    for (sender, arguments) in SENDERS {
        for preferences in [
            [Preference::High, Preference::Low],
            [Preference::Medium; 2],
            [Preference::Low, Preference::High],
        ] {
            let (lab, routers) = listening()?;
            for (router, preference) in routers.iter().zip(preferences) {
                advertise(&lab, router, preference, LONG)?;
            }
            let daemon = lab.mhebpf(arguments)?;
            lab.switch.ip(&format!("link delete r{}_ext", routers[0].address.octets()[3]))?;
            let dead = link_local(routers[0].mac);
            lab.host.ip(&format!("neighbour replace {dead} dev eth1_int nud failed"))?;
            let to = destinations(Family::V6, 8);
            wait_all_by(&lab, sender, lab.address6(OWNER), &to, way(&routers[1]))?;
            daemon.stop()?;
            lab.finish()?;
        }
    }
    Ok(())
}

#[test]
fn a_router_that_withdraws_is_left_for_the_other() -> Result<()> {
    for (sender, arguments) in SENDERS {
        let (lab, routers) = listening()?;
        advertise(&lab, &routers[0], Preference::High, LONG)?;
        advertise(&lab, &routers[1], Preference::Medium, LONG)?;
        let daemon = lab.mhebpf(arguments)?;
        let (from, to) = (lab.address6(OWNER), destinations(Family::V6, 8));
        wait_all_by(&lab, sender, from, &to, way(&routers[0]))?;
        advertise(&lab, &routers[0], Preference::High, 0)?;
        wait_all_by(&lab, sender, from, &to, way(&routers[1]))?;
        daemon.stop()?;
        lab.finish()?;
    }
    Ok(())
}

/// After so many seconds the kernel uses it no longer; it says so when it collects garbage, which may be much later.
fn expires(sender: Sender, arguments: &[&str], add: impl Fn(&Lab, &[Router; 2]) -> Result<()>) -> Result<()> {
    let (lab, routers) = listening()?;
    know(&lab, &routers, Family::V6)?;
    let daemon = lab.mhebpf(arguments)?;
    add(&lab, &routers)?;
    let expiry = Instant::now() + Duration::from_secs(SHORT.into());
    let (from, to) = (lab.address6(OWNER), destinations(Family::V6, 8));
    wait_all_by(&lab, sender, from, &to, way(&routers[0]))?;
    assert!(Instant::now() < expiry, "the machine is too busy to see the route in use");
    wait_all_by(&lab, sender, from, &to, way(&routers[1]))?;
    let late = Instant::now().saturating_duration_since(expiry);
    assert!(late < LATE, "{late:?} after its time");
    assert!(shares(&hops(&lab, sender, from, &to)?).len() == 1);
    daemon.stop()?;
    lab.finish()
}

#[test]
fn a_default_route_that_has_expired_is_not_used() -> Result<()> {
    for (sender, arguments) in SENDERS {
        expires(sender, arguments, |lab, _| {
            lab.host.ip(&format!("-6 route add default via {} dev eth1_int metric 2000", ROUTERS6[1]))?;
            let short = format!("default via {} dev eth1_int metric 100 expires {SHORT}", ROUTERS6[0]);
            lab.host.ip(&format!("-6 route add {short}")).map(drop)
        })?;
    }
    Ok(())
}

#[test]
fn a_router_whose_time_is_over_is_not_used() -> Result<()> {
    for (sender, arguments) in SENDERS {
        expires(sender, arguments, |lab, routers| {
            advertise(lab, &routers[1], Preference::Low, LONG)?;
            advertise(lab, &routers[0], Preference::High, SHORT)
        })?;
    }
    Ok(())
}

/// What is advertised again in time does not expire: the kernel sends no event for that.
#[test]
fn a_router_that_goes_on_advertising_is_used_for_longer_than_its_lifetime() -> Result<()> {
    let (lab, routers) = listening()?;
    let daemon = lab.mhebpf(&["--no-announce"])?;
    advertise(&lab, &routers[1], Preference::Low, LONG)?;
    advertise(&lab, &routers[0], Preference::High, 3)?;
    let (from, to) = (lab.address6(OWNER), destinations(Family::V6, 8));
    wait_all_by(&lab, Sender::Redirected, from, &to, way(&routers[0]))?;
    let (end, mut next) = (Instant::now() + Duration::from_secs(5), Instant::now());
    wait_until("five seconds of advertisements", PATIENCE, || {
        if Instant::now() >= next {
            advertise(&lab, &routers[0], Preference::High, 3)?;
            next = Instant::now() + Duration::from_secs(1);
        }
        let shares = shares(&hops(&lab, Sender::Redirected, from, &to)?);
        assert_eq!(shares.keys().copied().collect::<Vec<_>>(), [way(&routers[0])]);
        Ok((Instant::now() >= end).then_some(()))
    })?;
    daemon.stop()?;
    lab.finish()
}
