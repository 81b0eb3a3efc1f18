//! What the programs say in the daemon's log, where that shows it.

use anyhow::Result;
use mhebpf_tests::{Lab, PATIENCE, craft};

/// A datagram that ends within its header, behind the Ethernet header of a frame from the host.
fn truncated(lab: &Lab) -> Vec<u8> {
    craft::ethernet(lab.outward(0), 0x0800, &[0x45, 0, 0, 40])
}

#[test]
fn with_verbose_the_log_has_what_the_programs_say() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = lab.run_mhebpf(&["-v", "run", "--interface", "eth*_int", "--no-announce"])?;
    lab.send_from_host(0, &truncated(&lab))?;
    let line = daemon.wait_for_line("ends within its headers", PATIENCE)?;
    assert!(line.contains("DEBUG") && line.contains("with the EtherType 800"), "{line}");
    daemon.stop()?;
    lab.finish()
}

/// As many can come as there are: neither the log nor the daemon must drown in them.
#[test]
fn a_flood_of_what_they_say_does_not_keep_the_daemon_from_its_work() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = lab.run_mhebpf(&["-v", "run", "--interface", "eth*_int", "--no-announce"])?;
    let frame = truncated(&lab);
    let sent = 5000;
    for _ in 0..sent {
        lab.send_from_host(0, &frame)?;
    }
    lab.wait_in_step(1, 0)?;
    let said = daemon.stderr().matches("ends within its headers").count();
    assert!((1..sent / 2).contains(&said), "{said} messages");
    daemon.stop()?;
    lab.finish()
}

#[test]
fn without_verbose_they_say_nothing() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = lab.mhebpf_quietly(&[])?;
    lab.send_from_host(0, &truncated(&lab))?;
    lab.emit(0, lab.address(1))?;
    lab.fence()?;
    let ended = daemon.stop()?;
    assert!(!ended.stderr.contains("EtherType"), "{}", ended.stderr);
    assert_eq!(ended.summary.total("redirected"), 1);
    lab.finish()
}
