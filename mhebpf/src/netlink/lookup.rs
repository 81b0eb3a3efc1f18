//! The kernel's own route lookup: what `ip route get` shows.

use std::{io, net::IpAddr};

use anyhow::{Context as _, Result};
use netlink_packet_core::{NLM_F_ACK, Parseable as _};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteType, RouteVia},
};

use super::request::Requests;

/// A socket for lookups, in the namespace of this process.
pub struct RouteLookup {
    requests: Requests,
}

/// What the kernel answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelRoute {
    /// The interface that the packet leaves by; that of loopback for one to the host itself.
    pub ifindex: u32,
    /// The next hop, where the destination is not on-link.
    pub gateway: Option<IpAddr>,
    /// The routing table, where the kernel says it.
    pub table: u32,
    /// Whether the destination is the host itself.
    pub local: bool,
}

impl RouteLookup {
    /// Opens the socket.
    ///
    /// # Errors
    ///
    /// When the kernel refuses it.
    pub fn connect() -> Result<Self> {
        Ok(Self { requests: Requests::open().context("opening a netlink socket for route lookups")? })
    }

    /// Looks up the route of a packet that this host would send (`RTM_GETROUTE`), bound to the interface `oif` where
    /// one is given, as if the socket were.
    ///
    /// # Errors
    ///
    /// When there is no route (`ENETUNREACH`, `EHOSTUNREACH`, `EACCES`), or the source is no address of the host
    /// (`EINVAL`, IPv4 only).
    pub fn route(
        &mut self,
        source: Option<IpAddr>,
        destination: IpAddr,
        oif: Option<u32>,
    ) -> io::Result<KernelRoute> {
        let request = RouteNetlinkMessage::GetRoute(request(source, destination, oif));
        let mut found = None;
        // The acknowledgement says where the answer ends.
        self.requests.send(request, NLM_F_ACK, |payload| {
            found = Some(RouteMessage::parse(payload).map_err(io::Error::other));
        })?;
        let none = || Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the kernel did not answer"));
        answer(&found.unwrap_or_else(none)?)
    }
}

impl RouteLookup {
    /// The source that the kernel chooses for what leaves by the interface `oif` (`RTA_PREFSRC` of the answer).
    ///
    /// # Errors
    ///
    /// When there is no route.
    pub fn source(&mut self, destination: IpAddr, oif: u32) -> io::Result<Option<IpAddr>> {
        let request = RouteNetlinkMessage::GetRoute(request(None, destination, Some(oif)));
        let mut found = None;
        self.requests.send(request, NLM_F_ACK, |payload| {
            let route = RouteMessage::parse(payload).ok();
            found =
                route.into_iter().flat_map(|route| route.attributes).find_map(|attribute| match attribute {
                    RouteAttribute::PrefSource(RouteAddress::Inet(address)) => Some(address.into()),
                    RouteAttribute::PrefSource(RouteAddress::Inet6(address)) => Some(address.into()),
                    _ => None,
                });
        })?;
        Ok(found)
    }
}

fn request(source: Option<IpAddr>, destination: IpAddr, oif: Option<u32>) -> RouteMessage {
    let mut message = RouteMessage::default();
    let (family, bits) = match destination {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    message.header.address_family = family;
    message.header.destination_prefix_length = bits;
    // The table that the route was found in; IPv6 says it anyway, and refuses the flag (`inet6_rtm_valid_getroute_req`).
    if destination.is_ipv4() {
        message.header.flags = RouteFlags::LookupTable;
    }
    message.attributes.push(RouteAttribute::Destination(destination.into()));
    if let Some(source) = source {
        message.header.source_prefix_length = bits;
        message.attributes.push(RouteAttribute::Source(source.into()));
    }
    if let Some(oif) = oif {
        message.attributes.push(RouteAttribute::Oif(oif));
    }
    message
}

fn answer(message: &RouteMessage) -> io::Result<KernelRoute> {
    let mut route = KernelRoute {
        ifindex: 0,
        gateway: None,
        table: u32::from(message.header.table),
        local: message.header.kind == RouteType::Local,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(ifindex) => route.ifindex = *ifindex,
            RouteAttribute::Table(table) => route.table = *table,
            RouteAttribute::Gateway(RouteAddress::Inet(gateway))
            | RouteAttribute::Via(RouteVia::Inet(gateway)) => route.gateway = Some((*gateway).into()),
            RouteAttribute::Gateway(RouteAddress::Inet6(gateway))
            | RouteAttribute::Via(RouteVia::Inet6(gateway)) => route.gateway = Some((*gateway).into()),
            _ => {}
        }
    }
    // IPv6 answers with the error's route instead of an error (`inet6_rtm_getroute`, Linux 6.18).
    match message.header.kind {
        RouteType::Unreachable => Err(io::Error::from_raw_os_error(libc::EHOSTUNREACH)),
        RouteType::BlackHole => Err(io::Error::from_raw_os_error(libc::EINVAL)),
        RouteType::Prohibit => Err(io::Error::from_raw_os_error(libc::EACCES)),
        _ => Ok(route),
    }
}
