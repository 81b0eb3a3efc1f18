//! Who owns a local address.

use crate::Ipv4;

/// How many owners an [`Owners`] carries inline.
pub const INLINE_OWNERS: usize = 4;

/// The key of the table of local addresses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C)]
pub struct OwnersKey {
    /// The set of addresses that is looked in: [`crate::Iface::domain`].
    pub domain: u32,
    /// The local address.
    pub address: Ipv4,
}

const _: () = assert!(size_of::<OwnersKey>() == 8);

/// The interfaces that may use a local address.
///
/// An address that is in the table is local to the host; one that is not is foreign.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C)]
pub struct Owners {
    /// A union of [`Owners::HOST_WIDE`] and [`Owners::FURTHER`].
    pub flags: u32,
    /// Interface indices in order of preference for a redirect; 0 marks the end.
    pub inline: [u32; INLINE_OWNERS],
}

const _: () = assert!(size_of::<Owners>() == 20);

impl Owners {
    /// Every interface owns the address.
    pub const HOST_WIDE: u32 = 1 << 0;
    /// There are owners besides the inline ones, each with a [`FurtherOwnerKey`] of its own.
    pub const FURTHER: u32 = 1 << 1;

    /// Whether every interface owns the address.
    #[inline(always)]
    pub const fn is_host_wide(&self) -> bool {
        self.flags & Self::HOST_WIDE != 0
    }

    /// Whether there are owners besides the inline ones.
    #[inline(always)]
    pub const fn has_further(&self) -> bool {
        self.flags & Self::FURTHER != 0
    }

    /// Whether `ifindex` is among the inline owners.
    #[inline(always)]
    pub fn has_inline(&self, ifindex: u32) -> bool {
        let o = &self.inline;
        o[0] == ifindex || o[1] == ifindex || o[2] == ifindex || o[3] == ifindex
    }
}

/// The key of the table of owners for which [`Owners`] has no room: ports of a large bridge, say.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C)]
pub struct FurtherOwnerKey {
    /// The owner.
    pub ifindex: u32,
    /// The set of addresses that is looked in: [`crate::Iface::domain`].
    pub domain: u32,
    /// The local address.
    pub address: Ipv4,
}

const _: () = assert!(size_of::<FurtherOwnerKey>() == 12);
