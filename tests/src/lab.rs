//! The lab: a multihomed host, a switch with a peer behind it, and a capture on every link between them.

mod build;
mod change;
mod inject;
mod neighbours;
mod recording;

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};

pub use build::{LabBuilder, Segment};
pub use recording::Recording;

use crate::{
    capture::Capture,
    daemon::Daemon,
    interface,
    judge::Judge,
    mac::Mac,
    netns::NetNs,
    sentinel::{Fence, OpenLink},
    wait::{PATIENCE, wait_until},
};

/// The peer on the first subnet, as in the article.
pub const PEER: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 1);

/// The peer on the second subnet.
pub const SECOND_PEER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);

/// An address in no subnet of the host, behind every router of the lab.
pub const FAR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// The patterns that select the host's interfaces.
pub const INTERFACES: &str = "eth*_int";

/// One lab. Everything in it vanishes with it.
///
/// The host's `eth{i}_int` is the other end of the switch's `eth{i}_ext`, and `i` is called the *port*.
#[derive(Debug)]
pub struct Lab {
    /// The multihomed host's namespace.
    pub host: NetNs,
    /// The namespace of the switch and of the peers on its bridges.
    pub switch: NetNs,
    links: Vec<Link>,
    capture: Capture,
    fence: Fence,
    judge: Arc<Judge>,
    judged: bool,
}

/// A link between host and switch.
#[derive(Clone, Debug)]
struct Link {
    segment: usize,
    address: Option<Ipv4Addr>,
    mac: Mac,
}

impl Lab {
    /// The article's lab: four links in 192.168.0.0/21, the host's addresses .100 to .103, the peer .1.
    ///
    /// # Errors
    ///
    /// Without root.
    pub fn article() -> Result<Self> {
        Self::builder().links(4).build()
    }

    /// A lab of another shape.
    pub fn builder() -> LabBuilder {
        LabBuilder::default()
    }

    /// The ports, in order.
    pub fn ports(&self) -> std::ops::Range<usize> {
        0..self.links.len()
    }

    /// The host's address on a port at the start.
    ///
    /// # Panics
    ///
    /// When the port is not there or was made without an address.
    #[expect(clippy::expect_used, reason = "a test that asks for an address it did not make is wrong")]
    pub fn address(&self, port: usize) -> Ipv4Addr {
        self.links[port].address.expect("the port has an address")
    }

    /// The host's addresses at the start, by port.
    pub fn addresses(&self) -> Vec<Ipv4Addr> {
        self.links.iter().filter_map(|link| link.address).collect()
    }

    /// The hardware address of the host's end of a link at the start.
    pub fn mac(&self, port: usize) -> Mac {
        self.links[port].mac
    }

    /// The hardware address of the peer that a port leads to.
    pub fn peer_mac(&self, port: usize) -> Mac {
        Segment::nth(self.links[port].segment).mac()
    }

    /// The address of the peer that a port leads to.
    pub fn peer(&self, port: usize) -> Ipv4Addr {
        Segment::nth(self.links[port].segment).peer()
    }

    /// Starts `mhebpf run` on all the lab's interfaces with further arguments, and waits until it is ready.
    ///
    /// In redirect and drop mode the judge watches from now on.
    ///
    /// # Errors
    ///
    /// When it does not become ready.
    pub fn mhebpf(&self, further: &[&str]) -> Result<Daemon> {
        let arguments = [&["run", "--interface", INTERFACES], further].concat();
        self.run_mhebpf(&arguments)
    }

    /// Starts mhebpf with exactly these arguments and waits until it is ready.
    ///
    /// # Errors
    ///
    /// When it does not become ready.
    pub fn run_mhebpf(&self, arguments: &[&str]) -> Result<Daemon> {
        let mut daemon = Daemon::spawn(&self.host, arguments)?;
        daemon.wait_ready()?;
        if !arguments.contains(&"observe") {
            daemon.enforces(&self.judge);
        }
        Ok(daemon)
    }

    /// Marks the present moment in the capture.
    pub fn record(&self) -> Recording<'_> {
        Recording::new(self, self.capture.position())
    }

    /// Returns when every frame sent before has crossed its link and was dealt with on the other side, so that what is
    /// not in the capture then was not sent.
    ///
    /// # Errors
    ///
    /// When a sentinel is lost.
    pub fn fence(&self) -> Result<()> {
        let mut open = Vec::new();
        for port in self.ports() {
            let (external, internal) = (format!("eth{port}_ext"), format!("eth{port}_int"));
            let up = |ns: &NetNs, name: &str| ns.run(|| interface::is_up(name));
            // A link that is down, renamed or gone carries nothing.
            if up(&self.switch, &external)? && up(&self.host, &internal)? {
                open.push(OpenLink { port, external, internal });
            }
        }
        self.fence.pass(&self.switch, &self.host, &open, &self.capture).context("the fence of sentinels")
    }

    /// Waits until a port's ends are up and have carrier.
    ///
    /// # Errors
    ///
    /// When they have not in time.
    pub fn wait_running(&self, port: usize) -> Result<()> {
        let (external, internal) = (format!("eth{port}_ext"), format!("eth{port}_int"));
        for (ns, name) in [(&self.switch, &external), (&self.host, &internal)] {
            ns.run(|| {
                wait_until(&format!("{name} to run"), PATIENCE, || {
                    Ok(interface::is_running(name)?.then_some(()))
                })
            })?;
        }
        Ok(())
    }

    /// Lets the judge speak: to be called at the end of every test.
    ///
    /// # Errors
    ///
    /// When a frame left the host through an interface that does not own its source, while mhebpf enforced.
    pub fn finish(mut self) -> Result<()> {
        self.judge_now()
    }

    fn judge_now(&mut self) -> Result<()> {
        self.judged = true;
        self.fence()?;
        let verdict = self.judge.verdict(&self.capture.since(0));
        ensure!(verdict.is_none(), verdict.unwrap_or_default());
        Ok(())
    }

    /// Tells the judge, and only the judge, that an address belongs to a port from now on.
    pub fn claim(&self, port: usize, address: Ipv4Addr, grace: Duration) {
        self.judge.claim(port, address, grace);
    }

    /// Tells the judge, and only the judge, that an address belongs to a port no longer.
    pub fn release(&self, port: usize, address: Ipv4Addr, grace: Duration) {
        self.judge.release(port, address, grace);
    }
}

impl Drop for Lab {
    /// A test that ended early, or forgot to ask, is judged all the same.
    fn drop(&mut self) {
        if self.judged || std::thread::panicking() {
            return;
        }
        let verdict = self.judge_now();
        assert!(verdict.is_ok(), "{:?}", verdict.err());
    }
}
