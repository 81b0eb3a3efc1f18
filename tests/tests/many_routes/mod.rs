//! A host with many routes, of which some change all the while.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result};
use mhebpf_tests::{
    Lab, PEER,
    route::{Route, Routes},
};

/// Where the prefixes begin.
const FIRST: Ipv4Addr = Ipv4Addr::new(20, 0, 0, 0);

/// Adds so many routes by the peer, through port 0, where the default route of that port leads too.
pub(crate) fn add_many(lab: &Lab, count: u32) -> Result<()> {
    add_many_by(lab, count, |_| PEER)
}

/// Adds so many routes through port 0, each by a gateway of its own choice.
pub(crate) fn add_many_by(lab: &Lab, count: u32, gateway: impl Fn(u32) -> Ipv4Addr) -> Result<()> {
    let first = Route::new(&lab.host, "eth0_int", (FIRST, 24), PEER)?;
    let nth = |n| Route { destination: prefix(n).into(), gateway: gateway(n).into(), ..first };
    Routes::open(&lab.host)?.add((0..count).map(nth))
}

/// The address of one of these prefixes.
pub(crate) fn prefix(n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(FIRST.to_bits() + (n << 8))
}

/// A route to nowhere of interest that comes and goes 50 times a second.
pub(crate) struct Flapping {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Result<u32>>,
}

impl Flapping {
    /// Begins.
    pub(crate) fn start(lab: &Lab) -> Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let (mut routes, ended) = (Routes::open(&lab.host)?, Arc::clone(&over));
        let route = Route::new(&lab.host, "eth2_int", (Ipv4Addr::new(203, 0, 113, 0), 24), PEER)?;
        let thread = thread::spawn(move || {
            let mut count = 0;
            while !ended.load(Ordering::Acquire) {
                routes.add([route])?;
                thread::sleep(Duration::from_millis(10));
                routes.remove([route])?;
                thread::sleep(Duration::from_millis(10));
                count += 1;
            }
            Ok(count)
        });
        Ok(Self { over, thread })
    }

    /// Ends, and says how often it came.
    pub(crate) fn stop(self) -> Result<u32> {
        self.over.store(true, Ordering::Release);
        self.thread.join().ok().context("the thread that changes a route")?
    }
}
