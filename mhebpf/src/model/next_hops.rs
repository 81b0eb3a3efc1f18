//! The next hops of each owner, made from the routing tables.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::host::{Host, Route, is_link_local};

/// Where packets to a prefix go from an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// The destination is on-link.
    OnLink,
    /// Through a gateway, which is on-link on the owner.
    Gateway(IpAddr),
}

/// Next hops by prefix for every interface in `owners`, from the table of the owner's VRF or the main one.
///
/// For each prefix, and in this order: a route through the owner itself, by the lowest metric; else a route
/// through another interface whose gateway is near the owner, by the lowest metric: that gateway, on the owner.
/// Hosts with many interfaces in one subnet often have one default route only, and their gateway serves all of
/// them.
pub fn of_owners(host: &Host, owners: &BTreeSet<u32>) -> BTreeMap<(u32, IpNet), NextHop> {
    let mut by_table: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
    for owner in owners {
        by_table.entry(host.table_of(host.domain_of(*owner))).or_default().insert(*owner);
    }
    let mut best: BTreeMap<(u32, IpNet), (Preference, NextHop)> = BTreeMap::new();
    for (table, owners) in by_table {
        let routes: Vec<&Route> = host.routes.iter().filter(|route| route.table == table).collect();
        add_table(&routes, &owners, &mut best);
    }
    best.into_iter().map(|(key, (_, next_hop))| (key, next_hop)).collect()
}

