//! Frames that go through a link as they are.

use anyhow::{Context as _, Result};

use super::Lab;
use crate::{interface, mac::Mac, netns::NetNs, packet_socket::PacketSocket, craft::Stations};

impl Lab {
    /// Sends a frame from the switch to the host through a port.
    ///
    /// # Errors
    ///
    /// When the link is down.
    pub fn send_to_host(&self, port: usize, frame: &[u8]) -> Result<()> {
        send(&self.switch, &format!("eth{port}_ext"), frame)
    }

    /// Sends a frame from the host through a port, as a DHCP client does: by an AF_PACKET socket.
    ///
    /// # Errors
    ///
    /// When the link is down, or when mhebpf's verdict reaches the sender.
    pub fn send_from_host(&self, port: usize, frame: &[u8]) -> Result<()> {
        send(&self.host, &format!("eth{port}_int"), frame)
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

fn send(ns: &NetNs, interface: &str, frame: &[u8]) -> Result<()> {
    ns.run(|| {
        let index = interface::index(interface)?;
        PacketSocket::sender()?.send(index, frame).with_context(|| format!("sending a frame through {interface}"))
    })
}
