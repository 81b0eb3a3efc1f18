//! The next hops of an owner: RFC 1122's `route(src, dst, TOS) -> gateway`.

use crate::{Ipv4, Ipv6, filter::FACTOR};

/// The key of the longest-prefix tables of next hops, without its prefix length.
///
/// The owner comes first and always counts in full: a prefix of n bits is stored with a length of
/// [`NextHopKey::OWNER_BITS`]` + n`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C)]
pub struct NextHopKey<A> {
    /// The interface that owns the source address.
    pub owner: u32,
    /// The destination.
    pub destination: A,
}

const _: () = assert!(size_of::<NextHopKey<Ipv4>>() == 8);
const _: () = assert!(size_of::<NextHopKey<Ipv6>>() == 20);

impl<A> NextHopKey<A> {
    /// How many bits of the key are in front of the destination.
    pub const OWNER_BITS: u32 = 32;
}

/// The next hops by which an owner reaches a prefix, as places in a table of [`Neighbour`]s: a route may have several
/// (multipath), and one with twice the weight of another has twice as many places.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C)]
pub struct NextHops {
    /// The first place.
    pub first: u32,
    /// How many there are, at least one.
    pub count: u32,
}

const _: () = assert!(size_of::<NextHops>() == 8);

impl NextHops {
    /// The place of the next hop that a flow takes: always the same one, as long as there are as many.
    #[inline(always)]
    pub const fn place(&self, flow: u32) -> u32 {
        self.first.wrapping_add(choose(flow, self.count))
    }
}

/// How many places a table of [`Neighbour`]s has.
pub const HOPS: u32 = 65_536;

/// Which of `count` a flow takes: each has an equal share of the numbers that [`flow`] gives.
#[inline(always)]
pub const fn choose(flow: u32, count: u32) -> u32 {
    ((flow as u64 * count as u64) >> u32::BITS) as u32
}

/// A number for the packets between two addresses, by which they choose among the next hops of a route, as the kernel has it by
/// default (`net.ipv4.fib_multipath_hash_policy` 0).
#[inline(always)]
pub fn flow(source: &Neighbour, destination: &Neighbour) -> u32 {
    let number = source.word().rotate_left(16) ^ destination.word();
    (u64::from(number).wrapping_mul(FACTOR) >> 32) as u32
}

/// A neighbour to resolve, in the layout of `struct bpf_redir_neigh`.
///
/// In a table of next hops it is the gateway, or [`Neighbour::DESTINATION`]. The gateway of an IPv4 route may
/// be an IPv6 address (RFC 5549).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C)]
pub struct Neighbour {
    /// [`Neighbour::INET`], [`Neighbour::INET6`], or 0.
    pub family: u32,
    /// The address; of IPv4 in the first word, and the others are not looked at.
    pub address: [u32; 4],
}

const _: () = assert!(size_of::<Neighbour>() == 20);

impl Neighbour {
    /// `AF_INET`.
    pub const INET: u32 = 2;
    /// `AF_INET6`.
    pub const INET6: u32 = 10;

    /// The destination is on-link: it is its own next hop. The address means nothing; it is not zero, since that would
    /// have the compiler call `memset`, whose loop the verifier refuses without CAP_PERFMON.
    pub const DESTINATION: Self = Self { family: 0, address: [1; 4] };

    /// A word in which addresses of the family differ.
    #[inline(always)]
    const fn word(&self) -> u32 {
        let [first, second, third, last] = self.address;
        if self.family == Self::INET { first } else { first ^ second ^ third ^ last }
    }

    /// Whether this is [`Neighbour::DESTINATION`].
    #[inline(always)]
    pub const fn is_destination(&self) -> bool {
        self.family == 0
    }
}

impl From<Ipv4> for Neighbour {
    /// The words that don't count are not zero: that would have the compiler call `memset`, whose loop the
    /// verifier refuses without CAP_PERFMON.
    #[inline(always)]
    fn from(address: Ipv4) -> Self {
        Self { family: Self::INET, address: [address.to_wire(); 4] }
    }
}

impl From<Ipv6> for Neighbour {
    #[inline(always)]
    fn from(address: Ipv6) -> Self {
        Self { family: Self::INET6, address: address.to_wire() }
    }
}

impl From<core::net::IpAddr> for Neighbour {
    fn from(address: core::net::IpAddr) -> Self {
        match address {
            core::net::IpAddr::V4(address) => Ipv4::from(address).into(),
            core::net::IpAddr::V6(address) => Ipv6::from(address).into(),
        }
    }
}

impl Neighbour {
    /// The address, where there is one.
    pub fn ip(&self) -> Option<core::net::IpAddr> {
        match self.family {
            Self::INET => Some(core::net::Ipv4Addr::from(self.address[0].to_ne_bytes()).into()),
            Self::INET6 => Some(core::net::Ipv6Addr::from(Ipv6::from_wire(self.address)).into()),
            _ => None,
        }
    }
}
