//! Frames that go through a link as they are.

use anyhow::{Context as _, Result};

use super::{Lab, Segment};
use crate::{craft::Stations, interface, mac::Mac, netns::NetNs, packet_socket::PacketSocket};

impl Lab {
    /// Sends a frame from the switch to the host through a port.
    ///
    /// # Errors
    ///
    /// When the link is down.
    pub fn send_to_host(&self, port: usize, frame: &[u8]) -> Result<()> {
        send(&self.switch, &self.switch_sender, &format!("eth{port}_ext"), frame)
    }

    /// Sends a frame from the peer on the bridge that a port is on, so that it takes the way that the bridge knows.
    ///
    /// # Errors
    ///
    /// When the bridge is down.
    pub fn send_from_bridge(&self, port: usize, frame: &[u8]) -> Result<()> {
        let bridge = Segment::nth(self.links[port].segment).bridge();
        send(&self.switch, &self.switch_sender, &bridge, frame)
    }

    /// Sends a frame from the host through a port, as a DHCP client does: by an AF_PACKET socket.
    ///
    /// That it was dropped on the way is no error, although the kernel tells such a sender (ENOBUFS).
    ///
    /// # Errors
    ///
    /// When the link is down.
    pub fn send_from_host(&self, port: usize, frame: &[u8]) -> Result<()> {
        send(&self.host, &self.host_sender, &format!("eth{port}_int"), frame)
    }

    /// The same through any interface of the host.
    ///
    /// # Errors
    ///
    /// When there is none, or it is down.
    pub fn send_through(&self, interface: &str, frame: &[u8]) -> Result<()> {
        send(&self.host, &self.host_sender, interface, frame)
    }

    /// From the peer to the host's interface.
    pub fn inward(&self, port: usize) -> Stations {
        Stations { source: self.peer_mac(port), destination: self.mac(port) }
    }

    /// From the host's interface to the peer.
    pub fn outward(&self, port: usize) -> Stations {
        Stations { source: self.mac(port), destination: self.peer_mac(port) }
    }

    /// From the host's interface to everyone.
    pub fn outward_to_all(&self, port: usize) -> Stations {
        Stations { source: self.mac(port), destination: Mac::BROADCAST }
    }
}

fn send(ns: &NetNs, socket: &PacketSocket, interface: &str, frame: &[u8]) -> Result<()> {
    let index = ns.run(|| interface::index(interface))?;
    match socket.send(index, frame) {
        Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(()),
        sent => sent.with_context(|| format!("sending a frame through {interface}")),
    }
}
