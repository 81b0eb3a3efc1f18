//! The addresses that an interface's entry carries.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use mhebpf_ebpf::INLINE_ADDRESSES;

use crate::model::{Address, Bindings, Stacking};

/// The inline addresses of each interface, at most [`INLINE_ADDRESSES`] of each family, each with its subnet.
///
/// One address of each subnet first, so that an ARP request finds one in the subnet of its target; then the others
/// in the order of the host. Those that are configured on the interface go before those that it owns for a device
/// above it. Host-wide addresses are left out: they are nobody's own. So are those of loopback, which are judged by
/// another rule.
pub(super) fn of_interfaces(
    stacking: &Stacking<'_>,
    bindings: &Bindings,
) -> BTreeMap<u32, Vec<(IpAddr, IpNet)>> {
    let host = stacking.host;
    // What a device that is not bound has is everyone's, its own as well: it speaks with its addresses first.
    let is_candidate = |address: &&Address| {
        let on_a_wire = host.links.get(&address.ifindex).is_some_and(|link| !link.kind.is_without_wire());
        on_a_wire && !address.local.is_loopback()
    };
    let mut candidates: BTreeMap<u32, Candidates> = BTreeMap::new();
    // What the device itself has no use for, those below have no use for either: the few that fill its lists fill
    // theirs. So the thousand addresses of a bridge are not offered to each of its hundred ports.
    let mut useful = Vec::new();
    for address in host.addresses.iter().filter(is_candidate) {
        if candidates.entry(address.ifindex).or_default().offer(address) {
            useful.push(address);
        }
    }
    for address in useful {
        if bindings.binds(host, address.ifindex, address.local.into()) {
            for owner in stacking.below(address.ifindex) {
                candidates.entry(*owner).or_default().offer(address);
            }
        }
    }
    candidates.into_iter().map(|(ifindex, candidates)| (ifindex, candidates.best())).collect()
}

/// Addresses from which the inline ones are taken: never more than are needed, however many there are.
#[derive(Default)]
struct Candidates {
    ipv4: Family,
    ipv6: Family,
}

#[derive(Default)]
struct Family {
    first_of_subnet: Vec<(IpAddr, IpNet)>,
    others: Vec<(IpAddr, IpNet)>,
}

impl Candidates {
    /// Whether it was of use.
    fn offer(&mut self, address: &Address) -> bool {
        match address.local {
            IpAddr::V4(_) => self.ipv4.offer((address.local, address.subnet)),
            IpAddr::V6(_) => self.ipv6.offer((address.local, address.subnet)),
        }
    }

    fn best(self) -> Vec<(IpAddr, IpNet)> {
        self.ipv4.best().chain(self.ipv6.best()).collect()
    }
}

impl Family {
    fn offer(&mut self, candidate: (IpAddr, IpNet)) -> bool {
        let new_subnet = self.first_of_subnet.iter().all(|(_, known)| *known != candidate.1);
        let known = self.first_of_subnet.contains(&candidate) || self.others.contains(&candidate);
        let list = if new_subnet { &mut self.first_of_subnet } else { &mut self.others };
        let is_of_use = list.len() < INLINE_ADDRESSES && !known;
        if is_of_use {
            list.push(candidate);
        }
        is_of_use
    }

    fn best(self) -> impl Iterator<Item = (IpAddr, IpNet)> {
        self.first_of_subnet.into_iter().chain(self.others).take(INLINE_ADDRESSES)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::model::{
        Host, Link, LinkKind,
        host::prefix,
        testing::{all_bound, host, link, port, stacked},
    };

    /// All addresses of a device offered to all interfaces below it.
    fn simply(stacking: &Stacking<'_>) -> BTreeMap<u32, Vec<(IpAddr, IpNet)>> {
        let mut candidates: BTreeMap<u32, Candidates> = BTreeMap::new();
        for address in &stacking.host.addresses {
            candidates.entry(address.ifindex).or_default().offer(address);
        }
        for address in &stacking.host.addresses {
            for owner in stacking.below(address.ifindex) {
                candidates.entry(*owner).or_default().offer(address);
            }
        }
        candidates.into_iter().map(|(ifindex, candidates)| (ifindex, candidates.best())).collect()
    }

    /// Ports 2 and 3 of a bridge, a bond over port 4, and VLANs on both.
    fn links() -> Vec<Link> {
        let aggregates = [8, 9].map(|index| link(index, LinkKind::Bond));
        let stacked = [stacked(10, 9), stacked(11, 9), stacked(12, 8), stacked(13, 2)];
        [port(2, 9), port(3, 9), port(4, 8)].into_iter().chain(aggregates).chain(stacked).collect()
    }

    #[test]
    fn interfaces_below_get_what_they_would_of_all_addresses() {
        let owners = [2, 3, 4, 8, 9, 10, 11, 12, 13];
        // A linear congruential generator (Knuth, MMIX): many hosts, the same at each run.
        let mut state = 1_u64;
        let mut below = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        for round in 0..500 {
            // Few subnets with many addresses, or many with few; some addresses on several devices.
            let subnets = 1 + below(20);
            let addresses = (0..below(120)).map(|_| {
                let local = IpAddr::V4(Ipv4Addr::new(10, below(subnets) as u8, 0, below(40) as u8));
                let ifindex = owners[below(owners.len() as u64) as usize];
                Address { ifindex, local, subnet: prefix(local, 24), tentative: false, host_scope: false }
            });
            let host: Host = host(links(), addresses.collect::<Vec<_>>());
            let stacking = Stacking::of(&host);
            assert_eq!(
                of_interfaces(&stacking, &all_bound(&host)),
                simply(&stacking),
                "round {round}: {:?}",
                host.addresses
            );
        }
    }
}
