//! The lab: a multihomed host, a switch with a peer behind it, and a capture on every link between them.

mod build;
mod change;
mod inject;
mod ipv6;
mod lan;
mod neighbours;
mod probe;
mod recording;
mod router;
mod running;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, ensure};

pub use build::{LabBuilder, Segment};
pub use ipv6::{FAR6, PEER6};
pub use lan::{LAN, LAN_CLIENT, LAN_HOST, LAN_SERVER, Lan};
pub use probe::PROBE_PORT;
pub use recording::Recording;
pub use router::{Container, Router};

use crate::{
    capture::Capture,
    daemon::Daemon,
    family::Family,
    interface,
    judge::Judge,
    mac::Mac,
    netns::NetNs,
    packet_socket::PacketSocket,
    sentinel::{Fence, OpenLink},
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
    /// How many links have been made anew.
    generation: usize,
    /// For frames made by hand. Kept, because closing an AF_PACKET socket waits for an RCU grace period.
    host_sender: PacketSocket,
    switch_sender: PacketSocket,
    /// Takes what comes to [`PROBE_PORT`] of a peer, so that no ICMP error goes back.
    _sink: UdpSocket,
    /// The same for IPv6, where that is on.
    _sink6: Option<UdpSocket>,
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
    address6: Option<Ipv6Addr>,
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

    /// The article's lab for a family: with IPv6 only where that is in question.
    ///
    /// # Errors
    ///
    /// Without root.
    pub fn article_in(family: Family) -> Result<Self> {
        Self::builder().links(4).family(family).build()
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

    /// The hardware address that the host's end of a link is made with.
    pub const fn host_mac(port: usize) -> Mac {
        Mac::lab(0xa0 + port as u8)
    }

    /// The hardware address of the host's end of a link; another when the link was made anew.
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

    /// The host's address of a family on a port at the start.
    ///
    /// # Panics
    ///
    /// When the port was made without one.
    pub fn address_in(&self, family: Family, port: usize) -> IpAddr {
        match family {
            Family::V4 => self.address(port).into(),
            Family::V6 => self.address6(port).into(),
        }
    }

    /// All addresses of a family that the host has on a port at the start: the link-local one as well.
    ///
    /// # Panics
    ///
    /// When the port was made without one.
    pub fn addresses_on(&self, family: Family, port: usize) -> Vec<IpAddr> {
        let link_local = (family == Family::V6).then(|| self.link_local(port).into());
        [self.address_in(family, port)].into_iter().chain(link_local).collect()
    }

    /// The address of a family of the peer that a port leads to.
    pub fn peer_in(&self, family: Family, port: usize) -> IpAddr {
        family.choose(self.peer(port).into(), self.peer6(port).into())
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

    /// The same without announcements at the start: for tests that count every frame, since a bridge carries an
    /// interface's announcement to the host's other interfaces, where it is for another's address.
    ///
    /// # Errors
    ///
    /// When it does not become ready.
    pub fn mhebpf_quietly(&self, further: &[&str]) -> Result<Daemon> {
        self.mhebpf(&[further, &["--no-announce"]].concat())
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
            self.hold_to(&mut daemon);
        }
        Ok(daemon)
    }

    /// Has the judge watch from now on, until a daemon that was not started by the lab is told to stop.
    pub fn hold_to(&self, daemon: &mut Daemon) {
        daemon.enforces(&self.judge);
    }

    /// Marks the present moment in the capture. Frames are told from earlier ones by the kernel's own time stamps.
    pub fn record(&self) -> Recording<'_> {
        Recording::new(self, SystemTime::now())
    }

    /// Returns when every frame sent before has crossed its link and was dealt with on the other side, so that what is
    /// not in the capture then was not sent.
    ///
    /// # Errors
    ///
    /// When a sentinel is lost.
    pub fn fence(&self) -> Result<()> {
        // A link that is down, renamed or gone carries nothing.
        let up = |ns: &NetNs, end: &str| {
            ns.run(|| {
                let is_up = |port: usize| Ok(interface::is_up(&format!("eth{port}_{end}"))?.then_some(port));
                self.ports().filter_map(|port| is_up(port).transpose()).collect::<Result<BTreeSet<_>>>()
            })
        };
        let open: Vec<_> = up(&self.switch, "ext")?
            .intersection(&up(&self.host, "int")?)
            .map(|port| OpenLink {
                port: *port,
                external: format!("eth{port}_ext"),
                internal: format!("eth{port}_int"),
            })
            .collect();
        let (switch, host) = ((&self.switch, &self.switch_sender), (&self.host, &self.host_sender));
        self.fence.pass(switch, host, &open, &self.capture).context("the fence of sentinels")
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
        let verdict = self.judge.verdict(&self.capture.since(SystemTime::UNIX_EPOCH));
        ensure!(verdict.is_none(), verdict.unwrap_or_default());
        Ok(())
    }

    /// Tells the judge, and only the judge, that an address belongs to a port from now on.
    pub fn claim(&self, port: usize, address: impl Into<IpAddr>, grace: Duration) {
        self.judge.claim(port, address, grace);
    }

    /// Tells the judge, and only the judge, that an address moves, and is never without an owner.
    pub fn hand_over(&self, from: usize, to: usize, address: impl Into<IpAddr>, grace: Duration) {
        self.judge.hand_over(from, to, address, grace);
    }

    /// Tells the judge, and only the judge, that an address belongs to a port no longer.
    pub fn release(&self, port: usize, address: impl Into<IpAddr>, grace: Duration) {
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
