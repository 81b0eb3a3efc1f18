//! Just enough of netlink to send requests and read their acknowledgements.

use std::io::{self, Read as _};

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use crate::wait::PATIENCE;

/// `NLM_F_REQUEST`.
pub(crate) const REQUEST: u16 = libc::NLM_F_REQUEST as u16;
/// `NLM_F_ACK`.
pub(crate) const ACK: u16 = libc::NLM_F_ACK as u16;
/// `NLM_F_CREATE`.
pub(crate) const CREATE: u16 = libc::NLM_F_CREATE as u16;
/// `NLM_F_EXCL`.
pub(crate) const EXCLUSIVE: u16 = libc::NLM_F_EXCL as u16;
/// `NLM_F_REPLACE`.
pub(crate) const REPLACE: u16 = libc::NLM_F_REPLACE as u16;
/// `NLM_F_APPEND`.
pub(crate) const APPEND: u16 = libc::NLM_F_APPEND as u16;

const HEADER: usize = 16;
const NESTED: u16 = 1 << 15;

/// A request.
pub(crate) struct Message {
    bytes: Vec<u8>,
    acknowledged: bool,
}

impl Message {
    /// Begins a message of a type with its family's header.
    pub(crate) fn new(kind: u16, flags: u16, family_header: &[u8]) -> Self {
        // struct nlmsghdr: length (known at the end), type, flags, sequence, port id.
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(family_header);
        Self { bytes, acknowledged: flags & ACK != 0 }
    }

    /// Appends an attribute.
    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.bytes.extend(attribute(kind, value));
    }

    /// Appends an attribute made of attributes.
    pub(crate) fn nested(&mut self, kind: u16, inside: &[Vec<u8>]) {
        self.bytes.extend(nested(kind, inside));
    }

    fn finished(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let length = bytes.len() as u32;
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }
}

/// An attribute with its padding.
pub(crate) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + value.len());
    bytes.extend(((4 + value.len()) as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// An attribute made of attributes.
pub(crate) fn nested(kind: u16, inside: &[Vec<u8>]) -> Vec<u8> {
    attribute(kind | NESTED, &inside.concat())
}

/// Finds an attribute among others, none of which is nested.
pub(crate) fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    while let [a, b, c, d, ..] = *attributes {
        let length = usize::from(u16::from_ne_bytes([a, b]));
        if u16::from_ne_bytes([c, d]) == wanted {
            return attributes.get(4..length);
        }
        attributes = attributes.get(length.max(4).next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

/// A netlink socket of the calling thread's namespace.
#[derive(Debug)]
pub(crate) struct Netlink(Socket);

impl Netlink {
    pub(crate) fn open(family: i32) -> Result<Self> {
        let socket =
            Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW.cloexec(), Some(Protocol::from(family)))
                .context("opening a netlink socket")?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut storage = SockAddrStorage::zeroed();
        // SAFETY: the storage is large enough and aligned for every kind of socket address; zeroes mean the kernel.
        let kernel = unsafe {
            storage.view_as::<libc::sockaddr_nl>().nl_family = libc::AF_NETLINK as u16;
            SockAddr::new(storage, size_of::<libc::sockaddr_nl>() as u32)
        };
        socket.connect(&kernel)?;
        Ok(Self(socket))
    }

    /// Sends a request that does not ask for an acknowledgement, and returns what is in the answer.
    ///
    /// # Errors
    ///
    /// What the kernel reports instead of an answer.
    pub(crate) fn ask(&mut self, message: &Message) -> Result<Vec<u8>> {
        self.0.send(&message.finished())?;
        let mut buffer = vec![0; 1 << 16];
        let length = self.0.read(&mut buffer).context("waiting for an answer")?;
        let kind = buffer[..length].get(4..6).context("a netlink message is cut short")?;
        if i32::from(u16::from_ne_bytes([kind[0], kind[1]])) == libc::NLMSG_ERROR {
            let code = buffer[HEADER..].first_chunk().copied().map_or(0, i32::from_ne_bytes);
            return Err(io::Error::from_raw_os_error(-code).into());
        }
        Ok(buffer[HEADER.min(length)..length].to_vec())
    }

    /// Sends messages in one datagram and waits until all that ask for it are acknowledged.
    ///
    /// # Errors
    ///
    /// The first that the kernel reports.
    pub(crate) fn transact(&mut self, messages: &[Message]) -> Result<()> {
        let bytes: Vec<u8> = messages.iter().flat_map(Message::finished).collect();
        self.0.send(&bytes)?;
        let mut awaited = messages.iter().filter(|message| message.acknowledged).count();
        let mut buffer = vec![0; 1 << 16];
        while awaited > 0 {
            let length = self.0.read(&mut buffer).context("waiting for an acknowledgement")?;
            let mut rest = &buffer[..length];
            while let Some(size) = rest.get(..4) {
                let size = u32::from_ne_bytes(size.try_into().unwrap_or_default()) as usize;
                let code = rest.get(HEADER..HEADER + 4).context("a netlink message is cut short")?;
                let code = i32::from_ne_bytes(code.try_into().unwrap_or_default());
                ensure!(code == 0, io::Error::from_raw_os_error(-code));
                awaited = awaited.saturating_sub(1);
                rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
            }
        }
        Ok(())
    }
}
