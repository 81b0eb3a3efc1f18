//! Gratuitous ARP: telling peers at once which interface owns an address.
//!
//! Peers of a weak end system have learnt one hardware address for many; until those entries expire they send
//! to the wrong interface, where a strong end system discards.

use std::{
    collections::HashSet,
    io,
    net::Ipv4Addr,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use network_types::{arp::ArpHdr, eth::EthHdr};
use tracing::{debug, warn};

use crate::model::Host;

/// An address on an interface with the hardware address that it has there.
type Announced = (u32, Ipv4Addr, [u8; 6]);

/// Announces every address once for each interface and hardware address that it gets.
#[derive(Debug, Default)]
pub struct Announcer {
    announced: HashSet<Announced>,
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
            .filter(|address| enforced(address.ifindex))
            .filter_map(|address| {
                let link = host.links.get(&address.ifindex).filter(|link| link.up)?;
                Some((address.ifindex, address.local, link.mac?))
            })
            .collect();
        let new: Vec<Announced> = wanted.difference(&self.announced).copied().collect();
        self.announced = wanted;
        if new.is_empty() {
            return;
        }
        debug!("announcing {} addresses", new.len());
        if let Err(error) = send_all(&new) {
            warn!(
                "announcing addresses by gratuitous ARP: {error}; peers learn of them when their entries expire"
            );
        }
    }
}

fn send_all(announcements: &[Announced]) -> io::Result<()> {
    // Protocol 0: for sending only.
    // SAFETY: no pointers are involved.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that was just made and that nobody else has.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut result = Ok(());
    for (ifindex, address, mac) in announcements {
        let frame = announcement(*address, *mac);
        // SAFETY: an all-zero `sockaddr_ll` is a valid one.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_protocol = (libc::ETH_P_ARP as u16).to_be();
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

/// An ARP announcement (RFC 5227 section 2.3): a broadcast request whose sender and target protocol addresses
/// are the same.
fn announcement(address: Ipv4Addr, mac: [u8; 6]) -> [u8; EthHdr::LEN + ArpHdr::LEN] {
    let mut frame = [0; EthHdr::LEN + ArpHdr::LEN];
    let (ethernet, arp) = frame.split_at_mut(EthHdr::LEN);
    ethernet[..6].fill(0xff);
    ethernet[6..12].copy_from_slice(&mac);
    ethernet[12..].copy_from_slice(&(libc::ETH_P_ARP as u16).to_be_bytes());
    // Hardware Ethernet, protocol IPv4, lengths 6 and 4, operation request.
    arp[..8].copy_from_slice(&[0, 1, 0x08, 0, 6, 4, 0, 1]);
    arp[8..14].copy_from_slice(&mac);
    arp[14..18].copy_from_slice(&address.octets());
    arp[24..].copy_from_slice(&address.octets());
    frame
}

#[cfg(test)]
mod tests {
    use mhebpf_ebpf::{Ipv4, Network, packet::parse};

    use super::*;

    #[test]
    fn an_announcement_is_a_gratuitous_request() {
        let address = Ipv4Addr::new(192, 168, 0, 100);
        let packet = parse(&announcement(address, [2, 0, 0, 0, 0, 1])[..], 0).expect("an ARP packet");
        assert!(packet.group);
        let Network::Arp(arp) = packet.network else { panic!("{packet:?}") };
        assert!(arp.is_gratuitous());
        assert_eq!(arp.sender, Ipv4::from(address));
    }
}
