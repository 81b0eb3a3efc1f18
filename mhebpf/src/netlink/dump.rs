//! Dumps of links, addresses and routes.

use anyhow::{Context as _, Result, bail};
use futures_util::StreamExt as _;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage, address::AddressMessage, link::LinkMessage, route::RouteMessage,
};
use rtnetlink::Handle;
use tracing::debug;

use super::parse;
use crate::model::Host;

/// How often an interrupted dump is tried again before the host is taken for changing all the time.
const ATTEMPTS: usize = 50;

/// A connection for dumps, in the namespace of this process.
pub struct Dumper {
    handle: Handle,
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
        Ok(Self { handle })
    }

    /// Takes a snapshot of the host.
    ///
    /// # Errors
    ///
    /// When a dump fails, or is interrupted by changes each time that it is tried.
    pub async fn host(&mut self) -> Result<Host> {
        let mut host = Host::default();
        let everywhere = parse::Ipv4Sysctls::read("all");
        for message in self.dump("links", || RouteNetlinkMessage::GetLink(LinkMessage::default())).await? {
            if let RouteNetlinkMessage::NewLink(message) = message {
                let link = parse::link(&message, everywhere);
                host.links.insert(link.index, link);
            }
        }
        let addresses = || {
            let mut message = AddressMessage::default();
            message.header.family = AddressFamily::Inet;
            RouteNetlinkMessage::GetAddress(message)
        };
        for message in self.dump("addresses", addresses).await? {
            if let RouteNetlinkMessage::NewAddress(message) = message {
                host.addresses.extend(parse::address(&message));
            }
        }
        let routes = || {
            let mut message = RouteMessage::default();
            message.header.address_family = AddressFamily::Inet;
            RouteNetlinkMessage::GetRoute(message)
        };
        for message in self.dump("routes", routes).await? {
            if let RouteNetlinkMessage::NewRoute(message) = message {
                host.routes.extend(parse::route(&message));
            }
        }
        // Routes come in the order of their prefixes; equal metrics in the order in which the kernel tries them.
        Ok(host)
    }

    async fn dump(
        &mut self,
        what: &str,
        request: impl Fn() -> RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        for _ in 0..ATTEMPTS {
            if let Some(messages) =
                self.dump_once(request()).await.with_context(|| format!("dumping the {what} of the host"))?
            {
                return Ok(messages);
            }
            debug!("the dump of the {what} was interrupted by a change; trying again");
        }
        bail!("dumping the {what} of the host: they changed during each of {ATTEMPTS} attempts")
    }

    /// `None` when the dump was interrupted (`NLM_F_DUMP_INTR`) and is not to be trusted.
    async fn dump_once(&mut self, request: RouteNetlinkMessage) -> Result<Option<Vec<RouteNetlinkMessage>>> {
        let mut request = NetlinkMessage::from(request);
        request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let mut response = self.handle.request(request)?;
        let mut messages = Vec::new();
        let mut interrupted = false;
        while let Some(message) = response.next().await {
            interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
            match message.payload {
                NetlinkPayload::InnerMessage(message) => messages.push(message),
                NetlinkPayload::Error(error) => return Err(error.to_io().into()),
                NetlinkPayload::Overrun(_) => interrupted = true,
                _ => {}
            }
        }
        Ok((!interrupted).then_some(messages))
    }
}
