//! Which process has sent a packet: as good as can be told afterwards, when the socket may be closed already.

use std::{
    collections::HashMap,
    fs, io,
    net::IpAddr,
    time::{Duration, Instant},
};

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP},
    inet::{ExtensionFlags, InetRequest, SocketId, StateFlags},
};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};
use serde::Serialize;

use super::packet::Packet;

/// How many sockets are remembered.
const SOCKETS: usize = 4096;

/// Looking through /proc takes at most one part in so many of the time.
const SHARE: u32 = 10;

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Process {
    /// Its id.
    pub(super) pid: u32,
    /// Its name (`/proc/PID/comm`).
    pub(super) name: String,
}

/// The processes of sockets.
#[derive(Debug, Default)]
pub(super) struct Processes {
    by_cookie: HashMap<u64, Option<Process>>,
    /// When /proc may be looked through again.
    next: Option<Instant>,
}

impl Processes {
    /// The process that has the socket with this cookie, which has sent this packet.
    pub(super) fn of(&mut self, cookie: u64, packet: &Packet) -> Option<Process> {
        if cookie == 0 {
            return None;
        }
        if let Some(known) = self.by_cookie.get(&cookie) {
            return known.clone();
        }
        let started = Instant::now();
        if self.next.is_some_and(|next| started < next) {
            return None;
        }
        let process = inode(cookie, packet).ok().flatten().and_then(holder);
        let took = started.elapsed().max(Duration::from_micros(1));
        self.next = Some(started + took * SHARE);
        if self.by_cookie.len() >= SOCKETS {
            self.by_cookie.clear();
        }
        self.by_cookie.insert(cookie, process.clone());
        process
    }
}

/// The inode of the socket with this cookie: sock_diag(7) finds it by the flow, and then compares the cookie.
///
/// # Errors
///
/// When the kernel does not answer, or not to this.
fn inode(cookie: u64, packet: &Packet) -> io::Result<Option<u32>> {
    let Packet::Datagram { protocol, source, destination, source_port, destination_port } = packet else {
        return Ok(None);
    };
    let (Some(source_port), Some(destination_port)) = (*source_port, *destination_port) else {
        return Ok(None);
    };
    let local = (*source, source_port);
    let remote = (*destination, destination_port);
    // For UDP the kernel takes them the other way round (`udp_dump_one`, Linux 6.18).
    let (protocol, from, to) = match protocol.as_str() {
        "tcp" => (IPPROTO_TCP, local, remote),
        "udp" => (IPPROTO_UDP, remote, local),
        _ => return Ok(None),
    };
    let [low, high] = [cookie as u32, (cookie >> 32) as u32].map(u32::to_ne_bytes);
    let mut both = [0; 8];
    both[..4].copy_from_slice(&low);
    both[4..].copy_from_slice(&high);
    let socket_id = SocketId {
        source_port: from.1,
        destination_port: to.1,
        source_address: from.0,
        destination_address: to.0,
        interface_id: 0,
        cookie: both,
    };
    let family = if matches!(source, IpAddr::V4(_)) { AF_INET } else { AF_INET6 };
    let request = InetRequest {
        family,
        protocol,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::all(),
        socket_id,
    };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let message = NetlinkMessage::<SockDiagMessage>::deserialize(&answer).map_err(io::Error::other)?;
    Ok(match message.payload {
        NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
            Some(response.header.inode).filter(|inode| *inode != 0)
        }
        _ => None,
    })
}

/// A process that has a descriptor of a socket.
fn holder(inode: u32) -> Option<Process> {
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        // Those of other users, and those that have just ended, can't be looked into.
        let descriptors = fs::read_dir(entry.path().join("fd")).ok()?;
        let name = format!("socket:[{inode}]");
        descriptors
            .flatten()
            .find(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == name.as_str()))?;
        let comm = fs::read_to_string(entry.path().join("comm")).ok()?;
        Some(Process { pid, name: comm.trim_end().to_owned() })
    })
}