fn add_table(
    routes: &[&Route],
    owners: &BTreeSet<u32>,
    best: &mut BTreeMap<(u32, IpNet), (Preference, NextHop)>,
) {
    let links = OnLink::new(routes);
    let mut offer = |owner: u32, prefix: IpNet, preference: Preference, next_hop: NextHop| {
        let entry = best.entry((owner, prefix)).or_insert((preference, next_hop));
        if preference < entry.0 {
            *entry = (preference, next_hop);
        }
    };
    for (position, route) in routes.iter().enumerate() {
        for hop in &route.hops {
            // The kernel takes the first of routes with equal metric.
            let preference = |through_another| Preference { through_another, metric: route.metric, position };
            if owners.contains(&hop.ifindex) {
                let next_hop = hop.gateway.map_or(NextHop::OnLink, NextHop::Gateway);
                offer(hop.ifindex, route.destination, preference(false), next_hop);
            }
            let Some(gateway) = hop.gateway else { continue };
            for owner in owners.iter().filter(|owner| **owner != hop.ifindex) {
                if links.is_near(*owner, gateway, hop.ifindex) {
                    offer(*owner, route.destination, preference(true), NextHop::Gateway(gateway));
                }
            }
        }
    }
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
struct OnLink(BTreeMap<u32, BTreeSet<IpNet>>);

impl OnLink {
    fn new(routes: &[&Route]) -> Self {
        let mut prefixes: BTreeMap<u32, BTreeSet<IpNet>> = BTreeMap::new();
        for route in routes.iter().filter(|route| route.destination.prefix_len() > 0) {
            for hop in route.hops.iter().filter(|hop| hop.gateway.is_none()) {
                prefixes.entry(hop.ifindex).or_default().insert(route.destination);
            }
        }
        Self(prefixes)
    }

    /// Whether `owner` reaches a gateway that is known on the interface `known_on`.
    ///
    /// A link-local address means a neighbour on one link only (RFC 4007), so it is near where both interfaces are on
    /// the same link, which a common subnet shows.
    fn is_near(&self, owner: u32, gateway: IpAddr, known_on: u32) -> bool {
        let Some(prefixes) = self.0.get(&owner) else { return false };
        if !is_link_local(gateway) {
            return prefixes.iter().any(|prefix| prefix.contains(&gateway));
        }
        let common = self.0.get(&known_on).into_iter().flat_map(|known| known.intersection(prefixes));
        common.into_iter().any(|prefix| !is_link_local(prefix.addr()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        Hop, LinkKind,
        host::MAIN_TABLE,
        testing::{ip, link, net, port},
    };

    fn route(destination: &str, metric: u32, ifindex: u32, gateway: Option<&str>) -> Route {
        let hops = vec![Hop { ifindex, gateway: gateway.map(ip) }];
        Route { table: MAIN_TABLE, destination: net(destination), metric, hops }
    }

    fn next_hops(routes: Vec<Route>) -> BTreeMap<(u32, IpNet), NextHop> {
        of_owners(&Host { routes, ..Host::default() }, &BTreeSet::from([2, 3]))
    }

    fn gateway(text: &str) -> NextHop {
        NextHop::Gateway(ip(text))
    }

    #[test]
    fn one_default_route_serves_the_other_interfaces_of_its_subnet() {
        for [default, router, subnet] in
            [["0.0.0.0/0", "192.168.0.1", "192.168.0.0/21"], ["::/0", "2001:db8::1", "2001:db8::/64"]]
        {
            let hops = next_hops(vec![
                route(default, 0, 2, Some(router)),
                route(subnet, 0, 2, None),
                route(subnet, 0, 3, None),
            ]);
            assert_eq!(hops[&(3, net(default))], gateway(router));
            assert_eq!(hops[&(3, net(subnet))], NextHop::OnLink);
        }
    }

    #[test]
    fn a_gateway_that_the_owner_cannot_reach_is_not_used() {
        let hops = next_hops(vec![
            route("0.0.0.0/0", 0, 2, Some("192.168.0.1")),
            route("192.168.0.0/21", 0, 2, None),
            route("10.0.0.0/8", 0, 3, None),
        ]);
        assert_eq!(hops.get(&(3, net("0.0.0.0/0"))), None);
    }

    #[test]
    fn a_link_local_gateway_is_near_on_the_same_link_only() {
        let mut routes = vec![
            route("::/0", 0, 2, Some("fe80::1")),
            route("fe80::/64", 256, 2, None),
            route("fe80::/64", 256, 3, None),
            route("2001:db8:2::/64", 256, 2, None),
        ];
        assert_eq!(next_hops(routes.clone()).get(&(3, net("::/0"))), None);
        routes.push(route("2001:db8:2::/64", 256, 3, None));
        assert_eq!(next_hops(routes)[&(3, net("::/0"))], gateway("fe80::1"));
    }

    #[test]
    fn an_ipv4_route_may_have_an_ipv6_gateway() {
        let hops = next_hops(vec![route("0.0.0.0/0", 0, 2, Some("fe80::1"))]);
        assert_eq!(hops[&(2, net("0.0.0.0/0"))], gateway("fe80::1"));
    }

    #[test]
    fn an_own_route_is_preferred_whatever_its_metric() {
        let hops = next_hops(vec![
            route("0.0.0.0/0", 0, 2, Some("192.168.0.1")),
            route("0.0.0.0/0", 900, 3, Some("192.168.0.2")),
            route("0.0.0.0/0", 100, 3, Some("192.168.0.3")),
            route("192.168.0.0/21", 0, 3, None),
        ]);
        assert_eq!(hops[&(3, net("0.0.0.0/0"))], gateway("192.168.0.3"));
    }

    #[test]
    fn each_hop_of_a_multipath_route_serves_its_interface() {
        let hop = |ifindex, gateway| Hop { ifindex, gateway: Some(ip(gateway)) };
        let multipath =
            Route { hops: vec![hop(2, "192.168.0.1"), hop(3, "10.0.0.1")], ..route("0.0.0.0/0", 0, 2, None) };
        let hops = next_hops(vec![multipath]);
        assert_eq!(hops[&(2, net("0.0.0.0/0"))], gateway("192.168.0.1"));
        assert_eq!(hops[&(3, net("0.0.0.0/0"))], gateway("10.0.0.1"));
    }

    #[test]
    fn a_default_route_without_gateway_makes_no_gateway_near() {
        let hops = next_hops(vec![
            route("172.16.0.0/12", 0, 2, Some("192.168.0.1")),
            route("0.0.0.0/0", 0, 3, None),
        ]);
        assert_eq!(hops.get(&(3, net("172.16.0.0/12"))), None);
    }

    #[test]
    fn a_port_of_a_vrf_follows_the_table_of_the_vrf() {
        let in_red = |route: Route| Route { table: 10, ..route };
        let routes = vec![
            route("0.0.0.0/0", 0, 3, Some("10.0.0.1")),
            route("10.0.0.0/24", 0, 3, None),
            in_red(route("0.0.0.0/0", 0, 2, Some("10.0.0.2"))),
            in_red(route("10.0.0.0/24", 0, 2, None)),
        ];
        let links = [port(2, 9), link(3, LinkKind::Other), link(9, LinkKind::Vrf { table: 10 })];
        let links = links.into_iter().map(|link| (link.index, link)).collect();
        let hops = of_owners(&Host { links, routes, ..Host::default() }, &BTreeSet::from([2, 3]));
        assert_eq!(hops[&(2, net("0.0.0.0/0"))], gateway("10.0.0.2"));
        assert_eq!(hops[&(3, net("0.0.0.0/0"))], gateway("10.0.0.1"));
    }
}
