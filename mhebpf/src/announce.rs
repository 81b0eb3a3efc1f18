//! Gratuitous ARP and unsolicited neighbour advertisements: telling peers at once which interface owns an address.
//!
//! Peers of a weak end system have learnt one hardware address for many; until those entries expire they send
//! to the wrong interface, where a strong end system discards.

mod frames;

use std::{
    collections::{HashSet, VecDeque},
    io,
    net::IpAddr,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use crate::model::{Address, Framing, Host, Link};

/// Room for some thousand announcements that wait on slow links, in bytes.
static SEND_BUFFER: libc::c_int = 8 << 20;

/// How long it takes until what did not find room is tried again.
const PACE: Duration = Duration::from_millis(20);

/// An address on an interface with the hardware address that it has there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Announced {
    ifindex: u32,
    address: IpAddr,
    mac: [u8; 6],
    /// The host is a router on that interface, which an advertisement must say (RFC 4861 section 7.2.6).
    router: bool,
}

/// Announces every address once for each interface and hardware address that it gets.
#[derive(Debug, Default)]
pub struct Announcer {
    announced: HashSet<Announced>,
    /// Those of them for which the socket had no room yet: a slow link takes its time.
    waiting: VecDeque<Announced>,
    /// When they are tried again.
    due: Option<Instant>,
    /// Opened when it is needed, and kept: the kernel waits for an RCU grace period, about 10 ms, when a packet socket
    /// is closed (`packet_release`).
    socket: Option<OwnedFd>,
}

impl Announcer {
    /// Announces the addresses of the interfaces for which `enforced` holds, as far as that is not done yet
    /// and the interfaces are up.
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
        let new: Vec<Announced> = wanted.difference(&self.announced).copied().collect();
        self.announced = wanted;
        if new.is_empty() {
            return;
        }
        debug!("announcing {} addresses", new.len());
        self.waiting.extend(new);
        self.go_on();
    }

    /// Waits until there is something to go on with.
    pub async fn due(&self) {
        match self.due {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// Announces what is waiting, as far as there is room for it. It never blocks.
    pub fn go_on(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        if let Err(error) = self.send_all(waiting) {
            warn!("announcing addresses to the peers: {error}; they learn of them when their entries expire");
        }
        self.due = (!self.waiting.is_empty()).then(|| Instant::now() + PACE);
    }

    fn send_all(&mut self, mut announcements: VecDeque<Announced>) -> io::Result<()> {
        let socket = match self.socket.take() {
            Some(socket) => self.socket.insert(socket),
            None => self.socket.insert(open()?),
        };
        let mut result = Ok(());
        while let Some(announcement) = announcements.pop_front() {
            let Announced { ifindex, address, mac, router } = &announcement;
            // It is another one's by now.
            if !self.announced.contains(&announcement) {
                continue;
            }
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
            if sent < 0 {
                let error = io::Error::last_os_error();
                if error.kind() == io::ErrorKind::WouldBlock {
                    self.waiting.push_back(announcement);
                    self.waiting.extend(announcements);
                    break;
                }
                result = Err(error);
            }
        }
        result
    }
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
