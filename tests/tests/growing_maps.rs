//! Maps that become too small: larger ones take their place under traffic, and what never fits is left out in a defined way.

#[expect(dead_code, reason = "other tests use the rest")]
mod hops;
#[expect(dead_code, reason = "other tests use the rest")]
mod many_routes;
#[expect(dead_code, reason = "other tests use the rest")]
mod pinning;

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use aya::{maps::MapInfo, programs::loaded_programs};
use hops::{ROUTERS, Sender, hops, know};
use many_routes::{add_many_by, prefix};
use mhebpf_tests::{
    Daemon, Family, Lab, NetNs, PATIENCE, PEER,
    lab::{INTERFACES, PROBE_PORT},
    scaled, tcx, wait_until,
};
use pinning::{end, names, namespaces, start, unload};
use serde_json::Value;

/// How many addresses are added to a host whose maps were made for a few.
const MANY: usize = 10_000;
/// How long that may take in a build that is not optimised.
const LONG: Duration = scaled(Duration::from_secs(120));
/// What the daemon says of larger maps.
const GROWN: &str = "larger ones are in force";

/// A daemon whose maps are small at first, or for ever.
fn run(lab: &Lab, entries: &str, further: &[&str]) -> Result<Daemon> {
    let mut command = Daemon::command(&lab.host)?;
    command.args(["run", "--interface", INTERFACES, "--no-announce"]).args(further);
    command.env("MHEBPF_MAP_ENTRIES", entries);
    let mut daemon = Daemon::spawn_command(command)?;
    daemon.wait_ready()?;
    if !further.contains(&"--pin") {
        lab.hold_to(&mut daemon);
    }
    Ok(daemon)
}

fn status(host: &NetNs) -> Result<Value> {
    let output = Daemon::command(host)?.args(["status", "-o", "json"]).output()?;
    serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

fn addresses(host: &NetNs) -> Result<usize> {
    Ok(status(host)?["addresses"].as_u64().context("addresses")? as usize)
}

/// Adds some addresses to an interface, or removes them.
fn change(lab: &Lab, verb: &str, interface: &str, range: std::ops::Range<usize>) -> Result<()> {
    let mut lines = String::new();
    for n in range {
        writeln!(lines, "address {verb} 10.50.{}.{}/32 dev {interface}", n / 250, n % 250 + 1)?;
    }
    lab.host.ip_batch(&lines)
}

/// Ends what goes on beside it, also when it is dropped by a panic.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does something while the host sends from all of its addresses without a pause. Gives how many datagrams were sent from each, and
/// checks that each left through its owner, and that none is missing.
fn under_traffic(lab: &Lab, work: impl FnOnce() -> Result<()>) -> Result<Vec<usize>> {
    let stop = AtomicBool::new(false);
    let sent: Vec<AtomicUsize> = lab.ports().map(|_| AtomicUsize::new(0)).collect();
    let recording = lab.record();
    thread::scope(|scope| {
        let bind = |port| lab.host.run(|| Ok(UdpSocket::bind((lab.address(port), 0))?));
        let sockets: Vec<UdpSocket> = lab.ports().map(bind).collect::<Result<_>>()?;
        let (stop, sent) = (&stop, &sent);
        let _stop = Stop(stop);
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                for (socket, sent) in sockets.iter().zip(sent) {
                    if socket.send_to(b"growing", (PEER, PROBE_PORT)).is_ok() {
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                    // As many as the capture can keep.
                    let next = Instant::now() + Duration::from_micros(30);
                    while Instant::now() < next {
                        thread::yield_now();
                    }
                }
            }
        });
        let begun = || sent.iter().all(|sent| sent.load(Ordering::Relaxed) > 10);
        wait_until("traffic", PATIENCE, || Ok(begun().then_some(())))?;
        work()
    })?;
    lab.fence()?;
    let frames = recording.from_host()?;
    let sent: Vec<usize> = sent.into_iter().map(AtomicUsize::into_inner).collect();
    for (owner, sent) in sent.iter().enumerate() {
        let source = lab.address(owner).into();
        let of_it = frames.iter().filter(|frame| frame.frame.datagram_source() == Some(source));
        let (own, others): (Vec<_>, Vec<_>) = of_it.partition(|frame| frame.port == owner);
        assert_eq!((own.len(), others.len()), (*sent, 0), "from {source}: by its owner, and by others");
    }
    println!("{sent:?} datagrams");
    Ok(sent)
}

