//! Gratuitous ARP and unsolicited neighbour advertisements: telling peers at once which interface owns an address.
//!
//! Peers of a weak end system have learnt one hardware address for many; until those entries expire they send
//! to the wrong interface, where a strong end system discards.

mod frames;

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    io,
    net::IpAddr,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use crate::model::{Address, Framing, Host, Link};

/// Room for ten thousand announcements that wait on slow links, in bytes: the kernel takes twice that, and counts what it keeps
/// beside the frames.
static SEND_BUFFER: libc::c_int = 4 << 20;

/// How long it takes until what did not find room is tried again: at first, and at most.
const PACE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// How often an address is announced (`ANNOUNCE_NUM` of RFC 5227 section 1.1; RFC 4861 section 10 allows three).
const TIMES: u8 = 2;

/// How long after one announcement the next one is sent (`ANNOUNCE_INTERVAL` of RFC 5227 section 1.1, more than the
/// `RetransTimer` of RFC 4861 section 10).
const INTERVAL: Duration = Duration::from_secs(2);

/// An address on an interface with the hardware address that it has there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Announced {
    ifindex: u32,
    address: IpAddr,
    mac: [u8; 6],
    /// The host is a router on that interface, which an advertisement must say (RFC 4861 section 7.2.6).
    router: bool,
}

/// Announces every address [`TIMES`] times for each interface and hardware address that it gets.
#[derive(Debug, Default)]
pub struct Announcer {
    announced: HashSet<Announced>,
    /// Those of them that are to be announced now, and how often still. None is in both queues, or twice in one.
    waiting: VecDeque<(Announced, u8)>,
    /// When those are tried again for which there was no room: a slow link takes its time.
    retry: Option<Instant>,
    /// How long it takes until then.
    pace: Duration,
    /// Those that are to be announced once more, and when, in that order.
    later: VecDeque<(Instant, Announced, u8)>,
    /// Opened when it is needed, and kept: the kernel waits for an RCU grace period, about 10 ms, when a packet socket
    /// is closed (`packet_release`).
    socket: Option<OwnedFd>,
}

impl Announcer {
    /// Announces the addresses of the interfaces for which `enforced` holds, as far as that is not done yet
    /// and the interfaces are up. Others are not announced any more.
    ///
    /// Failures are logged: without an announcement peers learn a little later.
    pub fn announce(&mut self, host: &Host, enforced: impl Fn(u32) -> bool) {
        let wanted: HashSet<Announced> = host
            .addresses
            .iter()
            .filter(|address| enforced(address.ifindex) && !address.tentative)
            .filter_map(|address| {
                let link = host.links.get(&address.ifindex).filter(|link| link.up)?;
                let mac = link.mac.filter(|_| link.framing == Framing::Ethernet)?;
                if !answers_for(link, address) {
                    return None;
                }
                let Address { ifindex, local, .. } = *address;
                Some(Announced { ifindex, address: local, mac, router: link.router })
            })
            .collect();
        self.want(wanted);
    }

    fn want(&mut self, wanted: HashSet<Announced>) {
        let new: Vec<Announced> = wanted.difference(&self.announced).copied().collect();
        // One that has gone, and comes back, is announced as a new one.
        if !self.announced.is_subset(&wanted) {
            self.waiting.retain(|(announcement, _)| wanted.contains(announcement));
            self.later.retain(|(_, announcement, _)| wanted.contains(announcement));
        }
        self.announced = wanted;
        if new.is_empty() {
            return;
        }
        debug!("announcing {} addresses", new.len());
        self.waiting.extend(new.into_iter().map(|announcement| (announcement, TIMES)));
        self.go_on();
    }

    /// Waits until there is something to go on with.
    pub async fn due(&self) {
        let later = self.later.front().map(|(at, ..)| *at);
        match self.retry.into_iter().chain(later).min() {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// Announces what is to be announced now, as far as there is room for it. It never blocks.
    pub fn go_on(&mut self) {
        let now = Instant::now();
        while let Some((_, announcement, times)) = self.later.pop_front_if(|(at, ..)| *at <= now) {
            self.waiting.push_back((announcement, times));
        }
        let before = self.waiting.len();
        if let Err(error) = self.send_all() {
            warn!("announcing addresses to the peers: {error}; they learn of them when their entries expire");
        }
        let (first, most) = PACE;
        // Where nothing could be sent there may be no room for long.
        self.pace = if self.waiting.len() < before { first } else { (self.pace * 2).clamp(first, most) };
        self.retry = (!self.waiting.is_empty()).then(|| now + self.pace);
    }

    fn send_all(&mut self) -> io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let socket = match self.socket.take() {
            Some(socket) => self.socket.insert(socket),
            None => self.socket.insert(open()?),
        };
        let mut result = Ok(());
        let mut full = BTreeSet::new();
        let mut left = VecDeque::new();
        while let Some((announcement, times)) = self.waiting.pop_front() {
            if full.contains(&announcement.ifindex) {
                left.push_back((announcement, times));
                continue;
            }
            match send(socket, &announcement) {
                Ok(()) if times > 1 => {
                    self.later.push_back((Instant::now() + INTERVAL, announcement, times - 1));
                }
                Ok(()) => {}
                // There is no room in the queue of that interface.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    full.insert(announcement.ifindex);
                    left.push_back((announcement, times));
                }
                // There is none in that of the socket. What becomes free goes to other interfaces first, as this one may be slow.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    left.push_back((announcement, times));
                    left.append(&mut self.waiting);
                    left.make_contiguous().sort_by_key(|(each, _)| each.ifindex == announcement.ifindex);
                }
                Err(error) => result = Err(error),
            }
        }
        self.waiting = left;
        result
    }
}

fn send(socket: &OwnedFd, announcement: &Announced) -> io::Result<()> {
    let Announced { ifindex, address, mac, router } = announcement;
    let (protocol, frame) = match address {
        IpAddr::V4(address) => (libc::ETH_P_ARP, frames::arp_announcement(*address, *mac).to_vec()),
        IpAddr::V6(address) => {
            (libc::ETH_P_IPV6, frames::unsolicited_advertisement(*address, *mac, *router).to_vec())
        }
    };
    // SAFETY: an all-zero `sockaddr_ll` is a valid one.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_protocol = (protocol as u16).to_be();
    to.sll_ifindex = *ifindex as i32;
    // SAFETY: pointers to a frame and an address that live through the call, with their sizes.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            libc::MSG_DONTWAIT,
            (&raw const to).cast(),
            size_of::<libc::sockaddr_ll>() as u32,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether the kernel answers requests for an own address of a link (`arp_ignore`, net/ipv4/arp.c). It does not for the virtual
/// address of a load balancer that answers directly: the balancer has that, and must keep it.
fn answers_for(link: &Link, address: &Address) -> bool {
    match link.arp_ignore {
        8 => address.local.is_ipv6(),
        3 => address.local.is_ipv6() || !address.host_scope,
        _ => true,
    }
}

fn open() -> io::Result<OwnedFd> {
    // Protocol 0: for sending only.
    // SAFETY: no pointers are involved.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that was just made and that nobody else has.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // What waits on a slow link leaves room for the others. With less it only takes longer.
    // SAFETY: the option takes an int, which lives through the call.
    unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_SNDBUFFORCE,
            (&raw const SEND_BUFFER).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        );
    }
    Ok(socket)
}
