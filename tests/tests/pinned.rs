//! What outlives the daemon with `--pin`: enforcement goes on, a restart takes it over, `mhebpf unload` ends it.

mod fire;
mod pinning;

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use fire::{Fire, under_fire};
use mhebpf_tests::{Daemon, Lab, PATIENCE, PEER, daemon::READY, lab::INTERFACES, scaled, wait_until};
use pinning::{command, end, is_enforced, maps, names, namespaces, programs, run, spawn, start, unload};
use serde_json::Value;

const SCHEMA: &str = include_str!("../../mhebpf/schema/status-pinned.json");

#[test]
fn enforcement_goes_on_after_a_stop_and_after_a_kill_until_it_is_unloaded() -> Result<()> {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGKILL] {
        let Some((lab, file_system)) = start(2)? else { return Ok(()) };
        let directory = file_system.directory("mhebpf");
        let daemon = run(&lab, &directory, &[])?;
        assert!(is_enforced(&lab)?);
        let (status, _, refused) = command(&lab.host, &["unload", "--pin", &directory])?;
        assert!(status == Some(1) && refused.contains("stop it first"), "{refused}");
        let (_, told, _) = command(&lab.host, &["status"])?;
        assert!(told.contains("outlives this process"), "{told}");
        assert!(is_enforced(&lab)?);
        let said = end(daemon, signal)?;
        assert_eq!(said.contains("stay in force"), signal != libc::SIGKILL, "{said}");
        assert!(is_enforced(&lab)?);

        let said = unload(&lab.host, &directory)?;
        assert!(said.contains("took 4 programs off"), "{said}");
        assert!(!is_enforced(&lab)?);
        assert_eq!((programs(&lab.host, "eth0_int")?, programs(&lab.host, "eth1_int")?), (0, 0));
        assert!(namespaces(&directory)?.is_empty());
        assert!(unload(&lab.host, &directory)?.contains("nothing"));
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn a_restart_under_fire_leaks_nothing_and_goes_on_counting() -> Result<()> {
    let Some((lab, file_system)) = start(2)? else { return Ok(()) };
    let directory = file_system.directory("mhebpf");
    let first = run(&lab, &directory, &[])?;
    let fire = under_fire(&lab, |sent| {
        let mut daemon = first;
        for signal in [libc::SIGKILL, libc::SIGTERM, libc::SIGKILL] {
            end(daemon, signal)?;
            let before = sent();
            wait_until("fire without a daemon", PATIENCE, || Ok((sent() > before + 50).then_some(())))?;
            daemon = run(&lab, &directory, &[])?;
            let before = sent();
            wait_until("fire with a daemon", PATIENCE, || Ok((sent() > before + 50).then_some(())))?;
        }
        drop(daemon);
        Ok(())
    })?;
    assert_eq!(fire, Fire::harmless(fire.sent));
    let last = run(&lab, &directory, &[])?.stop()?;
    assert!(last.summary.total("redirected") >= fire.sent as u64, "{fire:?}: {}", last.stderr);
    unload(&lab.host, &directory)?;
    lab.finish()
}

/// Wherever a start is cut off, what was in force stays so, and the next start and `unload` get along with what is there.
#[test]
fn a_start_that_is_killed_at_any_moment_leaks_nothing() -> Result<()> {
    let Some((lab, file_system)) = start(2)? else { return Ok(()) };
    let directory = file_system.directory("mhebpf");
    end(run(&lab, &directory, &[])?, libc::SIGKILL)?;
    let fire = under_fire(&lab, |_| {
        let mut ready = 0;
        for step in 0..40 {
            let daemon = spawn(&lab, &directory, &[])?;
            let until = Instant::now() + scaled(Duration::from_millis(4)) * step;
            while Instant::now() < until && !daemon.stderr().contains(READY) {
                thread::yield_now();
            }
            ready += usize::from(daemon.stderr().contains(READY));
            end(daemon, libc::SIGKILL)?;
        }
        println!("{ready} of 40 were ready");
        Ok(())
    })?;
    assert_eq!(fire, Fire::harmless(fire.sent));
    run(&lab, &directory, &[])?.stop()?;
    let [namespace] = &namespaces(&directory)?[..] else { panic!("one namespace") };
    let left = names(namespace)?;
    assert_eq!(left.iter().filter(|name| name.starts_with("maps-")).count(), 1, "{left:?}");
    assert_eq!(left.len(), 5, "{left:?}");
    unload(&lab.host, &directory)?;
    assert!(namespaces(&directory)?.is_empty());
    lab.finish()
}

/// What an upgrade to a version with other maps finds.
#[test]
fn maps_of_another_layout_are_replaced_without_a_leak() -> Result<()> {
    let Some((lab, file_system)) = start(2)? else { return Ok(()) };
    let directory = file_system.directory("mhebpf");
    end(run(&lab, &directory, &[])?, libc::SIGTERM)?;
    let [namespace] = &namespaces(&directory)?[..] else { panic!("one namespace") };
    fs::rename(namespace.join(maps(1)), namespace.join("maps-0-1"))?;
    let (status, _, said) = command(&lab.host, &["status", "--pin", &directory])?;
    assert!(status == Some(1) && said.contains("another version of mhebpf (layout 0)"), "{said}");
    let fire = under_fire(&lab, |sent| {
        let daemon = run(&lab, &directory, &[])?;
        let before = sent();
        wait_until("fire with a daemon", PATIENCE, || Ok((sent() > before + 50).then_some(())))?;
        drop(daemon);
        Ok(())
    })?;
    assert_eq!(fire, Fire::harmless(fire.sent));
    assert!(names(namespace)?.contains(&maps(2)) && !names(namespace)?.contains("maps-0-1"));
    unload(&lab.host, &directory)?;
    lab.finish()
}

#[test]
fn interfaces_that_went_or_came_anew_while_no_daemon_ran_are_understood() -> Result<()> {
    let Some((mut lab, file_system)) = start(3)? else { return Ok(()) };
    let directory = file_system.directory("mhebpf");
    let same_index =
        "link add eth9_int index 900 type veth peer name eth9_far index 901\nlink set eth9_int up\n";
    lab.host.ip_batch(same_index)?;
    end(run(&lab, &directory, &[])?, libc::SIGKILL)?;
    assert_eq!(programs(&lab.host, "eth9_int")?, 2);
    lab.delete_link(2)?;
    lab.host.ip("link delete eth9_int")?;
    lab.host.ip_batch(same_index)?;
    assert_eq!(programs(&lab.host, "eth9_int")?, 0);

    let daemon = run(&lab, &directory, &[])?;
    assert_eq!(programs(&lab.host, "eth9_int")?, 2);
    assert!(is_enforced(&lab)?);
    let [namespace] = &namespaces(&directory)?[..] else { panic!("one namespace") };
    // Three interfaces with two links each, and the maps.
    assert_eq!(names(namespace)?.len(), 7, "{:?}", names(namespace)?);
    end(daemon, libc::SIGTERM)?;

    lab.recreate_link(2)?;
    let daemon = run(&lab, &directory, &[])?;
    lab.wait_until_it_leaves_by(2, lab.address(1), &[1])?;
    // One that goes while the daemon runs takes its pins with it.
    lab.host.ip("link delete eth9_int")?;
    wait_until("the pins to go", PATIENCE, || Ok((!names(namespace)?.contains("900-egress")).then_some(())))?;
    // And so does one that is not selected any more.
    end(daemon, libc::SIGTERM)?;
    let arguments = ["run", "--interface", "eth0_int", "--no-announce", "--pin", &directory];
    let daemon = Daemon::spawn(&lab.host, &arguments)?;
    daemon.wait_ready()?;
    assert_eq!((programs(&lab.host, "eth0_int")?, programs(&lab.host, "eth2_int")?), (2, 0));
    end(daemon, libc::SIGTERM)?;
    unload(&lab.host, &directory)?;
    lab.finish()
}

#[test]
fn two_namespaces_share_a_directory_and_one_that_is_gone_is_cleaned_up() -> Result<()> {
    let Some((one, file_system)) = start(2)? else { return Ok(()) };
    let other = Lab::builder().links(2).build()?;
    let directory = file_system.directory("mhebpf");
    end(run(&one, &directory, &[])?, libc::SIGKILL)?;
    let daemon = run(&other, &directory, &[])?;
    assert_eq!(namespaces(&directory)?.len(), 2, "one that lives is left alone, with a daemon or without");
    assert!(is_enforced(&one)? && is_enforced(&other)?);
    unload(&one.host, &directory)?;
    assert!(!is_enforced(&one)? && is_enforced(&other)?);
    end(run(&one, &directory, &[])?, libc::SIGKILL)?;
    one.finish()?;
    end(daemon, libc::SIGTERM)?;
    // The kernel takes its time to destroy a namespace.
    wait_until("what is dead to be removed", PATIENCE, || {
        end(run(&other, &directory, &[])?, libc::SIGTERM)?;
        Ok((namespaces(&directory)?.len() == 1).then_some(()))
    })?;
    assert!(is_enforced(&other)?);
    unload(&other.host, &directory)?;
    assert!(namespaces(&directory)?.is_empty());
    other.finish()
}

#[test]
fn status_tells_what_is_in_force_without_a_daemon() -> Result<()> {
    let Some((lab, file_system)) = start(2)? else { return Ok(()) };
    let directory = file_system.directory("mhebpf");
    lab.host.ip("address add 203.0.113.9/32 dev lo")?;
    lab.host.ip("route add local 10.5.0.0/16 dev eth1_int")?;
    let daemon = run(&lab, &directory, &["--mode", "drop"])?;
    let pid = daemon.pid();
    lab.emit(0, lab.address(1))?;
    lab.fence()?;
    end(daemon, libc::SIGKILL)?;
    lab.emit(0, lab.address(1))?;
    lab.fence()?;

    let words = ["status", "--pin", directory.as_str(), "-o", "json"];
    let (status, stdout, stderr) = command(&lab.host, &words)?;
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    let document: Value = serde_json::from_str(&stdout)?;
    let validator = jsonschema::validator_for(&serde_json::from_str(SCHEMA)?)?;
    let errors: Vec<String> = validator.iter_errors(&document).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:#?} in {document:#}");
    assert_eq!((&document["daemon"], &document["written_by"]), (&Value::Null, &pid.into()));
    let [eth0, eth1] = [0, 1].map(|place| &document["interfaces"][place]);
    assert_eq!((&eth0["name"], &eth0["policy"]["send"]), (&"eth0_int".into(), &"drop".into()));
    let owned = [lab.address(1).to_string(), "10.5.0.0/16".to_owned()];
    assert_eq!(eth1["owned"].as_array().map(Vec::len), Some(2), "{eth1}");
    assert!(owned.iter().all(|address| eth1["owned"].to_string().contains(address)), "{eth1}");
    assert_eq!(document["host_wide"], serde_json::json!(["203.0.113.9"]));
    let counter = &eth0["counters"][0];
    assert_eq!((&counter["reason"], &counter["packets"]), (&"wrong_source".into(), &2.into()), "counted on");

    // What becomes of a packet is what these maps say, whatever has changed since.
    lab.host.ip(&format!("address delete {}/21 dev eth1_int", lab.address(1)))?;
    let question =
        format!("explain --egress eth0_int --src {} --dst {PEER} --pin {directory}", lab.address(1));
    let (_, explained, _) = command(&lab.host, &question.split(' ').collect::<Vec<_>>())?;
    for part in ["drop; counted as wrong_source", "the pinned maps", "not in step with the host"] {
        assert!(explained.contains(part), "{part}: {explained}");
    }

    let (status, text, _) = command(&lab.host, &words[..3])?;
    assert_eq!(status, Some(0));
    for part in ["no mhebpf is running", "ago", "as last written", "wrong_source", "mhebpf unload"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    unload(&lab.host, &directory)?;
    let (status, _, stderr) = command(&lab.host, &words)?;
    assert!(status == Some(1) && stderr.contains("mhebpf run --all"), "{stderr}");
    lab.finish()
}

#[test]
fn a_run_for_a_while_takes_everything_off() -> Result<()> {
    let Some((lab, file_system)) = start(2)? else { return Ok(()) };
    let directory = file_system.directory("mhebpf");
    end(run(&lab, &directory, &[])?, libc::SIGKILL)?;
    let seconds = format!("{}s", scaled(Duration::from_secs(1)).as_secs());
    for (length, signal) in [(seconds.as_str(), None), ("1h", Some(libc::SIGTERM))] {
        let mut daemon = run(&lab, &directory, &["--for", length])?;
        if let Some(signal) = signal {
            daemon.signal(signal)?;
        }
        let ended = daemon.wait_end(PATIENCE)?;
        assert!(ended.status.success(), "{}", ended.stderr);
        assert!(!is_enforced(&lab)?);
        assert!(namespaces(&directory)?.is_empty());
    }
    lab.finish()
}

#[test]
fn what_can_not_be_pinned_is_refused_with_what_to_do() -> Result<()> {
    let Some((lab, file_system)) = start(2)? else { return Ok(()) };
    let elsewhere = std::env::temp_dir().join(format!("mhebpf-no-bpf-{}", std::process::id()));
    let elsewhere = elsewhere.display().to_string();
    let nowhere = file_system.directory("no/such");
    for (directory, further, expected) in [
        (elsewhere.as_str(), &[] as &[&str], "mount -t bpf -o mode=0700 bpf /sys/fs/bpf"),
        (nowhere.as_str(), &[], "No such file or directory"),
        (&file_system.directory("mhebpf"), &["--hook", "clsact"], "leave one of them out"),
    ] {
        let ended = spawn(&lab, directory, further)?.wait_end(PATIENCE)?;
        assert!(!ended.status.success() && ended.stderr.contains(expected), "{}", ended.stderr);
    }
    let open = file_system.path().join("open");
    fs::create_dir(&open)?;
    fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
    let ended = spawn(&lab, &file_system.directory("open"), &[])?.wait_end(PATIENCE)?;
    assert!(ended.stderr.contains("chmod 700"), "{}", ended.stderr);
    lab.finish()
}

#[test]
fn a_run_without_pins_does_not_come_on_top_of_pinned_programs() -> Result<()> {
    let Some((lab, file_system)) = start(2)? else { return Ok(()) };
    let words = ["run", "--interface", INTERFACES, "--no-announce"];
    let here = |words: &[&str]| file_system.command(&lab.host, words);
    let daemon = Daemon::spawn_command(here(&[&words[..], &["--pin"]].concat())?)?;
    daemon.wait_ready()?;
    end(daemon, libc::SIGTERM)?;
    assert_eq!(namespaces(&file_system.directory("mhebpf"))?.len(), 1, "that is where they are by default");
    let ended = Daemon::spawn_command(here(&words)?)?.wait_end(PATIENCE)?;
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("`mhebpf unload`"), "{}", ended.stderr);
    assert!(is_enforced(&lab)?);
    assert!(here(&["unload"])?.output()?.status.success());
    let daemon = Daemon::spawn_command(here(&words)?)?;
    daemon.wait_ready()?;
    end(daemon, libc::SIGTERM)?;
    assert!(!is_enforced(&lab)?);
    lab.finish()
}

#[test]
fn an_audit_names_what_no_daemon_keeps_in_step() -> Result<()> {
    let Some((lab, file_system)) = start(2)? else { return Ok(()) };
    let left = || -> Result<bool> {
        let output = file_system.command(&lab.host, &["audit"])?.output()?;
        Ok(String::from_utf8_lossy(&output.stdout).contains("left-in-force: pinned programs"))
    };
    let words = ["run", "--interface", INTERFACES, "--no-announce", "--pin"];
    let daemon = Daemon::spawn_command(file_system.command(&lab.host, &words)?)?;
    daemon.wait_ready()?;
    ensure!(!left()?);
    end(daemon, libc::SIGTERM)?;
    ensure!(left()?);
    ensure!(file_system.command(&lab.host, &["unload"])?.output()?.status.success());
    ensure!(!left()?);
    lab.finish()
}
