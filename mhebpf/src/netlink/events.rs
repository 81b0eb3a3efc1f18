//! Events as triggers: that something changed, not what.

use std::{io, os::fd::AsRawFd as _};

use anyhow::{Context as _, Result};
use netlink_packet_core::NetlinkBuffer;
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use tokio::io::{Interest, unix::AsyncFd};
use tracing::{debug, warn};

/// Large enough for a burst of 10,000 messages; the default loses them from 256 on.
const RECEIVE_BUFFER: usize = 4 << 20;

/// No event is larger.
const DATAGRAM: usize = 64 << 10;

/// How many messages are taken at once, so that an endless burst does not keep the daemon from acting.
const BURST: usize = 50_000;

/// `RTMGRP_LINK`, and `IFADDR` of IPv4 and IPv6, of `linux/rtnetlink.h`.
const GROUPS: u32 = 0x1 | 0x10 | 0x100;

/// `RTMGRP_IPV4_ROUTE` and `RTMGRP_IPV6_ROUTE`.
const ROUTE_GROUPS: u32 = 0x40 | 0x400;

/// `RTNLGRP_IPV4_RULE`, `RTNLGRP_IPV6_RULE`, `RTNLGRP_IPV4_NETCONF` and `RTNLGRP_IPV6_NETCONF`: rules of policy routing, and
/// sysctls such as that of forwarding.
const FURTHER_GROUPS: [u32; 4] = [8, 19, 24, 25];

/// `RTNLGRP_NEXTHOP`: nexthop objects.
const FURTHER_ROUTE_GROUPS: [u32; 1] = [32];

/// Qdiscs and filters, of `linux/rtnetlink.h`.
const RTNLGRP_TC: u32 = 4;

/// A subscription to the changes of links, addresses, rules, routes and sysctls in the namespace of this process.
pub struct Events {
    socket: AsyncFd<Socket>,
    /// Routes have a socket of their own: however often they change, that says nothing of addresses.
    routes: AsyncFd<Socket>,
    /// Routes are followed by what their events say.
    follows_routes: bool,
    overruns: u64,
}

/// What has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Something that is dumped to see what.
    Host,
    /// Routes. Their events wait to be taken.
    Routes,
}

/// A subscription to the changes of qdiscs and filters, whosever they are. They say nothing of the host.
#[derive(Default)]
pub struct FilterEvents(Option<AsyncFd<Socket>>);

impl FilterEvents {
    /// Subscribes.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the socket.
    pub fn subscribe() -> Result<Self> {
        let subscribed = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.set_non_blocking(true)?;
            socket.bind_auto()?;
            socket.add_membership(RTNLGRP_TC)?;
            // SAFETY: the socket has a descriptor of its own, the same for as long as it lives.
            Ok::<_, io::Error>(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
        };
        subscribed().map(|socket| Self(Some(socket))).context("subscribing to netlink events of filters")
    }

    /// Whether there is a subscription.
    pub fn are_followed(&self) -> bool {
        self.0.is_some()
    }

    /// Waits for a change, and takes all that are there.
    pub async fn changed(&mut self) {
        let Some(socket) = &self.0 else { return std::future::pending().await };
        loop {
            match socket.readable().await {
                Ok(mut ready) => {
                    if ready.try_io(|socket| take_all(socket.get_ref(), &mut 0)).is_ok() {
                        return;
                    }
                }
                Err(_) => return std::future::pending().await,
            }
        }
    }
}

impl Events {
    /// Subscribes. What changes from now on is reported by [`Events::changed`].
    ///
    /// # Errors
    ///
    /// When the kernel refuses a socket.
    pub fn subscribe() -> Result<Self> {
        let host = subscribe(GROUPS, &FURTHER_GROUPS);
        let routes = subscribe(ROUTE_GROUPS, &FURTHER_ROUTE_GROUPS);
        Ok(Self {
            socket: host.context("subscribing to netlink events of links, addresses and rules")?,
            routes: routes.context("subscribing to netlink events of routes")?,
            follows_routes: false,
            overruns: 0,
        })
    }

    /// Whether events of routes are read, by [`Events::take_routes`], and not only a sign that something has changed.
    pub fn follow_routes(&mut self, follow: bool) {
        self.follows_routes = follow;
    }

