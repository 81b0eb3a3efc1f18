//! ICMP echo, from a chosen source address.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::Read as _;

use crate::{craft, netns::NetNs};

/// Distinguishes the echo requests of one process.
static NEXT_ID: AtomicU16 = AtomicU16::new(1);

/// Sends one echo request and waits for its reply.
///
/// # Errors
///
/// When no reply comes within `limit`.
pub fn ping(ns: &NetNs, from: Ipv4Addr, to: Ipv4Addr, limit: Duration) -> Result<()> {
    ns.run(|| {
        let mut socket = raw_socket(from)?;
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let request = craft::echo_message(id, 1, b"mhebpf lab");
        socket
            .send_to(&request, &SocketAddrV4::new(to, 0).into())
            .with_context(|| format!("sending to {to}"))?;
        let deadline = Instant::now() + limit;
        let mut buffer = [0; 512];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("no echo reply from {to} to {from} within {limit:?}");
            }
            socket.set_read_timeout(Some(left))?;
            let Ok(length) = socket.read(&mut buffer) else { continue };
            if is_reply(&buffer[..length], to, id) {
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
pub fn send_request(ns: &NetNs, from: Ipv4Addr, to: Ipv4Addr) -> Result<()> {
    ns.run(|| {
        let request = craft::echo_message(NEXT_ID.fetch_add(1, Ordering::Relaxed), 1, &[]);
        raw_socket(from)?.send_to(&request, &SocketAddrV4::new(to, 0).into())?;
        Ok(())
    })
}

fn raw_socket(from: Ipv4Addr) -> Result<Socket> {
    let socket =
        Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).context("opening a raw socket")?;
    socket.bind(&SocketAddrV4::new(from, 0).into()).with_context(|| format!("binding to {from}"))?;
    Ok(socket)
}

/// Whether a datagram, IP header included, is `from`'s echo reply to our request.
fn is_reply(datagram: &[u8], from: Ipv4Addr, id: u16) -> bool {
    let header = datagram.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
    let Some(message) = datagram.get(header..header + 8) else { return false };
    datagram[12..16] == from.octets() && message[0] == 0 && message[4..6] == id.to_be_bytes()
}
