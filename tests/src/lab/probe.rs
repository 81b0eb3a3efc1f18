//! Packets with which the peer tries the host out.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Result;

use super::Lab;
use crate::{craft, family::Family, frame::Arp, mac::Mac};

/// The UDP port from which [`Lab::deliver`] sends, and to which [`Lab::emit`] does.
pub const PROBE_PORT: u16 = 4000;

impl Lab {
    /// The peer asks for an address by ARP through one port only; `destination` is the broadcast address or the interface's own.
    ///
    /// # Errors
    ///
    /// When the link is down.
    pub fn ask(&self, port: usize, address: Ipv4Addr, destination: Mac) -> Result<()> {
        let request = Arp::request(self.peer_mac(port), self.peer(port), address);
        self.send_to_host(port, &request.frame(destination))
    }

    /// The peer asks for an address by ARP, and the bridge carries the question to all its ports.
    ///
    /// # Errors
    ///
    /// When the bridge is down.
    pub fn ask_all(&self, address: Ipv4Addr) -> Result<()> {
        let request = Arp::request(self.peer_mac(0), self.peer(0), address);
        self.send_from_bridge(0, &request.frame(Mac::BROADCAST))
    }

    /// The peer sends a UDP datagram through one port, to that interface's hardware address, whatever its destination address.
    ///
    /// # Errors
    ///
    /// When the link is down.
    pub fn deliver(&self, port: usize, to: impl Into<SocketAddr>, payload: &[u8]) -> Result<()> {
        let to = to.into();
        let from = (self.peer_in(Family::of(to.ip()), port), PROBE_PORT);
        self.send_to_host(port, &craft::udp(self.inward(port), from, to, payload)?)
    }

    /// The host sends a UDP datagram to the peer through a port by an AF_PACKET socket, whatever its source address.
    ///
    /// # Errors
    ///
    /// When the link is down.
    pub fn emit(&self, port: usize, from: impl Into<IpAddr>) -> Result<()> {
        let from = from.into();
        let to = (self.peer_in(Family::of(from), port), PROBE_PORT);
        self.send_from_host(port, &craft::udp(self.outward(port), (from, PROBE_PORT), to, b"emitted")?)
    }
}
