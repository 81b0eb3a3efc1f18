//! The next hops of an owner: RFC 1122's `route(src, dst, TOS) -> gateway`.

use crate::Ipv4;

/// The key of the longest-prefix table of next hops, without its prefix length.
///
/// The owner comes first and always counts in full: a prefix of n bits is stored with a length of
/// [`NextHopKey::OWNER_BITS`]` + n`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C)]
pub struct NextHopKey {
    /// The interface that owns the source address.
    pub owner: u32,
    /// The destination.
    pub destination: Ipv4,
}

const _: () = assert!(size_of::<NextHopKey>() == 8);

impl NextHopKey {
    /// How many bits of the key are in front of the destination.
    pub const OWNER_BITS: u32 = 32;
}

/// Where a packet goes from its owner.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C)]
pub struct NextHop {
    /// The gateway, on-link on the owner; [`Ipv4::UNSPECIFIED`] when the destination itself is on-link.
    pub gateway: Ipv4,
}

const _: () = assert!(size_of::<NextHop>() == 4);

impl NextHop {
    /// The destination is on-link.
    pub const ON_LINK: Self = Self { gateway: Ipv4::UNSPECIFIED };

    /// The neighbour to resolve for a packet to `destination`.
    #[inline(always)]
    pub const fn neighbour(self, destination: Ipv4) -> Ipv4 {
        if self.gateway.is_unspecified() { destination } else { self.gateway }
    }
}
