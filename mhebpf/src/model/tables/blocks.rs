//! Blocks of addresses that pass on an interface with more than one.
//!
//! Each address in a block is the interface's own or foreign. Where foreign sources pass, the verdict is the same for all of
//! them, and one compare is enough for two addresses as for a thousand.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

use crate::model::{host::prefix, ownership::Ownerships};

/// The best block of each interface that can have one, by ifindex and family (`true` for IPv4): that with most of its
/// addresses, at least two, and no longer than these need.
///
/// Interfaces in one of the domains `by_prefix`, where prefixes have owners, have none.
///
/// Takes time that grows with the addresses and their owners.
pub(super) fn of_interfaces(
    ownerships: &Ownerships,
    by_prefix: &BTreeSet<u32>,
) -> BTreeMap<(u32, bool), IpNet> {
    let mut addresses: BTreeMap<(u32, bool), Vec<Owned>> = BTreeMap::new();
    for (domain, net, place) in ownerships.by_prefix() {
        let ownership = &ownerships.distinct()[place];
        let may_be_inside = !ownership.host_wide && !net.addr().is_loopback();
        let all = addresses.entry((domain, net.addr().is_ipv4())).or_default();
        all.push((Bits::of(net.addr()), may_be_inside.then_some(place)));
    }
    let mut best: HashMap<(u32, bool), Block> = HashMap::new();
    for ((domain, ipv4), mut all) in addresses {
        if by_prefix.contains(&domain) {
            continue;
        }
        all.extend(Bits::bounds_of_loopback(ipv4).map(|bits| (bits, None)));
        all.sort_unstable();
        for block in blocks(&all) {
            for owner in &ownerships.distinct()[block.place].owners {
                let best = best.entry((*owner, ipv4)).or_insert(block);
                if best.count < block.count {
                    *best = block;
                }
            }
        }
    }
    let several = best.into_iter().filter(|(_, block)| block.count > 1);
    let blocks = several.map(|((ifindex, ipv4), block)| ((ifindex, ipv4), block.first.net(block.last, ipv4)));
    // Ones at the beginning close a block (`datapath/maps/staged.rs`).
    blocks.filter(|(_, block)| !begins_with_ones(block.broadcast())).collect()
}

fn begins_with_ones(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[0] == 0xff,
        IpAddr::V6(address) => address.octets()[0] == 0xff,
    }
}

/// An address, and the place of its ownership; `None` where it must not be in any block.
type Owned = (Bits, Option<usize>);

/// Addresses that have the same owners, and a prefix in common that no other's address has.
#[derive(Clone, Copy)]
struct Block {
    first: Bits,
    last: Bits,
    count: usize,
    place: usize,
}

/// The blocks of sorted addresses, each with as many as it can have.
fn blocks(all: &[Owned]) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut before = None;
    let mut same_owners = all.chunk_by(|(_, one), (_, other)| one == other).peekable();
    while let Some(chunk) = same_owners.next() {
        let after = same_owners.peek().and_then(|next| next.first()).map(|(bits, _)| *bits);
        // The longest prefix that an address shares with one of another's is one of these two.
        let shared = |bits: Bits| {
            let others = [before, after].into_iter().flatten();
            others.map(|other| bits.in_common(other) + 1).max().unwrap_or_default()
        };
        // Where two are in one block, so is what is between them.
        for group in chunk.chunk_by(|(one, _), (next, _)| one.in_common(*next) >= shared(*one)) {
            if let [(first, Some(place)), ..] = group
                && let [.., (last, _)] = group
            {
                blocks.push(Block { first: *first, last: *last, count: group.len(), place: *place });
            }
        }
        before = chunk.last().map(|(bits, _)| *bits);
    }
    blocks
}

/// An address with its first bit as the highest one, whatever its length.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Bits(u128);

