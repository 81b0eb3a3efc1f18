//! Routes that change all the while, on a host with many of them: what matters is right all the same, within a bounded time.

mod hops;
mod many_routes;

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::Result;
use hops::{OWNER, ROUTERS, Sender, destinations, know, lab, wait_all_by};
use many_routes::{Flapping, add_many};
use mhebpf_tests::{Family, scaled};

/// How many routes there are beside the one that flaps.
const ROUTES: u32 = 20_000;
/// How long a change may take to be in force, most of the time: the machine may be busy with something else.
const SOON: Duration = scaled(Duration::from_millis(500));

/// Each sender with what mhebpf is started with.
const SENDERS: [(Sender, &[&str]); 2] =
    [(Sender::Redirected, &["--no-announce"]), (Sender::Routed, &["--no-announce", "--steer", "rules"])];

/// Whether three of four took no longer than [`SOON`].
#[track_caller]
fn assert_soon(mut times: Vec<Duration>) {
    times.sort();
    assert!(times[times.len() * 3 / 4] < SOON, "three of four: {times:?}");
}

#[test]
fn a_moved_address_is_right_while_a_route_flaps() -> Result<()> {
    let (lab, routers) = lab(Family::V4)?;
    know(&lab, &routers, Family::V4)?;
    add_many(&lab, ROUTES)?;
    let daemon = lab.mhebpf(&["--no-announce"])?;
    let address = Ipv4Addr::new(192, 168, 2, 1);
    lab.add_address(1, address)?;
    lab.wait_until_it_leaves_by(0, address, &[1])?;
    let flapping = Flapping::start(&lab)?;
    let mut times = Vec::new();
    for step in 0..8 {
        let (from, to) = if step % 2 == 0 { (1, 2) } else { (2, 1) };
        let start = Instant::now();
        lab.move_address(from, to, address)?;
        lab.wait_until_it_leaves_by(0, address, &[to])?;
        times.push(start.elapsed());
    }
    flapping.stop()?;
    assert_soon(times);
    daemon.stop()?;
    lab.finish()
}

#[test]
fn a_default_route_that_is_withdrawn_goes_while_a_route_flaps() -> Result<()> {
    for (sender, arguments) in SENDERS {
        let (lab, routers) = lab(Family::V4)?;
        know(&lab, &routers, Family::V4)?;
        add_many(&lab, ROUTES)?;
        let [better, other] = ROUTERS.map(|router| format!("default via {router} dev eth1_int metric"));
        lab.host.ip(&format!("route add {other} 3000"))?;
        let daemon = lab.mhebpf(arguments)?;
        let (from, to) = (lab.address(OWNER), destinations(Family::V4, 8));
        let flapping = Flapping::start(&lab)?;
        let mut times = Vec::new();
        for _ in 0..4 {
            lab.host.ip(&format!("route add {better} 2000"))?;
            times.push(wait_all_by(&lab, sender, from, &to, (OWNER, routers[0].mac))?);
            lab.host.ip(&format!("route delete {better} 2000"))?;
            times.push(wait_all_by(&lab, sender, from, &to, (OWNER, routers[1].mac))?);
        }
        flapping.stop()?;
        assert_soon(times);
        daemon.stop()?;
        lab.finish()?;
    }
    Ok(())
}

/// A route by itself, of many: no other is looked at, so this is quick however many there are.
#[test]
fn one_route_of_many_is_followed_at_once() -> Result<()> {
    for (sender, arguments) in SENDERS {
        let (lab, routers) = lab(Family::V4)?;
        know(&lab, &routers, Family::V4)?;
        add_many(&lab, ROUTES)?;
        let daemon = lab.mhebpf(arguments)?;
        let (from, to) = (lab.address(OWNER), destinations(Family::V4, 8));
        let mut times = Vec::new();
        for step in 0..8 {
            let router = step % 2;
            lab.host.ip(&format!("route replace 198.51.100.0/24 via {} dev eth1_int", ROUTERS[router]))?;
            times.push(wait_all_by(&lab, sender, from, &to, (OWNER, routers[router].mac))?);
        }
        assert_soon(times);
        daemon.stop()?;
        lab.finish()?;
    }
    Ok(())
}
