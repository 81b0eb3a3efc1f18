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
use crate::model::{
    Host, Link, LinkKind,
    host::{MAIN_DOMAIN, MAIN_TABLE},
};

/// How often an interrupted dump is tried again before what it gave is taken for a part of the truth.
const ATTEMPTS: usize = 3;

/// The same for links: what is missing there is taken for gone, so only a whole dump will do.
const LINK_ATTEMPTS: usize = 50;

/// What is dumped of addresses and routes.
const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];

/// `RT_TABLE_LOCAL`.
const LOCAL_TABLE: u32 = 255;

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
        let mut host = Host { links, ..Host::default() };
        let domains = domains_by_table(&host.links);
        let mut exact = true;
        for family in FAMILIES {
            exact &= self.addresses(family, &mut host).await?;
            exact &= self.routes(family, &domains, &mut host).await?;
        }
        // An interrupted dump can miss what is there. What was there before stays until a whole dump says
        // otherwise: an address too many passes packets for a moment, one too few would let them go unjudged
        // for as long as the changes go on.
        if !exact {
            add_missing(&mut host.addresses, &self.last.addresses);
            add_missing(&mut host.routes, &self.last.routes);
            add_missing(&mut host.local_routes, &self.last.local_routes);
        }
        self.last.clone_from(&host);
        Ok(Snapshot { host, exact })
    }

    async fn links(&mut self) -> Result<BTreeMap<u32, Link>> {
        let everywhere = parse::Sysctls::read("all");
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

    /// Whether it is exact.
    async fn addresses(&mut self, family: AddressFamily, host: &mut Host) -> Result<bool> {
        let request = || {
            let mut message = AddressMessage::default();
            message.header.family = family;
            RouteNetlinkMessage::GetAddress(message)
        };
        let (messages, exact) = self.dump("addresses", ATTEMPTS, request).await?;
        host.addresses.extend(messages.iter().filter_map(|message| match message {
            // A kernel without this family answers for all others.
            RouteNetlinkMessage::NewAddress(message) if message.header.family == family => {
                parse::address(message)
            }
            _ => None,
        }));
        Ok(exact)
    }

    /// Routes come in the order of their prefixes, and those of equal metric in the order in which the kernel
    /// tries them. Whether they are exact.
    async fn routes(
        &mut self,
        family: AddressFamily,
        domains: &BTreeMap<u32, u32>,
        host: &mut Host,
    ) -> Result<bool> {
        let request = || {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            RouteNetlinkMessage::GetRoute(message)
        };
        let (messages, exact) = self.dump("routes", ATTEMPTS, request).await?;
        for message in &messages {
            let RouteNetlinkMessage::NewRoute(message) = message else { continue };
            if message.header.address_family != family {
                continue;
            }
            match parse::route(message, domains) {
                Some(parse::AnyRoute::Unicast(route)) => host.routes.push(route),
                Some(parse::AnyRoute::Local(routes)) => host.local_routes.extend(routes),
                None => {}
            }
        }
        Ok(exact)
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

/// The domains that routing tables belong to. Other tables, those of policy routing and transparent proxies, say
/// nothing of what is local or near.
fn domains_by_table(links: &BTreeMap<u32, Link>) -> BTreeMap<u32, u32> {
    let vrfs = links.values().filter_map(|link| match link.kind {
        LinkKind::Vrf { table } => Some((table, link.index)),
        _ => None,
    });
    vrfs.chain([(MAIN_TABLE, MAIN_DOMAIN), (LOCAL_TABLE, MAIN_DOMAIN)]).collect()
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
