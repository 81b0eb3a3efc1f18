//! The clsact qdisc: added where it is missing, removed when it was added here and nobody else has come to
//! use it.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use anyhow::{Context as _, Result};
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, Parseable as _};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcMessage, TcOption},
};
use tracing::{debug, warn};

use super::{
    chain::Place,
    load::{EGRESS, INGRESS},
    tcx,
};
use crate::{
    model::{Host, Link},
    netlink::Requests,
    pins::Side,
};

/// The priority of our filters.
pub(super) const PRIORITY: u16 = 7;
/// Their handle, by which they are told from others: "mh".
pub(super) const HANDLE: u16 = 0x6d68;

/// `ETH_P_ALL` of linux/if_ether.h.
const ALL_PROTOCOLS: u16 = 3;

/// The handle of a clsact qdisc, and the parents of its filters (`linux/pkt_sched.h`).
const CLSACT: TcHandle = TcHandle { major: 0xffff, minor: 0 };
const CLSACT_PARENT: TcHandle = TcHandle { major: 0xffff, minor: 0xfff1 };
const FILTERS: [TcHandle; 2] =
    [TcHandle { major: 0xffff, minor: 0xfff2 }, TcHandle { major: 0xffff, minor: 0xfff3 }];

/// Whether an interface has this index and this name now, in which what is not UTF-8 was replaced.
pub fn is_there(ifindex: u32, name: &str) -> bool {
    let mut buffer = [0_u8; libc::IFNAMSIZ];
    // SAFETY: the buffer has room for the longest name, which ends with NUL.
    if unsafe { libc::if_indextoname(ifindex, buffer.as_mut_ptr().cast()) }.is_null() {
        return false;
    }
    let own = buffer.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(own) == name
}

/// Adds the qdisc; `false` when the interface had one.
pub(super) fn add(ifindex: u32, name: &str) -> Result<bool> {
    let mut message = TcMessage::with_index(ifindex.cast_signed());
    message.header.handle = CLSACT;
    message.header.parent = CLSACT_PARENT;
    message.attributes.push(TcAttribute::Kind("clsact".to_owned()));
    match request(RouteNetlinkMessage::NewQueueDiscipline(message), NLM_F_CREATE | NLM_F_EXCL) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
        Err(error) => Err(error).with_context(|| {
            format!("adding a clsact qdisc to {name} (the kernel modules sch_ingress and cls_bpf are needed)")
        }),
    }
}

/// Our filter on a side of an interface. The kernel keeps it when the process is killed; dropping this removes it.
pub(super) struct Filter {
    ifindex: u32,
    side: Side,
    is_there: bool,
}

impl Filter {
    /// Removes it.
    ///
    /// # Errors
    ///
    /// When the kernel refuses. Not where it is gone already.
    pub(super) fn remove(mut self) -> io::Result<()> {
        self.is_there = false;
        match remove(self.ifindex, self.side) {
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENODEV | libc::ENOENT)) =>
            {
                Ok(())
            }
            removed => removed,
        }
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        if self.is_there {
            // It is gone, or with the interface.
            let _ = remove(self.ifindex, self.side);
        }
    }
}

/// Adds our filter.
pub(super) fn attach(program: BorrowedFd<'_>, ifindex: u32, side: Side) -> io::Result<Filter> {
    set(program, ifindex, side, NLM_F_CREATE | NLM_F_EXCL)?;
    Ok(Filter { ifindex, side, is_there: true })
}

/// Has our filter run another program from now on: each packet is judged by one of the two (`cls_bpf_change`, which replaces
/// the member of an RCU list, Linux 5.10 to 6.18).
///
/// # Errors
///
/// When the kernel refuses: `ENOENT` where there is no such filter.
pub(super) fn replace(program: BorrowedFd<'_>, ifindex: u32, side: Side) -> io::Result<()> {
    set(program, ifindex, side, 0)
}

