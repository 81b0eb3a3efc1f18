//! The next hops of each owner, made from the routing table.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use super::host::{Host, Prefix};

/// Where packets to a prefix go from an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// The destination is on-link.
    OnLink,
    /// Through a gateway, which is on-link on the owner.
    Gateway(Ipv4Addr),
}

/// Next hops by prefix for every interface in `owners`.
///
/// For each prefix, and in this order: a route through the owner itself, by the lowest metric; else a route
/// through another interface whose gateway is on-link on the owner, by the lowest metric: that gateway, on
/// the owner. Hosts with many interfaces in one subnet often have one default route only, and their gateway
/// serves all of them.
pub fn of_owners(host: &Host, owners: &BTreeSet<u32>) -> BTreeMap<(u32, Prefix), NextHop> {
    let on_link = on_link_prefixes(host);
    let mut best: BTreeMap<(u32, Prefix), (Preference, NextHop)> = BTreeMap::new();
    let mut offer = |owner: u32, prefix: Prefix, preference: Preference, next_hop: NextHop| {
        let entry = best.entry((owner, prefix)).or_insert((preference, next_hop));
        if preference < entry.0 {
            *entry = (preference, next_hop);
        }
    };
    for (position, route) in host.routes.iter().enumerate() {
        for hop in &route.hops {
            // The kernel takes the first of routes with equal metric.
            let preference = |through_another| Preference { through_another, metric: route.metric, position };
            if owners.contains(&hop.ifindex) {
                let next_hop = hop.gateway.map_or(NextHop::OnLink, NextHop::Gateway);
                offer(hop.ifindex, route.destination, preference(false), next_hop);
            }
            let Some(gateway) = hop.gateway else { continue };
            for (owner, prefixes) in &on_link {
                if *owner != hop.ifindex
                    && owners.contains(owner)
                    && prefixes.iter().any(|prefix| prefix.contains(gateway))
                {
                    offer(*owner, route.destination, preference(true), NextHop::Gateway(gateway));
                }
            }
        }
    }
    best.into_iter().map(|(key, (_, next_hop))| (key, next_hop)).collect()
}

/// What makes one route better than another to the same prefix; the least is the best.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Preference {
    through_another: bool,
    metric: u32,
    position: usize,
}

/// The subnets that can be reached without a gateway, by interface. A default route without a gateway says
/// nothing about which gateways are near, and does not count.
fn on_link_prefixes(host: &Host) -> BTreeMap<u32, Vec<Prefix>> {
    let mut prefixes: BTreeMap<u32, Vec<Prefix>> = BTreeMap::new();
    for route in host.routes.iter().filter(|route| route.destination.length() > 0) {
        for hop in route.hops.iter().filter(|hop| hop.gateway.is_none()) {
            prefixes.entry(hop.ifindex).or_default().push(route.destination);
        }
    }
    prefixes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Hop, Route};

    const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 1);

    fn prefix(text: &str) -> Prefix {
        let (address, length) = text.split_once('/').expect("a prefix");
        Prefix::new(address.parse().expect("an address"), length.parse().expect("a length"))
    }

    fn route(destination: &str, metric: u32, ifindex: u32, gateway: Option<Ipv4Addr>) -> Route {
        Route { destination: prefix(destination), metric, hops: vec![Hop { ifindex, gateway }] }
    }

    fn next_hops(routes: Vec<Route>) -> BTreeMap<(u32, Prefix), NextHop> {
        of_owners(&Host { routes, ..Host::default() }, &BTreeSet::from([2, 3]))
    }

    #[test]
    fn one_default_route_serves_the_other_interfaces_of_its_subnet() {
        let hops = next_hops(vec![
            route("0.0.0.0/0", 0, 2, Some(GATEWAY)),
            route("192.168.0.0/21", 0, 2, None),
            route("192.168.0.0/21", 0, 3, None),
        ]);
        assert_eq!(hops[&(3, prefix("0.0.0.0/0"))], NextHop::Gateway(GATEWAY));
        assert_eq!(hops[&(3, prefix("192.168.0.0/21"))], NextHop::OnLink);
    }

    #[test]
    fn a_gateway_that_the_owner_cannot_reach_is_not_used() {
        let hops = next_hops(vec![
            route("0.0.0.0/0", 0, 2, Some(GATEWAY)),
            route("192.168.0.0/21", 0, 2, None),
            route("10.0.0.0/8", 0, 3, None),
        ]);
        assert_eq!(hops.get(&(3, prefix("0.0.0.0/0"))), None);
    }

    #[test]
    fn an_own_route_is_preferred_whatever_its_metric() {
        let own = Ipv4Addr::new(192, 168, 0, 2);
        let hops = next_hops(vec![
            route("0.0.0.0/0", 0, 2, Some(GATEWAY)),
            route("0.0.0.0/0", 900, 3, Some(own)),
            route("0.0.0.0/0", 100, 3, Some(Ipv4Addr::new(192, 168, 0, 3))),
            route("192.168.0.0/21", 0, 3, None),
        ]);
        assert_eq!(hops[&(3, prefix("0.0.0.0/0"))], NextHop::Gateway(Ipv4Addr::new(192, 168, 0, 3)));
    }

    #[test]
    fn each_hop_of_a_multipath_route_serves_its_interface() {
        let other = Ipv4Addr::new(10, 0, 0, 1);
        let multipath = Route {
            destination: prefix("0.0.0.0/0"),
            metric: 0,
            hops: vec![Hop { ifindex: 2, gateway: Some(GATEWAY) }, Hop { ifindex: 3, gateway: Some(other) }],
        };
        let hops = next_hops(vec![multipath]);
        assert_eq!(hops[&(2, prefix("0.0.0.0/0"))], NextHop::Gateway(GATEWAY));
        assert_eq!(hops[&(3, prefix("0.0.0.0/0"))], NextHop::Gateway(other));
    }

    #[test]
    fn a_default_route_without_gateway_makes_no_gateway_near() {
        let hops =
            next_hops(vec![route("172.16.0.0/12", 0, 2, Some(GATEWAY)), route("0.0.0.0/0", 0, 3, None)]);
        assert_eq!(hops.get(&(3, prefix("172.16.0.0/12"))), None);
    }
}
