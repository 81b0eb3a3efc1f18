//! Prefixes of addresses, of both families.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

/// All addresses that agree with one in their first bits. The others of it may be anything.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Prefix {
    pub(crate) address: IpAddr,
    /// In bits.
    pub(crate) length: u8,
}

impl Prefix {
    pub(crate) fn new(address: impl Into<IpAddr>, length: u8) -> Self {
        Self { address: address.into(), length }
    }

    /// An address alone.
    pub(crate) fn exact(address: IpAddr) -> Self {
        Self { address, length: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// Whether `address` is one of them.
    pub(crate) fn holds(&self, address: IpAddr) -> bool {
        agreeing_bits(self.address, address).is_some_and(|agreeing| agreeing >= u32::from(self.length))
    }

    /// Whether both have the same addresses.
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        self.length == other.length && self.holds(other.address)
    }

    /// Whether all of it is link-local.
    pub(crate) fn is_link_local(&self) -> bool {
        matches!(self.address, IpAddr::V6(address) if self.length >= 10 && is_link_local(address))
    }

    /// Whether all of it are addresses of groups.
    pub(crate) fn is_multicast(&self) -> bool {
        let least = if self.address.is_ipv4() { 4 } else { 8 };
        self.length >= least && self.address.is_multicast()
    }

    /// Whether it is everything, or one of the few parts that a default route is made of where it is to go before another:
    /// halves of IPv4 (VPNs do so), and of 2000::/3, all that is unicast of IPv6.
    pub(crate) fn is_nearly_everything(&self) -> bool {
        self.length <= if self.address.is_ipv4() { 1 } else { 4 }
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// Whether an address is of fe80::/10, and therefore means something on one link only.
pub(crate) fn is_link_local(address: Ipv6Addr) -> bool {
    address.segments()[0] >> 6 == 0xfe80 >> 6
}

/// How many bits are the same before the first that is not; `None` for addresses of two families. Beyond the
/// end of IPv4 all agree.
fn agreeing_bits(one: IpAddr, other: IpAddr) -> Option<u32> {
    let differences = match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => u128::from(one.to_bits() ^ other.to_bits()) << 96,
        (IpAddr::V6(one), IpAddr::V6(other)) => one.to_bits() ^ other.to_bits(),
        _ => return None,
    };
    Some(differences.leading_zeros())
}
