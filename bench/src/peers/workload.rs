//! What traffic is made, and how fast it goes.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    mem,
    net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::lab::{Lab, NOBODY};

/// What traffic is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workload {
    /// Datagrams of 64 bytes, IP header included, from a socket that is not connected.
    Datagrams,
    /// Connections that are opened and reset at once.
    Connections,
    /// A connection that carries as much as it can, in segments that devices cut.
    Stream,
}

/// Both ends of a connection.
struct Stream {
    host: TcpStream,
    peer: TcpStream,
}

/// How many datagrams go with one system call.
const BATCH: usize = 64;
/// Bytes that wait at each end of a stream.
const BUFFER: usize = 1 << 20;
/// What of a datagram of 64 bytes is no header.
const PAYLOAD: usize = 64 - 20 - 8;

impl Workload {
    pub(crate) const ALL: [Self; 3] = [Self::Datagrams, Self::Connections, Self::Stream];

    /// As the head of a column.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Datagrams => "UDP datagrams",
            Self::Connections => "TCP connections",
            Self::Stream => "TCP throughput",
        }
    }

    /// What the rate counts.
    pub(crate) const fn unit(self) -> &'static str {
        match self {
            Self::Datagrams | Self::Connections => "1/s",
            Self::Stream => "Mbit/s",
        }
    }

    /// Makes traffic for a while; the source address is of eth1 if it is to be redirected, else of eth0.
    ///
    /// # Errors
    ///
    /// When the traffic does not arrive, or not by the interface that it should.
    pub(crate) fn rate(self, lab: &Lab, redirected: bool, slice: Duration) -> Result<f64> {
        let port = usize::from(redirected);
        let way = if redirected { lab.variant.way_of_eth1() } else { 0 };
        let before = lab.arrived()?;
        let (count, elapsed) = match self {
            Self::Datagrams => send_datagrams(&lab.senders[port], slice)?,
            Self::Connections => lab.host.run(|| connect(lab.source(port), lab, slice))?,
            Self::Stream => {
                // A connection of its own each time: one that is left with data on its way takes the pause for the
                // time that its path takes, and is slow for long.
                let mut stream = Stream::open(lab, port)?;
                stream.carry(slice / 4)?;
                stream.carry(slice)?
            }
        };
        let after = lab.arrived()?;
        let [by_way, by_other] = [way, 1 - way].map(|port| after[port] - before[port]);
        let expected = if self == Self::Stream { 1 } else { count * 99 / 100 };
        ensure!(by_way >= expected, "of {count} packets {by_way} arrived by p{way}");
        // Neighbours are asked for now and then.
        ensure!(
            by_other <= by_way / 50 + 4,
            "{by_other} packets arrived by the wrong interface, {by_way} by p{way}"
        );
        let count = if self == Self::Datagrams { by_way.min(count) } else { count };
        let scale = if self == Self::Stream { 8e-6 } else { 1.0 };
        Ok(scale * count as f64 / elapsed.as_secs_f64())
    }
}

/// Sends datagrams for a while; returns how many the kernel took.
fn send_datagrams(socket: &UdpSocket, slice: Duration) -> Result<(u64, Duration)> {
    let to = SockAddr::from(NOBODY);
    let mut payload = [0_u8; PAYLOAD];
    let mut vector = libc::iovec { iov_base: payload.as_mut_ptr().cast(), iov_len: PAYLOAD };
    // SAFETY: plain data for which all zeroes are valid.
    let mut messages: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
    for message in &mut messages {
        message.msg_hdr.msg_name = to.as_ptr().cast_mut().cast();
        message.msg_hdr.msg_namelen = to.len();
        message.msg_hdr.msg_iov = &raw mut vector;
        message.msg_hdr.msg_iovlen = 1;
    }
    let mut sent = 0;
    let start = Instant::now();
    loop {
        // SAFETY: the messages point to an address and a payload that live as long as they do.
        let done = unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), BATCH as u32, 0) };
        ensure!(done > 0, "sending datagrams: {}", std::io::Error::last_os_error());
        sent += u64::from(done.cast_unsigned());
        let elapsed = start.elapsed();
        if elapsed >= slice {
            return Ok((sent, elapsed));
        }
    }
}

/// Opens and resets connections for a while, in the host's namespace.
fn connect(source: Ipv4Addr, lab: &Lab, slice: Duration) -> Result<(u64, Duration)> {
    let mut count = 0;
    let start = Instant::now();
    loop {
        let (host, peer) = open(source, lab)?;
        // Neither end is to remember the connection.
        host.set_linger(Some(Duration::ZERO))?;
        drop(host);
        drop(peer);
        count += 1;
        let elapsed = start.elapsed();
        if elapsed >= slice {
            return Ok((count, elapsed));
        }
    }
}

fn open(source: Ipv4Addr, lab: &Lab) -> Result<(Socket, TcpStream)> {
    let host = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    // Cubic leaves slow start for good when one answer is late, and then has a sixth of the throughput for seconds.
    host.set_tcp_congestion(b"reno").context("setting the congestion control")?;
    // The port is chosen when the destination is known, of which then only the pair must be free.
    let on: libc::c_int = 1;
    // SAFETY: the option is an integer, whose size goes with it.
    unsafe {
        libc::setsockopt(
            host.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as u32,
        )
    };
    host.bind(&SocketAddrV4::new(source, 0).into())?;
    host.set_write_timeout(Some(Duration::from_secs(5)))?;
    host.connect(&lab.server.into()).context("connecting")?;
    let (peer, _) = lab.listener.accept().context("accepting a connection")?;
    Ok((host, peer))
}

impl Stream {
    fn open(lab: &Lab, port: usize) -> Result<Self> {
        let (host, peer) = lab.host.run(|| open(lab.source(port), lab))?;
        // Fixed sizes: how far the kernel enlarges buffers depends on how busy the machine was at the start.
        host.set_send_buffer_size(BUFFER)?;
        SockRef::from(&peer).set_recv_buffer_size(BUFFER)?;
        let host = TcpStream::from(host);
        host.set_nonblocking(true)?;
        peer.set_nonblocking(true)?;
        Ok(Self { host, peer })
    }

    /// Writes and reads in turns for a while; returns how many bytes were read.
    fn carry(&mut self, slice: Duration) -> Result<(u64, Duration)> {
        let written = [0_u8; 1 << 18];
        let mut read = vec![0_u8; 1 << 18];
        let mut count = 0;
        let start = Instant::now();
        loop {
            match self.host.write(&written) {
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error).context("sending"),
                _ => {}
            }
            match self.peer.read(&mut read) {
                Ok(length) => count += length as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("receiving"),
            }
            let elapsed = start.elapsed();
            if elapsed >= slice {
                return Ok((count, elapsed));
            }
        }
    }
}
