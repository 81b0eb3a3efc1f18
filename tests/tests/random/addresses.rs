//! The addresses that random hosts are made of: few subnets, which overlap, so that much is had in common.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::{Index, subsequence},
};

use crate::oracle::{Address, Prefix};

/// Subnets to have addresses in, with their prefix lengths. They overlap.
const SUBNETS: [(Ipv4Addr, u8); 9] = [
    (Ipv4Addr::new(10, 0, 0, 0), 24),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 1, 0), 25),
    (Ipv4Addr::new(192, 168, 0, 0), 21),
    (Ipv4Addr::new(192, 168, 0, 64), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 30),
    (Ipv4Addr::new(172, 16, 0, 4), 31),
    (Ipv4Addr::new(198, 51, 100, 7), 32),
    (Ipv4Addr::new(203, 0, 113, 8), 0),
];

/// The same of IPv6.
const SUBNETS6: [(Ipv6Addr, u8); 9] = [
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 64),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 0), 64),
    (Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0), 8),
    (Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x40), 122),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 2, 0, 0, 0, 4), 127),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 3, 0, 0, 0, 7), 128),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 4, 0, 0, 0, 8), 1),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 64),
];

/// How many subnets the programs know of an interface, to choose the address that an ARP request is sent
/// with.
const MOST_SUBNETS: usize = 8;

/// What the interfaces of a host have their addresses from.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    /// Of both families; those of IPv6 only where the MTU allows it.
    pub(super) subnets: Vec<Prefix>,
    pub(super) addresses: Vec<Address>,
}

type Recipe = (Index, u8, Option<u8>);

/// A few subnets of each family, and different addresses in them.
pub(super) fn pools() -> impl Strategy<Value = Pool> {
    let of_one_family = || {
        let recipe = (any::<Index>(), 1..8u8, option::weighted(0.1, 1..8u8));
        (subsequence((0..SUBNETS.len()).collect::<Vec<_>>(), 2..=4), vec(recipe, 4..16))
    };
    (of_one_family(), of_one_family()).prop_map(|((subnets, recipes), (subnets6, recipes6))| {
        let subnets: Vec<Prefix> =
            subnets.iter().map(|i| SUBNETS[*i]).map(|(base, length)| Prefix::new(base, length)).collect();
        let subnets6: Vec<Prefix> =
            subnets6.iter().map(|i| SUBNETS6[*i]).map(|(base, length)| Prefix::new(base, length)).collect();
        let mut addresses = different(&recipes, &subnets);
        addresses.extend(different(&recipes6, &subnets6));
        Pool { subnets: [subnets, subnets6].concat(), addresses }
    })
}

/// Different addresses: each has one prefix and one peer wherever it is configured.
fn different(recipes: &[Recipe], subnets: &[Prefix]) -> Vec<Address> {
    let mut addresses: Vec<Address> = Vec::new();
    let mut seen = HashSet::new();
    for (subnet, number, peer) in recipes {
        let subnet = subnet.get(subnets);
        let peer = peer.map(|number| nth(subnets[0].address, number));
        let address = Address { local: nth(subnet.address, *number), peer, length: subnet.length };
        let network = (network(address.subnet()).address, subnet.length);
        let crowded = seen.len() == MOST_SUBNETS && !seen.contains(&network);
        if !crowded && addresses.iter().all(|other| other.local != address.local) {
            seen.insert(network);
            addresses.push(address);
        }
    }
    addresses
}

impl Pool {
    /// The same without IPv6, which needs an MTU of 1280 bytes.
    pub(super) fn of_ipv4(mut self) -> Self {
        self.subnets.retain(|subnet| subnet.address.is_ipv4());
        self.addresses.retain(|address| address.local.is_ipv4());
        self
    }

    /// An address of its subnets, but not necessarily one of its addresses.
    pub(super) fn near(&self, subnet: Index, number: u8) -> IpAddr {
        nth(subnet.get(&self.subnets).address, number)
    }

    /// A subnet of one of its addresses, that is `shorter` than the address alone: by up to 7 bits, or by
    /// more.
    pub(super) fn prefix(&self, address: Index, shorter: u8) -> Prefix {
        let address = address.get(&self.addresses).local;
        let all = Prefix::exact(address).length;
        let length = match shorter {
            0..8 => all - shorter,
            8..16 => all - 8 * (shorter - 7).min(all / 8 - 1),
            _ => 0,
        };
        network(Prefix { address, length })
    }
}

/// An address near the start of a subnet.
pub(super) fn nth(base: IpAddr, number: u8) -> IpAddr {
    match base {
        IpAddr::V4(base) => Ipv4Addr::from_bits(base.to_bits().wrapping_add(number.into())).into(),
        IpAddr::V6(base) => Ipv6Addr::from_bits(base.to_bits().wrapping_add(number.into())).into(),
    }
}

/// The prefix, named by its first address.
pub(super) fn network(prefix: Prefix) -> Prefix {
    let length = u32::from(prefix.length);
    let address = match prefix.address {
        IpAddr::V4(address) => {
            let suffix = u32::MAX.checked_shr(length).unwrap_or(0);
            IpAddr::from(Ipv4Addr::from_bits(address.to_bits() & !suffix))
        }
        IpAddr::V6(address) => {
            let suffix = u128::MAX.checked_shr(length).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & !suffix).into()
        }
    };
    Prefix { address, ..prefix }
}
