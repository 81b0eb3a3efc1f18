//! A virtual address that the real keepalived moves between two strong hosts.

use std::{
    fs, io,
    net::Ipv4Addr,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use mhebpf_tests::{Daemon, Lab, Mac, NetNs, PATIENCE, PEER, skip, traffic::icmp, wait_until};

const VIP: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 200);
/// The other host's own address.
const RIVAL: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 50);
/// The hardware address of the virtual router 51 (RFC 5798 section 7.3).
const VIRTUAL_ROUTER: Mac = Mac([0x00, 0x00, 0x5e, 0x00, 0x01, 51]);

/// VRRP's number as an IP protocol.
const VRRP: u8 = 112;

/// A running keepalived, with its files in a directory that vanishes with it.
struct Keepalived {
    child: Child,
    directory: PathBuf,
}

impl Keepalived {
    fn start(ns: &NetNs, label: &str, interface: &str, priority: u8, vmac: bool) -> Result<Self> {
        let directory =
            std::env::temp_dir().join(format!("mhebpf-{}-{label}-{vmac}-{priority}", std::process::id()));
        fs::create_dir_all(&directory)?;
        let file = |name: &str| directory.join(name);
        let use_vmac = if vmac { "use_vmac" } else { "" };
        fs::write(
            file("conf"),
            format!(
                "global_defs {{\n vrrp_version 3\n}}\n\
                 vrrp_instance lab {{\n state BACKUP\n interface {interface}\n virtual_router_id 51\n {use_vmac}\n\
                  priority {priority}\n advert_int 0.2\n virtual_ipaddress {{\n {VIP}/21\n }}\n}}\n"
            ),
        )?;
        let log = fs::File::create(file("log"))?;
        let child = ns
            .command("keepalived")
            .args(["--dont-fork", "--log-console", "--log-detail", "--vrrp"])
            .arg("--use-file")
            .arg(file("conf"))
            .arg("--pid")
            .arg(file("pid"))
            .arg("--vrrp_pid")
            .arg(file("vrrp"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting keepalived")?;
        Ok(Self { child, directory })
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// Has it give up the address and end.
    fn stop(mut self) -> Result<()> {
        self.terminate();
        let child = &mut self.child;
        wait_until("keepalived to end", PATIENCE, || Ok(child.try_wait()?))?;
        Ok(())
    }

    fn terminate(&self) {
        // SAFETY: kill takes no pointers; a child that has not been waited for keeps its id.
        unsafe { libc::kill(self.child.id().cast_signed(), libc::SIGTERM) };
    }
}

impl Drop for Keepalived {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.terminate();
        }
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Whether this machine has keepalived; says so if not.
fn is_installed() -> bool {
    match Command::new("keepalived").arg("--version").output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            skip("keepalived is not installed");
            false
        }
        _ => true,
    }
}

/// Waits until the peer reaches the address at this station.
fn wait_until_it_is_at(lab: &Lab, mac: Mac, logs: &[&Keepalived]) -> Result<()> {
    let logs = || logs.iter().map(|keepalived| keepalived.log()).collect::<Vec<_>>().join("\n---\n");
    wait_until(&format!("{VIP} at {mac}"), PATIENCE, || {
        let there = lab.peer_neighbours()?.get(&VIP) == Some(&mac);
        let reached = icmp::ping(&lab.switch, PEER, VIP, PATIENCE / 20).is_ok();
        Ok((there && reached).then_some(()))
    })
    .with_context(logs)
}

/// The address moves away when its holder ends, and back when it comes again.
fn move_it_there_and_back(vmac: bool) -> Result<()> {
    if !is_installed() {
        return Ok(());
    }
    let lab = Lab::builder().links(2).build()?;
    let rival = lab.add_router(RIVAL)?;
    // Whoever speaks for the virtual address is right on port 0.
    lab.claim(0, VIP, std::time::Duration::ZERO);
    let here = lab.run_mhebpf(&["run", "--all"])?;
    let there = Daemon::spawn(&rival.ns, &["run", "--all"])?;
    there.wait_ready()?;
    let (mac_here, mac_there) = if vmac { (VIRTUAL_ROUTER, VIRTUAL_ROUTER) } else { (lab.mac(0), rival.mac) };

    let backup = Keepalived::start(&rival.ns, "rival", "eth0", 100, vmac)?;
    wait_until_it_is_at(&lab, mac_there, &[&backup])?;
    let master = Keepalived::start(&lab.host, "host", "eth0_int", 150, vmac)?;
    wait_until("the host to take the address", PATIENCE, || Ok(has_it(&lab.host)?.then_some(())))
        .with_context(|| master.log())?;
    wait_until("the rival to give it up", PATIENCE, || Ok((!has_it(&rival.ns)?).then_some(())))?;
    wait_until_it_is_at(&lab, mac_here, &[&master, &backup])?;
    // Both hear each other: ten advertisements later there is still one master only.
    let recording = lab.record();
    wait_until("ten advertisements", PATIENCE, || {
        icmp::ping(&lab.switch, PEER, VIP, PATIENCE)?;
        ensure!(has_it(&lab.host)? && !has_it(&rival.ns)?, "two masters: {}", backup.log());
        let frames = recording.from_host()?;
        let sent = frames.iter().filter(|frame| frame.ipv4().is_some_and(|d| d.protocol == VRRP)).count();
        Ok((sent >= 10).then_some(()))
    })?;
    master.stop()?;
    wait_until("the rival to take the address", PATIENCE, || Ok(has_it(&rival.ns)?.then_some(())))?;
    wait_until_it_is_at(&lab, mac_there, &[&backup])?;
    drop(backup);
    let summary = here.stop()?.summary;
    for reason in ["redirected", "wrong_source", "arp_sender"] {
        assert_eq!(summary.total(reason), 0, "{summary:?}");
    }
    there.stop()?;
    lab.finish()
}

fn has_it(ns: &NetNs) -> Result<bool> {
    Ok(ns.ip("-oneline address")?.contains(&VIP.to_string()))
}

#[test]
fn a_plain_virtual_address_moves_between_two_hosts() -> Result<()> {
    move_it_there_and_back(false)
}

#[test]
fn a_virtual_address_with_a_hardware_address_of_its_own_moves_between_two_hosts() -> Result<()> {
    move_it_there_and_back(true)
}

/// Both interfaces are in one subnet, and a virtual router is on the first: each of the three addresses is answered for with its
/// own hardware address, and reached. keepalived has the interface itself answer for nothing but its own.
#[test]
fn every_address_is_reached_beside_a_virtual_router() -> Result<()> {
    if !is_installed() {
        return Ok(());
    }
    for starts_first in ["keepalived", "mhebpf"] {
        let lab = Lab::builder().links(2).build()?;
        lab.claim(0, VIP, std::time::Duration::ZERO);
        let start = || Keepalived::start(&lab.host, starts_first, "eth0_int", 150, true);
        let run = || lab.run_mhebpf(&["run", "--all"]);
        let (keepalived, daemon) =
            match starts_first {
                "keepalived" => {
                    let keepalived = start()?;
                    wait_until("the host to take the address", PATIENCE, || {
                        Ok(has_it(&lab.host)?.then_some(()))
                    })?;
                    (keepalived, run()?)
                }
                _ => {
                    let daemon = run()?;
                    (start()?, daemon)
                }
            };
        wait_until_it_is_at(&lab, VIRTUAL_ROUTER, &[&keepalived])?;
        for (address, port, macs) in [
            (lab.address(0), 0, &[lab.mac(0), VIRTUAL_ROUTER][..]),
            (lab.address(1), 1, &[lab.mac(1)]),
            (VIP, 0, &[VIRTUAL_ROUTER]),
        ] {
            lab.forget_neighbours()?;
            let recording = lab.record();
            icmp::ping(&lab.switch, PEER, address, PATIENCE)
                .with_context(|| format!("{address}, {starts_first} first: {}", keepalived.log()))?;
            let answers = recording.arp_replies_for(address)?;
            assert!(
                answers.iter().all(|(by, mac)| *by == port && macs.contains(mac)),
                "{address}: {answers:?}"
            );
            assert_eq!(recording.ports_of(address)?, std::collections::BTreeSet::from([port]), "{address}");
        }
        keepalived.stop()?;
        daemon.stop()?;
        lab.finish()?;
    }
    Ok(())
}