fn set(program: BorrowedFd<'_>, ifindex: u32, side: Side, flags: u16) -> io::Result<()> {
    let mut message = our_filter(ifindex, side);
    message.attributes.push(TcAttribute::Kind("bpf".to_owned()));
    let options = [
        TcFilterBpfOption::ProgFd(program.as_raw_fd().cast_unsigned()),
        TcFilterBpfOption::ProgName(program_name(side).to_owned()),
        TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
    ];
    message.attributes.push(TcAttribute::Options(options.into_iter().map(TcOption::Bpf).collect()));
    request(RouteNetlinkMessage::NewTrafficFilter(message), flags)
}

/// Removes our filter.
pub(super) fn remove(ifindex: u32, side: Side) -> io::Result<()> {
    let mut message = our_filter(ifindex, side);
    message.attributes.push(TcAttribute::Kind("bpf".to_owned()));
    request(RouteNetlinkMessage::DelTrafficFilter(message), 0)
}

fn our_filter(ifindex: u32, side: Side) -> TcMessage {
    let mut message = filters_of(ifindex, side);
    message.header.handle = TcHandle { major: 0, minor: HANDLE };
    message.header.info = (u32::from(PRIORITY) << 16) | u32::from(ALL_PROTOCOLS.to_be());
    message
}

pub(super) const fn program_name(side: Side) -> &'static str {
    match side {
        Side::Ingress => INGRESS,
        Side::Egress => EGRESS,
    }
}

fn request(message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
    Requests::open()?.send(message, NLM_F_ACK | flags, |_| ()).map(drop)
}

/// Whether our filter is there.
pub(super) fn has_filter(ifindex: u32, side: Side) -> io::Result<bool> {
    let mut message = filters_of(ifindex, side);
    // The kernel leaves out those of other priorities.
    message.header.info = u32::from(PRIORITY) << 16;
    let mut is_there = false;
    dump_filters(message, |filter| is_there |= is_ours(filter))?;
    Ok(is_there)
}

/// Where our filter is among the programs and filters that see the same packets: those of TCX come before all filters, and
/// filters in the order of their priorities. `None` where it is not.
pub(super) fn place(ifindex: u32, side: Side) -> io::Result<Option<Place>> {
    let mut message = filters_of(ifindex, side);
    // Other chains see only what a filter of this one sends there.
    message.attributes.push(TcAttribute::Chain(0));
    // A kernel without TCX has no such programs.
    let mut programs = tcx::chain(ifindex, side).map_or(0, |chain| chain.len());
    let mut place = None;
    dump_filters(message, |filter| {
        if is_filter(filter) {
            programs += 1;
            if is_ours(filter) {
                place = Some(programs);
            }
        }
    })?;
    Ok(place.map(|place| Place { place, programs }))
}

fn filters_of(ifindex: u32, side: Side) -> TcMessage {
    let [ingress, egress] = FILTERS;
    let mut message = TcMessage::with_index(ifindex.cast_signed());
    message.header.parent = match side {
        Side::Ingress => ingress,
        Side::Egress => egress,
    };
    message
}

/// Calls for each filter in the order in which they run; for none where there is no qdisc.
fn dump_filters(message: TcMessage, mut each: impl FnMut(&TcMessage)) -> io::Result<()> {
    let asked =
        Requests::open()?.send(RouteNetlinkMessage::GetTrafficFilter(message), NLM_F_DUMP, |payload| {
            if let Ok(filter) = TcMessage::parse(payload) {
                each(&filter);
            }
        });
    match asked {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => Ok(()),
        asked => asked.map(drop),
    }
}

fn is_ours(filter: &TcMessage) -> bool {
    u32::from(filter.header.handle) == u32::from(HANDLE) && filter.header.info >> 16 == u32::from(PRIORITY)
}

/// The head of a list has no handle, and a hash table of u32 one without a node (`TC_U32_NODE` of linux/pkt_cls.h).
pub fn is_filter(filter: &TcMessage) -> bool {
    let is_u32 = filter
        .attributes
        .iter()
        .any(|attribute| matches!(attribute, TcAttribute::Kind(kind) if kind == "u32"));
    let handle = u32::from(filter.header.handle);
    if is_u32 { handle & 0xfff != 0 } else { handle != 0 }
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
        remove(ifindex, side).with_context(|| {
            format!("removing the filter {} that an earlier run has left on {interface}", program_name(side))
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
