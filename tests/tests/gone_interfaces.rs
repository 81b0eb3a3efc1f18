//! What was counted on interfaces that are gone: the kernel's table keeps nothing of it, and nothing of it is lost.

mod counted;
#[expect(dead_code, reason = "sums are enough")]
mod openmetrics;
#[expect(dead_code, reason = "one pinned daemon after the other")]
mod pinning;
#[expect(dead_code, reason = "sums are enough")]
mod scrape;

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use counted::{counters, status};
use mhebpf_tests::{
    Daemon, Lab, Mac, PATIENCE,
    craft::{self, Stations},
    lab::PROBE_PORT,
    wait_until,
};
use pinning::{end, run, unload};
use scrape::{scrape, start};
use serde_json::Value;

/// Those that come and go at once, and how often they do: more than are remembered one by one.
const AT_ONCE: u32 = 50;
const ROUNDS: u32 = 4;

/// Above those that have places of their own among the counters.
const FIRST: u32 = 10_000;

/// The lines for `ip` that make an interface that is enforced.
fn make(index: u32) -> String {
    format!(
        "link add eth{index}_int index {index} address 02:00:00:00:00:99 type veth peer name far{index}\n\
         link set far{index} up\nlink set eth{index}_int up\n"
    )
}

fn enforced(lab: &Lab, name: &str) -> Result<Option<Value>> {
    let status = status(lab)?;
    let interfaces = status["interfaces"].as_array().context("interfaces")?;
    let is_it = |each: &&Value| each["name"] == name && each["hook"].is_string();
    Ok(interfaces.iter().find(is_it).cloned())
}

fn wait_enforced(lab: &Lab, index: u32) -> Result<Value> {
    let name = format!("eth{index}_int");
    wait_until(&format!("{name} to be enforced"), PATIENCE, || enforced(lab, &name))
}

/// Sends a datagram with port 0's address through the interface.
fn violate(lab: &Lab, interface: &str) -> Result<()> {
    let stations = Stations { source: Mac([2, 0, 0, 0, 0, 0x99]), destination: lab.peer_mac(0) };
    let [from, to] = [lab.address(0), lab.peer(0)].map(|address| (address, PROBE_PORT));
    lab.send_through(interface, &craft::udp(stations, from, to, b"not here")?)
}

/// How many entries the kernel's table has of interfaces from an index on.
fn entries(daemon: &Daemon, from: u32) -> Result<usize> {
    let counters = counters(daemon)?;
    let keys: Vec<u64> = counters.keys().collect::<Result<_, _>>()?;
    let index = |key: &u64| u32::from_ne_bytes(key.to_ne_bytes()[..4].try_into().unwrap_or_default());
    Ok(keys.iter().filter(|key| index(key) >= from).count())
}

fn wait_freed(daemon: &Daemon, from: u32) -> Result<()> {
    wait_until("the counters to be freed", PATIENCE, || Ok((entries(daemon, from)? == 0).then_some(())))
}

fn redirected(of: &Value) -> u64 {
    let counters = of["counters"].as_array().map(Vec::as_slice).unwrap_or_default();
    let counters = counters.iter().filter(|counter| counter["reason"] == "redirected");
    counters.filter_map(|counter| counter["packets"].as_u64()).sum()
}

fn former<'a>(status: &'a Value, name: &str) -> Option<&'a Value> {
    status["former"].as_array()?.iter().find(|former| former["name"] == name)
}

