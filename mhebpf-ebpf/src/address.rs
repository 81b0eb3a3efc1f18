//! Addresses in wire order.

use core::fmt;

use crate::{Iface, Neighbour};

/// What the decision asks of an address, whatever its family.
pub trait Address: Copy + Eq + Into<Neighbour> + fmt::Debug + 'static {
    /// Whether this is the unspecified address: "this host" as a source.
    fn is_unspecified(self) -> bool;

    /// Whether this is an address of loopback, which must not appear on a wire.
    fn is_loopback(self) -> bool;

    /// Whether packets to it go to a group, and so are nobody's.
    fn is_group(self) -> bool;

    /// Whether `iface` has the address in an inline slot. The unspecified address is when a slot is empty, and
    /// never violates anything.
    fn is_inline(self, iface: &Iface) -> bool;

    /// The own address of `iface` to speak to this one with.
    fn own_towards(self, iface: &Iface) -> Option<Neighbour>;
}

/// An IPv4 address in network byte order, as it stands in a header.
///
/// Not an integer: comparing is all that the datapath does with it, and prefixes are compared
/// through [`Ipv4::in_prefix`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct Ipv4(u32);

impl Ipv4 {
    /// `0.0.0.0`: "this host" as a source (RFC 1122 section 3.2.1.3), and an empty slot in [`crate::Iface`].
    pub const UNSPECIFIED: Self = Self(0);

    /// Makes an address of its four octets, the first one first.
    #[inline(always)]
    pub const fn new(octets: [u8; 4]) -> Self {
        Self(u32::from_ne_bytes(octets))
    }

    /// Makes an address of the 32 bits as they lie in memory.
    #[inline(always)]
    pub const fn from_wire(word: u32) -> Self {
        Self(word)
    }

    /// The four octets in network byte order.
    #[inline(always)]
    pub const fn octets(self) -> [u8; 4] {
        self.0.to_ne_bytes()
    }

    /// The 32 bits as they lie in memory: network byte order whatever the host's order is.
    #[inline(always)]
    pub const fn to_wire(self) -> u32 {
        self.0
    }

    /// Whether this is `0.0.0.0`.
    #[inline(always)]
    pub const fn is_unspecified(self) -> bool {
        self.0 == 0
    }

    /// Whether packets to it go to a group: multicast (224.0.0.0/4) or the limited broadcast address.
    #[inline(always)]
    pub const fn is_group(self) -> bool {
        self.octets()[0] & 0xf0 == 0xe0 || self.0 == u32::MAX
    }

    /// Whether `self` and `other` agree in their first `length` bits. More than 32 counts as 32.
    #[inline(always)]
    pub const fn in_prefix(self, other: Self, length: u8) -> bool {
        let differing = u32::from_be(self.0 ^ other.0);
        // Widened: a shift of 32 bits for a zero-length prefix has no meaning in 32-bit arithmetic.
        let shift = 32_u8.saturating_sub(length);
        (differing as u64) >> shift == 0
    }
}

impl Address for Ipv4 {
    #[inline(always)]
    fn is_group(self) -> bool {
        self.is_group()
    }

    #[inline(always)]
    fn is_unspecified(self) -> bool {
        self.is_unspecified()
    }

    /// In 127.0.0.0/8 (RFC 1122 section 3.2.1.3 (g)).
    #[inline(always)]
    fn is_loopback(self) -> bool {
        self.octets()[0] == 127
    }

    #[inline(always)]
    fn is_inline(self, iface: &Iface) -> bool {
        iface.has_inline(self.0.into())
    }

    #[inline(always)]
    fn own_towards(self, iface: &Iface) -> Option<Neighbour> {
        Some(iface.address_towards(self)?.into())
    }
}

/// An IPv6 address in network byte order, as it stands in a header.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct Ipv6([u32; 4]);

impl Ipv6 {
    /// `::`: the source of a host without an address (RFC 4291 section 2.5.2), and an empty slot in
    /// [`crate::Iface`].
    pub const UNSPECIFIED: Self = Self([0; 4]);

    /// Makes an address of four words, each as it lies in memory: network byte order whatever the host's is.
    #[inline(always)]
    pub const fn from_wire(words: [u32; 4]) -> Self {
        Self(words)
    }

    /// The four words as they lie in memory.
    #[inline(always)]
    pub const fn to_wire(self) -> [u32; 4] {
        self.0
    }

    /// The first and the second eight octets as they lie in memory, for comparing.
    #[inline(always)]
    pub const fn halves(self) -> (u64, u64) {
        let [a, b, c, d] = self.0;
        (join(a as u64, b as u64), join(c as u64, d as u64))
    }

    /// Makes an address of its sixteen octets, the first one first.
    pub const fn new(octets: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = octets;
        let word = u32::from_ne_bytes;
        Self([word([a, b, c, d]), word([e, f, g, h]), word([i, j, k, l]), word([m, n, o, p])])
    }

