//! IPv6 in a lab: its addresses, and packets with which the peer tries the host out.

use std::net::Ipv6Addr;

use anyhow::Result;

use super::{Lab, Segment};
use crate::{
    craft::{self, Stations},
    mac::Mac,
    netns::NetNs,
};

/// The peer's IPv6 address on the first subnet.
pub const PEER6: Ipv6Addr = Segment::nth(0).peer6();

/// An IPv6 address in no subnet of the host, behind the peer.
pub const FAR6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1);

/// Turns IPv6 on in a namespace that has no links yet, without the noise.
pub(super) fn prepare(ns: &NetNs) -> Result<()> {
    for (key, value) in
        [("accept_ra", "0"), ("router_solicitations", "0"), ("accept_dad", "0"), ("dad_transmits", "0")]
    {
        ns.sysctl(&format!("net.ipv6.conf.default.{key}"), value)?;
    }
    // That of "all" is that of "default" and of each interface too.
    ns.sysctl("net.ipv6.conf.all.disable_ipv6", "0")
}

/// The peers on their bridges.
pub(super) fn add_peers(switch: &NetNs, segments: usize) -> Result<()> {
    let mut script = format!("address add {FAR6}/128 dev lo nodad\n");
    for segment in (0..segments).map(Segment::nth) {
        let (bridge, peer) = (segment.bridge(), segment.peer6());
        switch.sysctl(&format!("net.ipv6.conf.{bridge}.disable_ipv6"), "0")?;
        script.push_str(&format!("address add {peer}/64 dev {bridge} nodad\n"));
    }
    switch.ip_batch(&script)
}

/// The link-local address that the kernel makes of a hardware address (RFC 4291 appendix A).
pub(super) fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let word = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(0xfe80, 0, 0, 0, word(a ^ 2, b), word(c, 0xff), word(0xfe, d), word(e, f))
}

impl Lab {
    /// The article's lab with IPv6: the host's addresses 2001:db8::100 to 2001:db8::103, the peer 2001:db8::1.
    ///
    /// # Errors
    ///
    /// Without root.
    pub fn article6() -> Result<Self> {
        Self::builder().links(4).ipv6().build()
    }

    /// The host's IPv6 address on a port at the start.
    ///
    /// # Panics
    ///
    /// When the port was made without one.
    #[expect(clippy::expect_used, reason = "a test that asks for an address it did not make is wrong")]
    pub fn address6(&self, port: usize) -> Ipv6Addr {
        self.links[port].address6.expect("the port has an IPv6 address")
    }

    /// The host's IPv6 addresses at the start, by port, without the link-local ones.
    pub fn addresses6(&self) -> Vec<Ipv6Addr> {
        self.links.iter().filter_map(|link| link.address6).collect()
    }

    /// The host's link-local address on a port.
    pub fn link_local(&self, port: usize) -> Ipv6Addr {
        link_local(self.mac(port))
    }

    /// The IPv6 address of the peer that a port leads to.
    pub fn peer6(&self, port: usize) -> Ipv6Addr {
        Segment::nth(self.links[port].segment).peer6()
    }

    /// The peer solicits an address through one port only, by the group of that address.
    ///
    /// # Errors
    ///
    /// When the link is down.
    pub fn solicit(&self, port: usize, target: Ipv6Addr) -> Result<()> {
        self.send_to_host(port, &self.solicitation(port, target))
    }

    /// The peer solicits an address through one port only, by that interface's own hardware address, as it does when it
    /// looks whether a neighbour is still there; `to` is where the question goes.
    ///
    /// # Errors
    ///
    /// When the link is down.
    pub fn solicit_unicast(&self, port: usize, to: Ipv6Addr, target: Ipv6Addr) -> Result<()> {
        let frame = craft::solicitation(self.inward(port), (self.peer6(port), to), target);
        self.send_to_host(port, &frame)
    }

    /// The peer solicits an address, and the bridge carries the question to all its ports.
    ///
    /// # Errors
    ///
    /// When the bridge is down.
    pub fn solicit_all(&self, target: Ipv6Addr) -> Result<()> {
        self.send_from_bridge(0, &self.solicitation(0, target))
    }

    fn solicitation(&self, port: usize, target: Ipv6Addr) -> Vec<u8> {
        let group = craft::solicited_node(target);
        let stations = Stations { source: self.peer_mac(port), destination: craft::group_mac(group) };
        craft::solicitation(stations, (self.peer6(port), group), target)
    }
}
