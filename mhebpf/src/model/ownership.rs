//! Which interfaces own an address.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{
    host::{Address, Host, Link, LinkKind, is_link_local, prefix},
    policy::Policy,
    stacking::Stacking,
    uplinks::Uplinks,
};

/// What decides, besides the host, who owns what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bindings {
    /// Interfaces whose addresses are their own. Those of the others are everyone's.
    pub bound: BTreeSet<u32>,
    /// Prefixes in which interfaces are owners too.
    pub allowed: BTreeMap<u32, Vec<IpNet>>,
    /// Prefixes that no interface has, and that belong to these.
    pub owned: BTreeMap<u32, Vec<IpNet>>,
}

impl Bindings {
    /// Those of a host with `policies` for the enforced interfaces by ifindex: its uplinks keep their addresses, enforced or
    /// not, and so does what is enforced, unless its policy says otherwise.
    pub fn new(host: &Host, policies: &BTreeMap<u32, Policy>) -> Self {
        let mut bindings = Self { bound: Uplinks::of(host).uplinks, ..Self::default() };
        let binding = policies.iter().filter(|(_, policy)| policy.binds);
        // Who names a port says that its bridge leads out.
        bindings.bound.extend(binding.filter_map(|(ifindex, _)| host.links.get(ifindex)?.master));
        for (ifindex, policy) in policies {
            if policy.binds {
                bindings.bound.insert(*ifindex);
            } else {
                bindings.bound.remove(ifindex);
            }
            if !policy.allow.is_empty() {
                bindings.allowed.insert(*ifindex, policy.allow.clone());
            }
            if !policy.owns.is_empty() {
                bindings.owned.insert(*ifindex, policy.owns.clone());
            }
        }
        bindings
    }

    /// The bound interface on whose link an address of a macvlan is which is not bound itself: a virtual router's, or one towards
    /// containers. It is the one that the macvlan lies on; or, where that is in another namespace, a macvlan beside it with a
    /// subnet that holds the address.
    pub fn carrier(&self, host: &Host, link: &Link, address: IpAddr) -> Option<u32> {
        if link.kind != LinkKind::Macvlan || self.bound.contains(&link.index) {
            return None;
        }
        if !link.link_elsewhere {
            return link.link.filter(|lower| self.bound.contains(lower));
        }
        let is_beside = |ifindex: u32| {
            let other = host.links.get(&ifindex).filter(|_| self.bound.contains(&ifindex));
            other.is_some_and(|other| other.kind == LinkKind::Macvlan && other.link_elsewhere)
        };
        let on_link = |other: &&Address| other.subnet.contains(&address) && is_beside(other.ifindex);
        host.addresses.iter().find(on_link).map(|other| other.ifindex)
    }

    /// Whether an address, or a prefix, of an interface is that interface's, and that of those that its packets cross. A VRF is
    /// no interface, but its ports are; and a link-local address means nothing elsewhere. A tunnel's packets can't leave through
    /// the tunnel: the address that they have outside is not the tunnel's, also where it is configured on it.
    pub fn binds(&self, host: &Host, ifindex: u32, prefix: IpNet) -> bool {
        let Some(link) = host.links.get(&ifindex) else { return false };
        if link.outer.map(IpNet::from) == Some(prefix) {
            return false;
        }
        let is_of_link = is_link_local(prefix.addr()) && !link.kind.is_without_wire();
        is_of_link || self.bound.contains(&ifindex) || matches!(link.kind, LinkKind::Vrf { .. })
    }
}

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
///
/// The thousand addresses of one interface have the same owners, and those may be the hundred ports of a bridge: each
/// ownership is there once.
#[derive(Debug, Default)]
pub struct Ownerships {
    distinct: Vec<Ownership>,
    by_prefix: BTreeMap<(u32, IpNet), usize>,
}

impl Ownerships {
    /// All that are different.
    pub fn distinct(&self) -> &[Ownership] {
        &self.distinct
    }

    /// The domain and prefix of each, and its place among [`Ownerships::distinct`].
    pub fn by_prefix(&self) -> impl Iterator<Item = (u32, IpNet, usize)> {
        self.by_prefix.iter().map(|((domain, prefix), place)| (*domain, *prefix, *place))
    }

    /// The ownership of one address.
    pub fn of_address(&self, domain: u32, address: IpAddr) -> Option<&Ownership> {
        let longest = IpNet::from(address).prefix_len();
        let place =
            (0..=longest).rev().find_map(|length| self.by_prefix.get(&(domain, prefix(address, length))))?;
        self.distinct.get(*place)
    }
}

/// What is said of the owners of one prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Claims {
    host_wide: bool,
    /// Interfaces that it is configured on.
    configured: Vec<u32>,
    /// Interfaces that it is routed to locally.
    routed: Vec<u32>,
    /// Interfaces that are not bound, and that it is configured on or routed to.
    unbound: Vec<u32>,
    /// Interfaces that the configuration allows it on.
    allowed: Vec<u32>,
}

impl Claims {
    fn add(&mut self, others: &Self) {
        self.host_wide |= others.host_wide;
        self.configured.extend(&others.configured);
        self.routed.extend(&others.routed);
        self.unbound.extend(&others.unbound);
        self.allowed.extend(&others.allowed);
    }

    /// Puts the interfaces in order, each once: claims that say the same are equal then.
    fn normalise(&mut self) {
        for interfaces in [&mut self.configured, &mut self.routed, &mut self.unbound, &mut self.allowed] {
            interfaces.sort_unstable();
            interfaces.dedup();
        }
    }
}

/// What is said of each prefix, before it is seen together with the prefixes around it.
type ClaimsByPrefix = BTreeMap<(u32, IpNet), Claims>;

