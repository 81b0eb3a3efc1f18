//! Somebody with the rights takes the programs off, or puts others before them: they are back within a second.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use mhebpf_tests::{
    BpfFileSystem, Daemon, Lab, PATIENCE,
    features::{self, Feature},
    lab::INTERFACES,
    scaled,
    tcx::{self, Answer, Hook},
    wait_until,
};

/// How soon all is as before.
const SOON: Duration = scaled(Duration::from_millis(1500));

/// A daemon of which packets may leak, for a while.
fn run(lab: &Lab, further: &[&str]) -> Result<Daemon> {
    let words = ["run", "--interface", INTERFACES, "--no-announce"];
    let daemon = Daemon::spawn(&lab.host, &[&words, further].concat())?;
    daemon.wait_ready()?;
    Ok(daemon)
}

/// Whether a packet with the address of the second interface leaves the first one, where it does not belong.
fn is_leaking(lab: &Lab) -> Result<bool> {
    let recording = lab.record();
    // One can be lost while filters are replaced.
    let ports = wait_until("a datagram", PATIENCE, || {
        lab.emit(0, lab.address(1))?;
        let ports = recording.ports_of(lab.address(1))?;
        Ok((!ports.is_empty()).then_some(ports))
    })?;
    Ok(ports == BTreeSet::from([0]))
}

/// Does something to the programs of a daemon, and waits until it has noticed and they are back; then it enforces again.
fn is_restored(
    lab: &Lab,
    daemon: &Daemon,
    disturb: impl FnOnce() -> Result<()>,
    is_back: impl Fn() -> Result<bool>,
) -> Result<()> {
    ensure!(!is_leaking(lab)?, "before");
    let begin = Instant::now();
    disturb()?;
    wait_until("the programs to be there again", SOON, || {
        Ok((daemon.stderr().contains("again") && is_back()?).then_some(()))
    })?;
    eprintln!("there again after {:?}", begin.elapsed());
    ensure!(!is_leaking(lab)?, "after");
    Ok(())
}

#[test]
fn a_link_that_was_detached_is_attached_again() -> Result<()> {
    if !features::require(Feature::Tcx)? {
        return Ok(());
    }
    for is_pinned in [false, true] {
        let lab = Lab::builder().links(2).build()?;
        let file_system = BpfFileSystem::mount()?;
        let directory = file_system.directory("mhebpf");
        let pinned = ["--pin", directory.as_str()];
        let daemon = run(&lab, if is_pinned { &pinned } else { &[] })?;
        for hook in [Hook::Egress, Hook::Ingress] {
            let is_back = || {
                let count = |hook| Ok::<_, anyhow::Error>(tcx::programs(&lab.host, "eth0_int", hook)?.len());
                Ok((count(Hook::Egress)?, count(Hook::Ingress)?) == (1, 1))
            };
            is_restored(&lab, &daemon, || tcx::detach(&lab.host, "eth0_int", hook, 0), is_back)?;
        }
        daemon.stop()?;
        lab.finish()?;
    }
    Ok(())
}

/// A program in front that returns `TCX_PASS` ends the chain: ours would see nothing.
#[test]
fn programs_that_were_put_behind_others_are_first_again() -> Result<()> {
    if !features::require(Feature::Tcx)? {
        return Ok(());
    }
    let lab = Lab::builder().links(2).build()?;
    let daemon = run(&lab, &[])?;
    let first = || Ok::<_, anyhow::Error>(tcx::programs(&lab.host, "eth0_int", Hook::Egress)?[0]);
    let ours = first()?;
    let mut others = Vec::new();
    let put_another_first = |others: &mut Vec<_>| -> Result<()> {
        others.push(tcx::attach_first(&lab.host, "eth0_int", Hook::Egress, Answer::Pass)?);
        Ok(())
    };
    is_restored(&lab, &daemon, || put_another_first(&mut others), || Ok(first()? == ours))?;
    let programs = tcx::programs(&lab.host, "eth0_int", Hook::Egress)?;
    ensure!(programs.len() == 2, "the other one stays: {programs:?}");
    // Whoever insists is not fought for ever.
    for _ in 0..2 {
        put_another_first(&mut others)?;
        wait_until("the programs to be first again", SOON, || Ok((first()? == ours).then_some(())))?;
    }
    daemon.wait_for_line("will stay so for a minute", SOON)?;
    put_another_first(&mut others)?;
    ensure!(wait_until("what does not come", SOON, || Ok((first()? == ours).then_some(()))).is_err());
    ensure!(is_leaking(&lab)?, "the other one has won");
    drop(others);
    ensure!(!is_leaking(&lab)?, "and is gone");
    daemon.stop()?;
    lab.finish()
}

#[test]
fn filters_of_clsact_that_were_removed_are_there_again() -> Result<()> {
    for command in
        ["qdisc del dev eth0_int clsact", "filter del dev eth0_int egress", "filter del dev eth0_int ingress"]
    {
        let lab = Lab::builder().links(2).build()?;
        let daemon = run(&lab, &["--hook", "clsact"])?;
        let is_back = || {
            let shown =
                ["ingress", "egress"].map(|side| lab.host.tc(&format!("filter show dev eth0_int {side}")));
            let [ingress, egress] = shown;
            Ok(ingress?.contains("direct-action") && egress?.contains("direct-action"))
        };
        let restored = is_restored(&lab, &daemon, || lab.host.tc(command).map(drop), is_back);
        restored.with_context(|| format!("{command}: {}", daemon.stderr()))?;
        daemon.stop()?;
        let left = lab.host.tc("qdisc show dev eth0_int")?;
        ensure!(!left.contains("clsact"), "{left}");
        lab.finish()?;
    }
    Ok(())
}
