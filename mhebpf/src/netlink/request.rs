//! Requests to rtnetlink, each answered in full before the next.

use std::io;

use netlink_packet_core::{
    NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NetlinkMessage,
};
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::stop;

/// The kernel packs dumps into datagrams of at most 32 KiB where the reader has room for that (`netlink_recvmsg`, Linux
/// 6.18); only a message that is larger by itself makes a larger one.
const DATAGRAM: usize = 32 << 10;

/// Message types from here on are those of the protocol (`NLMSG_MIN_TYPE` of `linux/netlink.h`).
const FIRST_OF_PROTOCOL: u16 = 0x10;

/// A socket for requests, in the namespace of this process.
///
/// Answers are handed on message by message as they are read: of a dump, however long, no more than a datagram is kept.
pub(crate) struct Requests {
    socket: Socket,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Requests {
    /// Opens the socket. The kernel checks what is asked strictly, and filters by it.
    ///
    /// # Errors
    ///
    /// When the kernel refuses it.
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self { socket: connect()?, buffer: vec![0; DATAGRAM], sequence: 0 })
    }

    /// Sends a request, and calls `each` with the payload of every message of the answer.
    ///
    /// Whether that is the whole truth: `false` for a dump that a change has interrupted (`NLM_F_DUMP_INTR`).
    ///
    /// # Errors
    ///
    /// When the kernel answers with an error, or not at all; [`Stopped`](crate::stop::Stopped) when the rest of the answer is not
    /// waited for any more.
    pub(crate) fn send(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        mut each: impl FnMut(&[u8]),
    ) -> io::Result<bool> {
        let mut message = NetlinkMessage::from(message);
        self.sequence = self.sequence.wrapping_add(1);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;

        let mut exact = true;
        loop {
            if let Err(stopped) = stop::check() {
                // The kernel begins no other dump for a socket as long as one is not read to its end.
                self.socket = connect()?;
                return Err(stopped.into());
            }
            let length = self.socket.recv(&mut self.buffer.as_mut_slice(), libc::MSG_TRUNC)?;
            let mut rest = &self.buffer[..length.min(self.buffer.len())];
            while let Ok(message) = NetlinkBuffer::new_checked(rest) {
                rest = rest.get((message.length() as usize).next_multiple_of(4)..).unwrap_or_default();
                // What is left of an earlier answer that was given up.
                if message.sequence_number() != self.sequence {
                    continue;
                }
                exact &= message.flags() & NLM_F_DUMP_INTR == 0;
                match message.message_type() {
                    NLMSG_ERROR | NLMSG_DONE => return result_of(message.payload()).map(|()| exact),
                    FIRST_OF_PROTOCOL.. => each(message.payload()),
                    _ => {}
                }
            }
            if length > self.buffer.len() {
                // Cut short: there is room the next time.
                self.buffer.resize(length, 0);
                exact = false;
            }
        }
    }
}

fn connect() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.set_netlink_get_strict_chk(true)?;
    Ok(socket)
}

/// The code at the start of the last message: zero, or a negative error number.
fn result_of(payload: &[u8]) -> io::Result<()> {
    let code = payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
    if code < 0 { Err(io::Error::from_raw_os_error(-code)) } else { Ok(()) }
}
