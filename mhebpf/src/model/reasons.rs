//! Why an interface owns an address.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{ownership::Bindings, stacking::Stacking};

/// Something that makes an interface the owner of an address, or of all addresses of a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// What makes it one.
    pub rule: Rule,
    /// The address or the prefix.
    pub prefix: IpNet,
    /// The interface that the rule is about: where the address is configured, or where the local route leads.
    pub through: u32,
}

/// The rules of ownership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// The address is configured on the interface.
    Configured,
    /// It is configured on, or locally routed to, a device whose packets cross the interface, or that is of its link.
    Below,
    /// It is configured on, or locally routed to, a device that is no uplink, or on a tunnel whose packets have it outside.
    HostWide,
    /// A local route leads to the interface.
    LocalRoute,
    /// The configuration allows it on the interface.
    Allowed,
    /// The configuration says that it is the interface's.
    Owned,
}

/// All claims of some interfaces.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// By ifindex, in the order of the rules and the addresses.
    pub by_interface: BTreeMap<u32, Vec<Claim>>,
    /// What every interface of a domain owns, with the domain.
    pub host_wide: Vec<(u32, Claim)>,
}

/// The claims of the interfaces `wanted`: what [`super::ownership::of_addresses`] makes owners of, told by interface.
///
/// Takes time that grows with the host and what is found. Loopback addresses are left out: on a wire they are nobody's.
pub fn of_interfaces(stacking: &Stacking<'_>, bindings: &Bindings, wanted: &BTreeSet<u32>) -> Claims {
    let host = stacking.host;
    let mut claims = Claims::default();
    let configured = host.addresses.iter().map(|address| {
        let domain = host.domain_of(address.ifindex);
        (domain, address.ifindex, IpNet::from(address.local), Rule::Configured)
    });
    let routed =
        host.local_routes.iter().map(|route| (route.domain, route.ifindex, route.prefix, Rule::LocalRoute));
    let all: Vec<_> = configured.chain(routed).collect();
    let bound = all.iter().filter(|(_, through, prefix, _)| bindings.binds(host, *through, *prefix));
    let bound: HashSet<IpNet> = bound.map(|(_, _, prefix, _)| *prefix).collect();
    for (domain, through, prefix, rule) in all {
        let Some(link) = host.links.get(&through) else { continue };
        let is_bound = bindings.binds(host, through, prefix);
        let carrier = bindings.carrier(host, link, prefix.addr());
        let carrier = carrier.filter(|_| !is_bound && rule == Rule::Configured);
        let is_everyones = link.kind.is_without_wire() || !bound.contains(&prefix);
        if !is_bound && carrier.is_none() && is_everyones {
            if !is_loopback(prefix) {
                claims.host_wide.push((domain, Claim { rule: Rule::HostWide, prefix, through }));
            }
            continue;
        }
        let below = if is_bound { stacking.below(through) } else { carrier.as_slice() };
        let below = below.iter().chain(carrier.iter().flat_map(|carrier| stacking.below(*carrier)));
        let below = below.map(|below| (*below, Rule::Below));
        for (owner, rule) in [(through, rule)].into_iter().chain(below) {
            if wanted.contains(&owner) {
                claims.by_interface.entry(owner).or_default().push(Claim { rule, prefix, through });
            }
        }
    }
    let owned = bindings.owned.iter().map(|(ifindex, prefixes)| (*ifindex, prefixes, Rule::Owned));
    let allowed = bindings.allowed.iter().map(|(ifindex, prefixes)| (*ifindex, prefixes, Rule::Allowed));
    for (through, prefixes, rule) in owned.chain(allowed) {
        let below = stacking.below(through).iter().filter(|_| rule == Rule::Owned);
        let below = below.map(|below| (*below, Rule::Below));
        for (owner, rule) in [(through, rule)].into_iter().chain(below) {
            if wanted.contains(&owner) {
                let prefixes = prefixes.iter().map(IpNet::trunc);
                let configured = prefixes.map(|prefix| Claim { rule, prefix, through });
                claims.by_interface.entry(owner).or_default().extend(configured);
            }
        }
    }
    for owned in claims.by_interface.values_mut() {
        owned.sort_unstable();
        owned.dedup();
    }
    claims.host_wide.sort_unstable();
    claims.host_wide.dedup();
    claims
}

