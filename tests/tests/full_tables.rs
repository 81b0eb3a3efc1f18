//! Many routes: those that say nothing new take no room, and what there is room for is right.

#[expect(dead_code, reason = "other tests use the rest")]
mod hops;
#[expect(dead_code, reason = "other tests use the rest")]
mod many_routes;

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use anyhow::{Context as _, Result};
use hops::{ROUTERS, Sender, hops, know, lab};
use many_routes::{add_many, add_many_by, prefix};
use mhebpf_tests::{Daemon, Family, Lab, NetNs, daemon::READY, lab::Router, scaled, wait_until};
use serde_json::Value;

/// More than one in a place of its own for each owner fits into.
const TOO_MANY: u32 = 300_000;
/// How long a start with so many may take in a build that is not optimised.
const START: Duration = scaled(Duration::from_secs(120));

fn status(host: &NetNs) -> Result<Value> {
    let output = Daemon::command(host)?.args(["status", "-o", "json"]).output()?;
    serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

fn next_hops(lab: &Lab) -> Result<u64> {
    status(&lab.host)?["next_hops"].as_u64().context("next_hops")
}

#[test]
fn routes_that_say_what_the_default_route_says_take_no_room() -> Result<()> {
    let (lab, _) = lab(Family::V4)?;
    add_many(&lab, 20_000)?;
    let daemon = lab.mhebpf(&["--no-announce"])?;
    let count = next_hops(&lab)?;
    assert!(count < 100, "{count} next hops for 20,000 routes by one gateway");
    // And they are all there when the default route goes.
    lab.host.ip("route delete default")?;
    wait_until("the routes by themselves", START, || Ok((next_hops(&lab)? >= 20_000).then_some(())))?;
    lab.host.ip(&format!("route add default via {} dev eth0_int", lab.peer(0)))?;
    wait_until("no room taken again", START, || Ok((next_hops(&lab)? < 100).then_some(())))?;
    daemon.stop()?;
    lab.finish()
}

/// Destinations among `count` prefixes, spread over all of them.
fn sample(count: u32) -> Vec<(u32, IpAddr)> {
    let step = count / 1_000;
    (0..1_000)
        .map(|n| n * step + n % step)
        .map(|n| (n, Ipv4Addr::from_bits(prefix(n).to_bits() + 1).into()))
        .collect()
}

/// Where the way of a prefix leads: at random, as in a full table of two providers.
fn router(n: u32) -> usize {
    (n.wrapping_mul(0x9e37_79b9) >> 31) as usize
}

/// Four owners and more routes than there is room for one by one.
fn lab_of_too_many() -> Result<(Lab, [Router; 2])> {
    let lab = Lab::builder().links(4).build()?;
    let routers = [lab.add_router(ROUTERS[0])?, lab.add_router(ROUTERS[1])?];
    know(&lab, &routers, Family::V4)?;
    lab.host.ip(&format!("route add default via {} dev eth0_int", ROUTERS[0]))?;
    add_many_by(&lab, TOO_MANY, |n| ROUTERS[router(n)])?;
    Ok((lab, routers))
}

#[test]
fn no_frame_takes_a_wrong_next_hop_where_there_are_more_than_fit() -> Result<()> {
    let (lab, routers) = lab_of_too_many()?;
    let mut daemon = Daemon::spawn(&lab.host, &["run", "--interface", "eth*_int", "--no-announce"])?;
    daemon.wait_for_line(READY, START)?;
    lab.hold_to(&mut daemon);
    let sample = sample(TOO_MANY);
    let to: Vec<IpAddr> = sample.iter().map(|(_, address)| *address).collect();
    let mut lost = 0;
    for owner in 1..4 {
        let found = hops(&lab, Sender::Redirected, lab.address(owner), &to)?;
        let right = |n: u32| (owner, routers[router(n)].mac);
        let wrong =
            sample.iter().filter(|(n, to)| found.get(to).is_some_and(|way| *way != right(*n))).count();
        assert_eq!(wrong, 0, "of {} from port {owner} by a wrong next hop", to.len());
        lost += to.len() - found.len();
    }
    // What has no room is told.
    let said = daemon.stderr();
    assert!(lost == 0 || said.contains("ERROR"), "{lost} lost, and nothing said:\n{said}");
    drop(daemon);
    lab.finish()
}

/// What is pinned can be taken over by the next start, however much it is.
#[test]
fn a_pinned_restart_with_more_than_fit_takes_over() -> Result<()> {
    let files = mhebpf_tests::BpfFileSystem::mount()?;
    let directory = files.path().join("mhebpf");
    let pin = format!("--pin={}", directory.display());
    let (lab, _) = lab_of_too_many()?;
    for _ in 0..2 {
        let arguments = ["run", "--interface", "eth*_int", "--no-announce", &pin];
        let daemon = Daemon::spawn(&lab.host, &arguments)?;
        daemon.wait_for_line(READY, START)?;
        daemon.stop()?;
    }
    let unloaded =
        Daemon::command(&lab.host)?.args(["unload", "--pin", &directory.display().to_string()]).output()?;
    assert!(unloaded.status.success(), "{}", String::from_utf8_lossy(&unloaded.stderr));
    lab.finish()
}
