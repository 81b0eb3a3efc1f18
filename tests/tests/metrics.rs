//! `mhebpf run --metrics`: what is served to Prometheus, and that scraping disturbs nothing.

mod openmetrics;
mod scrape;

use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use mhebpf_tests::{
    BpfFileSystem, Daemon, Lab, NetNs, PATIENCE,
    features::{self, Feature},
    wait_until,
};
use openmetrics::Exposition;
use scrape::{ADDRESS, scrape, start, violate};
use serde_json::Value;

fn status(ns: &NetNs) -> Result<Value> {
    let output = Daemon::command(ns)?.args(["status", "-o", "json"]).output()?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

#[test]
fn what_is_kept_of_policy_routing_is_told_where_it_is_kept() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = start(&lab, &["--steer", "rules"])?;
    let metrics = scrape(&lab.host)?;
    // An address and a subnet on each of two interfaces.
    assert_eq!(
        (metrics.value("mhebpf_steering_rules")?, metrics.value("mhebpf_steering_routes")?),
        (2.0, 2.0)
    );
    daemon.stop()?;
    let daemon = start(&lab, &[])?;
    assert_eq!(scrape(&lab.host)?.samples("mhebpf_steering_rules").count(), 0);
    daemon.stop()?;
    lab.finish()
}

#[test]
fn the_counters_are_those_that_status_shows() -> Result<()> {
    let lab = Lab::builder().links(2).ipv6().build()?;
    let daemon = start(&lab, &[])?;
    for _ in 0..3 {
        violate(&lab)?;
    }
    // Nothing more comes in between, but for what a neighbour may ask.
    let (metrics, status) = wait_until("two looks at the same counters", PATIENCE, || {
        let before = status(&lab.host)?;
        let metrics = scrape(&lab.host)?;
        let after = status(&lab.host)?;
        let counters = |status: &Value| {
            status["interfaces"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|of| of["counters"].clone())
                .collect::<Vec<_>>()
        };
        Ok((counters(&before) == counters(&after)).then_some((metrics, after)))
    })?;
    let mut compared = 0;
    for interface in status["interfaces"].as_array().context("interfaces")? {
        let name = interface["name"].as_str().context("a name")?;
        for counter in interface["counters"].as_array().context("counters")? {
            let word = |key: &str| counter[key].as_str().unwrap_or_default();
            let labels = ["direction", "family", "reason"]
                .map(|key| (key, word(key)))
                .into_iter()
                .chain([("interface", name), ("observed", "false")]);
            let labels: Vec<_> = labels.collect();
            let packets = counter["packets"].as_f64().context("packets")?;
            assert_eq!(metrics.sum("mhebpf_packets_total", &labels), packets, "{labels:?}");
            compared += 1;
        }
    }
    assert_eq!(metrics.samples("mhebpf_packets_total").count(), compared, "and no others");
    assert!(
        metrics.sum("mhebpf_packets_total", &[("reason", "redirected"), ("interface", "eth0_int")]) >= 3.0
    );
    assert!(metrics.sum("mhebpf_packets_total", &[("reason", "arp_target")]) >= 3.0);
    for (name, key) in [("mhebpf_local_addresses", "addresses"), ("mhebpf_next_hops", "next_hops")] {
        assert_eq!(Some(metrics.value(name)?), status[key].as_f64(), "{name}");
    }
    daemon.stop()?;
    lab.finish()
}

