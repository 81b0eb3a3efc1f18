//! Changes of addresses by netlink messages made by hand: faster than a program, so that a test can act at once.

use std::net::Ipv4Addr;

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
pub fn add_address(ns: &NetNs, interface: &str, address: Ipv4Addr, prefix_length: u8) -> Result<()> {
    change(ns, libc::RTM_NEWADDR, CREATE | EXCLUSIVE, interface, address, prefix_length)
        .with_context(|| format!("adding {address}/{prefix_length} to {interface}"))
}

/// Removes an address from an interface.
///
/// # Errors
///
/// When the kernel refuses.
pub fn remove_address(ns: &NetNs, interface: &str, address: Ipv4Addr, prefix_length: u8) -> Result<()> {
    change(ns, libc::RTM_DELADDR, 0, interface, address, prefix_length)
        .with_context(|| format!("removing {address}/{prefix_length} from {interface}"))
}

fn change(
    ns: &NetNs,
    kind: u16,
    flags: u16,
    interface: &str,
    address: Ipv4Addr,
    prefix_length: u8,
) -> Result<()> {
    ns.run(|| {
        // struct ifaddrmsg: family, prefix length, flags, scope, index.
        let mut header = vec![libc::AF_INET as u8, prefix_length, 0, 0];
        header.extend(interface::index(interface)?.to_ne_bytes());
        let mut message = Message::new(kind, REQUEST | ACK | flags, &header);
        message.attribute(IFA_LOCAL, &address.octets());
        message.attribute(IFA_ADDRESS, &address.octets());
        Netlink::open(libc::NETLINK_ROUTE)?.transact(&[message])
    })
}