/// Has the maps grow under traffic, and looks whether all is enforced and counted as if nothing had happened.
fn grow(lab: &Lab, daemon: &Daemon) -> Result<Vec<usize>> {
    let sent = under_traffic(lab, || {
        for begin in (0..MANY).step_by(MANY / 4) {
            change(lab, "add", "eth2_int", begin..begin + MANY / 4)?;
        }
        wait_until("all addresses", LONG, || Ok((addresses(&lab.host)? > MANY).then_some(())))
    })?;
    let said = daemon.stderr();
    assert!(said.contains(GROWN) && !said.contains("ERROR") && !said.contains("WARN"), "{said}");
    let status = status(&lab.host)?;
    assert!(status["no_room"].as_array().is_some_and(Vec::is_empty), "{status}");
    let redirected = status["interfaces"][0]["counters"].as_array().into_iter().flatten();
    let redirected: u64 = redirected
        .filter(|counter| counter["reason"] == "redirected")
        .filter_map(|counter| counter["packets"].as_u64())
        .sum();
    let expected: usize = sent[1..].iter().sum();
    // A count can be lost where a program interrupts another one.
    let expected = expected as u64;
    assert!((expected - 10..expected + 100).contains(&redirected), "{redirected} of {expected} counted");
    // What was there before is judged by the new maps, and so is what is new.
    let recording = lab.record();
    lab.emit(0, [10, 50, 0, 1])?;
    lab.emit(2, lab.address(3))?;
    recording.wait_datagram_from([10, 50, 0, 1])?;
    recording.wait_datagram_from(lab.address(3))?;
    assert_eq!(recording.ports_of([10, 50, 0, 1])?, BTreeSet::from([2]));
    assert_eq!(recording.ports_of(lab.address(3))?, BTreeSet::from([3]));
    Ok(sent)
}

/// The map of owners of the program that leaves packets on an interface by TCX.
fn owners_map(lab: &Lab) -> Result<Option<u32>> {
    let Some(own) = tcx::programs(&lab.host, "eth0_int", tcx::Hook::Egress)?.first().copied() else {
        return Ok(None);
    };
    for program in loaded_programs() {
        let program = program?;
        for id in program.map_ids()?.into_iter().flatten().filter(|_| program.id() == own) {
            if MapInfo::from_id(id)?.name_as_str() == Some("OWNERS") {
                return Ok(Some(id));
            }
        }
    }
    Ok(None)
}

