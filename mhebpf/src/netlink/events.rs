//! Events as triggers: that something changed, not what.

use std::{io, os::fd::AsRawFd as _};

use anyhow::{Context as _, Result};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use tokio::io::{Interest, unix::AsyncFd};
use tracing::{debug, warn};

/// Large enough for a burst of 10,000 messages; the default loses them from 256 on.
const RECEIVE_BUFFER: usize = 4 << 20;

/// How many messages are taken at once, so that an endless burst does not keep the daemon from acting.
const BURST: usize = 50_000;

/// `RTMGRP_LINK`, and `IFADDR` and `ROUTE` of IPv4 and IPv6, of `linux/rtnetlink.h`.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

/// `RTNLGRP_IPV4_RULE`, `RTNLGRP_IPV6_RULE`, `RTNLGRP_IPV4_NETCONF`, `RTNLGRP_IPV6_NETCONF` and `RTNLGRP_NEXTHOP`: rules of policy
/// routing, nexthop objects, and
/// sysctls such as that of forwarding.
const FURTHER_GROUPS: [u32; 5] = [8, 19, 24, 25, 32];

/// Qdiscs and filters, of `linux/rtnetlink.h`.
const RTNLGRP_TC: u32 = 4;

/// A subscription to the changes of links, addresses, rules, routes and sysctls in the namespace of this process.
pub struct Events {
    socket: AsyncFd<Socket>,
    overruns: u64,
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
    /// When the kernel refuses the socket.
    pub fn subscribe() -> Result<Self> {
        let subscribed = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.set_non_blocking(true)?;
            if let Err(error) = socket.set_rx_buf_sz(RECEIVE_BUFFER as u32) {
                // Overruns are answered by a full dump in any case.
                debug!("the netlink socket keeps its default receive buffer: {error}");
            }
            socket.bind(&SocketAddr::new(0, GROUPS))?;
            for group in FURTHER_GROUPS {
                // Without them the cross-check finds what has changed.
                if let Err(error) = socket.add_membership(group) {
                    warn!("netlink events of rules and sysctls: {error}");
                }
            }
            // SAFETY: the socket has a descriptor of its own, the same for as long as it lives.
            Ok::<_, io::Error>(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
        };
        let socket = subscribed().context("subscribing to netlink events of links, addresses and routes")?;
        Ok(Self { socket, overruns: 0 })
    }

    /// Waits for a change, and takes all that are there. Lost messages (ENOBUFS) count as a change like any
    /// other: every change is answered by dumping all.
    ///
    /// # Errors
    ///
    /// When the socket fails for another reason.
    pub async fn changed(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.socket.readable().await?;
            let overruns = &mut self.overruns;
            if let Ok(taken) = ready.try_io(|socket| take_all(socket.get_ref(), overruns)) {
                return taken;
            }
        }
    }

    /// Takes the changes that are waiting, before what they are answered by. A failure is left to [`Events::changed`], which
    /// meets it again.
    pub fn forget_pending(&mut self) {
        let _ = take_all(self.socket.get_ref(), &mut self.overruns);
    }

    /// Whether a change is waiting for [`Events::changed`].
    pub fn is_pending(&self) -> bool {
        let mut socket = libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: a pointer to one `pollfd`, which lives through the call; it does not wait.
        unsafe { libc::poll(&raw mut socket, 1, 0) != 0 }
    }

    /// How often messages were lost.
    pub fn overruns(&self) -> u64 {
        self.overruns
    }
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
