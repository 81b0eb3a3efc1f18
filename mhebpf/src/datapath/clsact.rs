//! The clsact qdisc: added where it is missing, removed when it was added here and nobody else has come to
//! use it.

use std::{ffi::CString, io};

use anyhow::{Context as _, Result};
use aya::programs::tc::{self, TcError};
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcHandle, TcMessage},
};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use tracing::{debug, warn};

/// The handle of a clsact qdisc, and the parents of its filters (`linux/pkt_sched.h`).
const CLSACT: TcHandle = TcHandle { major: 0xffff, minor: 0 };
const CLSACT_PARENT: TcHandle = TcHandle { major: 0xffff, minor: 0xfff1 };
const FILTERS: [TcHandle; 2] =
    [TcHandle { major: 0xffff, minor: 0xfff2 }, TcHandle { major: 0xffff, minor: 0xfff3 }];

/// The index of the interface that has this name now.
pub(super) fn ifindex_of(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: a pointer to a string that ends with NUL and lives through the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => None,
        ifindex => Some(ifindex),
    }
}

/// Adds the qdisc; `false` when the interface had one.
pub(super) fn add(interface: &str) -> Result<bool> {
    match tc::qdisc_add_clsact(interface) {
        Ok(()) => Ok(true),
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
        Err(error) => Err(error).with_context(|| {
            format!(
                "adding a clsact qdisc to {interface} (the kernel modules sch_ingress and cls_bpf are needed)"
            )
        }),
    }
}

/// Removes the qdisc unless filters of others are in it.
pub(super) fn remove_if_empty(ifindex: u32, interface: &str) {
    match try_remove(ifindex as i32) {
        Ok(true) => {}
        Ok(false) => debug!("the clsact qdisc of {interface} stays: others have filters in it"),
        Err(error) => warn!("removing the clsact qdisc that was added to {interface}: {error}"),
    }
}

fn try_remove(ifindex: i32) -> io::Result<bool> {
    for parent in FILTERS {
        let mut message = TcMessage::with_index(ifindex);
        message.header.parent = parent;
        if request(RouteNetlinkMessage::GetTrafficFilter(message), NLM_F_DUMP)? > 0 {
            return Ok(false);
        }
    }
    let mut message = TcMessage::with_index(ifindex);
    message.header.handle = CLSACT;
    message.header.parent = CLSACT_PARENT;
    request(RouteNetlinkMessage::DelQueueDiscipline(message), NLM_F_ACK)?;
    Ok(true)
}

/// Sends a request, waits for the answer, and returns how many objects it holds.
fn request(message: RouteNetlinkMessage, flags: u16) -> io::Result<usize> {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = NLM_F_REQUEST | flags;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);

    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&bytes, 0)?;
    let mut objects = 0;
    loop {
        let (answer, _) = socket.recv_from_full()?;
        let mut rest = answer.as_slice();
        while !rest.is_empty() {
            let message =
                NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(io::Error::other)?;
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(objects),
                NetlinkPayload::Error(error) if error.code.is_none() => return Ok(objects),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => objects += 1,
            }
            let length = (message.header.length as usize).next_multiple_of(4);
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}
