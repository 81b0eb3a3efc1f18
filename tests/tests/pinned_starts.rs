//! Starts with `--pin` that fail, were killed, or find what others have left.

mod pinning;

use std::{fs, os::fd::OwnedFd};

use anyhow::{Context as _, Result};
use mhebpf_tests::{Daemon, Lab, NetNs, PATIENCE, PEER, lab::INTERFACES, tcx, wait_until};
use pinning::{command, end, is_enforced, maps, names, namespaces, programs, run, spawn, start, unload};
use serde_json::Value;

/// The link follows its interface to another network namespace, where that keeps its index.
#[test]
fn an_interface_with_the_index_of_one_that_went_to_another_namespace_is_enforced() -> Result<()> {
    let Some((lab, file_system)) = start(2)? else { return Ok(()) };
    let directory = file_system.directory("mhebpf");
    let elsewhere = NetNs::new("elsewhere")?;
    lab.host.ip_batch("link add eth9_int index 900 type veth peer name eth9_far\nlink set eth9_int up\n")?;
    end(run(&lab, &directory, &[])?, libc::SIGKILL)?;
    lab.host.ip(&format!("link set eth9_int netns {}", elsewhere.path()))?;
    assert_eq!(elsewhere.run(|| mhebpf_tests::interface::index("eth9_int"))?, 900);
    lab.host.ip_batch("link add eth9_int index 900 type veth peer name eth8_far\nlink set eth9_int up\n")?;
    let (_, told, _) = command(&lab.host, &["status", "--pin", &directory, "-o", "json"])?;
    let told: Value = serde_json::from_str(&told)?;
    let interfaces = told["interfaces"].as_array().context("interfaces")?;
    let egress = |ifindex| interfaces.iter().find(|i| i["ifindex"] == ifindex).map(|i| &i["egress"]);
    assert_eq!(egress(900), Some(&Value::Bool(false)), "{told:#}");

    let daemon = run(&lab, &directory, &[])?;
    assert_eq!(programs(&lab.host, "eth9_int")?, 2);
    assert_eq!(programs(&elsewhere, "eth9_int")?, 0, "where this daemon has nothing to say");
    end(daemon, libc::SIGTERM)?;
    unload(&lab.host, &directory)?;
    assert_eq!(programs(&lab.host, "eth9_int")?, 0);
    lab.finish()
}

/// As many programs as fit in a chain (`bpf_mprog_attach`, Linux 6.6), so that none can be added.
fn fill(lab: &Lab, interface: &str, hook: tcx::Hook) -> Vec<OwnedFd> {
    (0..64).map_while(|_| tcx::attach(&lab.host, interface, hook, tcx::Answer::Next).ok()).collect()
}

fn run_on_first(lab: &Lab, directory: &str) -> Result<Daemon> {
    Daemon::spawn(&lab.host, &["run", "--interface", "eth0_int", "--no-announce", "--pin", directory])
}

#[test]
fn a_start_that_fails_takes_off_what_it_has_attached() -> Result<()> {
    let Some((lab, file_system)) = start(2)? else { return Ok(()) };
    let directory = file_system.directory("mhebpf");
    let full = fill(&lab, "eth0_int", tcx::Hook::Ingress);
    let ended = run_on_first(&lab, &directory)?.wait_end(PATIENCE)?;
    assert!(!ended.status.success() && ended.stderr.contains("mhebpf_ingress"), "{}", ended.stderr);
    assert!(tcx::programs(&lab.host, "eth0_int", tcx::Hook::Egress)?.is_empty());
    assert!(namespaces(&directory)?.is_empty());
    drop(full);
    lab.finish()
}

/// The egress program is replaced before the ingress program is refused, and judges by the new maps from then on.
#[test]
fn a_take_over_that_fails_halfway_leaves_the_maps_of_what_is_in_force() -> Result<()> {
    let Some((lab, file_system)) = start(2)? else { return Ok(()) };
    let directory = file_system.directory("mhebpf");
    let daemon = run_on_first(&lab, &directory)?;
    daemon.wait_ready()?;
    end(daemon, libc::SIGKILL)?;
    let [namespace] = &namespaces(&directory)?[..] else { panic!("one namespace") };
    let ifindex = lab.host.run(|| mhebpf_tests::interface::index("eth0_int"))?;
    fs::remove_file(namespace.join(format!("{ifindex}-ingress")))?;
    wait_until("the receive filter to go", PATIENCE, || {
        Ok(tcx::programs(&lab.host, "eth0_int", tcx::Hook::Ingress)?.is_empty().then_some(()))
    })?;
    let full = fill(&lab, "eth0_int", tcx::Hook::Ingress);
    let mut failing = run_on_first(&lab, &directory)?;
    let pid = failing.pid();
    let ended = failing.wait_end(PATIENCE)?;
    assert!(!ended.status.success() && ended.stderr.contains("mhebpf_ingress"), "{}", ended.stderr);
    assert_eq!(tcx::programs(&lab.host, "eth0_int", tcx::Hook::Egress)?.len(), 1);
    assert!(names(namespace)?.contains(&maps(2)), "{:?}", names(namespace)?);
    assert_eq!(written_by(&lab, &directory)?, pid);

    drop(full);
    let daemon = run_on_first(&lab, &directory)?;
    daemon.wait_ready()?;
    end(daemon, libc::SIGTERM)?;
    assert_eq!(names(namespace)?.len(), 3, "{:?}", names(namespace)?);
    unload(&lab.host, &directory)?;
    lab.finish()
}

