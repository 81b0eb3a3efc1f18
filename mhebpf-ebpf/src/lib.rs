//! The strong end system of RFC 1122 section 3.3.4.2 as one pure decision, and the types that the
//! kernel programs and the daemon share.
//!
//! Nothing here does I/O or depends on the kernel, so the same code runs inside the TC programs,
//! in the daemon and in the tests. The way of a packet is *parse* ([`packet`]), *decide*
//! ([`decide`]) and *act* (the binary target of this crate). Nearly all pass before, at a [`glance`].
#![no_std]

pub mod address;
mod carrier;
pub mod counter;
pub mod decide;
pub mod filter;
pub mod glance;
pub mod icmp;
pub mod iface;
mod instead;
pub mod mac;
pub mod next_hop;
pub mod origin;
pub mod owners;
pub mod packet;
pub mod pinned;
pub mod sample;

pub use address::{Address, Ipv4, Ipv6};
pub use counter::{CounterKey, DIRECT_COUNTS, Direction, Family, LOST, Reason};
pub use decide::{Act, Action, AddressTables, Tables, Verdict};
pub use filter::Filter;
pub use iface::{
    Announce, Block, DIRECT_IFACES, HIGH_IFACES, INLINE_ADDRESSES, Iface, Receive, Send, Slot6, Unknown,
};
pub use mac::Mac;
pub use next_hop::{HOPS, Neighbour, NextHopKey, NextHops};
pub use origin::{Metadata, Origin};
pub use owners::{FurtherOwnerKey, INLINE_OWNERS, Owners, OwnersKey};
pub use packet::{Arp, ArpOperation, Datagram, Discovery, DiscoveryKind, Frame, Location, Network, Packet};
pub use pinned::{LAYOUT, State};
pub use sample::{SAMPLED, Sample, Sampler};

/// A type that may be copied byte for byte into a BPF map and back.
///
/// # Safety
///
/// The type is `#[repr(C)]` (or transparent) without padding bytes, and every bit pattern is a valid value.
pub unsafe trait MapData: Copy + 'static {
    /// A value of zero bytes, as the kernel has it in an array that nobody has written to.
    fn zeroed() -> Self {
        // SAFETY: every bit pattern is a valid value.
        unsafe { core::mem::zeroed() }
    }
}

macro_rules! map_data {
    ($($type:ty),+ $(,)?) => {$(
        // SAFETY: all of them are `repr(C)`, made of integers and byte arrays only, and the sizes
        // asserted beside their definitions leave no room for padding.
        unsafe impl MapData for $type {}
    )+};
}

map_data!(
    Iface,
    OwnersKey<Ipv4>,
    OwnersKey<Ipv6>,
    Owners,
    FurtherOwnerKey,
    NextHopKey<Ipv4>,
    NextHopKey<Ipv6>,
    NextHops,
    Neighbour,
    CounterKey,
    Sample,
    Sampler,
    State,
);
