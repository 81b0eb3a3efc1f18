//! A device of the host on top of the lab's links: what must pass it and what must not, in every mode.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    Lab, PATIENCE,
    craft::{self, Stations},
    daemon::Daemon,
    interface,
    lab::PROBE_PORT,
    mac::Mac,
    netns::NetNs,
    packet_socket::PacketSocket,
    traffic::{icmp, udp},
    wait_until,
};

/// The port of the sockets that take what arrives.
pub const LISTENING: u16 = 7000;

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
        from: Ipv4Addr,
        to: SocketAddrV4,
        payload: &[u8],
    ) -> Result<()> {
        let stations = Stations { source: mac_of(self.ns, through)?, destination };
        self.send(through, &craft::udp(stations, SocketAddrV4::new(from, PROBE_PORT), to, payload)?)
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

/// A device and its station on the other side.
#[derive(Clone, Copy, Debug)]
pub struct Device<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its address.
    pub address: Ipv4Addr,
    /// An address of the switch in the same subnet.
    pub peer: Ipv4Addr,
    /// The interface of the switch with that address.
    pub peer_interface: &'a str,
    /// Interfaces of the host that are to be tried out, with the port that each one's frames cross: the device and those
    /// below it.
    pub through: &'a [(&'a str, usize)],
    /// A port that has nothing to do with the device, with an address of the first subnet.
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
        let socket = udp::bind(&lab.host, Ipv4Addr::UNSPECIFIED, LISTENING)?;
        for mode in modes.iter().copied() {
            let what = || format!("{self:?} in mode {mode:?} with {arguments:?}");
            let daemon = mode.map(|mode| start(lab, arguments, mode)).transpose()?;
            self.try_sending(lab, &host, mode, judged).with_context(what)?;
            // After which the switch knows again which of several ports leads to the device.
            self.try_own_traffic(lab).with_context(what)?;
            let judges = mode.is_some() && judged.contains(&self.name);
            self.try_receiving(lab, &switch, &socket, judges).with_context(what)?;
            if let Some(daemon) = daemon {
                let ended = daemon.stop()?;
                ensure!(ended.status.success(), "{}", ended.stderr);
            }
        }
        Ok(())
    }

    fn try_own_traffic(&self, lab: &Lab) -> Result<()> {
        icmp::ping(&lab.host, self.address, self.peer, PATIENCE)?;
        icmp::ping(&lab.switch, self.peer, self.address, PATIENCE)
    }

    fn try_sending(&self, lab: &Lab, host: &Sender<'_>, mode: Option<&str>, judged: &[&str]) -> Result<()> {
        let others = lab.address(self.other);
        let station = mac_of(&lab.switch, self.peer_interface)?;
        for (through, port) in self.through {
            let recording = lab.record();
            let to = SocketAddrV4::new(self.peer, PROBE_PORT);
            host.datagram(through, station, self.address, to, b"own")?;
            // To where the owner of the address has a route.
            let to = SocketAddrV4::new(lab.peer(self.other), PROBE_PORT);
            host.datagram(through, station, others, to, b"another's")?;
            let ports = recording.ports_by_source()?;
            let of = |source| ports.get(&source).cloned().unwrap_or_default();
            let own = of(self.address);
            ensure!(own == BTreeSet::from([*port]), "the own source left from {through} by {own:?}");
            let expected = match mode.filter(|_| judged.contains(through)) {
                None => BTreeSet::from([*port]),
                Some("redirect") => BTreeSet::from([self.other]),
                Some(_) => BTreeSet::new(),
            };
            let left = of(others);
            ensure!(left == expected, "another's source left from {through} by {left:?}, not {expected:?}");
        }
        Ok(())
    }

    fn try_receiving(&self, lab: &Lab, switch: &Sender<'_>, socket: &UdpSocket, judged: bool) -> Result<()> {
        let station = mac_of(&lab.host, self.name)?;
        for (to, payload) in [(lab.address(self.other), "another's"), (self.address, "own")] {
            let to = SocketAddrV4::new(to, LISTENING);
            switch.datagram(self.peer_interface, station, self.peer, to, payload.as_bytes())?;
        }
        let expected = if judged { &["own"][..] } else { &["another's", "own"] };
        let messages = delivered_until(socket, "own")?;
        ensure!(messages == expected, "there came {messages:?} instead of {expected:?}");
        Ok(())
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
