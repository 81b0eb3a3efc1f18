//! A device of the host on top of the lab's links: what must pass it and what must not, in every mode and both families.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, UdpSocket},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    Lab, PATIENCE,
    craft::{self, Stations},
    daemon::Daemon,
    family::Family,
    frame::Arp,
    interface,
    lab::PROBE_PORT,
    mac::Mac,
    netns::NetNs,
    packet_socket::PacketSocket,
    summary::Summary,
    traffic::{icmp, udp},
    wait_until,
};

/// The port of the sockets that take what arrives.
pub const LISTENING: u16 = 7000;

/// The reasons for which a question for another interface's address is discarded.
const ASKED: [&str; 2] = ["arp_target", "ndp_target"];

/// Without mhebpf, which shows that a test sees what mhebpf has to prevent, and in the two modes that enforce.
pub const MODES: [Option<&str>; 3] = [None, Some("redirect"), Some("drop")];

/// The two modes that enforce.
pub const ENFORCING: [Option<&str>; 2] = [Some("redirect"), Some("drop")];

/// Frames that go out through any interface of a namespace as they are.
///
/// It is kept as long as a test, because closing an AF_PACKET socket waits for an RCU grace period.
#[derive(Debug)]
pub struct Sender<'a> {
    ns: &'a NetNs,
    socket: PacketSocket,
}

impl<'a> Sender<'a> {
    /// Opens the socket.
    ///
    /// # Errors
    ///
    /// Without root.
    pub fn new(ns: &'a NetNs) -> Result<Self> {
        Ok(Self { ns, socket: ns.run(PacketSocket::sender)? })
    }

    /// Sends a frame. That a program dropped it on its way is no error.
    ///
    /// # Errors
    ///
    /// When the interface is down or not there.
    pub fn send(&self, through: &str, frame: &[u8]) -> Result<()> {
        let index = self.ns.run(|| interface::index(through))?;
        match self.socket.send(index, frame) {
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(()),
            sent => sent.with_context(|| format!("sending a frame through {through}")),
        }
    }

    /// Sends a UDP datagram from an interface to a station with this hardware address.
    ///
    /// # Errors
    ///
    /// As [`Sender::send`].
    pub fn datagram(
        &self,
        through: &str,
        destination: Mac,
        from: impl Into<IpAddr>,
        to: impl Into<SocketAddr>,
        payload: &[u8],
    ) -> Result<()> {
        let stations = Stations { source: mac_of(self.ns, through)?, destination };
        self.send(through, &craft::udp(stations, (from.into(), PROBE_PORT), to, payload)?)
    }
}

/// The hardware address of an interface.
///
/// # Errors
///
/// When it is not there or has none.
pub fn mac_of(ns: &NetNs, name: &str) -> Result<Mac> {
    let shown = ns.ip(&format!("-oneline link show dev {name}"))?;
    let mut words = shown.split_whitespace().skip_while(|word| *word != "link/ether").skip(1);
    words
        .next()
        .and_then(|word| word.parse().ok())
        .with_context(|| format!("what is the address in {shown}?"))
}

/// Waits until an interface has carrier.
///
/// # Errors
///
/// When it has none in time.
pub fn wait_running(ns: &NetNs, name: &str) -> Result<()> {
    ns.run(|| {
        wait_until(&format!("{name} to run"), PATIENCE, || Ok(interface::is_running(name)?.then_some(())))
    })
}

/// Brings an interface up with addresses, in subnets of 24 and 64 bits, and waits until it has carrier.
///
/// # Errors
///
/// When it is not there, or has no carrier in time.
pub fn give_addresses(ns: &NetNs, interface: &str, addresses: &[IpAddr]) -> Result<()> {
    let mut script = format!("link set {interface} up\n");
    for address in addresses {
        match address {
            IpAddr::V4(address) => script += &format!("address add {address}/24 dev {interface}\n"),
            IpAddr::V6(address) => {
                // Interfaces of the switch have no IPv6 unless they are asked to.
                ns.sysctl(&format!("net.ipv6.conf.{interface}.disable_ipv6"), "0")?;
                script += &format!("address add {address}/64 dev {interface} nodad\n");
            }
        }
    }
    ns.ip_batch(&script)?;
    wait_running(ns, interface)
}

/// `--interface` with each of these patterns.
pub fn interfaces<'a>(patterns: &[&'a str]) -> Vec<&'a str> {
    patterns.iter().flat_map(|pattern| ["--interface", pattern]).collect()
}

/// Takes all that was delivered to a socket until this message comes, and returns the messages in order.
///
/// # Errors
///
/// When it does not come in time.
pub fn delivered_until(socket: &UdpSocket, last: &str) -> Result<Vec<String>> {
    let mut messages = Vec::new();
    wait_until(&format!("the message {last}"), PATIENCE, || {
        while let Some((message, _)) = udp::take_delivered(socket)? {
            messages.push(String::from_utf8_lossy(&message).into_owned());
        }
        Ok(messages.iter().any(|message| message == last).then_some(()))
    })
    .with_context(|| format!("there came {messages:?}"))?;
    Ok(messages)
}

