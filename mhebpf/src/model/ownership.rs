//! Which interfaces own an address.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
};

use ipnet::IpNet;

use super::host::{Host, LinkKind, prefix};

/// The owners of an address or of all addresses of a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ownership {
    /// Every interface owns it.
    pub host_wide: bool,
    /// It is not local: the owners are those that the configuration allows it on, and to others it is foreign.
    pub allowed_only: bool,
    /// Owners in order of preference for a redirect.
    pub owners: Vec<u32>,
}

/// Ownerships by domain and prefix; that of an address is the one of the longest prefix that holds it.
pub type Ownerships = BTreeMap<(u32, IpNet), Ownership>;

/// What is said of the owners of one prefix, before it is seen together with the prefixes around it.
#[derive(Clone, Debug, Default)]
struct Claims {
    host_wide: bool,
    /// Interfaces that it is configured on.
    configured: BTreeSet<u32>,
    /// Interfaces that it is routed to locally.
    routed: BTreeSet<u32>,
    /// Interfaces that the configuration allows it on.
    allowed: BTreeSet<u32>,
}

/// The owners of every local address of a host, and of those that `allowed` names for interfaces.
///
/// An address is owned by the interface that it is configured on or locally routed to, and by those that the
/// interface's packets cross: the device that a VLAN or macvlan is stacked on, the ports of a bridge, bond, team or
/// VRF. On an interface without a wire it is host-wide. Each owner owns it in its own domain: addresses of VRFs are
/// compared only within theirs.
pub fn of_addresses(host: &Host, allowed: &BTreeMap<u32, Vec<IpNet>>) -> Ownerships {
    let mut lower = Lower::new(host);
    let mut claims: BTreeMap<(u32, IpNet), Claims> = BTreeMap::new();
    for address in &host.addresses {
        let Some(link) = host.links.get(&address.ifindex) else { continue };
        let single = IpNet::from(address.local);
        if link.kind.is_without_wire() {
            claims.entry((host.domain_of(link.index), single)).or_default().host_wide = true;
            continue;
        }
        for domain in lower.domains(link.index) {
            claims.entry((*domain, single)).or_default().configured.insert(link.index);
        }
    }
    for route in &host.local_routes {
        let Some(link) = host.links.get(&route.ifindex) else { continue };
        if link.kind.is_without_wire() {
            claims.entry((route.domain, route.prefix)).or_default().host_wide = true;
            continue;
        }
        for domain in lower.domains(link.index) {
            claims.entry((*domain, route.prefix)).or_default().routed.insert(link.index);
        }
    }
    for (ifindex, prefixes) in allowed {
        for prefix in prefixes {
            let key = (host.domain_of(*ifindex), prefix.trunc());
            claims.entry(key).or_default().allowed.insert(*ifindex);
        }
    }
    let lengths: BTreeSet<u8> = claims.keys().map(|(_, prefix)| prefix.prefix_len()).collect();
    claims.keys().map(|key| (*key, ownership(*key, &claims, &lengths, &mut lower))).collect()
}

/// Puts together what is said of a prefix and of all longer ones that hold it.
fn ownership(
    (domain, inner): (u32, IpNet),
    claims: &BTreeMap<(u32, IpNet), Claims>,
    lengths: &BTreeSet<u8>,
    lower: &mut Lower<'_>,
) -> Ownership {
    let mut sum = Claims::default();
    for length in lengths.range(..=inner.prefix_len()) {
        if let Some(outer) = claims.get(&(domain, prefix(inner.addr(), *length))) {
            sum.host_wide |= outer.host_wide;
            sum.configured.extend(&outer.configured);
            sum.routed.extend(&outer.routed);
            sum.allowed.extend(&outer.allowed);
        }
    }
    let mut owners = Vec::new();
    let local: Vec<u32> = sum.configured.iter().chain(&sum.routed).copied().collect();
    for ifindex in &local {
        lower.push_in_domain(&mut owners, domain, [*ifindex]);
    }
    for ifindex in &local {
        let below = lower.below(*ifindex).to_vec();
        lower.push_in_domain(&mut owners, domain, below);
    }
    lower.push_in_domain(&mut owners, domain, sum.allowed);
    // Nothing is sent through a VRF device itself.
    let (devices, vrfs): (Vec<u32>, Vec<u32>) =
        owners.into_iter().partition(|ifindex| !lower.is_vrf(*ifindex));
    Ownership {
        host_wide: sum.host_wide,
        allowed_only: local.is_empty() && !sum.host_wide,
        owners: [devices, vrfs].concat(),
    }
}

/// The interfaces below others and their domains, each computed once.
struct Lower<'a> {
    host: &'a Host,
    below: BTreeMap<u32, (Vec<u32>, BTreeSet<u32>)>,
}

impl<'a> Lower<'a> {
    fn new(host: &'a Host) -> Self {
        Self { host, below: BTreeMap::new() }
    }

    fn get(&mut self, ifindex: u32) -> &(Vec<u32>, BTreeSet<u32>) {
        self.below.entry(ifindex).or_insert_with(|| {
            let below = below(self.host, ifindex);
            let domains = below.iter().chain([&ifindex]).map(|each| self.host.domain_of(*each)).collect();
            (below, domains)
        })
    }

    fn below(&mut self, ifindex: u32) -> &[u32] {
        &self.get(ifindex).0
    }

    /// The domains of an interface and of those below it.
    fn domains(&mut self, ifindex: u32) -> &BTreeSet<u32> {
        &self.get(ifindex).1
    }

    /// Adds those that are new and in the domain.
    fn push_in_domain(&self, owners: &mut Vec<u32>, domain: u32, more: impl IntoIterator<Item = u32>) {
        for ifindex in more {
            if self.host.domain_of(ifindex) == domain && !owners.contains(&ifindex) {
                owners.push(ifindex);
            }
        }
    }

    fn is_vrf(&self, ifindex: u32) -> bool {
        self.host.links.get(&ifindex).is_some_and(|link| matches!(link.kind, LinkKind::Vrf { .. }))
    }
}

/// The interfaces that the packets of `ifindex` cross on their way to the wire, itself left out, in order of
/// their distance.
pub fn below(host: &Host, ifindex: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::from([ifindex]);
    let mut next = VecDeque::from([ifindex]);
    while let Some(current) = next.pop_front() {
        let Some(link) = host.links.get(&current) else { continue };
        let direct: Vec<u32> = match link.kind {
            LinkKind::Stacked => link.link.into_iter().collect(),
            LinkKind::Aggregate | LinkKind::Vrf { .. } => {
                host.ports_of(current).map(|port| port.index).collect()
            }
            _ => Vec::new(),
        };
        for lower in direct {
            if seen.insert(lower) {
                found.push(lower);
                next.push_back(lower);
            }
        }
    }
    found
}

/// The ownership of one address.
pub fn of_address(ownerships: &Ownerships, domain: u32, address: IpAddr) -> Option<&Ownership> {
    let longest = IpNet::from(address).prefix_len();
    (0..=longest).rev().find_map(|length| ownerships.get(&(domain, prefix(address, length))))
}

#[cfg(test)]
mod tests;
