//! TCP: connections from a chosen source address, and a server that sends everything back.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Socket, Type};

use crate::{netns::NetNs, wait::PATIENCE};

/// Connects from an address of a namespace, any port, to a server.
///
/// # Errors
///
/// When the connection does not come about within [`PATIENCE`].
pub fn connect(ns: &NetNs, from: impl Into<IpAddr>, to: impl Into<SocketAddr>) -> Result<TcpStream> {
    Ok(connect_timed(ns, from, to, PATIENCE)?.0)
}

/// The same, with the time that the handshake took.
///
/// # Errors
///
/// When the connection does not come about within `limit`.
pub fn connect_timed(
    ns: &NetNs,
    from: impl Into<IpAddr>,
    to: impl Into<SocketAddr>,
    limit: Duration,
) -> Result<(TcpStream, Duration)> {
    let Connection { stream, elapsed, .. } = open(ns, from, to, limit)?;
    Ok((stream, elapsed))
}

/// A connection, and how it came about.
#[derive(Debug)]
pub struct Connection {
    /// Its client's side.
    pub stream: TcpStream,
    /// When the program asked for it, by the clock that stamps the frames of a capture.
    pub asked: SystemTime,
    /// How long the program waited for it, which is more than the handshake took where the CPU had other things to do.
    pub elapsed: Duration,
}

/// Connects as [`connect_timed`] does, and says when.
///
/// # Errors
///
/// When the connection does not come about within `limit`.
pub fn open(
    ns: &NetNs,
    from: impl Into<IpAddr>,
    to: impl Into<SocketAddr>,
    limit: Duration,
) -> Result<Connection> {
    let (from, to) = (SocketAddr::new(from.into(), 0), to.into());
    ns.run(|| {
        let socket = Socket::new(Domain::for_address(from), Type::STREAM, None)?;
        socket.bind(&from.into()).with_context(|| format!("binding to {from}"))?;
        let (asked, start) = (SystemTime::now(), Instant::now());
        socket
            .connect_timeout(&to.into(), limit)
            .with_context(|| format!("connecting from {from} to {to}"))?;
        let elapsed = start.elapsed();
        Ok(Connection { stream: prepared(socket.into())?, asked, elapsed })
    })
}

/// Sends bytes to a server that echoes, and checks what comes back.
///
/// # Errors
///
/// When something else or nothing comes back.
pub fn echo(stream: &mut TcpStream, message: &[u8]) -> Result<()> {
    stream.write_all(message).context("sending")?;
    let mut back = vec![0; message.len()];
    stream.read_exact(&mut back).context("waiting for the echo")?;
    ensure!(back == message, "the echo differs from what was sent");
    Ok(())
}

/// Sends this many bytes to a server that echoes, while reading them back.
///
/// # Errors
///
/// When one of them is lost or changed.
pub fn echo_bulk(stream: &TcpStream, size: usize) -> Result<()> {
    // A prime as the modulus, so that no two segments are alike.
    let data: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
    thread::scope(|scope| {
        let writer = scope.spawn(|| (&*stream).write_all(&data));
        let mut back = vec![0; size];
        (&*stream).read_exact(&mut back).context("waiting for the echo")?;
        writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).context("sending")?;
        ensure!(back == data, "the echo differs from what was sent");
        Ok(())
    })
}

/// Closes a connection to a server that closes in turn, and returns when both sides have said all they had to say.
///
/// # Errors
///
/// When the server does not close.
pub fn close(mut stream: TcpStream) -> Result<()> {
    stream.shutdown(Shutdown::Write)?;
    let rest = stream.read_to_end(&mut Vec::new()).context("waiting for the server to close")?;
    ensure!(rest == 0, "{rest} bytes came that nobody had asked for");
    Ok(())
}

fn prepared(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// A server that sends back what it gets. It ends when it is dropped.
#[derive(Debug)]
pub struct EchoServer {
    address: SocketAddr,
    listener: TcpListener,
    open: Arc<Mutex<Open>>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Open {
    streams: Vec<TcpStream>,
    threads: Vec<JoinHandle<()>>,
}

impl EchoServer {
    /// Listens on an address of a namespace; on port 0 for any.
    ///
    /// # Errors
    ///
    /// When the address is not there.
    pub fn start(ns: &NetNs, address: impl Into<IpAddr>, port: u16) -> Result<Self> {
        let address = address.into();
        let listener = ns.run(|| {
            TcpListener::bind((address, port)).with_context(|| format!("listening on {address}:{port}"))
        })?;
        let address = listener.local_addr()?;
        let open = Arc::new(Mutex::new(Open::default()));
        let (accepting, shared) = (listener.try_clone()?, Arc::clone(&open));
        let acceptor = thread::spawn(move || {
            while let Ok((stream, _)) = accepting.accept() {
                let Ok(copy) = stream.try_clone() else { break };
                let handler = thread::spawn(move || serve(&stream));
                let mut open = shared.lock().unwrap_or_else(PoisonError::into_inner);
                open.streams.push(copy);
                open.threads.push(handler);
            }
        });
        Ok(Self { address, listener, open, acceptor: Some(acceptor) })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        // SAFETY: shutdown takes no pointers; the listener is open. It makes `accept` return.
        unsafe { libc::shutdown(self.listener.as_raw_fd(), libc::SHUT_RDWR) };
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        let open = std::mem::take(&mut *self.open.lock().unwrap_or_else(PoisonError::into_inner));
        for stream in &open.streams {
            // Fails when the client has closed it already.
            let _ = stream.shutdown(Shutdown::Both);
        }
        for thread in open.threads {
            let _ = thread.join();
        }
    }
}

fn serve(mut stream: &TcpStream) {
    let mut buffer = vec![0; 1 << 16];
    // Errors are the client's business: it sees the connection end.
    let _ = stream.set_nodelay(true);
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
}