    /// Waits for a change, and takes all that are there, but for those of routes. Lost messages (ENOBUFS) count as a change like
    /// any other: every change is answered by dumping all.
    ///
    /// # Errors
    ///
    /// When a socket fails for another reason.
    pub async fn changed(&mut self) -> io::Result<Changed> {
        loop {
            tokio::select! {
                biased;
                ready = self.socket.readable() => {
                    let overruns = &mut self.overruns;
                    if let Ok(taken) = ready?.try_io(|socket| take_all(socket.get_ref(), overruns)) {
                        return taken.map(|()| Changed::Host);
                    }
                }
                ready = self.routes.readable() => {
                    let mut ready = ready?;
                    if is_pending(&self.routes) {
                        return Ok(Changed::Routes);
                    }
                    // What comes meanwhile makes it ready again.
                    ready.clear_ready();
                }
            }
        }
    }

    /// Takes the changes that are waiting, before what they are answered by; those of routes are left where they are followed. A
    /// failure is left to [`Events::changed`], which meets it again.
    pub fn forget_pending(&mut self) {
        let _ = take_all(self.socket.get_ref(), &mut self.overruns);
        if !self.follows_routes {
            let _ = take_all(self.routes.get_ref(), &mut self.overruns);
        }
    }

    /// Takes the events of routes that are waiting, each message as it came. Whether none was lost.
    ///
    /// # Errors
    ///
    /// When the socket fails.
    pub fn take_routes(&mut self, mut each: impl FnMut(NetlinkBuffer<&[u8]>)) -> io::Result<bool> {
        let mut is_whole = true;
        let mut buffer = Vec::with_capacity(DATAGRAM);
        for _ in 0..BURST {
            buffer.clear();
            match self.routes.get_ref().recv(&mut buffer, libc::MSG_TRUNC) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.overruns += 1;
                    is_whole = false;
                    continue;
                }
                Err(error) => return Err(error),
            }
            let mut rest = buffer.as_slice();
            while let Ok(message) = NetlinkBuffer::new_checked(rest) {
                let length = (message.length() as usize).next_multiple_of(4);
                each(message);
                rest = rest.get(length..).unwrap_or_default();
            }
        }
        Ok(is_whole)
    }

    /// Whether a change is waiting for [`Events::changed`]; one of routes counts where they are not followed.
    pub fn is_pending(&self) -> bool {
        is_pending(&self.socket) || !self.follows_routes && is_pending(&self.routes)
    }

    /// How often messages were lost.
    pub fn overruns(&self) -> u64 {
        self.overruns
    }
}

fn subscribe(groups: u32, further_groups: &[u32]) -> io::Result<AsyncFd<Socket>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.set_non_blocking(true)?;
    if let Err(error) = socket.set_rx_buf_sz(RECEIVE_BUFFER as u32) {
        // Overruns are answered by a full dump in any case.
        debug!("the netlink socket keeps its default receive buffer: {error}");
    }
    socket.bind(&SocketAddr::new(0, groups))?;
    for group in further_groups {
        // Without them the cross-check finds what has changed. Nexthop objects came with Linux 5.3.
        if let Err(error) = socket.add_membership(*group) {
            warn!("netlink events of rules, nexthop objects and sysctls: {error}");
        }
    }
    // SAFETY: the socket has a descriptor of its own, the same for as long as it lives.
    Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
}

fn is_pending(socket: &AsyncFd<Socket>) -> bool {
    let mut socket = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: a pointer to one `pollfd`, which lives through the call; it does not wait.
    unsafe { libc::poll(&raw mut socket, 1, 0) != 0 }
}

/// Takes what is there, without waiting.
///
/// # Errors
///
/// `WouldBlock` if nothing is there.
fn take_all(socket: &Socket, overruns: &mut u64) -> io::Result<()> {
    take(socket, overruns)?;
    for _ in 1..BURST {
        match take(socket, overruns) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            taken => taken?,
        }
    }
    Ok(())
}

/// Takes one message. What it says is not asked for, so most of it is cut off.
fn take(socket: &Socket, overruns: &mut u64) -> io::Result<()> {
    match socket.recv(&mut [0; 16].as_mut_slice(), 0) {
        Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
            *overruns += 1;
            debug!("the kernel had more events than the socket could keep");
            Ok(())
        }
        taken => taken.map(drop),
    }
}
