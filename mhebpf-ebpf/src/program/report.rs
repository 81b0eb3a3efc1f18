//! Messages for the daemon's log, of what no packet should meet with.
//!
//! Unless the log shows them, a read-only global that the daemon sets has the verifier take the calls out again. They
//! stand beside no packet that is whole and passes.

use aya_ebpf::{helpers::generated::bpf_ktime_get_ns, macros::map, maps::PerCpuArray};
use aya_log_ebpf::{
    debug,
    macro_support::{Level, level_enabled},
};

/// The target of the messages, by which a log filters them.
macro_rules! say {
    ($($message:tt)+) => { debug!((), target: "mhebpf_ebpf", $($message)+) };
}

/// What has happened.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(super) enum Event {
    /// A packet came back to where it was redirected from.
    Loop = 0,
    /// The packet's route could not be replaced.
    Route = 1,
    /// It was not redirected, for a reason that was said before or that the kernel does not tell.
    Redirect = 2,
    /// There is no room for an Ethernet header.
    Header = 3,
    /// Bytes of the packet could not be written.
    Store = 4,
    /// A packet ends within the headers that it should have.
    Malformed = 5,
}

/// How long each CPU is silent after a message: as many packets can come as there are.
const PAUSE: u64 = 10_000_000;

/// When each CPU has said something last: nanoseconds of `CLOCK_MONOTONIC`.
#[map]
static REPORTED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Says what has happened to a packet on an interface, if the log shows it.
///
/// `detail` is the interface that it was for, and for [`Event::Malformed`] the EtherType; `code` what the kernel has answered.
#[inline(always)]
pub(super) fn report(event: Event, ifindex: u32, detail: u32, code: i64) {
    if level_enabled(Level::Debug) {
        write(event as u8, ifindex, detail, code);
    }
}

/// A function of its own for the kernel too: a message is put together on the stack.
#[inline(never)]
fn write(event: u8, ifindex: u32, detail: u32, code: i64) {
    if !is_time() {
        return;
    }
    match event {
        LOOP => say!(
            "a packet of interface {} came back from interface {}: it is dropped, as the tables must have changed \
             meanwhile",
            ifindex,
            detail
        ),
        ROUTE => say!(
            "a packet of interface {} for interface {} is dropped: replacing its route (bpf_skb_set_tunnel_key) gave {}",
            ifindex,
            detail,
            code
        ),
        REDIRECT => say!(
            "a packet of interface {} for interface {} is dropped: it could not be redirected",
            ifindex,
            detail
        ),
        HEADER => say!(
            "a packet of interface {} is dropped: making room for an Ethernet header (bpf_skb_change_head) gave {}",
            ifindex,
            code
        ),
        STORE => say!(
            "a packet of interface {} is dropped: writing to it (bpf_skb_store_bytes) gave {}",
            ifindex,
            code
        ),
        _ => say!(
            "a packet of interface {} with the EtherType {:x} ends within its headers: it passes",
            ifindex,
            detail
        ),
    }
}

const LOOP: u8 = Event::Loop as u8;
const ROUTE: u8 = Event::Route as u8;
const REDIRECT: u8 = Event::Redirect as u8;
const HEADER: u8 = Event::Header as u8;
const STORE: u8 = Event::Store as u8;

#[inline(always)]
fn is_time() -> bool {
    let Some(last) = REPORTED.get_ptr_mut(0) else { return false };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: the value is this CPU's. A program that interrupts this one may write it meanwhile: one message more or less.
    unsafe {
        let is_time = now.wrapping_sub(last.read()) >= PAUSE;
        if is_time {
            last.write(now);
        }
        is_time
    }
}
