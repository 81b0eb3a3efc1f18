//! The tables that the programs decide from, computed from a [`Host`].

mod blocks;
mod entries;
mod family;
mod filter;
mod fitting;
mod inline;
#[cfg(test)]
mod scale;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;
use mhebpf_ebpf::{
    AddressTables, Block, FurtherOwnerKey, INLINE_OWNERS, Iface, Ipv4, Ipv6, Mac, Neighbour, NextHopKey,
    Owners, OwnersKey, Slot6, Unknown,
};

pub use self::{
    entries::Entries,
    family::{FamilyTables, Hops, WireAddress},
    fitting::{LeftOut, Missing, fit},
};
use super::{
    host::{Framing, Host, Link, LinkKind, prefix},
    next_hops,
    ownership::{self, Bindings, Ownership},
    policy::Policy,
    stacking::{Carrier, Stacking},
};

/// The contents of the BPF maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// By ifindex.
    pub ifaces: BTreeMap<u32, Iface>,
    /// The interfaces that own an address, which are those that have next hops.
    pub owners: BTreeSet<u32>,
    /// Owners for which the tables of owners have no room, and the carriers of hardware addresses.
    pub further_owners: HashSet<FurtherOwnerKey>,
    /// What is known of IPv4 addresses.
    pub ipv4: FamilyTables<Ipv4>,
    /// What is known of IPv6 addresses.
    pub ipv6: FamilyTables<Ipv6>,
}

impl Tables {
    /// Computes the tables of `host`, with `policies` for the enforced interfaces by ifindex.
    ///
    /// All interfaces are in the tables, enforced or not: any of them can be the owner that a packet is
    /// redirected to.
    pub fn new(host: &Host, policies: &BTreeMap<u32, Policy>) -> Self {
        let bindings = Bindings::new(host, policies);
        let stacking = Stacking::of(host);
        let ownerships = ownership::of_addresses(&stacking, &bindings);
        let mut tables = Self::default();
        let distinct: Vec<Owners> =
            ownerships.distinct().iter().map(|each| tables.insert_set(each)).collect();
        let mut with_prefixes = BTreeSet::new();
        for (domain, prefix, place) in ownerships.by_prefix() {
            if prefix.prefix_len() < prefix.max_prefix_len() {
                with_prefixes.insert(domain);
            }
            tables.insert_owners(domain, prefix, distinct[place]);
        }
        for link in host.links.values() {
            let domain = host.domain_of(link.index);
            let mut iface = iface(link, domain, policies.get(&link.index));
            if with_prefixes.contains(&domain) {
                iface.flags |= Iface::PREFIXES;
            }
            tables.ifaces.insert(link.index, iface);
        }
        for Carrier { carrier, mac, of } in stacking.carriers() {
            let is_enforced = policies.contains_key(&of);
            if let Some(iface) = tables.ifaces.get_mut(&carrier) {
                iface.flags |= Iface::CARRIES;
                let key = |mac, of| FurtherOwnerKey::carrier(mac, carrier, of);
                let is_shared = iface.mac == mac;
                let mac = Mac::new(mac);
                tables.further_owners.extend([key(mac, of), key(Mac::BROADCAST, of)]);
                // In the mode passthru both have the same one, and what the interface sends itself has it too.
                if is_enforced && !is_shared {
                    tables.further_owners.insert(key(mac, FurtherOwnerKey::ANY_OUTWARD));
                }
                // What is for one that is a port, a bridge takes.
                let is_port = host.links.get(&of).is_some_and(|link| host.is_port(link));
                if is_enforced || !(is_port || bindings.bound.contains(&of)) {
                    tables.further_owners.insert(key(mac, FurtherOwnerKey::ANY_INWARD));
                }
            }
        }
        tables.fill_inline_addresses(&stacking, &bindings);
        for ((ifindex, _), block) in blocks::of_interfaces(&ownerships, &with_prefixes) {
            // Where foreign sources are dropped, whether an address is foreign matters.
            if policies.get(&ifindex).is_some_and(|policy| policy.unknown == Unknown::Pass) {
                tables.set_block(ifindex, block);
            }
        }
        let owners = ownerships.distinct().iter().flat_map(|each| each.owners.iter().copied()).collect();
        let mut next_hops = next_hops::of_owners(host, &owners);
        // Where there are leaves between two prefixes, what both say may be no repetition.
        if host.leaves.is_empty() {
            next_hops = next_hops::without_repetitions(next_hops);
        }
        tables.owners = owners;
        for ((owner, prefix), hops) in next_hops {
            tables.insert_next_hops(owner, prefix, next_hops::by_weight(&hops));
        }
        tables
    }

    /// All next hops, by owner and prefix.
    pub fn next_hops(&self) -> impl Iterator<Item = (u32, IpNet, Hops)> {
        let ipv4 = self.ipv4.next_hops.iter().map(|((key, length), hops)| {
            (key.owner, prefix(IpAddr::V4(key.destination.into()), *length), Arc::clone(hops))
        });
        let ipv6 = self.ipv6.next_hops.iter().map(|((key, length), hops)| {
            (key.owner, prefix(IpAddr::V6(key.destination.into()), *length), Arc::clone(hops))
        });
        ipv4.chain(ipv6)
    }

    /// How many local addresses there are; those of a prefix count once.
    pub fn local_addresses(&self) -> usize {
        self.ipv4.owners.len() + self.ipv6.owners.len() + self.ipv4.prefixes.len() + self.ipv6.prefixes.len()
    }

