//! The tables that the programs decide from, computed from a [`Host`].

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::Ipv4Addr,
};

use mhebpf_ebpf::{
    Announce, FurtherOwnerKey, INLINE_ADDRESSES, INLINE_OWNERS, Iface, Ipv4, NextHop, NextHopKey, Owners,
    OwnersKey, Receive, Send, Unknown,
};

use super::{
    host::{Host, Link, Prefix},
    next_hops, ownership,
    ownership::Ownership,
};

/// The set of addresses outside VRFs.
const MAIN_DOMAIN: u32 = 0;

/// What is enforced on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// For packets that leave.
    pub send: Send,
    /// For datagrams that arrive.
    pub receive: Receive,
    /// For ARP.
    pub announce: Announce,
    /// For packets of local origin with a foreign source.
    pub unknown: Unknown,
}

/// The contents of the BPF maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// By ifindex.
    pub ifaces: BTreeMap<u32, Iface>,
    /// By address.
    pub owners: HashMap<OwnersKey, Owners>,
    /// Owners for which an entry of `owners` has no room.
    pub further_owners: HashSet<FurtherOwnerKey>,
    /// By owner, destination, and the destination's prefix length in bits.
    pub next_hops: HashMap<(NextHopKey, u8), NextHop>,
}

impl Tables {
    /// Computes the tables of `host`, with `policies` for the enforced interfaces by ifindex.
    ///
    /// All interfaces are in the tables, enforced or not: any of them can be the owner that a packet is
    /// redirected to.
    pub fn new(host: &Host, policies: &BTreeMap<u32, Policy>) -> Self {
        let ownerships = ownership::of_addresses(host);
        let mut tables = Self::default();
        for link in host.links.values() {
            tables.ifaces.insert(link.index, iface(link, policies.get(&link.index)));
        }
        tables.fill_inline_addresses(host, &ownerships);
        for (address, ownership) in &ownerships {
            tables.insert_owners(Ipv4::from(*address), ownership);
        }
        let owners: BTreeSet<u32> = ownerships.values().flat_map(|o| o.owners.iter().copied()).collect();
        for ((owner, prefix), next_hop) in next_hops::of_owners(host, &owners) {
            let key = NextHopKey { owner, destination: Ipv4::from(prefix.address()) };
            let next_hop = match next_hop {
                next_hops::NextHop::OnLink => NextHop::ON_LINK,
                next_hops::NextHop::Gateway(gateway) => NextHop { gateway: Ipv4::from(gateway) },
            };
            tables.next_hops.insert((key, prefix.length()), next_hop);
        }
        tables
    }

    /// One address of each subnet first, so that an ARP request finds one in the subnet of its target; then
    /// the others in the order of the host. Host-wide addresses are left out: they are nobody's own. So are
    /// those of 127.0.0.0/8, which are judged by another rule.
    fn fill_inline_addresses(&mut self, host: &Host, ownerships: &BTreeMap<Ipv4Addr, Ownership>) {
        let mut candidates: BTreeMap<u32, Candidates> = BTreeMap::new();
        // Those that are configured on the interface go before those that it owns for a device above it.
        for configured in [true, false] {
            for address in host.addresses.iter().filter(|address| !address.local.is_loopback()) {
                let Some(ownership) = ownerships.get(&address.local) else { continue };
                for owner in
                    ownership.owners.iter().filter(|owner| (**owner == address.ifindex) == configured)
                {
                    candidates.entry(*owner).or_default().offer(address.local, address.subnet);
                }
            }
        }
        for (ifindex, candidates) in candidates {
            let Some(iface) = self.ifaces.get_mut(&ifindex) else { continue };
            for (slot, (address, subnet)) in candidates.best().enumerate() {
                iface.addresses[slot] = Ipv4::from(address);
                // An address outside its subnet has a peer: what is on-link is the peer's prefix.
                iface.prefix_lengths[slot] = if subnet.contains(address) { subnet.length() } else { 32 };
            }
        }
    }

    fn insert_owners(&mut self, address: Ipv4, ownership: &Ownership) {
        let domain = MAIN_DOMAIN;
        let mut owners = Owners { flags: 0, inline: [0; INLINE_OWNERS] };
        if ownership.host_wide {
            owners.flags |= Owners::HOST_WIDE;
        }
        for (slot, owner) in owners.inline.iter_mut().zip(&ownership.owners) {
            *slot = *owner;
        }
        for ifindex in ownership.owners.iter().skip(INLINE_OWNERS) {
            owners.flags |= Owners::FURTHER;
            self.further_owners.insert(FurtherOwnerKey { ifindex: *ifindex, domain, address });
        }
        self.owners.insert(OwnersKey { domain, address }, owners);
    }
}

/// Addresses of an interface from which its inline ones are taken: never more than are needed, however many
/// the interface has.
#[derive(Default)]
struct Candidates {
    first_of_subnet: Vec<(Ipv4Addr, Prefix)>,
    others: Vec<(Ipv4Addr, Prefix)>,
}

impl Candidates {
    fn offer(&mut self, address: Ipv4Addr, subnet: Prefix) {
        let candidate = (address, subnet);
        let new_subnet = self.first_of_subnet.iter().all(|(_, known)| *known != subnet);
        let known = self.first_of_subnet.contains(&candidate) || self.others.contains(&candidate);
        let list = if new_subnet { &mut self.first_of_subnet } else { &mut self.others };
        if list.len() < INLINE_ADDRESSES && !known {
            list.push(candidate);
        }
    }

    fn best(self) -> impl Iterator<Item = (Ipv4Addr, Prefix)> {
        self.first_of_subnet.into_iter().chain(self.others).take(INLINE_ADDRESSES)
    }
}

