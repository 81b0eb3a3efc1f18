//! The tables of one address family.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;
use mhebpf_ebpf::{Ipv4, Ipv6, Neighbour, NextHopKey, Owners, OwnersKey, next_hop::choose};

use crate::model::host::prefix;

/// What is known of the addresses of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyTables<A: Eq + Hash> {
    /// By single address.
    pub owners: HashMap<OwnersKey<A>, Owners>,
    /// By prefix, and its length in bits. Single addresses are here where there is no room for them above.
    pub prefixes: HashMap<(OwnersKey<A>, u8), Owners>,
    /// By owner, destination, and the destination's prefix length in bits.
    pub next_hops: HashMap<(NextHopKey<A>, u8), Hops>,
}

/// Next hops of one route, as often as their weights say: gateways, or [`Neighbour::DESTINATION`]. Never empty.
pub type Hops = Arc<[Neighbour]>;

impl<A: Eq + Hash> Default for FamilyTables<A> {
    fn default() -> Self {
        Self { owners: HashMap::new(), prefixes: HashMap::new(), next_hops: HashMap::new() }
    }
}

/// An address as the programs have it.
pub trait WireAddress: Copy + Eq + Hash + 'static {
    /// The length in bits.
    const BITS: u8;

    /// The first address of the prefix of `length` bits around this one.
    fn truncated(self, length: u8) -> Self;
}

impl WireAddress for Ipv4 {
    const BITS: u8 = 32;

    fn truncated(self, length: u8) -> Self {
        match prefix(IpAddr::V4(Ipv4Addr::from(self)), length) {
            IpNet::V4(prefix) => prefix.addr().into(),
            IpNet::V6(_) => self,
        }
    }
}

impl WireAddress for Ipv6 {
    const BITS: u8 = 128;

    fn truncated(self, length: u8) -> Self {
        match prefix(IpAddr::V6(Ipv6Addr::from(self)), length) {
            IpNet::V6(prefix) => prefix.addr().into(),
            IpNet::V4(_) => self,
        }
    }
}

impl<A: WireAddress> FamilyTables<A> {
    pub(super) fn insert_owners(&mut self, domain: u32, address: A, length: u8, owners: Owners) {
        let key = OwnersKey { domain, address };
        if length < A::BITS {
            self.prefixes.insert((key, length), owners);
        } else {
            self.owners.insert(key, owners);
        }
    }

    /// The owners of the longest prefix that holds an address.
    pub fn owners_by_prefix(&self, key: &OwnersKey<A>) -> Option<&Owners> {
        (0..=A::BITS).rev().find_map(|length| {
            let key = OwnersKey { domain: key.domain, address: key.address.truncated(length) };
            self.prefixes.get(&(key, length))
        })
    }

    /// The next hops by the longest prefix.
    pub fn next_hops(&self, owner: u32, destination: A) -> Option<&Hops> {
        (0..=A::BITS).rev().find_map(|length| {
            let key = NextHopKey { owner, destination: destination.truncated(length) };
            self.next_hops.get(&(key, length))
        })
    }

    /// The next hop by the longest prefix, for this [`flow`](mhebpf_ebpf::next_hop::flow).
    pub fn next_hop(&self, owner: u32, destination: A, flow: u32) -> Option<&Neighbour> {
        let hops = self.next_hops(owner, destination)?;
        hops.get(choose(flow, hops.len() as u32) as usize)
    }
}
