//! Gratuitous ARP and unsolicited neighbour advertisements: telling peers at once which interface owns an address.
//!
//! Peers of a weak end system have learnt one hardware address for many; until those entries expire they send
//! to the wrong interface, where a strong end system discards.

mod frames;

use std::{
    collections::HashSet,
    io,
    net::IpAddr,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use tracing::{debug, warn};

use crate::model::{Address, Framing, Host, Link};

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
        if let Err(error) = self.send_all(&new) {
            warn!("announcing addresses to the peers: {error}; they learn of them when their entries expire");
        }
    }

    fn send_all(&mut self, announcements: &[Announced]) -> io::Result<()> {
        let socket = match self.socket.take() {
            Some(socket) => self.socket.insert(socket),
            None => self.socket.insert(open()?),
        };
        let mut result = Ok(());
        for Announced { ifindex, address, mac, router } in announcements {
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
                    0,
                    (&raw const to).cast(),
                    size_of::<libc::sockaddr_ll>() as u32,
                )
            };
            if sent < 0 {
                result = Err(io::Error::last_os_error());
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
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