/// Where a packet with another port's source comes out that is sent through `through`.
///
/// `mode` is the one in which mhebpf judges there, `None` where it does not.
pub fn ways_of_anothers(mode: Option<&str>, through: usize, owner: usize) -> BTreeSet<usize> {
    match mode {
        None => BTreeSet::from([through]),
        Some("redirect") => BTreeSet::from([owner]),
        Some(_) => BTreeSet::new(),
    }
}

/// What is delivered of two messages of which the first is for another interface's address.
pub const fn delivered_of_both(judged: bool) -> &'static [&'static str] {
    if judged { &["own"] } else { &["another's", "own"] }
}

/// A device and its station on the other side.
#[derive(Clone, Copy, Debug)]
pub struct Device<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its addresses, each with an address of the switch in the same subnet.
    pub addresses: &'a [(IpAddr, IpAddr)],
    /// The interface of the switch with these addresses.
    pub peer_interface: &'a str,
    /// Interfaces of the host that are to be tried out, with the port that each one's frames cross: the device, and then
    /// those below it.
    pub through: &'a [(&'a str, usize)],
    /// A port that has nothing to do with the device, with addresses of the first subnet; mhebpf always judges it.
    pub other: usize,
}

impl Device<'_> {
    /// Tries the device out in these [`MODES`].
    ///
    /// `judged` are those of the interfaces tried out whose frames mhebpf judges when it gets these arguments.
    ///
    /// # Errors
    ///
    /// When something passes that must not, or is lost.
    pub fn try_out(
        &self,
        lab: &Lab,
        modes: &[Option<&str>],
        arguments: &[&str],
        judged: &[&str],
    ) -> Result<()> {
        let (host, switch) = (Sender::new(&lab.host)?, Sender::new(&lab.switch)?);
        for mode in modes.iter().copied() {
            let daemon = mode.map(|mode| start(lab, arguments, mode)).transpose()?;
            let judges = mode.is_some() && judged.contains(&self.name);
            for (own, peer) in self.addresses.iter().copied() {
                let at = Place { device: self, lab, host: &host, switch: &switch, own, peer };
                let what = || format!("{own} of {self:?} in mode {mode:?} with {arguments:?}");
                at.try_sending(mode, judged).with_context(what)?;
                at.try_sending_elsewhere(mode).with_context(what)?;
                // After which the switch knows again which of several ports leads to the device.
                at.try_own_traffic().with_context(what)?;
                at.try_receiving(judges).with_context(what)?;
                at.try_asking(judges).with_context(what)?;
            }
            if let Some(daemon) = daemon {
                self.check_questions(&daemon.stop()?.summary, judges)?;
            }
        }
        Ok(())
    }

    /// The interface of the switch whose frames go to the device and to no other interface of the host.
    fn inlet(&self) -> String {
        match (self.peer_interface, self.through) {
            ("br0", [(_, port), ..]) => format!("eth{port}_ext"),
            (other, _) => other.to_owned(),
        }
    }

    /// Linux itself does not answer a solicitation for another interface's address; that mhebpf has discarded it shows only here.
    fn check_questions(&self, summary: &Summary, judges: bool) -> Result<()> {
        // By the device's own programs, or by those of the port below it.
        let ports = self.through.iter().map(|(_, port)| format!("eth{port}_int"));
        let names: BTreeSet<String> =
            self.through.iter().map(|(name, _)| (*name).to_owned()).chain(ports).collect();
        let discarded: u64 =
            names.iter().flat_map(|name| ASKED.map(|reason| summary.count(name, reason))).sum();
        let expected = if judges { self.addresses.len() as u64 } else { 0 };
        ensure!(discarded == expected, "{discarded} questions discarded, not {expected}: {summary:?}");
        Ok(())
    }
}

/// One of the device's addresses, tried out in a lab.
struct Place<'a> {
    device: &'a Device<'a>,
    lab: &'a Lab,
    host: &'a Sender<'a>,
    switch: &'a Sender<'a>,
    own: IpAddr,
    peer: IpAddr,
}