/// The process whose tables are in force, as status has it.
fn written_by(lab: &Lab, directory: &str) -> Result<u32> {
    let (_, told, said) = command(&lab.host, &["status", "--pin", directory, "-o", "json"])?;
    let told: Value = serde_json::from_str(&told).context(said)?;
    Ok(told["written_by"].as_u64().context("who has written the maps")? as u32)
}

#[test]
fn maps_that_a_killed_start_has_not_finished_are_not_taken_for_those_in_force() -> Result<()> {
    let Some((lab, file_system)) = start(2)? else { return Ok(()) };
    let directory = file_system.directory("mhebpf");
    let daemon = run(&lab, &directory, &[])?;
    let pid = daemon.pid();
    end(daemon, libc::SIGKILL)?;
    let [namespace] = &namespaces(&directory)?[..] else { panic!("one namespace") };
    fs::create_dir(namespace.join(maps(9)))?;
    assert_eq!(written_by(&lab, &directory)?, pid);
    let question =
        format!("explain --egress eth0_int --src {} --dst {PEER} --pin {directory}", lab.address(1));
    let (_, explained, said) = command(&lab.host, &question.split(' ').collect::<Vec<_>>())?;
    assert!(explained.contains("the pinned maps"), "{explained}{said}");
    end(run(&lab, &directory, &[])?, libc::SIGTERM)?;
    assert!(names(namespace)?.contains(&maps(10)) && names(namespace)?.len() == 5);
    unload(&lab.host, &directory)?;
    lab.finish()
}

#[test]
fn unload_where_nothing_is_pinned_cleans_up_after_namespaces_that_are_gone() -> Result<()> {
    let Some((one, file_system)) = start(2)? else { return Ok(()) };
    let other = NetNs::new("other")?;
    let directory = file_system.directory("mhebpf");
    end(run(&one, &directory, &[])?, libc::SIGKILL)?;
    assert!(unload(&other, &directory)?.contains("nothing"));
    assert!(is_enforced(&one)?, "one that lives is left alone");
    one.finish()?;
    // The kernel takes its time to destroy a namespace.
    wait_until("what is dead to be removed", PATIENCE, || {
        unload(&other, &directory)?;
        Ok(namespaces(&directory)?.is_empty().then_some(()))
    })
}

#[test]
fn a_start_does_not_wait_for_a_lock_for_ever_and_names_who_has_it() -> Result<()> {
    let Some((lab, file_system)) = start(2)? else { return Ok(()) };
    let directory = file_system.directory("mhebpf");
    end(run(&lab, &directory, &[])?, libc::SIGKILL)?;
    let [namespace] = &namespaces(&directory)?[..] else { panic!("one namespace") };
    let lock = fs::File::open(namespace)?;
    lock.lock()?;
    let ended = spawn(&lab, &directory, &[])?.wait_end(PATIENCE)?;
    assert!(!ended.status.success());
    for part in ["waiting for process", &format!("process {} holds the lock", std::process::id())] {
        assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
    }
    drop(lock);
    assert!(is_enforced(&lab)?);
    unload(&lab.host, &directory)?;
    lab.finish()
}

#[test]
fn programs_of_another_directory_are_warned_of() -> Result<()> {
    let Some((lab, file_system)) = start(2)? else { return Ok(()) };
    let [one, other] = ["one", "other"].map(|name| file_system.directory(name));
    end(run(&lab, &one, &[])?, libc::SIGKILL)?;
    // With all capabilities: names of programs take CAP_SYS_ADMIN, and this is not the usual place (tests/strangers.rs).
    println!("with CAP_SYS_ADMIN, which the unit does not grant");
    let mut command = Daemon::command(&lab.host)?;
    command.args(["run", "--interface", INTERFACES, "--no-announce", "--pin", &other]);
    let daemon = Daemon::spawn_command(command)?;
    daemon.wait_for_line("`mhebpf unload --pin DIR`", PATIENCE)?;
    end(daemon, libc::SIGTERM)?;
    unload(&lab.host, &one)?;
    // Without strangers there is nothing to say; of the other interface it is said.
    let foreign = tcx::attach(&lab.host, "eth1_int", tcx::Hook::Egress, tcx::Answer::Next)?;
    let daemon = run(&lab, &other, &[])?;
    daemon.wait_for_line("programs of others are on eth1_int", PATIENCE)?;
    let said = end(daemon, libc::SIGTERM)?;
    assert!(
        !said.contains("programs of others are on eth0_int") && !said.contains("unload --pin DIR"),
        "{said}"
    );
    drop(foreign);
    unload(&lab.host, &other)?;
    lab.finish()
}
