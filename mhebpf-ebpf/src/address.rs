//! Addresses in wire order.

use core::fmt;

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

    /// Whether the address is in 127.0.0.0/8, which must not appear on a wire (RFC 1122 section 3.2.1.3 (g)).
    #[inline(always)]
    pub const fn is_loopback(self) -> bool {
        self.octets()[0] == 127
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
}
