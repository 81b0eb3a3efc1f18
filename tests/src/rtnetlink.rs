//! Changes of addresses by netlink messages made by hand: faster than a program, so that a test can act at once.

use std::net::IpAddr;

use anyhow::{Context as _, Result};

use crate::{
    interface,
    netlink::{ACK, CREATE, EXCLUSIVE, Message, Netlink, REQUEST},
    netns::NetNs,
};

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

/// Adds an address to an interface.
///
/// # Errors
///
/// When the kernel refuses.
pub fn add_address(ns: &NetNs, interface: &str, address: IpAddr, prefix_length: u8) -> Result<()> {
    change(ns, libc::RTM_NEWADDR, CREATE | EXCLUSIVE, interface, address, prefix_length)
        .with_context(|| format!("adding {address}/{prefix_length} to {interface}"))
}

/// Removes an address from an interface.
///
/// # Errors
///
/// When the kernel refuses.
pub fn remove_address(ns: &NetNs, interface: &str, address: IpAddr, prefix_length: u8) -> Result<()> {
    change(ns, libc::RTM_DELADDR, 0, interface, address, prefix_length)
        .with_context(|| format!("removing {address}/{prefix_length} from {interface}"))
}

fn change(
    ns: &NetNs,
    kind: u16,
    request: u16,
    interface: &str,
    address: IpAddr,
    prefix_length: u8,
) -> Result<()> {
    ns.run(|| {
        // struct ifaddrmsg: family, prefix length, flags, scope, index.
        // An IPv6 address is there at once, without a look for duplicates.
        let (family, flags, octets) = match address {
            IpAddr::V4(address) => (libc::AF_INET, 0, address.octets().to_vec()),
            IpAddr::V6(address) => (libc::AF_INET6, libc::IFA_F_NODAD as u8, address.octets().to_vec()),
        };
        let mut header = vec![family as u8, prefix_length, flags, 0];
        header.extend(interface::index(interface)?.to_ne_bytes());
        let mut message = Message::new(kind, REQUEST | ACK | request, &header);
        message.attribute(IFA_LOCAL, &octets);
        message.attribute(IFA_ADDRESS, &octets);
        Netlink::open(libc::NETLINK_ROUTE)?.transact(&[message])
    })
}
