//! ICMP and ICMPv6 echo, from a chosen source address.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{craft, family::Family, netns::NetNs};

/// Distinguishes the echo requests of one process.
static NEXT_ID: AtomicU16 = AtomicU16::new(1);

/// Sends one echo request and waits for its reply.
///
/// # Errors
///
/// When no reply comes within `limit`.
pub fn ping(ns: &NetNs, from: impl Into<IpAddr>, to: impl Into<IpAddr>, limit: Duration) -> Result<()> {
    let (from, to) = (from.into(), to.into());
    ns.run(|| {
        let (socket, id) = request(from, to)?;
        let deadline = Instant::now() + limit;
        let mut buffer = [0; 512];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("no echo reply from {to} to {from} within {limit:?}");
            }
            socket.set_read_timeout(Some(left))?;
            let Ok((length, sender)) = socket.recv_from(&mut buffer) else { continue };
            if sender.ip() == to && is_reply(&buffer[..length], Family::of(to), id) {
                return Ok(());
            }
        }
    })
}

/// Sends one echo request and does not wait.
///
/// # Errors
///
/// When the kernel refuses.
pub fn send_request(ns: &NetNs, from: impl Into<IpAddr>, to: impl Into<IpAddr>) -> Result<()> {
    let (from, to) = (from.into(), to.into());
    ns.run(|| request(from, to).map(drop))
}

/// Sends an echo request and returns the socket that its reply comes to, and its identifier.
fn request(from: IpAddr, to: IpAddr) -> Result<(UdpSocket, u16)> {
    let family = Family::of(from);
    let (domain, protocol) =
        family.choose((Domain::IPV4, Protocol::ICMPV4), (Domain::IPV6, Protocol::ICMPV6));
    let socket = Socket::new(domain, Type::RAW, Some(protocol)).context("opening a raw socket")?;
    socket.bind(&SocketAddr::new(from, 0).into()).with_context(|| format!("binding to {from}"))?;
    // Only the kind of address that the standard library reads and writes matters.
    let socket = UdpSocket::from(socket);
    let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    let message = craft::echo_message(family, id, 1, b"mhebpf lab");
    socket.send_to(&message, SocketAddr::new(to, 0)).with_context(|| format!("sending to {to}"))?;
    Ok((socket, id))
}

/// Whether what a raw socket took is the reply to our request: IPv4's sockets take the IP header as well.
fn is_reply(taken: &[u8], family: Family, id: u16) -> bool {
    let (header, kind) = match family {
        Family::V4 => (taken.first().map_or(0, |first| usize::from(first & 0x0f) * 4), 0),
        Family::V6 => (0, 129),
    };
    let Some(message) = taken.get(header..header + 8) else { return false };
    message[0] == kind && message[4..6] == id.to_be_bytes()
}
