//! TCP over IPv6 from every address of the host, and changes of its addresses.

use std::{
    collections::BTreeSet,
    net::Ipv6Addr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use mhebpf_tests::{
    FAR6, Lab, PATIENCE, PEER6, scaled,
    traffic::{ARTICLE_PORT, tcp},
    wait_until,
};

/// A handshake takes less than a millisecond; what has to be repeated takes a second.
const AT_ONCE: Duration = scaled(Duration::from_secs(1));

/// How long after a change of an address the new order may take to be enforced.
const IN_STEP: Duration = scaled(Duration::from_secs(2));

const EXTRA: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x777);

#[test]
fn tcp_connects_at_once_from_every_address_without_known_neighbours() -> Result<()> {
    let lab = Lab::article6()?;
    let daemon = lab.mhebpf_quietly(&[])?;
    for peer in [PEER6, FAR6] {
        let server = tcp::EchoServer::start(&lab.switch, peer, ARTICLE_PORT)?;
        for (port, address) in lab.addresses6().into_iter().enumerate() {
            lab.forget_neighbours()?;
            let recording = lab.record();
            let (mut stream, elapsed) = tcp::connect_timed(&lab.host, address, server.address(), PATIENCE)?;
            assert!(elapsed < AT_ONCE, "{address} to {peer}: {elapsed:?}");
            tcp::echo(&mut stream, b"hello")?;
            tcp::echo_bulk(&stream, 1_000_000)?;
            assert_eq!(
                recording.ways_of(address)?,
                BTreeSet::from([(port, lab.mac(port))]),
                "{address} to {peer}"
            );
        }
    }
    let summary = daemon.stop()?.summary;
    assert!(summary.count("eth0_int", "redirected") > 0, "{summary:?}");
    lab.finish()
}

/// The peer begins, and has to ask for every address.
#[test]
fn tcp_connects_at_once_to_every_address_without_known_neighbours() -> Result<()> {
    let lab = Lab::article6()?;
    let daemon = lab.mhebpf_quietly(&[])?;
    for (port, address) in lab.addresses6().into_iter().enumerate() {
        let server = tcp::EchoServer::start(&lab.host, address, ARTICLE_PORT)?;
        lab.forget_neighbours()?;
        let recording = lab.record();
        let (mut stream, elapsed) = tcp::connect_timed(&lab.switch, PEER6, server.address(), PATIENCE)?;
        assert!(elapsed < AT_ONCE, "{address}: {elapsed:?}");
        tcp::echo(&mut stream, b"hello")?;
        assert_eq!(recording.ways_of(address)?, BTreeSet::from([(port, lab.mac(port))]));
    }
    daemon.stop()?;
    lab.finish()
}

/// Waits until what is sent through a port with this source leaves through this other.
fn wait_sent(lab: &Lab, through: usize, source: Ipv6Addr, by: usize, change: Instant) -> Result<()> {
    let left = IN_STEP.saturating_sub(change.elapsed());
    wait_until("a change of an address to be enforced", left, || {
        let recording = lab.record();
        lab.emit(through, source)?;
        Ok((recording.ports_of(source)? == BTreeSet::from([by])).then_some(()))
    })
    .with_context(|| format!("{source} sent through port {through}, to leave through {by}"))
}

#[test]
fn an_address_that_is_added_moved_and_removed_is_right_soon() -> Result<()> {
    let lab = Lab::article6()?;
    let daemon = lab.mhebpf_quietly(&[])?;
    let answered_by = |port: usize| -> Result<()> {
        let recording = lab.record();
        lab.solicit_all(EXTRA)?;
        assert_eq!(recording.advertisements_of(EXTRA)?, [(port, lab.mac(port))]);
        Ok(())
    };

    let change = Instant::now();
    lab.add_address(1, EXTRA)?;
    wait_sent(&lab, 0, EXTRA, 1, change)?;
    answered_by(1)?;

    let change = Instant::now();
    lab.move_address(1, 2, EXTRA)?;
    for through in [0, 1, 3] {
        wait_sent(&lab, through, EXTRA, 2, change)?;
    }
    answered_by(2)?;

    // Nobody's now, so it passes everywhere.
    let change = Instant::now();
    lab.remove_address(2, EXTRA)?;
    for through in lab.ports() {
        wait_sent(&lab, through, EXTRA, through, change)?;
    }
    daemon.stop()?;
    lab.finish()
}
