//! Who owns a local address.

use crate::Mac;

/// How many owners an [`Owners`] carries inline.
pub const INLINE_OWNERS: usize = 4;

/// The key of the tables of local addresses: of single addresses, and of prefixes.
///
/// In a table of prefixes the domain always counts in full: a prefix of n bits is stored with a length of
/// [`OwnersKey::DOMAIN_BITS`]` + n`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C)]
pub struct OwnersKey<A> {
    /// The set of addresses that is looked in: [`crate::Iface::domain`].
    pub domain: u32,
    /// The local address.
    pub address: A,
}

const _: () = assert!(size_of::<OwnersKey<crate::Ipv4>>() == 8);
const _: () = assert!(size_of::<OwnersKey<crate::Ipv6>>() == 20);

impl<A> OwnersKey<A> {
    /// How many bits of the key are in front of the address.
    pub const DOMAIN_BITS: u32 = 32;
}

/// The interfaces that may use an address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C)]
pub struct Owners {
    /// The name of the whole set in the table of further owners; meaningless without [`Owners::FURTHER`].
    pub set: u64,
    /// A union of [`Owners::HOST_WIDE`], [`Owners::FURTHER`] and [`Owners::ALLOWED_ONLY`].
    pub flags: u32,
    /// Interface indices in order of preference for a redirect; 0 marks the end.
    pub inline: [u32; INLINE_OWNERS],
    /// Zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Owners>() == 32);

impl Owners {
    /// Every interface owns the address.
    pub const HOST_WIDE: u32 = 1 << 0;
    /// There are owners besides the inline ones, each with a [`FurtherOwnerKey`] of its own.
    pub const FURTHER: u32 = 1 << 1;
    /// The address is not local: the configuration allows it on the owners, and to other interfaces it is
    /// foreign.
    pub const ALLOWED_ONLY: u32 = 1 << 2;

    /// Nobody's.
    pub const NONE: Self = Self { set: 0, flags: 0, inline: [0; INLINE_OWNERS], reserved: 0 };

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

    /// Whether the address is foreign to all but the owners.
    #[inline(always)]
    pub const fn is_allowed_only(&self) -> bool {
        self.flags & Self::ALLOWED_ONLY != 0
    }

    /// Whether `ifindex` is among the inline owners.
    #[inline(always)]
    pub fn has_inline(&self, ifindex: u32) -> bool {
        let o = &self.inline;
        o[0] == ifindex || o[1] == ifindex || o[2] == ifindex || o[3] == ifindex
    }
}

/// The key of the table of sets of interfaces: the owners for which [`Owners`] has no room (ports of a large bridge, say),
/// and the carriers of a hardware address.
///
/// Sets of owners are named by their contents, so that an entry never changes its meaning, and the thousand addresses of
/// one interface share a set.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C)]
pub struct FurtherOwnerKey {
    /// [`Owners::set`].
    pub set: u64,
    /// The owner, or the carrier.
    pub ifindex: u32,
    /// For carriers the macvlan or macvtap, or one of [`FurtherOwnerKey::ANY_INWARD`] and [`FurtherOwnerKey::ANY_OUTWARD`]; else 0.
    pub of: u32,
}

const _: () = assert!(size_of::<FurtherOwnerKey>() == 16);

impl FurtherOwnerKey {
    /// The bits of a name that are all set for carriers, and not all for owners.
    pub const CARRIERS: u64 = 0xffff << 48;

    /// The key of one owner in a set.
    #[inline(always)]
    pub const fn new(set: u64, ifindex: u32) -> Self {
        Self { set, ifindex, of: 0 }
    }

    /// Whatever arrives for the hardware address is not the carrier's business: the macvlan or macvtap is enforced itself, or is no
    /// uplink. No interface has this index.
    pub const ANY_INWARD: u32 = u32::MAX;
    /// Whatever leaves with the hardware address is not the carrier's business: the macvlan or macvtap is enforced itself, and has
    /// it alone.
    pub const ANY_OUTWARD: u32 = u32::MAX - 1;

    /// The key of an interface that the frames of the macvlan or macvtap `of` cross, which has this hardware address: those with
    /// its own addresses are not the interface's business. With [`Mac::BROADCAST`] the same, for frames to any group.
    #[inline(always)]
    pub const fn carrier(mac: Mac, ifindex: u32, of: u32) -> Self {
        Self { set: Self::CARRIERS | mac.to_number(), ifindex, of }
    }
}