fn iface(link: &Link, policy: Option<&Policy>) -> Iface {
    let mut iface = Iface::EMPTY;
    if let Some(policy) = policy {
        iface.send = policy.send as u8;
        iface.receive = policy.receive as u8;
        iface.announce = policy.announce as u8;
        iface.unknown = policy.unknown as u8;
    }
    if link.up {
        iface.flags |= Iface::UP;
    }
    if link.route_localnet {
        iface.flags |= Iface::ROUTE_LOCALNET;
    }
    iface.domain = MAIN_DOMAIN;
    iface.mtu = link.mtu;
    iface.mac = link.mac.unwrap_or_default();
    iface
}

impl mhebpf_ebpf::Tables for Tables {
    fn iface(&self, ifindex: u32) -> Option<&Iface> {
        self.ifaces.get(&ifindex)
    }

    fn owners(&self, key: &OwnersKey) -> Option<&Owners> {
        self.owners.get(key)
    }

    fn is_further_owner(&self, key: &FurtherOwnerKey) -> bool {
        self.further_owners.contains(key)
    }

    fn next_hop(&self, owner: u32, destination: Ipv4) -> Option<NextHop> {
        (0..=32).rev().find_map(|length| {
            let prefix = Prefix::new(Ipv4Addr::from(destination), length);
            let key = NextHopKey { owner, destination: Ipv4::from(prefix.address()) };
            self.next_hops.get(&(key, length)).copied()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        LinkKind,
        testing::{address, host, link},
    };

    #[test]
    fn inline_addresses_have_one_of_each_subnet_first() {
        let host = host(
            [link(2, LinkKind::Other)],
            [address(2, [10, 0, 0, 1], 24), address(2, [10, 0, 0, 2], 24), address(2, [192, 168, 0, 1], 16)],
        );
        let tables = Tables::new(&host, &BTreeMap::new());
        let iface = &tables.ifaces[&2];
        let expected = [[10, 0, 0, 1], [192, 168, 0, 1], [10, 0, 0, 2]].map(Ipv4::new);
        assert_eq!(iface.addresses[..3], expected);
        assert_eq!(iface.prefix_lengths[..3], [24, 16, 24]);
        assert!(iface.addresses[3..].iter().all(|address| address.is_unspecified()));
    }

    #[test]
    fn a_subnet_is_found_behind_however_many_addresses_of_another() {
        let crowd = (1..=100).map(|n| address(2, [10, 1, 0, n], 24));
        let host = host([link(2, LinkKind::Other)], crowd.chain([address(2, [10, 2, 0, 1], 24)]));
        let iface = Tables::new(&host, &BTreeMap::new()).ifaces[&2];
        let towards = iface.address_towards(Ipv4::new([10, 2, 0, 7]));
        assert_eq!(towards, Some(Ipv4::new([10, 2, 0, 1])));
    }

    #[test]
    fn an_address_with_two_prefixes_speaks_to_both() {
        let addresses =
            [address(2, [172, 16, 0, 1], 24), address(2, [10, 7, 0, 1], 24), address(2, [10, 7, 0, 1], 8)];
        let iface = Tables::new(&host([link(2, LinkKind::Other)], addresses), &BTreeMap::new()).ifaces[&2];
        let towards = iface.address_towards(Ipv4::new([10, 9, 0, 7]));
        assert_eq!(towards, Some(Ipv4::new([10, 7, 0, 1])));
    }

    #[test]
    fn host_wide_addresses_are_nobodys_own() {
        let host = host(
            [link(1, LinkKind::Loopback), link(2, LinkKind::Other)],
            [address(1, [10, 9, 9, 9], 32), address(2, [10, 0, 0, 1], 24)],
        );
        let tables = Tables::new(&host, &BTreeMap::new());
        assert!(!tables.ifaces[&2].has_inline(Ipv4::new([10, 9, 9, 9])));
        let key = OwnersKey { domain: 0, address: Ipv4::new([10, 9, 9, 9]) };
        assert!(tables.owners[&key].is_host_wide());
    }

    #[test]
    fn owners_beyond_the_inline_ones_are_kept_apart() {
        let mut links = vec![link(9, LinkKind::Aggregate)];
        for index in 20..26 {
            let mut port = link(index, LinkKind::Veth);
            port.master = Some(9);
            links.push(port);
        }
        let tables = Tables::new(&host(links, [address(9, [10, 0, 0, 1], 24)]), &BTreeMap::new());
        let owners = tables.owners[&OwnersKey { domain: 0, address: Ipv4::new([10, 0, 0, 1]) }];
        assert_eq!(owners.inline[0], 9);
        assert!(owners.has_further());
        assert_eq!(tables.further_owners.len(), 7 - INLINE_OWNERS);
    }

    #[test]
    fn the_longest_prefix_wins() {
        use mhebpf_ebpf::Tables as _;
        let mut tables = Tables::default();
        let gateway = Ipv4::new([10, 0, 0, 1]);
        let key = |destination| NextHopKey { owner: 2, destination: Ipv4::new(destination) };
        tables.next_hops.insert((key([0, 0, 0, 0]), 0), NextHop { gateway });
        tables.next_hops.insert((key([10, 0, 0, 0]), 24), NextHop::ON_LINK);
        assert_eq!(tables.next_hop(2, Ipv4::new([10, 0, 0, 9])), Some(NextHop::ON_LINK));
        assert_eq!(tables.next_hop(2, Ipv4::new([10, 0, 1, 9])), Some(NextHop { gateway }));
        assert_eq!(tables.next_hop(3, Ipv4::new([10, 0, 1, 9])), None);
    }
}
