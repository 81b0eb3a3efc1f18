//! Packets and questions against the rules, for as long as something else is done.

use std::{
    net::UdpSocket,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use mhebpf_tests::{Lab, Mac, PATIENCE, PEER, lab::PROBE_PORT, wait_until};

/// What was done against the rules for a while, and what came of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fire {
    /// How many packets were sent with the source of `eth1_int`, which the kernel routes to `eth0_int`.
    pub(crate) sent: usize,
    /// How many of them left by `eth1_int`.
    pub(crate) by_owner: usize,
    /// How many of them left by another interface.
    pub(crate) leaked: usize,
    /// How many ARP requests for the address of `eth1_int`, which came to `eth0_int` only, were answered.
    pub(crate) answered: usize,
}

impl Fire {
    /// All were held to the rules, and none was lost.
    pub(crate) fn harmless(sent: usize) -> Self {
        Self { sent, by_owner: sent, leaked: 0, answered: 0 }
    }
}

/// Ends what goes on beside it, also when it is dropped by a panic.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does something under fire. It is told how many packets were sent so far.
pub(crate) fn under_fire(lab: &Lab, work: impl FnOnce(&dyn Fn() -> usize) -> Result<()>) -> Result<Fire> {
    let (stop, sent, asked) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let recording = lab.record();
    thread::scope(|scope| {
        let socket = lab.host.run(|| Ok(UdpSocket::bind((lab.address(1), 0))?))?;
        let (stop, sent, asked) = (&stop, &sent, &asked);
        let _stop = Stop(stop);
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if socket.send_to(b"under fire", (PEER, PROBE_PORT)).is_ok() {
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                // As many as the capture can keep.
                let next = Instant::now() + Duration::from_micros(15);
                while Instant::now() < next {
                    thread::yield_now();
                }
            }
        });
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if lab.ask(0, lab.address(1), Mac::BROADCAST).is_ok() {
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let begun = || sent.load(Ordering::Relaxed) > 10 && asked.load(Ordering::Relaxed) > 10;
        wait_until("fire", PATIENCE, || Ok(begun().then_some(())))?;
        work(&|| sent.load(Ordering::Relaxed))
    })?;
    lab.fence()?;
    let source = lab.address(1).into();
    let frames = recording.from_host()?;
    let of_it = || frames.iter().filter(|frame| frame.frame.datagram_source() == Some(source));
    let by_owner = of_it().filter(|frame| frame.port == 1).count();
    let leaked = of_it().count() - by_owner;
    let answered = recording.arp_replies_for(lab.address(1))?.iter().filter(|(port, _)| *port == 0).count();
    let fire = Fire { sent: sent.into_inner(), by_owner, leaked, answered };
    println!("{fire:?}, {} requests", asked.into_inner());
    Ok(fire)
}
