//! Changes of many routes by netlink messages made by hand: a million in a second or two, and one within microseconds.

use std::net::IpAddr;

use anyhow::{Context as _, Result};

use crate::{
    interface,
    netlink::{ACK, CREATE, EXCLUSIVE, Message, Netlink, REPLACE, REQUEST},
    netns::NetNs,
};

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;

/// Messages in one datagram.
const CHUNK: usize = 500;

/// A route of the main table by a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destination's prefix.
    pub destination: IpAddr,
    /// The length of that prefix.
    pub length: u8,
    /// The gateway, of the same family.
    pub gateway: IpAddr,
    /// The index of the interface by which the gateway is reached.
    pub ifindex: u32,
    /// The metric; 0 for the kernel's own.
    pub metric: u32,
}

/// A socket for changes of a namespace's routes.
#[derive(Debug)]
pub struct Routes(Netlink);

impl Routes {
    /// Opens a socket in a namespace.
    ///
    /// # Errors
    ///
    /// When there are no descriptors left.
    pub fn open(ns: &NetNs) -> Result<Self> {
        ns.run(|| Netlink::open(libc::NETLINK_ROUTE)).map(Self)
    }

    /// Adds routes, and returns when the last is there.
    ///
    /// # Errors
    ///
    /// When the kernel refuses one.
    pub fn add(&mut self, routes: impl IntoIterator<Item = Route>) -> Result<()> {
        self.change(libc::RTM_NEWROUTE, CREATE | EXCLUSIVE, routes).context("adding routes")
    }

    /// Puts a route in the place of the one with its prefix and metric.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn replace(&mut self, route: Route) -> Result<()> {
        self.change(libc::RTM_NEWROUTE, CREATE | REPLACE, [route]).context("replacing a route")
    }

    /// Removes routes, and returns when the last is gone.
    ///
    /// # Errors
    ///
    /// When the kernel refuses one.
    pub fn remove(&mut self, routes: impl IntoIterator<Item = Route>) -> Result<()> {
        self.change(libc::RTM_DELROUTE, 0, routes).context("removing routes")
    }

    fn change(&mut self, kind: u16, flags: u16, routes: impl IntoIterator<Item = Route>) -> Result<()> {
        let mut routes = routes.into_iter().peekable();
        while routes.peek().is_some() {
            let chunk: Vec<Route> = routes.by_ref().take(CHUNK).collect();
            let last = chunk.len() - 1;
            // The last is acknowledged, which says that all are done; a failure is told in any case.
            let message = |(at, route): (usize, &Route)| {
                route.message(kind, REQUEST | flags | if at == last { ACK } else { 0 })
            };
            let messages: Vec<Message> = chunk.iter().enumerate().map(message).collect();
            self.0.transact(&messages)?;
        }
        Ok(())
    }
}

impl Route {
    /// A route through an interface of a namespace.
    ///
    /// # Errors
    ///
    /// When there is no such interface.
    pub fn new(
        ns: &NetNs,
        interface: &str,
        (destination, length): (impl Into<IpAddr>, u8),
        gateway: impl Into<IpAddr>,
    ) -> Result<Self> {
        let ifindex = ns.run(|| interface::index(interface))?;
        Ok(Self { destination: destination.into(), length, gateway: gateway.into(), ifindex, metric: 0 })
    }

    fn message(&self, kind: u16, flags: u16) -> Message {
        let octets = |address: IpAddr| match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let family = if self.destination.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        // struct rtmsg: family, lengths of destination and source, TOS, table, protocol, scope, type, flags.
        let header = [family as u8, self.length, 0, 0, libc::RT_TABLE_MAIN, libc::RTPROT_STATIC, 0, 1];
        let mut message = Message::new(kind, flags, &[&header[..], &[0; 4]].concat());
        message.attribute(RTA_DST, &octets(self.destination));
        message.attribute(RTA_GATEWAY, &octets(self.gateway));
        message.attribute(RTA_OIF, &self.ifindex.to_ne_bytes());
        message.attribute(RTA_PRIORITY, &self.metric.to_ne_bytes());
        message
    }
}
