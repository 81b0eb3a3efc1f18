//! Traffic of every kind from and to one address of the host.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use mhebpf_tests::{
    FAR, FAR6, Family, Lab, PEER, PEER6,
    traffic::{ARTICLE_PORT, icmp, tcp, udp},
};

/// Servers of the peer, for one family.
pub(crate) struct Servers {
    family: Family,
    tcp: tcp::EchoServer,
    udp: udp::EchoServer,
}

impl Servers {
    pub(crate) fn start(lab: &Lab, family: Family) -> Result<Self> {
        Ok(Self {
            family,
            tcp: tcp::EchoServer::start(&lab.switch, family.unspecified(), ARTICLE_PORT)?,
            udp: udp::EchoServer::start(&lab.switch, peer(family), ARTICLE_PORT)?,
        })
    }

    /// Has a connection from an address come about, to the peer or far away.
    pub(crate) fn connect(&self, lab: &Lab, from: IpAddr, is_far: bool, limit: Duration) -> Result<()> {
        let to = if is_far { self.family.choose(FAR.into(), FAR6.into()) } else { peer(self.family) };
        let server = SocketAddr::new(to, self.tcp.address().port());
        let (mut stream, _) = tcp::connect_timed(&lab.host, from, server, limit)?;
        tcp::echo(&mut stream, b"hello")?;
        tcp::close(stream)
    }

    /// Has traffic of every kind from and to an address of the host.
    pub(crate) fn exchange(&self, lab: &Lab, address: IpAddr, limit: Duration) -> Result<()> {
        let peer = peer(self.family);
        for is_far in [false, true] {
            self.connect(lab, address, is_far, limit).context("TCP from it")?;
        }
        let socket = udp::bind(&lab.host, address, 0)?;
        udp::echo(&socket, self.udp.address(), b"hello").context("UDP from it")?;
        icmp::ping(&lab.host, address, peer, limit).context("an echo request from it")?;
        icmp::ping(&lab.switch, peer, address, limit).context("an echo reply from it")?;

        let server = tcp::EchoServer::start(&lab.host, address, ARTICLE_PORT)?;
        let to = server.address();
        let (mut stream, _) = tcp::connect_timed(&lab.switch, peer, to, limit).context("TCP to it")?;
        tcp::echo(&mut stream, b"hello")?;
        drop(stream);
        let server = udp::EchoServer::start(&lab.host, address, ARTICLE_PORT)?;
        let socket = udp::bind(&lab.switch, peer, 0)?;
        udp::echo(&socket, server.address(), b"hello").context("UDP to it")?;
        self.be_refused(lab, SocketAddr::new(address, ARTICLE_PORT + 1), limit)
    }

    /// Asks for a port that is closed.
    fn be_refused(&self, lab: &Lab, closed: SocketAddr, limit: Duration) -> Result<()> {
        let peer = peer(self.family);
        let Err(refused) = tcp::connect_timed(&lab.switch, peer, closed, limit) else {
            bail!("the closed port {closed} was connected to");
        };
        ensure!(format!("{refused:#}").contains("refused"), "a reset from it: {refused:#}");
        let socket = udp::bind(&lab.switch, peer, 0)?;
        socket.connect(closed)?;
        socket.send(b"anybody there?")?;
        let refused = socket.recv(&mut [0; 16]).err().map(|error| error.kind());
        ensure!(refused == Some(ErrorKind::ConnectionRefused), "an ICMP error from it: {refused:?}");
        Ok(())
    }
}

/// The peer's address of a family.
pub(crate) fn peer(family: Family) -> IpAddr {
    family.choose(PEER.into(), PEER6.into())
}
