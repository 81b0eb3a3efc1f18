//! A service whose address is translated on the host: a published port of a container, or one of a cluster.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    capture::Captured,
    family::Family,
    lab::Lab,
    mac::Mac,
    netns::NetNs,
    traffic::{tcp, udp},
    wait::scaled,
};

/// Where a service is published, who offers it, and who asks for it, by TCP and UDP.
#[derive(Clone, Copy, Debug)]
pub struct Service<'lab> {
    /// The lab on whose host the address is.
    pub lab: &'lab Lab,
    /// The client's address, in the switch's namespace.
    pub client: IpAddr,
    /// What the client asks for.
    pub published: SocketAddr,
    /// Where the server is.
    pub server: &'lab NetNs,
    /// The port that it listens on.
    pub port: u16,
}

impl Service<'_> {
    /// Asks, gets what was asked for, and looks at the answers: they leave by this port only, to the station behind it.
    ///
    /// # Errors
    ///
    /// When there is no answer, or one leaves by another way.
    pub fn is_answered_by(&self, port: usize) -> Result<()> {
        let recording = self.lab.record();
        self.talk()?;
        let ways = self.ways(&recording.from_host()?);
        let right = BTreeSet::from([(port, self.lab.peer_mac(port))]);
        ensure!(ways == right, "{} answers by {ways:?} instead of {right:?}", self.published);
        Ok(())
    }

    /// Asks, and looks for answers: none leaves.
    ///
    /// # Errors
    ///
    /// When one does.
    pub fn is_not_answered(&self) -> Result<()> {
        let recording = self.lab.record();
        self.ask_in_vain()?;
        let ways = self.ways(&recording.from_host()?);
        ensure!(ways.is_empty(), "{} answers by {ways:?}", self.published);
        Ok(())
    }

    /// The ports by which the published address speaks, and the stations that it speaks to.
    fn ways(&self, frames: &[Arc<Captured>]) -> BTreeSet<(usize, Mac)> {
        let published = Some(self.published.ip());
        let answers = frames.iter().filter(|frame| frame.frame.datagram_source() == published);
        answers.map(|frame| (frame.port, frame.frame.destination)).collect()
    }

    fn any(&self) -> IpAddr {
        Family::of(self.published.ip()).unspecified()
    }

    fn talk(&self) -> Result<()> {
        let _tcp = tcp::EchoServer::start(self.server, self.any(), self.port)?;
        let _udp = udp::EchoServer::start(self.server, self.any(), self.port)?;
        self.ask()
    }

    /// Asks a server that is there already, and gets what was asked for.
    ///
    /// # Errors
    ///
    /// When there is no answer.
    pub fn ask(&self) -> Result<()> {
        let stream = tcp::connect(&self.lab.switch, self.client, self.published)?;
        tcp::echo_bulk(&stream, 200_000)?;
        tcp::close(stream)?;
        let socket = udp::bind(&self.lab.switch, self.client, 0)?;
        udp::echo(&socket, self.published, b"to the server")?;
        // In fragments.
        udp::echo(&socket, self.published, &[7; 4000])
    }

    /// Returns when the server has said all that it has to say.
    fn ask_in_vain(&self) -> Result<()> {
        let _tcp = tcp::EchoServer::start(self.server, self.any(), self.port)?;
        // The kernel of the server answers at once. Whether the client gets it is seen on the wire.
        let limit = scaled(Duration::from_millis(300));
        let _ = tcp::connect_timed(&self.lab.switch, self.client, self.published, limit);
        let server = udp::bind(self.server, self.any(), self.port)?;
        let socket = udp::bind(&self.lab.switch, self.client, 0)?;
        socket.send_to(b"to the server", self.published)?;
        let (_, from) = server.recv_from(&mut [0; 100]).context("the server waits for a datagram")?;
        server.send_to(b"in vain", from)?;
        Ok(())
    }
}