/// The owners of every local address of a host, and of those that `bindings` name for interfaces.
///
/// An address is owned by the interface that it is configured on or locally routed to, and by those that the
/// interface's packets cross as they are ([`Stacking::below`]). On an interface that is not bound it is host-wide, unless a bound
/// one has it too, or it is a macvlan on a bound one, whose link it is an address of. Each owner owns it in its own domain:
/// addresses of VRFs are compared only within theirs.
pub fn of_addresses(stacking: &Stacking<'_>, bindings: &Bindings) -> Ownerships {
    let claims = claims(stacking, bindings);
    let lengths: BTreeSet<u8> = claims.keys().map(|(_, prefix)| prefix.prefix_len()).collect();
    let mut ownerships = Ownerships::default();
    let mut known: HashMap<(u32, Claims), usize> = HashMap::new();
    for (domain, prefix) in claims.keys() {
        let sum = sum_around(*domain, *prefix, &claims, &lengths);
        let place = *known.entry((*domain, sum)).or_insert_with_key(|(domain, sum)| {
            ownerships.distinct.push(ownership(*domain, sum, stacking));
            ownerships.distinct.len() - 1
        });
        ownerships.by_prefix.insert((*domain, *prefix), place);
    }
    ownerships
}

fn claims(stacking: &Stacking<'_>, bindings: &Bindings) -> ClaimsByPrefix {
    let host = stacking.host;
    let mut claims = ClaimsByPrefix::new();
    let mut domains = Domains::new(stacking);
    for address in &host.addresses {
        let Some(link) = host.links.get(&address.ifindex) else { continue };
        let single = IpNet::from(address.local);
        if link.kind.is_without_wire() {
            claims.entry((host.domain_of(link.index), single)).or_default().host_wide = true;
        } else if bindings.binds(host, link.index, single) {
            for domain in domains.of(link.index) {
                claims.entry((*domain, single)).or_default().configured.push(link.index);
            }
        } else if let Some(lower) = bindings.carrier(host, link, address.local) {
            let own = host.domain_of(link.index);
            for domain in domains.of(lower).iter().chain([&own]) {
                claims.entry((*domain, single)).or_default().configured.extend([link.index, lower]);
            }
        } else {
            claims.entry((host.domain_of(link.index), single)).or_default().unbound.push(link.index);
        }
    }
    for route in &host.local_routes {
        let Some(link) = host.links.get(&route.ifindex) else { continue };
        if link.kind.is_without_wire() {
            claims.entry((route.domain, route.prefix)).or_default().host_wide = true;
            continue;
        }
        if !bindings.binds(host, link.index, route.prefix) {
            claims.entry((route.domain, route.prefix)).or_default().unbound.push(link.index);
            continue;
        }
        for domain in domains.of(link.index) {
            claims.entry((*domain, route.prefix)).or_default().routed.push(link.index);
        }
    }
    for (ifindex, prefixes) in &bindings.owned {
        for prefix in prefixes {
            for domain in domains.of(*ifindex) {
                claims.entry((*domain, prefix.trunc())).or_default().routed.push(*ifindex);
            }
        }
    }
    for (ifindex, prefixes) in &bindings.allowed {
        for prefix in prefixes {
            let key = (host.domain_of(*ifindex), prefix.trunc());
            claims.entry(key).or_default().allowed.push(*ifindex);
        }
    }
    claims
}

/// Puts together what is said of a prefix and of all shorter ones that hold it.
fn sum_around(domain: u32, inner: IpNet, claims: &ClaimsByPrefix, lengths: &BTreeSet<u8>) -> Claims {
    let mut sum = Claims::default();
    for length in lengths.range(..=inner.prefix_len()) {
        if let Some(outer) = claims.get(&(domain, prefix(inner.addr(), *length))) {
            sum.add(outer);
        }
    }
    sum.normalise();
    sum
}

fn ownership(domain: u32, claims: &Claims, stacking: &Stacking<'_>) -> Ownership {
    let host = stacking.host;
    let local = || claims.configured.iter().chain(&claims.routed);
    let below = local().flat_map(|ifindex| stacking.below(*ifindex));
    let mut seen = HashSet::new();
    let owners = local()
        .chain(below)
        .chain(&claims.unbound)
        .chain(&claims.allowed)
        .copied()
        .filter(|ifindex| host.domain_of(*ifindex) == domain && seen.insert(*ifindex));
    // Nothing is sent through a VRF device itself.
    let (devices, vrfs): (Vec<u32>, Vec<u32>) = owners.partition(|ifindex| !is_vrf(host, *ifindex));
    Ownership {
        // What is no uplink makes nobody else's address everyone's.
        host_wide: claims.host_wide || (!claims.unbound.is_empty() && local().next().is_none()),
        allowed_only: local().next().is_none() && !claims.host_wide && claims.unbound.is_empty(),
        owners: [devices, vrfs].concat(),
    }
}

fn is_vrf(host: &Host, ifindex: u32) -> bool {
    host.links.get(&ifindex).is_some_and(|link| matches!(link.kind, LinkKind::Vrf { .. }))
}

/// The domains of interfaces and of those below them, each computed once.
struct Domains<'a> {
    stacking: &'a Stacking<'a>,
    known: HashMap<u32, BTreeSet<u32>>,
}

impl<'a> Domains<'a> {
    fn new(stacking: &'a Stacking<'a>) -> Self {
        Self { stacking, known: HashMap::new() }
    }

    fn of(&mut self, ifindex: u32) -> &BTreeSet<u32> {
        let stacking = self.stacking;
        self.known.entry(ifindex).or_insert_with(|| {
            let all = stacking.below(ifindex).iter().chain([&ifindex]);
            all.map(|each| stacking.host.domain_of(*each)).collect()
        })
    }
}

#[cfg(test)]
mod tests;