impl Place<'_> {
    /// The other port's address of the same family.
    fn others(&self) -> IpAddr {
        self.lab.address_in(Family::of(self.own), self.device.other)
    }

    fn try_own_traffic(&self) -> Result<()> {
        icmp::ping(&self.lab.host, self.own, self.peer, PATIENCE)?;
        icmp::ping(&self.lab.switch, self.peer, self.own, PATIENCE)
    }

    /// What is redirected may have to wait for its neighbour. So two fences are passed: with the first the question has been
    /// answered, with the second the answer has come and what waited has left.
    fn try_sending(&self, mode: Option<&str>, judged: &[&str]) -> Result<()> {
        let (lab, other, others) = (self.lab, self.device.other, self.others());
        let station = mac_of(&lab.switch, self.device.peer_interface)?;
        for (through, port) in self.device.through {
            let recording = lab.record();
            self.host.datagram(through, station, self.own, (self.peer, PROBE_PORT), b"own")?;
            // To where the owner of the address has a route.
            let to = (lab.peer_in(Family::of(others), other), PROBE_PORT);
            self.host.datagram(through, station, others, to, b"another's")?;
            self.lab.fence()?;
            let ports = recording.ports_by_source()?;
            let of = |source| ports.get(&source).cloned().unwrap_or_default();
            let own = of(self.own);
            ensure!(own == BTreeSet::from([*port]), "the own source left from {through} by {own:?}");
            let expected = ways_of_anothers(mode.filter(|_| judged.contains(through)), *port, other);
            let left = of(others);
            ensure!(left == expected, "another's source left from {through} by {left:?}, not {expected:?}");
        }
        Ok(())
    }

    /// The device's source is sent through the other port, which is judged in every mode: it leaves through the device.
    fn try_sending_elsewhere(&self, mode: Option<&str>) -> Result<()> {
        let Device { peer_interface, through, other, .. } = *self.device;
        let station = mac_of(&self.lab.switch, peer_interface)?;
        let port = through.first().map_or(other, |(_, port)| *port);
        let recording = self.lab.record();
        let to = (self.peer, PROBE_PORT);
        self.host.datagram(&format!("eth{other}_int"), station, self.own, to, b"own")?;
        self.lab.fence()?;
        let (left, expected) = (recording.ports_of(self.own)?, ways_of_anothers(mode, other, port));
        ensure!(left == expected, "the own source left from port {other} by {left:?}, not {expected:?}");
        Ok(())
    }

    fn try_receiving(&self, judged: bool) -> Result<()> {
        let station = mac_of(&self.lab.host, self.device.name)?;
        let socket = udp::bind(&self.lab.host, Family::of(self.own).unspecified(), LISTENING)?;
        for (to, payload) in [(self.others(), "another's"), (self.own, "own")] {
            let through = self.device.peer_interface;
            self.switch.datagram(through, station, self.peer, (to, LISTENING), payload.as_bytes())?;
            // Else two processors may have them, and change their order.
            self.lab.fence()?;
        }
        let expected = delivered_of_both(judged);
        let messages = delivered_until(&socket, "own")?;
        ensure!(messages == expected, "there came {messages:?} instead of {expected:?}");
        Ok(())
    }

    /// ARP and neighbour solicitations. Devices that hand copies of a frame around do so in order, so once the second question
    /// is answered, the first would have been as well.
    fn try_asking(&self, judged: bool) -> Result<()> {
        let (inlet, recording) = (self.device.inlet(), self.lab.record());
        for target in [self.others(), self.own] {
            self.switch.send(&inlet, &self.question(target)?)?;
            self.lab.fence()?;
        }
        recording.wait_from_host("an answer for the device's address", |frame| {
            frame.frame.answered() == Some(self.own)
        })?;
        let frames = recording.from_host()?;
        // The other's own interface may answer meanwhile: a peer asks again and again whether its neighbours are there.
        let answered = frames
            .iter()
            .any(|frame| frame.port != self.device.other && frame.frame.answered() == Some(self.others()));
        let weak = Family::of(self.own) == Family::V4;
        ensure!(answered == (weak && !judged), "answered for another's address: {answered}");
        Ok(())
    }

    /// "Who has `target`?", from the station on the other side to all.
    fn question(&self, target: IpAddr) -> Result<Vec<u8>> {
        let source = mac_of(&self.lab.switch, self.device.peer_interface)?;
        match (self.peer, target) {
            (IpAddr::V4(peer), IpAddr::V4(target)) => {
                Ok(Arp::request(source, peer, target).frame(Mac::BROADCAST))
            }
            (IpAddr::V6(peer), IpAddr::V6(target)) => {
                let group = craft::solicited_node(target);
                let stations = Stations { source, destination: craft::group_mac(group) };
                Ok(craft::solicitation(stations, (peer, group), target))
            }
            (peer, target) => bail!("{peer} and {target} are of different families"),
        }
    }
}

/// Starts mhebpf with `arguments` in a mode, without announcements, and lets everyone ask for hardware addresses again: the
/// weak host may have answered with those of the wrong interface.
///
/// # Errors
///
/// When it does not become ready.
pub fn start(lab: &Lab, arguments: &[&str], mode: &str) -> Result<Daemon> {
    let daemon = lab.run_mhebpf(&[&["run", "--mode", mode, "--no-announce"], arguments].concat())?;
    lab.forget_neighbours()?;
    Ok(daemon)
}
