//! Events as triggers: that something changed, not what.

use std::{io, time::Duration};

use anyhow::{Context as _, Result};
use rtnetlink::sys::{
    AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE,
};
use tracing::debug;

/// Large enough for a burst of 10,000 messages; the default loses them from 256 on.
const RECEIVE_BUFFER: usize = 4 << 20;

/// `RTMGRP_LINK`, and `IFADDR` and `ROUTE` of IPv4 and IPv6, of `linux/rtnetlink.h`.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

/// A subscription to the changes of links, addresses and routes in the namespace of this process.
pub struct Events {
    socket: TokioSocket,
}

impl Events {
    /// Subscribes. What changes from now on is reported by [`Events::changed`].
    ///
    /// # Errors
    ///
    /// When the kernel refuses the socket.
    pub fn subscribe() -> Result<Self> {
        let mut socket =
            TokioSocket::new(NETLINK_ROUTE).context("opening a netlink socket for events of the kernel")?;
        if let Err(error) = socket.socket_mut().set_rx_buf_sz(RECEIVE_BUFFER as u32) {
            // Overruns are answered by a full dump in any case.
            debug!("the netlink socket keeps its default receive buffer: {error}");
        }
        socket
            .socket_mut()
            .bind(&SocketAddr::new(0, GROUPS))
            .context("subscribing to netlink events of links, addresses and routes")?;
        Ok(Self { socket })
    }

    /// Waits for a change, and takes all that are there. Lost messages (ENOBUFS) count as a change like any
    /// other: every change is answered by dumping all.
    ///
    /// # Errors
    ///
    /// When the socket fails for another reason.
    pub async fn changed(&mut self) -> io::Result<()> {
        self.receive().await?;
        // Take the rest of the burst without waiting.
        while let Ok(received) = tokio::time::timeout(Duration::ZERO, self.receive()).await {
            received?;
        }
        Ok(())
    }

    async fn receive(&mut self) -> io::Result<()> {
        match self.socket.recv_from_full().await {
            Ok(_) => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                debug!("the kernel had more events than the socket could keep");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
