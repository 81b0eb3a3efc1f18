//! What crosses the links, seen from the switch's side.

use std::{
    collections::BTreeSet,
    ffi::CStr,
    fmt,
    os::{fd::AsRawFd as _, unix::net::UnixStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    frame::{Arp, Frame, Ipv4, Ipv6},
    netns::NetNs,
    packet_socket::{ALL_PROTOCOLS, PacketSocket, Received},
    sentinel::{self, Sentinel},
};

/// A frame, where and when it crossed.
#[derive(Clone, Debug)]
pub struct Captured {
    /// The link: `i` for `eth{i}_ext`.
    pub port: usize,
    /// Whether the host sent it, rather than the switch.
    pub from_host: bool,
    /// When the kernel took note of it.
    pub at: SystemTime,
    /// Its length in bytes; more than the MTU where segmentation is left to the receiver.
    pub length: usize,
    /// What is in it.
    pub frame: Frame,
}

impl Captured {
    /// The ARP packet inside.
    pub fn arp(&self) -> Option<&Arp> {
        self.frame.arp()
    }

    /// The IPv4 datagram inside.
    pub fn ipv4(&self) -> Option<&Ipv4> {
        self.frame.ipv4()
    }

    /// The IPv6 datagram inside.
    pub fn ipv6(&self) -> Option<&Ipv6> {
        self.frame.ipv6()
    }
}

impl fmt::Display for Captured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arrow = if self.from_host { "out" } else { "in " };
        write!(f, "eth{}_int {arrow} {}", self.port, self.frame)
    }
}

/// Records every frame on every link of a switch namespace, links that come later included.
///
/// One socket sees all links, so the order of frames is kept across them.
#[derive(Debug)]
pub struct Capture {
    shared: Arc<Shared>,
    /// Closing it ends the reader.
    stop: Option<UnixStream>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    log: Mutex<Log>,
    grown: Condvar,
}

#[derive(Debug, Default)]
struct Log {
    frames: Vec<Arc<Captured>>,
    sentinels: BTreeSet<Sentinel>,
    /// Why the log is not complete.
    broken: Option<String>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Capture {
    /// Starts to record in `switch`, leaving out the interfaces with these indices (bridges, `lo`).
    ///
    /// # Errors
    ///
    /// When an AF_PACKET socket cannot be had.
    pub(crate) fn start(switch: &NetNs, except: &[u32]) -> Result<Self> {
        let socket = switch.run(|| PacketSocket::receiver(ALL_PROTOCOLS, except))?;
        let shared = Arc::new(Shared::default());
        let (stop, stopped) = UnixStream::pair()?;
        let log = Arc::clone(&shared);
        let reader = switch.spawn(move || {
            if let Err(error) = read(&socket, &stopped, &log) {
                log.lock().broken = Some(format!("{error:#}"));
                log.grown.notify_all();
            }
        })?;
        Ok(Self { shared, stop: Some(stop), reader: Some(reader) })
    }

    /// The frames from a moment on.
    pub(crate) fn since(&self, start: SystemTime) -> Vec<Arc<Captured>> {
        let log = self.shared.lock();
        log.frames.iter().filter(|frame| frame.at >= start).cloned().collect()
    }

    /// Waits for a frame at or after a moment.
    pub(crate) fn wait_for(
        &self,
        start: SystemTime,
        what: &str,
        limit: Duration,
        mut wanted: impl FnMut(&Captured) -> bool,
    ) -> Result<Arc<Captured>> {
        let mut next = 0;
        let found = self.wait(limit, |log| {
            let fresh = log.frames.get(next..).unwrap_or_default();
            next = log.frames.len();
            fresh.iter().find(|frame| frame.at >= start && wanted(frame)).cloned()
        })?;
        found.with_context(|| {
            let seen = self.since(start).iter().map(|frame| format!("\n  {frame}")).collect::<String>();
            format!("waited {limit:?} for {what}; seen instead:{seen}")
        })
    }

    /// Waits until all these sentinels have come.
    pub(crate) fn wait_for_sentinels(&self, sentinels: &BTreeSet<Sentinel>, limit: Duration) -> Result<()> {
        let all = self.wait(limit, |log| sentinels.is_subset(&log.sentinels).then_some(()))?;
        if all.is_none() {
            let log = self.shared.lock();
            bail!("lost between host and switch: {:?}", sentinels.difference(&log.sentinels));
        }
        Ok(())
    }

    fn wait<T>(&self, limit: Duration, mut look: impl FnMut(&Log) -> Option<T>) -> Result<Option<T>> {
        let deadline = Instant::now() + limit;
        let mut log = self.shared.lock();
        loop {
            if let Some(found) = look(&log) {
                return Ok(Some(found));
            }
            // A capture with a hole proves nothing.
            if let Some(why) = &log.broken {
                bail!("the capture is not complete: {why}");
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            log = self.shared.grown.wait_timeout(log, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(reader) = self.reader.take() {
            // A panic of the reader has been printed by its thread.
            let _ = reader.join();
        }
    }
}

/// Reads until `stopped` is closed on the other side.
fn read(socket: &PacketSocket, stopped: &UnixStream, shared: &Shared) -> Result<()> {
    let mut ports = Ports::default();
    loop {
        let mut polled = [socket.as_raw_fd(), stopped.as_raw_fd()].map(|fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        });
        // SAFETY: the array and its length belong together; both descriptors are open.
        if unsafe { libc::poll(polled.as_mut_ptr(), 2, -1) } < 0 {
            continue;
        }
        let mut batch = Vec::new();
        while let Some(received) = socket.receive().context("receiving a frame")? {
            batch.push(received);
        }
        let drops = socket.drops()?;
        let mut log = shared.lock();
        for received in batch {
            log.note(&received, &mut ports);
        }
        drop(log);
        shared.grown.notify_all();
        ensure!(drops == 0, "{drops} frames did not fit into the receive buffer");
        if polled[1].revents != 0 {
            return Ok(());
        }
    }
}

impl Log {
    fn note(&mut self, received: &Received, ports: &mut Ports) {
        if let Some(sentinel) = sentinel::parse(&received.bytes) {
            if !received.outgoing {
                self.sentinels.insert(sentinel);
            }
            return;
        }
        let (Some(port), Some(frame)) = (ports.port(received.ifindex), received.frame()) else { return };
        let Received { outgoing, at, length, .. } = *received;
        self.frames.push(Arc::new(Captured { port, from_host: !outgoing, at, length, frame }));
    }
}

/// The port behind each ifindex. An index is not used twice in a lab.
#[derive(Default)]
struct Ports(Vec<(u32, Option<usize>)>);

impl Ports {
    fn port(&mut self, ifindex: u32) -> Option<usize> {
        if let Some((_, port)) = self.0.iter().find(|(known, _)| *known == ifindex) {
            return *port;
        }
        let port = name_of(ifindex)?.strip_prefix("eth")?.strip_suffix("_ext")?.parse().ok();
        self.0.push((ifindex, port));
        port
    }
}

fn name_of(ifindex: u32) -> Option<String> {
    let mut name = [0; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the size that if_indextoname asks for.
    let found = unsafe { libc::if_indextoname(ifindex, name.as_mut_ptr()) };
    if found.is_null() {
        return None;
    }
    // SAFETY: on success the buffer holds a string that ends with a zero byte.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) };
    Some(name.to_string_lossy().into_owned())
}
