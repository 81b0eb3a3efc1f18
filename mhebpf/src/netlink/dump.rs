//! Dumps of links, addresses and routes.

use std::{
    collections::{BTreeMap, HashSet},
    hash::Hash,
};

use anyhow::{Context as _, Result, bail};
use futures_util::StreamExt as _;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage, address::AddressMessage, link::LinkMessage, route::RouteMessage,
};
use rtnetlink::Handle;
use tracing::debug;

use super::parse;
use crate::model::{Address, Host, Link, Route};

/// How often an interrupted dump is tried again before what it gave is taken for a part of the truth.
const ATTEMPTS: usize = 3;

/// The same for links: what is missing there is taken for gone, so only a whole dump will do.
const LINK_ATTEMPTS: usize = 50;

/// A connection for dumps, in the namespace of this process.
pub struct Dumper {
    handle: Handle,
    last: Host,
}

/// A snapshot of the host.
pub struct Snapshot {
    /// The host.
    pub host: Host,
    /// Whether it is the host at one moment. If not, addresses and routes changed during each dump: all that
    /// are there for long are in it, and some that are gone.
    pub exact: bool,
}

impl Dumper {
    /// Opens the connection; it is served by a task of the running tokio runtime.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the socket.
    pub fn connect() -> Result<Self> {
        let (connection, handle, _) =
            rtnetlink::new_connection_with_strict_check().context("opening a netlink socket for dumps")?;
        tokio::spawn(connection);
        Ok(Self { handle, last: Host::default() })
    }

    /// Takes a snapshot of the host.
    ///
    /// # Errors
    ///
    /// When a dump fails, or that of the links is interrupted by changes each time that it is tried.
    pub async fn snapshot(&mut self) -> Result<Snapshot> {
        let links = self.links().await?;
        let (mut addresses, exact_addresses) = self.addresses().await?;
        let (mut routes, exact_routes) = self.routes().await?;
        // An interrupted dump can miss what is there. What was there before stays until a whole dump says
        // otherwise: an address too many passes packets for a moment, one too few would let them go unjudged
        // for as long as the changes go on.
        if !exact_addresses {
            add_missing(&mut addresses, &self.last.addresses);
        }
        if !exact_routes {
            add_missing(&mut routes, &self.last.routes);
        }
        let host = Host { links, addresses, routes };
        self.last.clone_from(&host);
        Ok(Snapshot { host, exact: exact_addresses && exact_routes })
    }

    async fn links(&mut self) -> Result<BTreeMap<u32, Link>> {
        let everywhere = parse::Ipv4Sysctls::read("all");
        let request = || RouteNetlinkMessage::GetLink(LinkMessage::default());
        let (messages, exact) = self.dump("links", LINK_ATTEMPTS, request).await?;
        if !exact {
            bail!("dumping the links of the host: they changed during each of {LINK_ATTEMPTS} attempts");
        }
        let links = messages.iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewLink(message) => Some(parse::link(message, everywhere)),
            _ => None,
        });
        Ok(links.map(|link| (link.index, link)).collect())
    }

    async fn addresses(&mut self) -> Result<(Vec<Address>, bool)> {
        let request = || {
            let mut message = AddressMessage::default();
            message.header.family = AddressFamily::Inet;
            RouteNetlinkMessage::GetAddress(message)
        };
        let (messages, exact) = self.dump("addresses", ATTEMPTS, request).await?;
        let addresses = messages.iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewAddress(message) => parse::address(message),
            _ => None,
        });
        Ok((addresses.collect(), exact))
    }

    /// Routes come in the order of their prefixes, and those of equal metric in the order in which the kernel
    /// tries them.
    async fn routes(&mut self) -> Result<(Vec<Route>, bool)> {
        let request = || {
            let mut message = RouteMessage::default();
            message.header.address_family = AddressFamily::Inet;
            RouteNetlinkMessage::GetRoute(message)
        };
        let (messages, exact) = self.dump("routes", ATTEMPTS, request).await?;
        let routes = messages.iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewRoute(message) => parse::route(message),
            _ => None,
        });
        Ok((routes.collect(), exact))
    }

    /// Whether what it gives is exact: the last of the attempts was not interrupted.
    async fn dump(
        &mut self,
        what: &str,
        attempts: usize,
        request: impl Fn() -> RouteNetlinkMessage,
    ) -> Result<(Vec<RouteNetlinkMessage>, bool)> {
        let mut messages = Vec::new();
        for _ in 0..attempts {
            let exact;
            (messages, exact) =
                self.dump_once(request()).await.with_context(|| format!("dumping the {what} of the host"))?;
            if exact {
                return Ok((messages, true));
            }
            debug!("the dump of the {what} was interrupted by a change");
        }
        Ok((messages, false))
    }

    /// A dump that was interrupted (`NLM_F_DUMP_INTR`) is not exact.
    async fn dump_once(&mut self, request: RouteNetlinkMessage) -> Result<(Vec<RouteNetlinkMessage>, bool)> {
        let mut request = NetlinkMessage::from(request);
        request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let mut response = self.handle.request(request)?;
        let mut messages = Vec::new();
        let mut exact = true;
        while let Some(message) = response.next().await {
            exact &= message.header.flags & NLM_F_DUMP_INTR == 0;
            match message.payload {
                NetlinkPayload::InnerMessage(message) => messages.push(message),
                NetlinkPayload::Error(error) => return Err(error.to_io().into()),
                NetlinkPayload::Overrun(_) => exact = false,
                _ => {}
            }
        }
        Ok((messages, exact))
    }
}

fn add_missing<T: Clone + Eq + Hash>(dumped: &mut Vec<T>, before: &[T]) {
    let known: HashSet<T> = dumped.iter().cloned().collect();
    dumped.extend(before.iter().filter(|item| !known.contains(item)).cloned());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_interrupted_dump_misses_stays() {
        let mut dumped = vec![3, 1];
        add_missing(&mut dumped, &[1, 2]);
        assert_eq!(dumped, [3, 1, 2]);
    }
}