#[test]
fn it_says_how_the_daemon_is() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = start(&lab, &[])?;
    let metrics = wait_until("the maps to be in step", PATIENCE, || {
        let metrics = scrape(&lab.host)?;
        Ok((metrics.value("mhebpf_in_step")? == 1.0).then_some(metrics))
    })?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
    let recently = |name: &str| -> Result<()> {
        let age = now - metrics.value(name)?;
        ensure!((-1.0..PATIENCE.as_secs_f64()).contains(&age), "{name} is {age} s ago");
        Ok(())
    };
    recently("mhebpf_last_in_step_timestamp_seconds")?;
    recently("process_start_time_seconds")?;
    assert!(metrics.value("mhebpf_last_in_step_age_seconds")? < PATIENCE.as_secs_f64());
    assert!(metrics.value("mhebpf_synchronisations_total")? >= 1.0);
    assert_eq!(metrics.value("mhebpf_synchronisation_failures_total")?, 0.0);
    let (took, of) =
        ("mhebpf_synchronisation_duration_seconds_sum", "mhebpf_synchronisation_duration_seconds_count");
    assert!(metrics.value(took)? > 0.0);
    assert_eq!(metrics.value(of)?, metrics.value("mhebpf_synchronisations_total")?);
    let memory = metrics.value("process_resident_memory_bytes")?;
    assert!((1e6..64e6).contains(&memory), "{memory}");
    assert!(metrics.value("process_cpu_seconds_total")? > 0.0);
    assert_eq!(metrics.sum("mhebpf_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1.0);
    assert_eq!(metrics.sum("mhebpf_mode_info", &[("mode", "redirect")]), 1.0);
    assert_eq!(metrics.sum("mhebpf_interface_up", &[]), 2.0);
    let info =
        [("interface", "eth0_int"), ("send", "redirect"), ("receive", "drop"), ("announce", "enforce")];
    assert_eq!(metrics.sum("mhebpf_interface_info", &info), 1.0);
    // One of each link, and 127.0.0.1.
    assert_eq!(metrics.sum("mhebpf_map_entries", &[("map", "OWNERS")]), 3.0);
    assert_eq!(metrics.samples("mhebpf_map_entries").count(), metrics.samples("mhebpf_map_capacity").count());
    // As large as maps are made on a small host.
    assert!(metrics.samples("mhebpf_map_capacity").all(|sample| sample.value >= 64.0), "{metrics:?}");
    assert_eq!(metrics.sum("mhebpf_map_capacity", &[("map", "OWNERS")]), 1024.0);
    assert_eq!(metrics.value("mhebpf_interfaces_without_room")?, 0.0);
    daemon.stop()?;
    lab.finish()
}

#[test]
fn it_follows_the_host() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = start(&lab, &[])?;
    let synchronised = |metrics: &Exposition| metrics.value("mhebpf_synchronisations_total");
    let before = scrape(&lab.host)?;
    let owners = |metrics: &Exposition| metrics.sum("mhebpf_map_entries", &[("map", "OWNERS")]);
    lab.add_address(0, [192, 168, 0, 120])?;
    wait_until("the new address", PATIENCE, || {
        let metrics = scrape(&lab.host)?;
        let is_there = owners(&metrics) == owners(&before) + 1.0;
        Ok((is_there && synchronised(&metrics)? > synchronised(&before)?).then_some(()))
    })?;
    lab.down(1)?;
    wait_until("the interface to be down", PATIENCE, || {
        let down = scrape(&lab.host)?.sum("mhebpf_interface_up", &[("interface", "eth1_int")]) == 0.0;
        Ok(down.then_some(()))
    })?;
    daemon.stop()?;
    lab.finish()
}

/// Lets a process have no descriptor from this number on.
fn limit_descriptors(pid: u32, number: libc::rlim_t) -> Result<()> {
    let limit = libc::rlimit { rlim_cur: number, rlim_max: 1024 };
    // SAFETY: a pointer to an `rlimit` that lives through the call.
    let result = unsafe {
        libc::prlimit(pid.cast_signed(), libc::RLIMIT_NOFILE, &raw const limit, std::ptr::null_mut())
    };
    ensure!(result == 0, std::io::Error::last_os_error());
    Ok(())
}

#[test]
fn it_says_when_the_maps_are_not_in_step() -> Result<()> {
    if !features::require(Feature::Tcx)? {
        return Ok(());
    }
    let lab = Lab::builder().links(2).build()?;
    let daemon = start(&lab, &["--hook", "tcx"])?;
    scrape(&lab.host)?;
    // One descriptor is enough for a scrape, not for two programs.
    let open = |number: &u64| Path::new(&format!("/proc/{}/fd/{number}", daemon.pid())).exists();
    let free = (0..).find(|number| !open(number)).context("a free number")?;
    limit_descriptors(daemon.pid(), free + 1)?;
    lab.host.ip("link add eth9_int type veth peer name other")?;
    daemon.wait_for_line("trying again", PATIENCE)?;
    let failed = |times: f64| {
        wait_until("synchronisations to fail", PATIENCE, || {
            let metrics = scrape(&lab.host)?;
            let has_failed = metrics.value("mhebpf_synchronisation_failures_total")? >= times;
            Ok(has_failed.then_some(metrics))
        })
    };
    let last = failed(1.0)?.value("mhebpf_last_in_step_timestamp_seconds")?;
    let again = failed(2.0)?;
    assert_eq!(again.value("mhebpf_in_step")?, 0.0);
    assert_eq!(again.value("mhebpf_last_in_step_timestamp_seconds")?, last);
    limit_descriptors(daemon.pid(), 1024)?;
    wait_until("the maps to be in step again", PATIENCE, || {
        let metrics = scrape(&lab.host)?;
        let is_in_step = metrics.value("mhebpf_in_step")? == 1.0;
        Ok((is_in_step && metrics.value("mhebpf_last_in_step_timestamp_seconds")? > last).then_some(()))
    })?;
    daemon.stop()?;
    lab.finish()
}

