//! What programs and maps that outlive the daemon tell of it.

/// The layout of the maps: to be raised with any change of the type, key, value or size of a map, or of what they mean. Those maps
/// that are made as large as the host needs have no size of their own.
///
/// Maps of another layout are never read, nor counted on in: their programs are replaced together with them.
pub const LAYOUT: u32 = 5;

/// What the daemon has last noted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct State {
    /// When the maps were last in step with the host: seconds since 1970, in UTC; 0 before the first time.
    pub written: u64,
    /// The daemon's process.
    pub pid: u32,
    /// Zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<State>() == 16);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        CounterKey, DIRECT_COUNTS, Filter, FurtherOwnerKey, HOPS, Iface, Ipv4, Ipv6, Neighbour, NextHopKey,
        NextHops, Owners, OwnersKey, Reason,
    };

    /// Where this fails, [`LAYOUT`] is to be raised as well.
    #[test]
    fn this_layout_has_these_sizes_and_reasons() {
        let sizes = [
            size_of::<Iface>(),
            size_of::<Filter>(),
            size_of::<OwnersKey<Ipv4>>(),
            size_of::<OwnersKey<Ipv6>>(),
            size_of::<Owners>(),
            size_of::<FurtherOwnerKey>(),
            size_of::<NextHopKey<Ipv4>>(),
            size_of::<NextHopKey<Ipv6>>(),
            size_of::<NextHops>(),
            HOPS as usize,
            size_of::<Neighbour>(),
            size_of::<CounterKey>(),
            DIRECT_COUNTS as usize,
            size_of::<State>(),
        ];
        assert_eq!((LAYOUT, sizes), (5, [256, 65_536, 8, 20, 32, 16, 8, 20, 8, 65_536, 20, 8, 1025, 16]));
        assert_eq!((Reason::ALL[0].name(), Reason::ALL[17].name()), ("redirected", "icmp_rewritten"));
    }
}
