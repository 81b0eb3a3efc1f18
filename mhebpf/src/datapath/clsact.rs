//! The clsact qdisc: added where it is missing, removed when it was added here and nobody else has come to
//! use it.

use std::{ffi::CString, io};

use anyhow::{Context as _, Result};
use aya::programs::{
    TcAttachType,
    tc::{self, TcError},
};
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, Parseable as _};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcHandle, TcMessage},
};
use tracing::{debug, warn};

use super::load::{EGRESS, INGRESS};
use crate::{
    model::{Host, Link},
    netlink::Requests,
    pins::Side,
};

/// The priority of our filters.
pub(super) const PRIORITY: u16 = 7;
/// Their handle, by which they are told from others: "mh".
pub(super) const HANDLE: u16 = 0x6d68;

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

/// Whether an interface has this index and this name now.
pub fn is_there(ifindex: u32, name: &str) -> bool {
    ifindex_of(name) == Some(ifindex)
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

/// Whether our filter is there.
pub(super) fn has_filter(ifindex: u32, side: Side) -> io::Result<bool> {
    let [ingress, egress] = FILTERS;
    let mut message = TcMessage::with_index(ifindex.cast_signed());
    message.header.parent = match side {
        Side::Ingress => ingress,
        Side::Egress => egress,
    };
    // The kernel leaves out those of other priorities.
    message.header.info = u32::from(PRIORITY) << 16;
    let mut is_there = false;
    let is_ours = |payload: &[u8]| {
        TcMessage::parse(payload).is_ok_and(|filter| {
            u32::from(filter.header.handle) == u32::from(HANDLE)
                && filter.header.info >> 16 == u32::from(PRIORITY)
        })
    };
    let asked =
        Requests::open()?.send(RouteNetlinkMessage::GetTrafficFilter(message), NLM_F_DUMP, |payload| {
            is_there |= is_ours(payload);
        });
    match asked {
        Ok(_) => Ok(is_there),
        // The qdisc is gone.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The sides on which an interface has filters that a daemon has left which was killed.
fn leftovers(ifindex: u32) -> impl Iterator<Item = Side> {
    // What can't be asked is taken to be none.
    [Side::Ingress, Side::Egress].into_iter().filter(move |side| has_filter(ifindex, *side).unwrap_or(false))
}

/// The interfaces with filters that a daemon has left which was killed, where none runs.
pub fn with_leftovers(host: &Host) -> Vec<&str> {
    let has_some = |link: &&Link| leftovers(link.index).next().is_some();
    host.links.values().filter(has_some).map(|link| link.name.as_str()).collect()
}

/// Removes what [`remove_leftovers`] does, and logs it.
pub fn clear_leftovers(ifindex: u32, interface: &str) {
    match remove_leftovers(ifindex, interface) {
        Ok(0) => {}
        Ok(filters) => warn!("removed {filters} filters that an earlier run has left on {interface}"),
        Err(error) => warn!("{error:#}"),
    }
}

/// Removes the filters that a daemon has left on an interface which was killed, and says how many.
///
/// # Errors
///
/// When the kernel refuses.
pub fn remove_leftovers(ifindex: u32, interface: &str) -> Result<usize> {
    let mut removed = 0;
    for side in leftovers(ifindex) {
        let (direction, name) = match side {
            Side::Ingress => (TcAttachType::Ingress, INGRESS),
            Side::Egress => (TcAttachType::Egress, EGRESS),
        };
        tc::qdisc_detach_program(interface, direction, name).with_context(|| {
            format!("removing the filter {name} that an earlier run has left on {interface}")
        })?;
        removed += 1;
    }
    if removed > 0 {
        // What it was added for is gone.
        remove_if_empty(ifindex, interface);
    }
    Ok(removed)
}

/// Removes the qdisc unless filters of others are in it.
pub(super) fn remove_if_empty(ifindex: u32, interface: &str) {
    match try_remove(ifindex as i32) {
        Ok(true) => {}
        Ok(false) => debug!("the clsact qdisc of {interface} stays: others have filters in it"),
        // Somebody else has removed it.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => {}
        Err(error) => warn!("removing the clsact qdisc that was added to {interface}: {error}"),
    }
}

fn try_remove(ifindex: i32) -> io::Result<bool> {
    let mut requests = Requests::open()?;
    for parent in FILTERS {
        let mut message = TcMessage::with_index(ifindex);
        message.header.parent = parent;
        let mut filters = 0;
        requests.send(RouteNetlinkMessage::GetTrafficFilter(message), NLM_F_DUMP, |_| filters += 1)?;
        if filters > 0 {
            return Ok(false);
        }
    }
    let mut message = TcMessage::with_index(ifindex);
    message.header.handle = CLSACT;
    message.header.parent = CLSACT_PARENT;
    requests.send(RouteNetlinkMessage::DelQueueDiscipline(message), NLM_F_ACK, |_| ())?;
    Ok(true)
}
