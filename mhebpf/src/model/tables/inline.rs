//! The addresses that an interface's entry carries.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use mhebpf_ebpf::INLINE_ADDRESSES;

use crate::model::{Address, Stacking};

/// The inline addresses of each interface, at most [`INLINE_ADDRESSES`] of each family, each with its subnet.
///
/// One address of each subnet first, so that an ARP request finds one in the subnet of its target; then the others
/// in the order of the host. Those that are configured on the interface go before those that it owns for a device
/// above it. Host-wide addresses are left out: they are nobody's own. So are those of loopback, which are judged by
/// another rule.
pub(super) fn of_interfaces(stacking: &Stacking<'_>) -> BTreeMap<u32, Vec<(IpAddr, IpNet)>> {
    let host = stacking.host;
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
        for owner in stacking.below(address.ifindex) {
            candidates.entry(*owner).or_default().offer(address);
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