#[test]
fn maps_grow_under_traffic_and_nothing_leaks_or_is_lost() -> Result<()> {
    for hook in ["auto", "clsact"] {
        let lab = Lab::article()?;
        let daemon = run(&lab, "16", &["--hook", hook])?;
        let before = owners_map(&lab).unwrap_or_default();
        grow(&lab, &daemon)?;
        if let Some(before) = before {
            assert_ne!(owners_map(&lab)?, Some(before), "{hook}");
            wait_until("the maps before to go", PATIENCE, || {
                Ok(MapInfo::from_id(before).is_err().then_some(()))
            })?;
        }
        let summary = daemon.stop()?.summary;
        assert!(summary.total("redirected") > 0, "{hook}: {summary:?}");
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn pinned_maps_grow_and_outlive_the_daemon() -> Result<()> {
    let Some((lab, file_system)) = start(4)? else { return Ok(()) };
    let directory = file_system.directory("mhebpf");
    let daemon = run(&lab, "16", &["--pin", &directory])?;
    grow(&lab, &daemon)?;
    let [namespace] = &namespaces(&directory)?[..] else { panic!("one namespace") };
    let left = names(namespace)?;
    assert_eq!(left.iter().filter(|name| name.starts_with("maps-")).count(), 1, "{left:?}");
    assert_eq!(left.len(), 9, "two links of each interface, and the maps: {left:?}");
    end(daemon, libc::SIGKILL)?;
    under_traffic(&lab, || Ok(()))?;
    // The next one takes over what has grown.
    end(run(&lab, "16", &["--pin", &directory])?, libc::SIGTERM)?;
    under_traffic(&lab, || Ok(()))?;
    unload(&lab.host, &directory)?;
    lab.finish()
}

#[test]
fn a_host_that_is_large_at_the_start_has_maps_for_it_at_once() -> Result<()> {
    let lab = Lab::article()?;
    change(&lab, "add", "eth2_int", 0..1000)?;
    let daemon = run(&lab, "16", &[])?;
    assert!(addresses(&lab.host)? > 1000);
    assert!(!daemon.stderr().contains(GROWN), "{}", daemon.stderr());
    daemon.stop()?;
    lab.finish()
}

#[test]
fn what_has_no_room_is_a_whole_interface_and_told() -> Result<()> {
    let lab = Lab::article()?;
    let daemon = run(&lab, "16-16", &[])?;
    let ways = |of: std::ops::Range<usize>| {
        let recording = lab.record();
        for owner in of.clone() {
            lab.emit((owner + 1) % 4, lab.address(owner))?;
            recording.wait_datagram_from(lab.address(owner))?;
            assert_eq!(recording.ports_of(lab.address(owner))?, BTreeSet::from([owner]));
        }
        anyhow::Ok(())
    };
    // More than the hash map has room for, which are found elsewhere.
    change(&lab, "add", "eth3_int", 0..12)?;
    wait_until("all addresses", PATIENCE, || Ok((addresses(&lab.host)? >= 16).then_some(())))?;
    ways(0..4)?;
    assert_eq!(status(&lab.host)?["no_room"], Value::Array(Vec::new()));

    // More than anything has room for. From here on nobody is held to addresses of eth3_int.
    lab.release(3, lab.address(3), Duration::ZERO);
    change(&lab, "add", "eth3_int", 12..40)?;
    let no_room = wait_until("no room", PATIENCE, || {
        let status = status(&lab.host)?;
        let no_room = status["no_room"].as_array().cloned().unwrap_or_default();
        Ok((no_room.first().is_some_and(|each| each["addresses"] == 41)).then_some(no_room))
    })?;
    assert_eq!((no_room.len(), &no_room[0]["name"]), (1, &Value::from("eth3_int")));
    ways(0..3)?;
    // Its own traffic goes on.
    let recording = lab.record();
    lab.emit(3, lab.address(3))?;
    recording.wait_datagram_from(lab.address(3))?;
    let output = Daemon::command(&lab.host)?.arg("status").output()?;
    let text = String::from_utf8(output.stdout)?;
    assert!(text.contains("no room: 41 addresses of eth3_int"), "{text}");
    let ended = daemon.stop()?;
    assert!(
        ended.stderr.contains("ERROR") && ended.stderr.contains("41 addresses of eth3_int"),
        "{}",
        ended.stderr
    );

    // The same at a start.
    let daemon = run(&lab, "16-16", &[])?;
    daemon.wait_for_line("41 addresses of eth3_int", PATIENCE)?;
    ways(0..3)?;
    change(&lab, "delete", "eth3_int", 0..40)?;
    daemon.wait_for_line("room for all again", PATIENCE)?;
    lab.claim(3, lab.address(3), Duration::ZERO);
    ways(0..4)?;
    daemon.stop()?;
    lab.finish()
}

/// Next hops of routes that are followed are in no dump.
#[test]
fn next_hops_of_very_many_routes_are_in_the_larger_maps_too() -> Result<()> {
    const ROUTES: u32 = 30_000;
    let lab = Lab::article()?;
    let routers = [lab.add_router(ROUTERS[0])?, lab.add_router(ROUTERS[1])?];
    know(&lab, &routers, Family::V4)?;
    lab.host.ip(&format!("route add default via {} dev eth0_int", ROUTERS[0]))?;
    let router = |n: u32| (n.wrapping_mul(0x9e37_79b9) >> 31) as usize;
    add_many_by(&lab, ROUTES, |n| ROUTERS[router(n)])?;
    let daemon = run(&lab, "16", &[])?;
    change(&lab, "add", "eth2_int", 0..100)?;
    daemon.wait_for_line(GROWN, LONG)?;
    let sample: Vec<(u32, IpAddr)> =
        (0..ROUTES).step_by(30).map(|n| (n, Ipv4Addr::from_bits(prefix(n).to_bits() + 1).into())).collect();
    let to: Vec<IpAddr> = sample.iter().map(|(_, address)| *address).collect();
    let found = hops(&lab, Sender::Redirected, lab.address(1), &to)?;
    for (n, to) in &sample {
        assert_eq!(found.get(to), Some(&(1, routers[router(*n)].mac)), "{to}");
    }
    daemon.stop()?;
    lab.finish()
}
