//! How the devices of a host lie on one another.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::host::{Host, LinkKind};

/// The ports of every device and the devices below it, worked out once for all addresses.
pub struct Stacking<'a> {
    /// The host.
    pub host: &'a Host,
    ports: BTreeMap<u32, Vec<u32>>,
    below: BTreeMap<u32, Vec<u32>>,
}

impl<'a> Stacking<'a> {
    /// Works it out for all links of a host.
    pub fn of(host: &'a Host) -> Self {
        let mut stacking = Self { host, ports: BTreeMap::new(), below: BTreeMap::new() };
        for link in host.links.values() {
            if let Some(master) = link.master {
                stacking.ports.entry(master).or_default().push(link.index);
            }
        }
        for ifindex in host.links.keys() {
            let below = stacking.find_below(*ifindex);
            if !below.is_empty() {
                stacking.below.insert(*ifindex, below);
            }
        }
        stacking
    }

    /// The interfaces that the packets of `ifindex` cross on their way to the wire, itself left out, in order of
    /// their distance.
    pub fn below(&self, ifindex: u32) -> &[u32] {
        self.below.get(&ifindex).map_or(&[], Vec::as_slice)
    }

    fn find_below(&self, ifindex: u32) -> Vec<u32> {
        let mut found = Vec::new();
        let mut seen = BTreeSet::from([ifindex]);
        let mut next = VecDeque::from([ifindex]);
        while let Some(current) = next.pop_front() {
            for lower in self.directly_below(current) {
                if seen.insert(*lower) {
                    found.push(*lower);
                    next.push_back(*lower);
                }
            }
        }
        found
    }

    fn directly_below(&self, ifindex: u32) -> &[u32] {
        let Some(link) = self.host.links.get(&ifindex) else { return &[] };
        match link.kind {
            LinkKind::Stacked => link.link.as_slice(),
            LinkKind::Aggregate | LinkKind::Vrf { .. } => self.ports.get(&ifindex).map_or(&[], Vec::as_slice),
            _ => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing::{host, link, port, stacked};

    #[test]
    fn what_is_below_comes_in_the_order_of_distance() {
        let links = [port(2, 9), port(3, 9), link(9, LinkKind::Aggregate), stacked(10, 9)];
        let host = host(links, []);
        assert_eq!(Stacking::of(&host).below(10), [9, 2, 3]);
    }

    #[test]
    fn devices_in_a_circle_end() {
        let host = host([stacked(2, 3), stacked(3, 2)], []);
        assert_eq!(Stacking::of(&host).below(2), [3]);
    }
}
