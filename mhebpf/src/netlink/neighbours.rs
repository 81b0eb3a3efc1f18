//! Gateways that do not answer.

use std::{
    collections::{BTreeSet, HashSet},
    fs, io,
    net::IpAddr,
};

use anyhow::{Context as _, Result};
use netlink_packet_core::{NLM_F_DUMP, NetlinkBuffer, Parseable as _};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
};
use rtnetlink::sys::{Socket, protocols::NETLINK_ROUTE};
use tokio::io::{Interest, unix::AsyncFd};

use super::request::Requests;

/// Changes of neighbours, of `linux/rtnetlink.h`.
const RTNLGRP_NEIGH: u32 = 3;
/// `RTM_DELNEIGH`
const RTM_DELNEIGH: u16 = 29;

/// Whether the kernel passes over IPv4 gateways that do not answer (`net.ipv4.fib_multipath_use_neigh`).
pub(super) fn ipv4_is_chosen_by_neighbours() -> bool {
    fs::read("/proc/sys/net/ipv4/fib_multipath_use_neigh").is_ok_and(|value| value.starts_with(b"1"))
}

/// The interfaces and gateways, among these, that have not answered (`NUD_FAILED`).
///
/// # Errors
///
/// When the kernel refuses.
pub(super) fn unreachable(
    requests: &mut Requests,
    gateways: &HashSet<IpAddr>,
) -> io::Result<BTreeSet<(u32, IpAddr)>> {
    let mut unreachable = BTreeSet::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = NeighbourMessage::default();
        request.header.family = family;
        requests.send(RouteNetlinkMessage::GetNeighbour(request), NLM_F_DUMP, |payload| {
            if let Some((neighbour, true)) = read(payload)
                && gateways.contains(&neighbour.1)
            {
                unreachable.insert(neighbour);
            }
        })?;
    }
    Ok(unreachable)
}

/// An interface and a neighbour on it, and whether that has not answered.
fn read(payload: &[u8]) -> Option<((u32, IpAddr), bool)> {
    let message = NeighbourMessage::parse(payload).ok()?;
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(IpAddr::from(*address)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some(IpAddr::from(*address)),
        _ => None,
    })?;
    Some(((message.header.ifindex, address), message.header.state == NeighbourState::Failed))
}

/// What is known of gateways among which the kernel chooses by whether they answer, and a subscription to the changes of that.
#[derive(Default)]
pub struct NeighbourEvents {
    socket: Option<AsyncFd<Socket>>,
    gateways: HashSet<IpAddr>,
    unreachable: BTreeSet<(u32, IpAddr)>,
}

impl NeighbourEvents {
    /// Follows these gateways from now on, of which `unreachable` do not answer. There is a subscription only as long as there
    /// are some: on a large network neighbours change all the time.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the socket.
    pub fn follow(&mut self, gateways: HashSet<IpAddr>, unreachable: &BTreeSet<(u32, IpAddr)>) -> Result<()> {
        self.gateways = gateways;
        self.unreachable.clone_from(unreachable);
        if self.gateways.is_empty() {
            self.socket = None;
        } else if self.socket.is_none() {
            let subscribed = || {
                let mut socket = Socket::new(NETLINK_ROUTE)?;
                socket.set_non_blocking(true)?;
                socket.bind_auto()?;
                socket.add_membership(RTNLGRP_NEIGH)?;
                // SAFETY: the socket has a descriptor of its own, the same for as long as it lives.
                Ok::<_, io::Error>(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
            };
            let socket = subscribed().context("subscribing to netlink events of neighbours")?;
            self.socket = Some(socket);
        }
        Ok(())
    }

    /// Waits until one of the gateways answers no more, or does again. Lost events count as that.
    pub async fn changed(&mut self) {
        let Some(socket) = &self.socket else { return std::future::pending().await };
        loop {
            let Ok(mut ready) = socket.readable().await else { return std::future::pending().await };
            let taken = ready.try_io(|socket| {
                let mut buffer = Vec::with_capacity(8 << 10);
                match socket.get_ref().recv(&mut buffer, 0) {
                    Ok(_) => Ok(self.says_something_new(&buffer)),
                    Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(true),
                    Err(error) => Err(error),
                }
            });
            match taken {
                Ok(Ok(true)) => return,
                Ok(Err(_)) => return std::future::pending().await,
                Ok(Ok(false)) | Err(_) => {}
            }
        }
    }

    fn says_something_new(&self, mut datagram: &[u8]) -> bool {
        while let Ok(message) = NetlinkBuffer::new_checked(datagram) {
            // One that is gone is looked for anew.
            let is_gone = message.message_type() == RTM_DELNEIGH;
            if let Some((neighbour, has_failed)) = read(message.payload())
                && self.gateways.contains(&neighbour.1)
                && (has_failed && !is_gone) != self.unreachable.contains(&neighbour)
            {
                return true;
            }
            datagram = datagram.get((message.length() as usize).next_multiple_of(4)..).unwrap_or_default();
        }
        false
    }
}