    fn fill_inline_addresses(&mut self, stacking: &Stacking<'_>, bindings: &Bindings) {
        for (ifindex, addresses) in inline::of_interfaces(stacking, bindings) {
            let Some(iface) = self.ifaces.get_mut(&ifindex) else { continue };
            let (mut slots, mut slots6) = (0.., 0..);
            for (address, subnet) in addresses {
                match address {
                    IpAddr::V4(local) => {
                        let Some(slot) = slots.next() else { continue };
                        iface.addresses[slot] = local.into();
                        // An address outside its subnet has a peer: what is on-link is the peer's prefix.
                        let in_subnet = subnet.contains(&address);
                        iface.prefix_lengths[slot] = if in_subnet { subnet.prefix_len() } else { 32 };
                    }
                    IpAddr::V6(local) => {
                        let Some(slot) = slots6.next() else { continue };
                        iface.addresses6[slot] = Slot6(local.into());
                    }
                }
            }
        }
    }

    fn set_block(&mut self, ifindex: u32, block: IpNet) {
        let Some(iface) = self.ifaces.get_mut(&ifindex) else { return };
        match block {
            IpNet::V4(net) => {
                iface.block = Block { last: net.broadcast().into(), behind: net.hostmask().into() };
            }
            IpNet::V6(net) => {
                let slot = |address: Ipv6Addr| Slot6(address.into());
                iface.block6 = Block { last: slot(net.broadcast()), behind: slot(net.hostmask()) };
            }
        }
    }

    /// An ownership as the programs have it. Owners for which that has no room go to their own table.
    fn insert_set(&mut self, ownership: &Ownership) -> Owners {
        let mut owners = Owners::NONE;
        if ownership.host_wide {
            owners.flags |= Owners::HOST_WIDE;
        }
        if ownership.allowed_only {
            owners.flags |= Owners::ALLOWED_ONLY;
        }
        for (slot, owner) in owners.inline.iter_mut().zip(&ownership.owners) {
            *slot = *owner;
        }
        if ownership.owners.len() > INLINE_OWNERS {
            owners.flags |= Owners::FURTHER;
            owners.set = name_of_set(&ownership.owners);
            let further = ownership.owners.iter().skip(INLINE_OWNERS);
            self.further_owners.extend(further.map(|ifindex| FurtherOwnerKey::new(owners.set, *ifindex)));
        }
        owners
    }

    fn insert_owners(&mut self, domain: u32, prefix: IpNet, owners: Owners) {
        match prefix {
            IpNet::V4(prefix) => {
                self.ipv4.insert_owners(domain, prefix.addr().into(), prefix.prefix_len(), owners);
            }
            IpNet::V6(prefix) => {
                self.ipv6.insert_owners(domain, prefix.addr().into(), prefix.prefix_len(), owners);
            }
        }
    }

    fn insert_next_hops(&mut self, owner: u32, prefix: IpNet, hops: Hops) {
        match prefix {
            IpNet::V4(prefix) => {
                let key = NextHopKey { owner, destination: Ipv4::from(prefix.addr()) };
                self.ipv4.next_hops.insert((key, prefix.prefix_len()), hops);
            }
            IpNet::V6(prefix) => {
                let key = NextHopKey { owner, destination: Ipv6::from(prefix.addr()) };
                self.ipv6.next_hops.insert((key, prefix.prefix_len()), hops);
            }
        }
    }
}

/// A set of owners is named by what is in it, so that the same set has the same name in all tables of this daemon.
fn name_of_set(owners: &[u32]) -> u64 {
    let mut hasher = DefaultHasher::new();
    owners.hash(&mut hasher);
    hasher.finish() & !FurtherOwnerKey::CARRIERS
}

fn iface(link: &Link, domain: u32, policy: Option<&Policy>) -> Iface {
    let mut iface = Iface::EMPTY;
    if let Some(policy) = policy {
        iface.send = policy.send as u8;
        iface.receive = policy.receive as u8;
        iface.announce = policy.announce as u8;
        iface.unknown = policy.unknown as u8;
        iface.forwarded = policy.forwarded as u8;
    }
    if link.up && !matches!(link.kind, LinkKind::Vrf { .. }) {
        iface.flags |= Iface::UP;
    }
    if link.route_localnet {
        iface.flags |= Iface::ROUTE_LOCALNET;
    }
    if link.framing != Framing::Ethernet {
        iface.flags |= Iface::NO_ETHERNET;
    }
    iface.domain = domain;
    iface.mtu = link.mtu;
    iface.mac = link.mac.unwrap_or_default();
    iface
}

impl mhebpf_ebpf::Tables for Tables {
    fn iface(&self, ifindex: u32) -> Option<&Iface> {
        self.ifaces.get(&ifindex)
    }

    fn is_further_owner(&self, key: &FurtherOwnerKey) -> bool {
        self.further_owners.contains(key)
    }
}

impl AddressTables<Ipv4> for Tables {
    fn owners(&self, key: &OwnersKey<Ipv4>) -> Option<&Owners> {
        self.ipv4.owners.get(key)
    }

    fn owners_by_prefix(&self, key: &OwnersKey<Ipv4>) -> Option<&Owners> {
        self.ipv4.owners_by_prefix(key)
    }

    fn next_hop(&self, owner: u32, destination: Ipv4, flow: u32) -> Option<&Neighbour> {
        self.ipv4.next_hop(owner, destination, flow)
    }
}

impl AddressTables<Ipv6> for Tables {
    fn owners(&self, key: &OwnersKey<Ipv6>) -> Option<&Owners> {
        self.ipv6.owners.get(key)
    }

    fn owners_by_prefix(&self, key: &OwnersKey<Ipv6>) -> Option<&Owners> {
        self.ipv6.owners_by_prefix(key)
    }

    fn next_hop(&self, owner: u32, destination: Ipv6, flow: u32) -> Option<&Neighbour> {
        self.ipv6.next_hop(owner, destination, flow)
    }
}
