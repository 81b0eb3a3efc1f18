//! Next hops as the maps have them.

use std::{collections::HashMap, iter::repeat_n};

use ipnet::IpNet;
use mhebpf_ebpf::Neighbour;

use super::{NextHop, NextHops};
use crate::model::tables::Hops;

/// How many places the next hops of one route take at most. Weights are approximated within that.
const MOST_PLACES: u32 = 64;

/// Leaves out what the next shorter prefix of the same owner says as well: a million routes by the gateway of the default route
/// are one entry.
pub fn without_repetitions(mut next_hops: NextHops) -> NextHops {
    let mut keys: Vec<(u32, IpNet)> = next_hops.keys().copied().collect();
    // Shorter prefixes come before those inside them.
    keys.sort_unstable();
    let mut around: Vec<(u32, IpNet)> = Vec::new();
    let mut repeated = Vec::new();
    for (owner, prefix) in keys {
        while around.last().is_some_and(|(of, outer)| *of != owner || !outer.contains(&prefix)) {
            around.pop();
        }
        if around.last().is_some_and(|outer| next_hops.get(outer) == next_hops.get(&(owner, prefix))) {
            repeated.push((owner, prefix));
        }
        around.push((owner, prefix));
    }
    for key in repeated {
        next_hops.remove(&key);
    }
    next_hops
}

/// Each next hop as often as its weight says.
pub fn by_weight(hops: &[(NextHop, u16)]) -> Hops {
    // The same one may be there more than once.
    let mut weights: HashMap<NextHop, u32> = HashMap::new();
    let mut order = Vec::new();
    for (hop, weight) in hops {
        let sum = weights.entry(*hop).or_insert_with(|| {
            order.push(*hop);
            0
        });
        *sum += u32::from(*weight).max(1);
    }
    let divisor = weights.values().copied().fold(0, greatest_common_divisor).max(1);
    let total: u32 = weights.values().sum::<u32>() / divisor;
    order.truncate(MOST_PLACES as usize);
    let places = |hop: &NextHop| {
        let weight = weights[hop] / divisor;
        if total <= MOST_PLACES {
            return weight;
        }
        // Whoever has a weight has a place.
        (u64::from(weight) * u64::from(MOST_PLACES) / u64::from(total)).max(1) as u32
    };
    let neighbours = order.iter().flat_map(|hop| {
        let neighbour = match hop {
            NextHop::OnLink => Neighbour::DESTINATION,
            NextHop::Gateway(gateway) => (*gateway).into(),
        };
        repeat_n(neighbour, places(hop) as usize)
    });
    neighbours.collect()
}

fn greatest_common_divisor(one: u32, other: u32) -> u32 {
    if other == 0 { one } else { greatest_common_divisor(other, one % other) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing::{ip, net};

    fn gateway(text: &str) -> NextHop {
        NextHop::Gateway(ip(text))
    }

    #[test]
    fn what_a_shorter_prefix_says_is_left_out() {
        let by = |text| vec![(gateway(text), 1)];
        let next_hops = NextHops::from([
            ((2, net("0.0.0.0/0")), by("10.0.0.1")),
            ((2, net("192.0.2.0/24")), by("10.0.0.1")),
            ((2, net("198.51.100.0/24")), by("10.0.0.2")),
            ((2, net("198.51.100.128/25")), by("10.0.0.1")),
            ((2, net("198.51.100.192/26")), by("10.0.0.1")),
            ((3, net("192.0.2.0/24")), by("10.0.0.1")),
        ]);
        let mut left: Vec<_> = without_repetitions(next_hops).into_keys().collect();
        left.sort();
        let expected =
            [(2, "0.0.0.0/0"), (2, "198.51.100.0/24"), (2, "198.51.100.128/25"), (3, "192.0.2.0/24")];
        assert_eq!(left, expected.map(|(owner, prefix)| (owner, net(prefix))));
    }

    #[test]
    fn weights_are_shares_of_the_places() {
        let [one, other] = ["10.0.0.1", "10.0.0.2"].map(gateway);
        let places = |hops: &[(NextHop, u16)]| {
            let all = by_weight(hops);
            let first = all.iter().filter(|hop| hop.ip() == Some(ip("10.0.0.1"))).count();
            (first, all.len() - first)
        };
        assert_eq!(places(&[(one, 1)]), (1, 0));
        assert_eq!(places(&[(one, 30), (other, 10)]), (3, 1));
        assert_eq!(places(&[(one, 1), (other, 1), (one, 1)]), (2, 1));
        assert_eq!(places(&[(one, 65_535), (other, 1)]), (63, 1), "a small weight is not none");
    }
}