fn is_loopback(prefix: IpNet) -> bool {
    match prefix.addr() {
        IpAddr::V4(address) => address.is_loopback(),
        IpAddr::V6(address) => address.is_loopback() && prefix.prefix_len() == 128,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        Host, LinkKind, LocalRoute,
        host::MAIN_DOMAIN,
        ownership,
        testing::{address, all_bound, host, link, net, port, stacked},
    };

    fn example() -> Host {
        let links = [
            link(1, LinkKind::Loopback),
            link(2, LinkKind::Wire),
            stacked(3, 2),
            link(4, LinkKind::Wire),
            port(5, 9),
            link(9, LinkKind::Vrf { table: 10 }),
        ];
        let addresses = [
            address(1, "127.0.0.1/8"),
            address(1, "203.0.113.9/32"),
            address(2, "10.0.0.2/24"),
            address(3, "10.0.0.3/24"),
            address(4, "10.0.0.2/24"),
            address(9, "10.9.0.9/32"),
        ];
        let mut host = host(links, addresses);
        host.local_routes = vec![LocalRoute { domain: MAIN_DOMAIN, prefix: net("10.5.0.0/16"), ifindex: 3 }];
        host
    }

    #[test]
    fn every_rule_is_named() {
        let host = example();
        let allowed = BTreeMap::from([(4, vec![net("10.7.0.0/16")])]);
        let owned = BTreeMap::from([(3, vec![net("10.8.0.0/16")])]);
        let bindings = Bindings { allowed, owned, ..all_bound(&host) };
        let claims = of_interfaces(&Stacking::of(&host), &bindings, &[2, 3, 4, 5].into());
        let told = |ifindex| {
            let claims = claims.by_interface.get(&ifindex).map(Vec::as_slice).unwrap_or_default();
            claims.iter().map(|c| (c.rule, c.prefix.to_string(), c.through)).collect::<Vec<_>>()
        };
        assert_eq!(
            told(2),
            [
                (Rule::Configured, "10.0.0.2/32".to_owned(), 2),
                (Rule::Below, "10.0.0.3/32".to_owned(), 3),
                (Rule::Below, "10.5.0.0/16".to_owned(), 3),
                (Rule::Below, "10.8.0.0/16".to_owned(), 3),
            ]
        );
        assert_eq!(told(3)[1], (Rule::LocalRoute, "10.5.0.0/16".to_owned(), 3));
        assert_eq!(told(3)[2], (Rule::Owned, "10.8.0.0/16".to_owned(), 3));
        assert_eq!(told(4)[1], (Rule::Allowed, "10.7.0.0/16".to_owned(), 4));
        assert_eq!(told(5), [(Rule::Below, "10.9.0.9/32".to_owned(), 9)]);
        let host_wide: Vec<_> = claims.host_wide.iter().map(|(_, claim)| claim.prefix.to_string()).collect();
        assert_eq!(host_wide, ["203.0.113.9/32"]);
    }

    #[test]
    fn they_are_what_makes_the_owners() {
        let host = example();
        let stacking = Stacking::of(&host);
        let wanted: BTreeSet<u32> = host.links.keys().copied().collect();
        let claims = of_interfaces(&stacking, &all_bound(&host), &wanted);
        let mut told = BTreeSet::new();
        for (ifindex, claims) in &claims.by_interface {
            told.extend(claims.iter().map(|claim| (claim.prefix, *ifindex)));
        }
        let ownerships = ownership::of_addresses(&stacking, &all_bound(&host));
        let mut owners = BTreeSet::new();
        for (_, prefix, place) in ownerships.by_prefix() {
            owners.extend(ownerships.distinct()[place].owners.iter().map(|owner| (prefix, *owner)));
        }
        assert_eq!(told, owners);
    }
}
