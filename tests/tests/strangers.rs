//! Programs of another mhebpf on the same interface, which judge by other tables.

use anyhow::{Result, ensure};
use mhebpf_tests::{
    BpfFileSystem, Daemon, Lab, NetNs, PATIENCE,
    features::{self, Feature},
    lab::INTERFACES,
    tcx::{self, Hook},
    wait_until,
};

const WARNING: &str = "programs of another `mhebpf run --pin` are in force on";

/// With what the shipped unit grants, which is not enough to ask for names.
#[test]
fn what_is_pinned_in_the_usual_place_is_told_from_programs_of_others() -> Result<()> {
    if !features::require(Feature::Tcx)? {
        return Ok(());
    }
    let lab = Lab::builder().links(2).build()?;
    let file_system = BpfFileSystem::mount()?;
    let run = |further: &[&str]| -> Result<Daemon> {
        let words = [&["run", "--interface", INTERFACES, "--no-announce"], further].concat();
        let daemon = Daemon::spawn_command(file_system.command(&lab.host, &words)?)?;
        daemon.wait_ready()?;
        Ok(daemon)
    };
    let mut killed = run(&["--pin"])?;
    killed.signal(libc::SIGKILL)?;
    killed.wait_end(PATIENCE)?;
    let daemon = run(&["--pin", "/sys/fs/bpf/elsewhere"])?;
    daemon.wait_for_line(&format!("{WARNING} eth0_int"), PATIENCE)?;
    daemon.stop()?;
    let unload = |words: &[&str]| -> Result<bool> {
        Ok(file_system.command(&lab.host, words)?.output()?.status.success())
    };
    ensure!(unload(&["unload"])? && unload(&["unload", "--pin", "/sys/fs/bpf/elsewhere"])?);

    // Whose those are that are not there, it can't know.
    let foreign = tcx::attach(&lab.host, "eth1_int", Hook::Egress, tcx::Answer::Next)?;
    let daemon = run(&[])?;
    let said = daemon.wait_for_line("programs of others are on", PATIENCE)?;
    ensure!(said.contains("eth1_int") && !daemon.stderr().contains(WARNING), "{}", daemon.stderr());
    daemon.stop()?;
    drop(foreign);
    lab.finish()
}

/// A namespace with a device of this name, and a daemon that does not notice when it goes.
fn asleep(name: &str) -> Result<(NetNs, Daemon)> {
    let ns = NetNs::new(name)?;
    ns.ip(&format!("link add {name} type veth peer name peer_of_{name}"))?;
    ns.ip(&format!("link set {name} up"))?;
    let daemon = Daemon::spawn(&ns, &["run", "--interface", name, "--no-announce"])?;
    daemon.wait_ready()?;
    daemon.pause()?;
    Ok((ns, daemon))
}

/// The daemon of the namespace that it was in takes its programs off a moment later.
#[test]
fn an_interface_that_comes_from_another_namespace_has_its_time() -> Result<()> {
    if !features::require(Feature::Tcx)? {
        return Ok(());
    }
    let (first_ns, first) = asleep("first")?;
    let (second_ns, second) = asleep("second")?;
    let here = NetNs::new("here")?;
    // May ask for names.
    let mut command = Daemon::command(&here)?;
    command.args(["run", "--interface", "first", "--interface", "second", "--no-announce"]);
    let daemon = Daemon::spawn_command(command)?;
    daemon.wait_for_line("waiting for one", PATIENCE)?;
    first_ns.ip(&format!("link set first netns {}", here.path()))?;
    daemon.wait_for_line("enforcing on first", PATIENCE)?;
    first.resume()?;
    wait_until("its programs to be off", PATIENCE, || {
        Ok((tcx::programs(&here, "first", Hook::Egress)?.len() == 1).then_some(()))
    })?;
    // That of this one stays asleep. When it is warned of, the first one has been looked at too.
    second_ns.ip(&format!("link set second netns {}", here.path()))?;
    daemon.wait_for_line(&format!("{WARNING} second"), PATIENCE)?;
    let said = daemon.stderr();
    ensure!(!said.contains(&format!("{WARNING} first")), "{said}");
    second.resume()?;
    for daemon in [first, second, daemon] {
        daemon.stop()?;
    }
    Ok(())
}
