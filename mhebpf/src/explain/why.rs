//! The rules of the model: what makes an interface an owner, and where a next hop comes from.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use mhebpf_ebpf::{
    INLINE_OWNERS, Neighbour,
    next_hop::{choose, flow},
};

use super::explanation::Model;
pub use crate::model::reasons::Rule;
use crate::model::{Route, Stacking, next_hops};

/// Something that makes an interface an owner of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// The owner; `None` for every interface.
    pub owner: Option<u32>,
    /// What makes it one.
    pub rule: Rule,
    /// The interface that the rule is about: where the address is configured, or where the local route leads.
    pub through: u32,
    /// The prefix of a local route, of an `allow` or an `owns`.
    pub prefix: Option<IpNet>,
}

/// All that makes interfaces owners of an address in a domain.
pub fn claims(model: &Model, domain: u32, address: IpAddr) -> Vec<Claim> {
    let host = &model.host;
    let stacking = Stacking::of(host);
    let mut claims = BTreeSet::new();
    let mut add = |through: u32, direct: Rule, prefix: Option<IpNet>| {
        let below = stacking.below(through).iter().map(|below| (*below, Rule::Below));
        for (owner, rule) in [(through, direct)].into_iter().chain(below) {
            if host.domain_of(owner) == domain {
                claims.insert(Claim { owner: Some(owner), rule, through, prefix });
            }
        }
    };
    // What an uplink has too is not everyone's.
    let is_everyones = model.ownership(domain, address).is_some_and(|ownership| ownership.host_wide);
    let mut host_wide = Vec::new();
    let mut of_carriers = Vec::new();
    let binds = |ifindex: u32, prefix: IpNet| model.bindings.binds(host, ifindex, prefix);
    for configured in host.addresses.iter().filter(|configured| configured.local == address) {
        let through = configured.ifindex;
        let link = host.links.get(&through);
        let carrier = link.and_then(|link| model.bindings.carrier(host, link, address));
        if binds(through, address.into()) {
            add(through, Rule::Configured, None);
        } else if let Some(carrier) = carrier {
            add(through, Rule::Configured, None);
            of_carriers.push((carrier, through));
        } else if host.domain_of(through) == domain {
            let owner = Some(through).filter(|_| !is_everyones);
            let rule = if is_everyones { Rule::HostWide } else { Rule::Configured };
            host_wide.push(Claim { owner, rule, through, prefix: None });
        }
    }
    for route in host.local_routes.iter().filter(|route| route.prefix.contains(&address)) {
        let (through, prefix) = (route.ifindex, Some(route.prefix));
        if binds(through, route.prefix) {
            add(through, Rule::LocalRoute, prefix);
        } else if route.domain == domain {
            let owner = Some(through).filter(|_| !is_everyones);
            let rule = if is_everyones { Rule::HostWide } else { Rule::LocalRoute };
            host_wide.push(Claim { owner, rule, through, prefix });
        }
    }
    for (ifindex, prefixes) in &model.bindings.owned {
        for prefix in prefixes.iter().filter(|prefix| prefix.contains(&address)) {
            add(*ifindex, Rule::Owned, Some(*prefix));
        }
    }
    let allowed = model.policies.iter().flat_map(|(ifindex, policy)| {
        policy.allow.iter().filter(|prefix| prefix.contains(&address)).map(|prefix| (*ifindex, *prefix))
    });
    for (ifindex, prefix) in allowed.filter(|(ifindex, _)| host.domain_of(*ifindex) == domain) {
        let owner = Some(ifindex);
        claims.insert(Claim { owner, rule: Rule::Allowed, through: ifindex, prefix: Some(prefix) });
    }
    for (carrier, through) in of_carriers {
        for owner in [carrier].iter().chain(stacking.below(carrier)).filter(|o| host.domain_of(**o) == domain)
        {
            claims.insert(Claim { owner: Some(*owner), rule: Rule::Below, through, prefix: None });
        }
    }
    claims.extend(host_wide);
    claims.into_iter().collect()
}

/// An owner that a packet could be redirected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Try {
    /// The owner.
    pub owner: u32,
    /// How it goes.
    pub outcome: TryOutcome,
}

/// How a redirect to an owner goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TryOutcome {
    /// It is down or has no carrier.
    Down,
    /// It has no next hop to the destination.
    NoRoute,
    /// The packet is for a group, which is on every link.
    Group,
    /// It has a next hop.
    NextHop {
        /// The gateway; `None` when the destination is on-link.
        gateway: Option<IpAddr>,
        /// The prefix of the route.
        prefix: IpNet,
        /// The metric of the route.
        metric: u32,
        /// The interface of the route: another than the owner where its gateway is reached by the owner as well.
        route_through: u32,
    },
}