#[test]
fn counters_of_interfaces_that_are_gone_are_freed_and_not_lost() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = start(&lab, &[])?;
    for round in 0..ROUNDS {
        let indices = FIRST + round * AT_ONCE..FIRST + (round + 1) * AT_ONCE;
        lab.host.ip_batch(&indices.clone().map(make).collect::<String>())?;
        for index in indices.clone() {
            wait_enforced(&lab, index)?;
            violate(&lab, &format!("eth{index}_int"))?;
        }
        let mut lines = String::new();
        for index in indices {
            writeln!(lines, "link delete eth{index}_int")?;
        }
        lab.host.ip_batch(&lines)?;
    }
    wait_freed(&daemon, FIRST)?;
    let all = u64::from(AT_ONCE * ROUNDS);
    let said = status(&lab)?;
    let remembered = said["former"].as_array().context("former")?;
    assert_eq!((remembered.len(), &said["earlier"]["interfaces"]), (64, &Value::from(all - 64)));
    assert_eq!(remembered.iter().map(redirected).sum::<u64>() + redirected(&said["earlier"]), all);
    let packets = scrape(&lab.host)?.sum("mhebpf_packets_total", &[("reason", "redirected")]);
    assert_eq!(packets, all as f64);
    let summary = daemon.stop()?.summary;
    assert_eq!(summary.total("redirected"), all, "{summary:?}");
    lab.finish()
}

/// The one index is among those with places of their own.
#[test]
fn an_index_that_another_interface_had_begins_at_zero() -> Result<()> {
    for index in [300, FIRST] {
        let lab = Lab::builder().links(2).build()?;
        lab.host.ip_batch(&make(index))?;
        let daemon = start(&lab, &[])?;
        wait_enforced(&lab, index)?;
        let (old, new) = (format!("eth{index}_int"), "eth9_int");
        (0..3).try_for_each(|_| violate(&lab, &old))?;
        // Both between two of the daemon's dumps.
        daemon.pause()?;
        lab.host.ip_batch(&format!("link delete {old}\n{}", make(index).replace(&old, new)))?;
        daemon.resume()?;
        let begun = wait_until("the new interface to be enforced", PATIENCE, || enforced(&lab, new))?;
        assert_eq!(redirected(&begun), 0, "{begun}");
        violate(&lab, new)?;
        let said = status(&lab)?;
        assert_eq!(former(&said, &old).map(redirected), Some(3), "{said}");
        assert_eq!(enforced(&lab, new)?.as_ref().map(redirected), Some(1), "{said}");
        let metrics = scrape(&lab.host)?;
        let of = |name| metrics.sum("mhebpf_packets_total", &[("interface", name), ("reason", "redirected")]);
        assert_eq!((of(&old), of(new)), (3.0, 1.0));
        let summary = daemon.stop()?.summary;
        assert_eq!((summary.count(&old, "redirected"), summary.count(new, "redirected")), (3, 1));
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn counters_of_interfaces_that_went_while_no_daemon_ran_are_freed_by_the_next() -> Result<()> {
    let Some((lab, file_system)) = pinning::start(2)? else { return Ok(()) };
    let directory = file_system.directory("mhebpf");
    let (stays, goes, replaced) = (FIRST, FIRST + 1, FIRST + 2);
    lab.host.ip_batch(&[stays, goes, replaced].map(make).concat())?;
    let daemon = run(&lab, &directory, &[])?;
    for index in [stays, goes, replaced] {
        wait_enforced(&lab, index)?;
        violate(&lab, &format!("eth{index}_int"))?;
    }
    end(daemon, libc::SIGKILL)?;
    lab.host.ip_batch(&format!(
        "link delete eth{goes}_int\nlink delete eth{replaced}_int\n{}",
        make(replaced).replace(&format!("eth{replaced}_int"), "eth9_int")
    ))?;
    let daemon = run(&lab, &directory, &[])?;
    wait_until("the new interface to be enforced", PATIENCE, || enforced(&lab, "eth9_int"))?;
    assert_eq!(entries(&daemon, goes)?, 0);
    let stayed = wait_enforced(&lab, stays)?;
    assert_eq!((redirected(&stayed), enforced(&lab, "eth9_int")?.as_ref().map(redirected)), (1, Some(0)));
    let summary = daemon.stop()?.summary;
    assert_eq!(summary.total("redirected"), 3, "{summary:?}");
    unload(&lab.host, &directory)?;
    lab.finish()
}
