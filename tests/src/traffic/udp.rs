//! UDP: sockets on a chosen address, and a server that sends everything back.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Socket, Type};

use crate::{netns::NetNs, wait::PATIENCE};

/// The largest payload that a datagram can have.
const LARGEST: usize = 65_507;

/// A socket bound to an address of a namespace; on port 0 for any. It waits [`PATIENCE`] for datagrams.
///
/// # Errors
///
/// When the address is not there.
pub fn bind(ns: &NetNs, address: impl Into<IpAddr>, port: u16) -> Result<UdpSocket> {
    let address = SocketAddr::new(address.into(), port);
    ns.run(|| {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
        if address.is_ipv6() {
            // So that a port can be had on all addresses of either family.
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into()).with_context(|| format!("binding to {address}"))?;
        let socket = UdpSocket::from(socket);
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket)
    })
}

/// Sends a datagram to a server that echoes, and checks what comes back.
///
/// # Errors
///
/// When something else or nothing comes back.
pub fn echo(socket: &UdpSocket, to: impl Into<SocketAddr>, message: &[u8]) -> Result<()> {
    let to = to.into();
    socket.send_to(message, to).with_context(|| format!("sending to {to}"))?;
    let mut back = vec![0; LARGEST];
    let (length, from) =
        socket.recv_from(&mut back).with_context(|| format!("waiting for the echo of {to}"))?;
    ensure!(from == to, "the answer came from {from} instead of {to}");
    ensure!(back[..length] == *message, "the echo differs from what was sent");
    Ok(())
}

/// Takes a datagram that has already been delivered, if there is one.
///
/// # Errors
///
/// When the socket is broken.
pub fn take_delivered(socket: &UdpSocket) -> Result<Option<(Vec<u8>, SocketAddr)>> {
    socket.set_nonblocking(true)?;
    let mut buffer = vec![0; LARGEST];
    let received = socket.recv_from(&mut buffer);
    socket.set_nonblocking(false)?;
    match received {
        Ok((length, from)) => Ok(Some((buffer[..length].to_vec(), from))),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error).context("receiving a datagram"),
    }
}

/// A server that sends back what it gets. It ends when it is dropped.
#[derive(Debug)]
pub struct EchoServer {
    address: SocketAddr,
    socket: UdpSocket,
    over: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

impl EchoServer {
    /// Waits for datagrams on an address of a namespace; on port 0 for any.
    ///
    /// # Errors
    ///
    /// When the address is not there.
    pub fn start(ns: &NetNs, address: impl Into<IpAddr>, port: u16) -> Result<Self> {
        let socket = bind(ns, address, port)?;
        // The shutdown at the end wakes the server, so nothing hangs if that fails, only for a while.
        socket.set_read_timeout(Some(Duration::from_secs(60)))?;
        let address = socket.local_addr()?;
        let over = Arc::new(AtomicBool::new(false));
        let (serving, ended) = (socket.try_clone()?, Arc::clone(&over));
        let server = thread::spawn(move || {
            let mut buffer = vec![0; LARGEST];
            while !ended.load(Ordering::Acquire) {
                // Errors are ICMP's complaints about earlier answers.
                if let Ok((length, from)) = serving.recv_from(&mut buffer) {
                    let _ = serving.send_to(&buffer[..length], from);
                }
            }
        });
        Ok(Self { address, socket, over, server: Some(server) })
    }

    /// Where it waits.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        // SAFETY: shutdown takes no pointers; the socket is open. Although it reports ENOTCONN for UDP, it makes
        // `recvfrom` return (`inet_shutdown` wakes the socket in every state).
        unsafe { libc::shutdown(self.socket.as_raw_fd(), libc::SHUT_RDWR) };
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}