impl Bits {
    fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self(u128::from(address.to_bits()) << 96),
            IpAddr::V6(address) => Self(address.to_bits()),
        }
    }

    /// A prefix that has none of these is not around loopback, and one that is within has no interface's address.
    fn bounds_of_loopback(ipv4: bool) -> impl Iterator<Item = Self> {
        let bounds: [IpAddr; 2] = if ipv4 {
            [Ipv4Addr::new(127, 0, 0, 0).into(), Ipv4Addr::new(127, 255, 255, 255).into()]
        } else {
            [Ipv6Addr::LOCALHOST.into(); 2]
        };
        bounds.into_iter().map(Self::of)
    }

    /// How many bits two different addresses begin with that are the same.
    const fn in_common(self, other: Self) -> u32 {
        (self.0 ^ other.0).leading_zeros()
    }

    /// The longest prefix of two addresses.
    fn net(self, last: Self, ipv4: bool) -> IpNet {
        let common = self.in_common(last);
        if ipv4 {
            prefix(Ipv4Addr::from_bits((self.0 >> 96) as u32).into(), common.min(32) as u8)
        } else {
            prefix(Ipv6Addr::from_bits(self.0).into(), common as u8)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        Address, Host, LinkKind, ownership,
        stacking::Stacking,
        testing::{address, all_bound, host, link, net},
    };

    fn of(host: &Host) -> BTreeMap<(u32, bool), IpNet> {
        let stacking = Stacking::of(host);
        of_interfaces(&ownership::of_addresses(&stacking, &all_bound(host)), &BTreeSet::new())
    }

    fn two(addresses: impl IntoIterator<Item = Address>) -> Host {
        host([link(1, LinkKind::Loopback), link(2, LinkKind::Wire), link(3, LinkKind::Wire)], addresses)
    }

    fn crowd(ifindex: u32, third: u8, numbers: impl Iterator<Item = u8>) -> impl Iterator<Item = Address> {
        numbers.map(move |n| address(ifindex, &format!("10.0.{third}.{n}/16")))
    }

    #[test]
    fn a_block_is_no_longer_than_its_addresses_need_and_has_no_others() {
        let mut addresses: Vec<Address> = crowd(2, 0, 1..=100).collect();
        assert_eq!(of(&two(addresses.clone()))[&(2, true)], net("10.0.0.0/25"));
        addresses.push(address(3, "10.0.0.110/16"));
        assert_eq!(
            of(&two(addresses.clone()))[&(2, true)],
            net("10.0.0.0/26"),
            "64 to 100 have the other beside them"
        );
        addresses.extend(crowd(2, 7, 1..=200));
        assert_eq!(of(&two(addresses))[&(2, true)], net("10.0.7.0/24"), "most addresses");
    }

    #[test]
    fn two_addresses_are_enough_but_not_with_another_between() {
        assert_eq!(of(&two(crowd(2, 0, 1..=1))), BTreeMap::new());
        assert_eq!(of(&two(crowd(2, 0, 1..=2)))[&(2, true)], net("10.0.0.0/30"));
        let alternating =
            crowd(2, 0, (0..100).map(|n| 2 * n)).chain(crowd(3, 0, (0..100).map(|n| 2 * n + 1)));
        assert_eq!(of(&two(alternating)), BTreeMap::new(), "no two are alone in a prefix");
    }

    #[test]
    fn no_block_ends_with_an_address_that_begins_with_ones() {
        let far_apart = |addresses: [&str; 2]| of(&two(addresses.map(|text| address(2, text))));
        assert_eq!(far_apart(["130.0.0.1/24", "200.0.0.1/24"]), BTreeMap::new(), "128.0.0.0/1");
        assert_eq!(far_apart(["130.0.0.1/24", "140.0.0.1/24"])[&(2, true)], net("128.0.0.0/4"));
        assert_eq!(far_apart(["8000::1/64", "c000::1/64"]), BTreeMap::new(), "8000::/1");
    }

    #[test]
    fn loopback_is_in_no_block() {
        let around = (1..=9).map(|n| address(2, &format!("126.0.0.{n}/8")));
        let around = around.chain([address(2, "128.0.0.1/8"), address(1, "127.0.0.1/8")]);
        assert_eq!(of(&two(around))[&(2, true)], net("126.0.0.0/28"));
        let around = (2..=20).map(|n| address(2, &format!("::{n:x}/64")));
        assert_eq!(of(&two(around))[&(2, false)], net("::8/125"), "most of those that are not with ::1");
    }

    #[test]
    fn each_address_of_a_block_is_owned_or_nobodys() {
        // A linear congruential generator (Knuth, MMIX): many hosts, the same at each run.
        let mut state = 1_u64;
        let mut below = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        let mut found = 0;
        for _ in 0..300 {
            let spread = 1 + below(255);
            let addresses: Vec<Address> = (0..below(200))
                .map(|_| {
                    let ifindex = if below(20) == 0 { 1 + 2 * below(2) as u32 } else { 2 };
                    address(ifindex, &format!("10.0.{}.{}/16", below(4), below(spread)))
                })
                .collect();
            let host = two(addresses);
            let ownerships = ownership::of_addresses(&Stacking::of(&host), &all_bound(&host));
            for ((ifindex, _), block) in of(&host) {
                found += 1;
                let inside: Vec<_> = host.addresses.iter().filter(|a| block.contains(&a.local)).collect();
                assert!(inside.len() > 1);
                for address in inside {
                    let ownership = ownerships.of_address(0, address.local).expect("it is local");
                    assert!(ownership.owners.contains(&ifindex), "{} in {block} of {ifindex}", address.local);
                }
            }
        }
        assert!(found > 200, "{found}");
    }
}
