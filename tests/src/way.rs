//! By which way a stream of equal frames leaves, and since when: how quickly a change is in force, judged by the wire.

use std::{
    os::{fd::AsRawFd as _, unix::net::UnixStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    frame::Frame,
    interface,
    mac::Mac,
    netns::NetNs,
    packet_socket::{ALL_PROTOCOLS, PacketSocket},
};

/// How long the sender sleeps between two frames.
const PACE: Duration = Duration::from_micros(200);

/// How a frame crossed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The index of the interface that it arrived on.
    pub ifindex: u32,
    /// The station that it was sent to.
    pub station: Mac,
}

/// A stream of one frame, from an AF_PACKET socket, and what arrives of it in another namespace.
#[derive(Debug)]
pub struct Stream {
    seen: Arc<Seen>,
    over: Arc<AtomicBool>,
    /// Closing it ends the reader.
    stop: Option<UnixStream>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Seen {
    log: Mutex<Log>,
    grown: Condvar,
}

#[derive(Debug, Default)]
struct Log {
    /// Each way with the moments of the first and the last frame that took it without another between them.
    ways: Vec<(SystemTime, SystemTime, Way)>,
    broken: Option<String>,
}

impl Seen {
    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, at: SystemTime, way: Way) {
        let mut log = self.lock();
        match log.ways.last_mut() {
            Some((_, last, known)) if *known == way => *last = at,
            _ => log.ways.push((at, at, way)),
        }
        drop(log);
        self.grown.notify_all();
    }
}

impl Stream {
    /// Sends `frame` through an interface of `host` all the while, and looks at what arrives in `outside` with its source address.
    ///
    /// # Errors
    ///
    /// Without root, and when there is no such interface.
    pub fn start(host: &NetNs, interface: &str, frame: Vec<u8>, outside: &NetNs) -> Result<Self> {
        let source = Frame::parse(&frame).and_then(|frame| frame.speaker()).context("a frame of IP")?;
        let (seen, over) = (Arc::new(Seen::default()), Arc::new(AtomicBool::new(false)));
        let (stop, stopped) = UnixStream::pair()?;
        let receiver = outside.run(|| PacketSocket::receiver(ALL_PROTOCOLS, &[]))?;
        let log = Arc::clone(&seen);
        let reading = move || {
            let result = read(&receiver, &stopped, |at, way, frame| {
                if frame.speaker() == Some(source) {
                    log.note(at, way);
                }
            });
            if let Err(error) = result {
                log.lock().broken = Some(format!("{error:#}"));
                log.grown.notify_all();
            }
        };
        let reader = outside.spawn(reading)?;
        let (sender, ifindex) = host.run(|| Ok((PacketSocket::sender()?, interface::index(interface)?)))?;
        let ended = Arc::clone(&over);
        let sending = move || {
            // Else the kernel wakes a sleeper up to 50 microseconds late.
            // SAFETY: prctl with these arguments takes no pointers.
            unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
            while !ended.load(Ordering::Acquire) {
                // An interface that is down, or a program that drops the frame, is no reason to stop.
                let _ = sender.send(ifindex, &frame);
                thread::sleep(PACE);
            }
        };
        let writer = host.spawn(sending)?;
        Ok(Self { seen, over, stop: Some(stop), threads: vec![writer, reader] })
    }

    /// Waits until frames take a way, for the first time or again, and returns the moment of the first that did.
    ///
    /// # Errors
    ///
    /// When none does in time, with the way that frames take instead.
    pub fn wait(&self, since: SystemTime, wanted: Way, limit: Duration) -> Result<SystemTime> {
        let deadline = Instant::now() + limit;
        let mut log = self.seen.lock();
        loop {
            ensure!(
                log.broken.is_none(),
                "the capture is not complete: {}",
                log.broken.as_deref().unwrap_or("")
            );
            match log.ways.last() {
                Some((first, last, way)) if *way == wanted && *last >= since => {
                    return Ok((*first).max(since));
                }
                _ => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(
                !left.is_zero(),
                "not in force after {limit:?}: frames take {:?}, not {wanted:?}",
                log.ways.last().map(|(_, _, way)| way)
            );
            log = self.seen.grown.wait_timeout(log, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        drop(self.stop.take());
        for thread in self.threads.drain(..) {
            // A panic has been printed by its thread.
            let _ = thread.join();
        }
    }
}

/// Reads until `stopped` is closed on the other side.
fn read(
    socket: &PacketSocket,
    stopped: &UnixStream,
    mut note: impl FnMut(SystemTime, Way, &Frame),
) -> Result<()> {
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
        while let Some(received) = socket.receive().context("receiving a frame")? {
            if let Some(frame) = received.frame().filter(|_| !received.outgoing) {
                note(received.at, Way { ifindex: received.ifindex, station: frame.destination }, &frame);
            }
        }
        let drops = socket.drops()?;
        ensure!(drops == 0, "{drops} frames did not fit into the receive buffer");
        if polled[1].revents != 0 {
            return Ok(());
        }
    }
}
