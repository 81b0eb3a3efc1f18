//! Changes of an interface's addresses, by as few system calls as possible.

use std::{
    io::{self, Read as _},
    net::Ipv4Addr,
};

use anyhow::{Context as _, Result, ensure};
use mhebpf_tests::{NetNs, interface};
use socket2::{Domain, Protocol, Type};

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// Messages in one datagram.
const CHUNK: usize = 500;
const HEADER: usize = 16;

/// A netlink socket, and the interface that it is about.
pub(crate) struct Socket {
    socket: socket2::Socket,
    ifindex: u32,
}

/// The addresses that are added and removed, all in one subnet.
pub(crate) fn numbered(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + number)
}

impl Socket {
    /// Opens a socket in a namespace.
    ///
    /// # Errors
    ///
    /// When there is no such interface.
    pub(crate) fn open(ns: &NetNs, interface: &str) -> Result<Self> {
        ns.run(|| {
            let protocol = Protocol::from(libc::NETLINK_ROUTE);
            let socket = socket2::Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(protocol))
                .context("opening a netlink socket")?;
            Ok(Self { socket, ifindex: interface::index(interface)? })
        })
    }

    /// Adds addresses, and returns when the last is there.
    ///
    /// # Errors
    ///
    /// When the kernel refuses one.
    pub(crate) fn add_all(&mut self, numbers: impl Iterator<Item = u32>) -> Result<()> {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        self.change(libc::RTM_NEWADDR, flags, numbers).context("adding addresses")
    }

    /// Removes addresses, and returns when the last is gone.
    ///
    /// # Errors
    ///
    /// When the kernel refuses one.
    pub(crate) fn remove_all(&mut self, numbers: impl Iterator<Item = u32>) -> Result<()> {
        self.change(libc::RTM_DELADDR, 0, numbers).context("removing addresses")
    }

    fn change(&mut self, kind: u16, flags: i32, numbers: impl Iterator<Item = u32>) -> Result<()> {
        let messages: Vec<Vec<u8>> =
            numbers.map(|number| self.message(kind, flags, numbered(number))).collect();
        for chunk in messages.chunks(CHUNK) {
            // The last is acknowledged, which says that all are done; a failure is told in any case.
            let mut bytes = chunk.concat();
            let last = bytes.len() - chunk.last().map_or(0, Vec::len);
            let flags = (flags | libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
            bytes[last + 6..last + 8].copy_from_slice(&flags.to_ne_bytes());
            self.socket.send(&bytes)?;
            let mut answer = [0_u8; 1024];
            let length = self.socket.read(&mut answer)?;
            ensure!(length >= HEADER + 4, "a netlink message is cut short");
            let code = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
            ensure!(code == 0, io::Error::from_raw_os_error(-code));
        }
        Ok(())
    }

    fn message(&self, kind: u16, flags: i32, address: Ipv4Addr) -> Vec<u8> {
        // struct ifaddrmsg: family, prefix length, flags, scope, index.
        let mut content = vec![libc::AF_INET as u8, 8, 0, 0];
        content.extend(self.ifindex.to_ne_bytes());
        for attribute in [IFA_LOCAL, IFA_ADDRESS] {
            content.extend(8_u16.to_ne_bytes());
            content.extend(attribute.to_ne_bytes());
            content.extend(address.octets());
        }
        // struct nlmsghdr: length, type, flags, sequence, port id.
        let mut message = ((HEADER + content.len()) as u32).to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend(((flags | libc::NLM_F_REQUEST) as u16).to_ne_bytes());
        message.extend([0; 8]);
        message.extend(content);
        message
    }
}