#[test]
fn what_is_only_observed_is_told_apart() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = start(&lab, &["--mode", "observe"])?;
    violate(&lab)?;
    let metrics = scrape(&lab.host)?;
    let of =
        |observed| metrics.sum("mhebpf_packets_total", &[("reason", "redirected"), ("observed", observed)]);
    assert_eq!((of("true"), of("false")), (1.0, 0.0));
    assert_eq!(metrics.sum("mhebpf_mode_info", &[("mode", "observe")]), 1.0);
    daemon.stop()?;
    lab.finish()
}

#[test]
fn counters_never_go_backwards_when_an_interface_leaves() -> Result<()> {
    let mut lab = Lab::builder().links(2).build()?;
    let daemon = start(&lab, &[])?;
    let redirected = |lab: &Lab| -> Result<f64> {
        Ok(scrape(&lab.host)?
            .sum("mhebpf_packets_total", &[("interface", "eth0_int"), ("reason", "redirected")]))
    };
    for _ in 0..3 {
        lab.emit(0, lab.address(1))?;
    }
    lab.fence()?;
    assert_eq!(redirected(&lab)?, 3.0);
    lab.delete_link(0)?;
    wait_until("the interface to be gone", PATIENCE, || {
        let gone = scrape(&lab.host)?.sum("mhebpf_interface_info", &[("interface", "eth0_int")]) == 0.0;
        Ok(gone.then_some(()))
    })?;
    assert_eq!(redirected(&lab)?, 3.0, "it is counted on");
    lab.recreate_link(0)?;
    wait_until("the interface to be enforced again", PATIENCE, || {
        let back = scrape(&lab.host)?.sum("mhebpf_interface_info", &[("interface", "eth0_int")]);
        Ok((back == 1.0).then_some(()))
    })?;
    lab.wait_in_step(1, 0)?;
    let before = redirected(&lab)?;
    assert!(before >= 3.0, "{before}");
    lab.emit(0, lab.address(1))?;
    lab.fence()?;
    assert_eq!(redirected(&lab)?, before + 1.0, "under the same name, one is added");
    daemon.stop()?;
    lab.finish()
}

#[test]
fn counters_that_are_pinned_go_on_in_the_next_daemon() -> Result<()> {
    if !features::require(Feature::Tcx)? {
        return Ok(());
    }
    let (lab, pins) = (Lab::builder().links(2).build()?, BpfFileSystem::mount()?);
    let pinned = pins.directory("pins");
    // Enforcement does not end with the daemon, so the lab's judge is not told of it.
    let run = || -> Result<Daemon> {
        let arguments = ["run", "--interface", "eth*_int", "--no-announce", "--metrics", ADDRESS, "--pin"];
        let daemon = Daemon::spawn(&lab.host, &[&arguments[..], &[&pinned]].concat())?;
        daemon.wait_ready()?;
        Ok(daemon)
    };
    let redirected =
        || -> Result<f64> { Ok(scrape(&lab.host)?.sum("mhebpf_packets_total", &[("reason", "redirected")])) };
    let daemon = run()?;
    lab.emit(0, lab.address(1))?;
    lab.fence()?;
    assert_eq!(redirected()?, 1.0);
    daemon.stop()?;
    lab.emit(0, lab.address(1))?;
    lab.fence()?;
    let daemon = run()?;
    assert_eq!(redirected()?, 2.0, "what was counted meanwhile too");
    daemon.stop()?;
    let unload = Daemon::command(&lab.host)?.args(["unload", "--pin", &pinned]).output()?;
    assert!(unload.status.success(), "{unload:?}");
    lab.finish()
}
