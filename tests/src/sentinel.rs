//! Frames of the lab's own that tell when everything before them has arrived.
//!
//! "Nothing came" can only be said once a later frame has come. A veth link keeps the order of the frames that one CPU
//! sends, so a sentinel from every CPU through every link, to the host and back, proves that whatever was sent before has been
//! received, judged, answered and captured.

use std::{
    collections::BTreeSet,
    os::fd::{AsRawFd as _, BorrowedFd},
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    capture::Capture,
    cpu,
    craft::{self, Stations},
    features::{self, Feature},
    interface,
    mac::Mac,
    netns::NetNs,
    packet_socket::{PacketSocket, readable},
    wait::PATIENCE,
};

/// IEEE 802's type for local experiments: not IP, not ARP, so mhebpf lets it pass.
const ETHERTYPE: u16 = 0x88b5;

const MAGIC: [u8; 8] = *b"mh-fence";

/// A group that bridges do not forward (IEEE 802.1Q table 8-1), so that a sentinel stays on its link.
const DESTINATION: Mac = Mac([0x01, 0x80, 0xc2, 0, 0, 0x0e]);

/// How often a fence is tried on kernels before TCX. They take an interface's queue away for a moment while a clsact
/// qdisc comes or goes, and a frame that is sent in that moment is lost. A later fence proves what an earlier one was to.
const TRIES_WITHOUT_TCX: u32 = 4;

/// One of the frames of a fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Sentinel {
    fence: u64,
    cpu: u16,
    port: u16,
}

/// Reads a sentinel; `None` for every other frame.
pub(crate) fn parse(frame: &[u8]) -> Option<Sentinel> {
    let body = frame.get(14..34)?;
    let ours = frame[12..14] == ETHERTYPE.to_be_bytes() && body[..8] == MAGIC;
    ours.then(|| Sentinel {
        fence: u64::from_be_bytes(body[8..16].try_into().unwrap_or_default()),
        cpu: u16::from_be_bytes([body[16], body[17]]),
        port: u16::from_be_bytes([body[18], body[19]]),
    })
}

impl Sentinel {
    fn frame(self) -> Vec<u8> {
        let mut body = MAGIC.to_vec();
        body.extend(self.fence.to_be_bytes());
        body.extend(self.cpu.to_be_bytes());
        body.extend(self.port.to_be_bytes());
        craft::ethernet(Stations { source: Mac::lab(0), destination: DESTINATION }, ETHERTYPE, &body)
    }
}

/// Sends sentinels through a lab's links and waits for them.
#[derive(Debug)]
pub(crate) struct Fence {
    host: PacketSocket,
    next: AtomicU64,
    tries: u32,
}

/// A link of which both ends are up: its port, and the names of the ends.
pub(crate) struct OpenLink {
    pub(crate) port: usize,
    pub(crate) external: String,
    pub(crate) internal: String,
}

impl Fence {
    pub(crate) fn new(host: &NetNs) -> Result<Self> {
        let socket = host.run(|| PacketSocket::receiver(ETHERTYPE, &[]))?;
        let tries = if features::has(Feature::Tcx)? { 1 } else { TRIES_WITHOUT_TCX };
        Ok(Self { host: socket, next: AtomicU64::new(1), tries })
    }

    /// Returns when all frames that were sent before have crossed the links, and so have the answers to them.
    pub(crate) fn pass(
        &self,
        switch: (&NetNs, &PacketSocket),
        host: (&NetNs, &PacketSocket),
        links: &[OpenLink],
        capture: &Capture,
    ) -> Result<()> {
        for _ in 1..self.tries {
            if self.try_to_pass(switch, host, links, capture).is_ok() {
                return Ok(());
            }
        }
        self.try_to_pass(switch, host, links, capture)
    }

    fn try_to_pass(
        &self,
        switch: (&NetNs, &PacketSocket),
        host: (&NetNs, &PacketSocket),
        links: &[OpenLink],
        capture: &Capture,
    ) -> Result<()> {
        let there = self.send(switch, links, |link| &link.external)?;
        self.wait_in_host(there).context("from the switch to the host")?;
        let back = self.send(host, links, |link| &link.internal)?;
        capture.wait_for_sentinels(&back, PATIENCE / self.tries)
    }

    fn send(
        &self,
        (from, socket): (&NetNs, &PacketSocket),
        links: &[OpenLink],
        name: impl Fn(&OpenLink) -> &str + Sync,
    ) -> Result<BTreeSet<Sentinel>> {
        let fence = self.next.fetch_add(1, Ordering::Relaxed);
        from.run(|| {
            let mut sent = BTreeSet::new();
            for cpu in cpu::cpus()? {
                cpu::run_on(cpu)?;
                for link in links {
                    let sentinel =
                        Sentinel { fence, cpu: u16::try_from(cpu)?, port: u16::try_from(link.port)? };
                    let name = name(link);
                    socket
                        .send(interface::index(name)?, &sentinel.frame())
                        .with_context(|| format!("sending a sentinel through {name}"))?;
                    sent.insert(sentinel);
                }
            }
            Ok(sent)
        })
    }

    fn wait_in_host(&self, mut sentinels: BTreeSet<Sentinel>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE / self.tries;
        while !sentinels.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            // SAFETY: the socket outlives this call.
            let socket = unsafe { BorrowedFd::borrow_raw(self.host.as_raw_fd()) };
            ensure!(!left.is_zero() && readable(socket, left)?, "lost on the way: {sentinels:?}");
            while let Some(received) = self.host.receive()? {
                if let Some(sentinel) = parse(&received.bytes) {
                    sentinels.remove(&sentinel);
                }
            }
        }
        Ok(())
    }
}