/// How redirects to the owners go, in their order, up to the first that is possible.
pub fn tries(
    model: &Model,
    owners: &[u32],
    (source, destination): (IpAddr, IpAddr),
    group: bool,
) -> Vec<Try> {
    let mut tries = Vec::new();
    for owner in owners.iter().take(INLINE_OWNERS) {
        let outcome = if model.tables.ifaces.get(owner).is_none_or(|iface| !iface.is_up()) {
            TryOutcome::Down
        } else if group {
            TryOutcome::Group
        } else {
            next_hop(model, *owner, source, destination)
        };
        let ends = matches!(outcome, TryOutcome::Group | TryOutcome::NextHop { .. });
        tries.push(Try { owner: *owner, outcome });
        if ends {
            break;
        }
    }
    tries
}

/// The next hop by the longest prefix, and the route that it comes from.
fn next_hop(model: &Model, owner: u32, source: IpAddr, destination: IpAddr) -> TryOutcome {
    let host = &model.host;
    let next_hops = next_hops::of_owners(host, &BTreeSet::from([owner]));
    let candidates = next_hops.into_iter().filter(|((_, prefix), _)| prefix.contains(&destination));
    let Some(((_, prefix), hops)) = candidates.max_by_key(|((_, prefix), _)| prefix.prefix_len()) else {
        return TryOutcome::NoRoute;
    };
    let hops = next_hops::by_weight(&hops);
    let flow = flow(&source.into(), &destination.into());
    let gateway = hops.get(choose(flow, hops.len() as u32) as usize).and_then(Neighbour::ip);
    let table = host.table_of(host.domain_of(owner));
    let routes = || host.routes.iter().filter(|route| route.table == table && route.destination == prefix);
    // An own route first, as when the next hop was chosen; of equal metrics the first one.
    let by = |own: bool| {
        let hops = routes().flat_map(|route| route.hops.iter().map(move |hop| (route, hop)));
        let hops = hops.filter(|(_, hop)| (hop.ifindex == owner) == own && hop.gateway == gateway);
        hops.min_by_key(|(route, _)| route.metric)
            .map(|(route, hop): (&Route, _)| (route.metric, hop.ifindex))
    };
    let (metric, route_through) = by(true).or_else(|| by(false)).unwrap_or((0, owner));
    TryOutcome::NextHop { gateway, prefix, metric, route_through }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::{
        LinkKind, LocalRoute,
        host::MAIN_DOMAIN,
        testing::{address, host, ip, link, net, route, stacked},
    };

    fn model() -> Model {
        let links = [link(1, LinkKind::Loopback), link(2, LinkKind::Wire), stacked(3, 2)];
        let addresses = [address(3, "10.0.0.3/24"), address(1, "203.0.113.9/32")];
        let mut host = host(links, addresses);
        host.local_routes = vec![LocalRoute { domain: MAIN_DOMAIN, prefix: net("10.5.0.0/16"), ifindex: 2 }];
        host.routes = vec![
            route("10.0.0.0/24", 0, 2, None),
            route("10.0.0.0/24", 0, 3, None),
            route("0.0.0.0/0", 5, 2, Some("10.0.0.1")),
        ];
        Model::new(host, BTreeMap::new())
    }

    #[test]
    fn every_rule_that_makes_an_owner_is_named() {
        let named = |text| {
            let claims = claims(&model(), MAIN_DOMAIN, ip(text));
            claims.iter().map(|claim| (claim.owner, claim.rule, claim.through)).collect::<Vec<_>>()
        };
        assert_eq!(named("10.0.0.3"), [(Some(2), Rule::Below, 3), (Some(3), Rule::Configured, 3)]);
        assert_eq!(named("203.0.113.9"), [(None, Rule::HostWide, 1)]);
        assert_eq!(named("10.5.1.1"), [(Some(2), Rule::LocalRoute, 2)]);
        assert_eq!(named("192.0.2.1"), []);
    }

    #[test]
    fn a_next_hop_is_traced_to_its_route() {
        let first =
            |destination| tries(&model(), &[3], (ip("192.0.2.9"), ip(destination)), false).remove(0).outcome;
        let far = TryOutcome::NextHop {
            gateway: Some(ip("10.0.0.1")),
            prefix: net("0.0.0.0/0"),
            metric: 5,
            route_through: 2,
        };
        assert_eq!(first("192.0.2.1"), far);
        let near =
            TryOutcome::NextHop { gateway: None, prefix: net("10.0.0.0/24"), metric: 0, route_through: 3 };
        assert_eq!(first("10.0.0.77"), near);
        assert_eq!(first("2001:db8::1"), TryOutcome::NoRoute);
        assert_eq!(
            tries(&model(), &[9], (ip("192.0.2.9"), ip("10.0.0.77")), false)[0].outcome,
            TryOutcome::Down
        );
        assert_eq!(
            tries(&model(), &[3], (ip("192.0.2.9"), ip("10.0.0.77")), true)[0].outcome,
            TryOutcome::Group
        );
    }
}
