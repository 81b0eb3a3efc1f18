//! The addresses that an interface's entry carries.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use mhebpf_ebpf::INLINE_ADDRESSES;

use crate::model::{Address, Host, ownership};

/// The inline addresses of each interface, at most [`INLINE_ADDRESSES`] of each family, each with its subnet.
///
/// One address of each subnet first, so that an ARP request finds one in the subnet of its target; then the others
/// in the order of the host. Those that are configured on the interface go before those that it owns for a device
/// above it. Host-wide addresses are left out: they are nobody's own. So are those of loopback, which are judged by
/// another rule.
pub(super) fn of_interfaces(host: &Host) -> BTreeMap<u32, Vec<(IpAddr, IpNet)>> {
    let is_candidate = |address: &&Address| {
        let on_a_wire = host.links.get(&address.ifindex).is_some_and(|link| !link.kind.is_without_wire());
        on_a_wire && !address.local.is_loopback()
    };
    let addresses: Vec<&Address> = host.addresses.iter().filter(is_candidate).collect();
    let mut candidates: BTreeMap<u32, Candidates> = BTreeMap::new();
    for address in &addresses {
        candidates.entry(address.ifindex).or_default().offer(address);
    }
    let mut below: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for address in &addresses {
        for owner in below.entry(address.ifindex).or_insert_with(|| ownership::below(host, address.ifindex)) {
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
    fn offer(&mut self, address: &Address) {
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
    fn offer(&mut self, candidate: (IpAddr, IpNet)) {
        let new_subnet = self.first_of_subnet.iter().all(|(_, known)| *known != candidate.1);
        let known = self.first_of_subnet.contains(&candidate) || self.others.contains(&candidate);
        let list = if new_subnet { &mut self.first_of_subnet } else { &mut self.others };
        if list.len() < INLINE_ADDRESSES && !known {
            list.push(candidate);
        }
    }

    fn best(self) -> impl Iterator<Item = (IpAddr, IpNet)> {
        self.first_of_subnet.into_iter().chain(self.others).take(INLINE_ADDRESSES)
    }
}