    /// Zero for the address with these [`Ipv6::halves`] only.
    #[inline(always)]
    pub(crate) const fn beside(self, high: u64, low: u64) -> u64 {
        let halves = self.halves();
        (halves.0 ^ high) | (halves.1 ^ low)
    }

    /// The sixteen octets in network byte order.
    pub fn octets(self) -> [u8; 16] {
        let mut octets = [0; 16];
        for (chunk, word) in octets.chunks_exact_mut(4).zip(self.0) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        octets
    }

    /// Whether packets to it go to a group: multicast (RFC 4291 section 2.7).
    #[inline(always)]
    pub const fn is_group(self) -> bool {
        self.0[0].to_ne_bytes()[0] == 0xff
    }

    /// Whether it means something on other links too: neither link-local (RFC 4291 section 2.5.6) nor unspecified.
    #[inline(always)]
    pub const fn is_beyond_link(self) -> bool {
        let [a, b, ..] = self.0[0].to_ne_bytes();
        let (high, low) = self.halves();
        high | low != 0 && !(a == 0xfe && b & 0xc0 == 0x80)
    }
}

/// Two words of four bytes as they lie in memory one behind the other, each with nothing in its upper half.
#[inline(always)]
pub(crate) const fn join(first: u64, second: u64) -> u64 {
    if cfg!(target_endian = "little") { first | second << 32 } else { first << 32 | second }
}

impl Address for Ipv6 {
    #[inline(always)]
    fn is_group(self) -> bool {
        self.is_group()
    }

    #[inline(always)]
    fn is_unspecified(self) -> bool {
        self.halves() == (0, 0)
    }

    /// `::1` (RFC 4291 section 2.5.3).
    #[inline(always)]
    fn is_loopback(self) -> bool {
        self.halves() == (0, 1_u64.to_be())
    }

    #[inline(always)]
    fn is_inline(self, iface: &Iface) -> bool {
        let (high, low) = self.halves();
        iface.has_inline6(high, low)
    }

    #[inline(always)]
    fn own_towards(self, iface: &Iface) -> Option<Neighbour> {
        Some(iface.address_beyond_link()?.into())
    }
}

impl From<core::net::Ipv6Addr> for Ipv6 {
    fn from(address: core::net::Ipv6Addr) -> Self {
        Self::new(address.octets())
    }
}

impl From<Ipv6> for core::net::Ipv6Addr {
    fn from(address: Ipv6) -> Self {
        Self::from(address.octets())
    }
}

impl fmt::Debug for Ipv6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Ipv6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&core::net::Ipv6Addr::from(*self), f)
    }
}

impl From<core::net::Ipv4Addr> for Ipv4 {
    fn from(address: core::net::Ipv4Addr) -> Self {
        Self::new(address.octets())
    }
}

impl From<Ipv4> for core::net::Ipv4Addr {
    fn from(address: Ipv4) -> Self {
        Self::from(address.octets())
    }
}

impl fmt::Debug for Ipv4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&core::net::Ipv4Addr::from(*self), f)
    }
}

impl fmt::Display for Ipv4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&core::net::Ipv4Addr::from(*self), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_compared_from_the_first_octet() {
        let a = Ipv4::new([192, 168, 0, 100]);
        assert!(a.in_prefix(Ipv4::new([192, 168, 7, 1]), 21));
        assert!(!a.in_prefix(Ipv4::new([192, 168, 8, 1]), 21));
        assert!(a.in_prefix(Ipv4::new([10, 0, 0, 1]), 0));
        assert!(a.in_prefix(a, 32));
        assert!(!a.in_prefix(Ipv4::new([192, 168, 0, 101]), 32));
        assert!(!a.in_prefix(Ipv4::new([192, 168, 0, 101]), 255));
    }

    #[test]
    fn an_ipv6_address_keeps_its_octets() {
        let address: core::net::Ipv6Addr = "2001:db8:1:2:3:4:5:6".parse().unwrap();
        assert_eq!(core::net::Ipv6Addr::from(Ipv6::from(address)), address);
        assert!(Ipv6::from(core::net::Ipv6Addr::LOCALHOST).is_loopback());
        assert!(!Ipv6::from(address).is_loopback() && !Ipv6::from(address).is_unspecified());
    }

    #[test]
    fn groups_are_known_by_their_first_octet() {
        assert!(Ipv4::new([224, 0, 0, 1]).is_group() && Ipv4::new([239, 255, 255, 255]).is_group());
        assert!(Ipv4::new([255; 4]).is_group() && !Ipv4::new([240, 0, 0, 1]).is_group());
        assert!(Ipv6::from("ff02::1".parse::<core::net::Ipv6Addr>().unwrap()).is_group());
        assert!(!Ipv6::from("fe80::1".parse::<core::net::Ipv6Addr>().unwrap()).is_group());
    }
}
