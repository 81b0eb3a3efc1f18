//! The next hops of each owner, made from the routing tables.

mod entries;
mod many;
mod nearby;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, hash_map::Entry},
    net::IpAddr,
};

use ipnet::IpNet;

use self::nearby::Nearby;
pub use self::{
    entries::{by_weight, without_repetitions},
    many::{Change, ManyNextHops},
};
use super::host::{Hop, Host, Route, TableOfRule};

/// Where packets to a prefix go from an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NextHop {
    /// The destination is on-link.
    OnLink,
    /// Through a gateway, which is on-link on the owner.
    Gateway(IpAddr),
}

/// Next hops by owner and prefix: one, or those of a multipath route, with their weights.
pub type NextHops = HashMap<(u32, IpNet), Vec<(NextHop, u16)>>;

/// Next hops by prefix for every interface in `owners`, from the table of the owner's VRF or the main one, and from those
/// that rules from its addresses lead to.
///
/// For each prefix, and in this order: a route through the owner itself, of the tables of rules in the order in which they are
/// asked, then of the owner's own table, by the lowest metric; else a route of that through another interface whose gateway is
/// near the owner, by the lowest metric: that gateway, on the owner. Hosts with many interfaces in one subnet often have one
/// default route only, and their gateway serves all of them.
///
/// A gateway that does not answer is passed over where the kernel would: for another hop of the same route, and with IPv6 for
/// another route too (`fib6_select_path` and `find_rr_leaf`, net/ipv6/route.c, Linux 6.18).
pub fn of_owners(host: &Host, owners: &BTreeSet<u32>) -> NextHops {
    of_routes(host, &host.routes, owners)
}

/// The same by these routes.
fn of_routes(host: &Host, routes: &[Route], owners: &BTreeSet<u32>) -> NextHops {
    let next_hop = |hop: &&Hop| (hop.gateway.map_or(NextHop::OnLink, NextHop::Gateway), hop.weight);
    let chosen = chosen(host, routes, owners).into_iter();
    chosen.map(|(key, chosen)| (key, chosen.hops.iter().map(next_hop).collect())).collect()
}

/// The same: the routes, and which of their hops.
pub(super) fn chosen<'a>(
    host: &'a Host,
    routes: &'a [Route],
    owners: &BTreeSet<u32>,
) -> HashMap<(u32, IpNet), Chosen<'a>> {
    let mut owners_by_table: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
    for owner in owners {
        owners_by_table.entry(host.table_of(host.domain_of(*owner))).or_default().insert(*owner);
    }
    let mut routes_by_table = by_table(routes);
    let by_source = by_source(host, owners, &routes_by_table);
    let mut chosen = HashMap::new();
    let mut offer = |owner: u32, route, hop: &'a Hop| {
        let is_reachable = hop.gateway.is_none_or(|gateway| !host.unreachable.contains(&(owner, gateway)));
        choose(&mut chosen, owner, route, hop, is_reachable);
    };
    for (owner, route, hop) in by_source {
        offer(owner, route, hop);
    }
    for (table, owners) in owners_by_table {
        if let Some(routes) = routes_by_table.remove(&table) {
            for_each(&routes, &owners, &mut offer);
        }
    }
    for (owner, route, hop) in remembered(host, owners) {
        offer(owner, route, hop);
    }
    chosen
}

/// What an owner uses for a prefix, as far as it has been looked.
pub(super) struct Chosen<'a> {
    /// The route.
    pub(super) route: &'a Route,
    /// It leads through the owner itself.
    pub(super) own: bool,
    /// Those of its hops that the owner uses.
    pub(super) hops: Vec<&'a Hop>,
    reachable: bool,
}

/// Takes the first route that is offered, with all of its hops that are of the same kind, unless another one can be reached and
/// this one can't.
fn choose<'a>(
    chosen: &mut HashMap<(u32, IpNet), Chosen<'a>>,
    owner: u32,
    route: &'a Route,
    hop: &'a Hop,
    reachable: bool,
) {
    let own = hop.ifindex == owner;
    let new = || Chosen { route, own, reachable, hops: vec![hop] };
    match chosen.entry((owner, route.destination)) {
        Entry::Vacant(entry) => {
            entry.insert(new());
        }
        Entry::Occupied(mut entry) => {
            let before = entry.get_mut();
            let same_route = std::ptr::eq(before.route, route) && before.own == own;
            if same_route && before.reachable == reachable {
                // One gateway on several interfaces is one gateway to another one that is near to them.
                if own || before.hops.iter().all(|known| known.gateway != hop.gateway) {
                    before.hops.push(hop);
                }
            } else if reachable && !before.reachable && (same_route || route.destination.addr().is_ipv6()) {
                *before = new();
            }
        }
    }
}

/// The gateways among which the kernel chooses by whether they answer: those of IPv6 prefixes with more than one, and of multipath
/// routes of IPv4 where `fib_multipath_use_neigh` is on.
pub fn choices(host: &Host, ipv4_by_neighbours: bool) -> HashSet<IpAddr> {
    let mut gateways: HashMap<(u32, IpNet), Vec<IpAddr>> = HashMap::new();
    for route in &host.routes {
        let is_ipv6 = route.destination.addr().is_ipv6();
        if is_ipv6 || ipv4_by_neighbours && route.hops.len() > 1 {
            let of_prefix = gateways.entry((route.table, route.destination)).or_default();
            of_prefix.extend(route.hops.iter().filter_map(|hop| hop.gateway));
        }
    }
    gateways.into_values().filter(|gateways| gateways.len() > 1).flatten().collect()
}

/// The routes of each table, better ones first. The kernel takes the first of routes with equal metric, and their order stays.
pub(super) fn by_table(routes: &[Route]) -> HashMap<u32, Vec<&Route>> {
    let mut by_table: HashMap<u32, Vec<&Route>> = HashMap::new();
    for route in routes {
        by_table.entry(route.table).or_default().push(route);
    }
    for routes in by_table.values_mut() {
        routes.sort_by_key(|route| (route.metric, Reverse(route.preference)));
    }
    by_table
}

/// The routes and hops through each owner of the tables that rules from its addresses lead to, better ones first.
fn by_source<'a>(
    host: &Host,
    owners: &BTreeSet<u32>,
    by_table: &HashMap<u32, Vec<&'a Route>>,
) -> Vec<(u32, &'a Route, &'a Hop)> {
    let mut found = Vec::new();
    for (owner, tables) in host.tables_by_source() {
        if !owners.contains(&owner) {
            continue;
        }
        let of_table = |table: TableOfRule| {
            let routes = by_table.get(&table.table).into_iter().flatten();
            routes.filter(move |route| table.has(route))
        };
        for route in tables.into_iter().flat_map(of_table) {
            let hops = route.hops.iter().filter(|hop| hop.ifindex == owner);
            found.extend(hops.map(|hop| (owner, *route, hop)));
        }
    }
    found
}

/// What is left of such tables that are gone, for where nothing else is known.
fn remembered<'a>(host: &'a Host, owners: &BTreeSet<u32>) -> impl Iterator<Item = (u32, &'a Route, &'a Hop)> {
    let hops = host.remembered.iter().flat_map(|route| route.hops.iter().map(move |hop| (route, hop)));
    let hops = hops.filter(|(_, hop)| owners.contains(&hop.ifindex));
    hops.map(|(route, hop)| (hop.ifindex, route, hop))
}

/// Calls `offer` with every next hop that an owner has by the routes of one table, sorted by preference: an owner and
/// the route and hop that it can use, which may be those of another interface. The first for a prefix counts.
fn for_each<'a>(
    routes: &[&'a Route],
    owners: &BTreeSet<u32>,
    mut offer: impl FnMut(u32, &'a Route, &'a Hop),
) {
    let hops = || routes.iter().flat_map(|route| route.hops.iter().map(move |hop| (*route, hop)));
    for (route, hop) in hops().filter(|(_, hop)| owners.contains(&hop.ifindex)) {
        offer(hop.ifindex, route, hop);
    }
    let mut nearby = Nearby::new(routes, owners);
    // Where each of many interfaces has a route to the same prefix through the same gateway, once is enough.
    let mut done = HashSet::new();
    for (route, hop) in hops() {
        let Some(gateway) = hop.gateway else { continue };
        let near = nearby.of(gateway, hop.ifindex);
        if done.insert((route.destination, gateway, near)) {
            for owner in nearby.interfaces(near).iter().filter(|owner| **owner != hop.ifindex) {
                offer(*owner, route, hop);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        LinkKind,
        testing::{ip, link, net, port, route},
    };

    fn next_hops(routes: Vec<Route>) -> NextHops {
        of_owners(&Host { routes, ..Host::default() }, &BTreeSet::from([2, 3]))
    }

    fn gateway(text: &str) -> Vec<(NextHop, u16)> {
        vec![(NextHop::Gateway(ip(text)), 1)]
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
            assert_eq!(hops[&(3, net(subnet))], vec![(NextHop::OnLink, 1)]);
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
        let hop = |ifindex, gateway| Hop::new(ifindex, Some(ip(gateway)));
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
        let links = [port(2, 9), link(3, LinkKind::Wire), link(9, LinkKind::Vrf { table: 10 })];
        let links = links.into_iter().map(|link| (link.index, link)).collect();
        let hops = of_owners(&Host { links, routes, ..Host::default() }, &BTreeSet::from([2, 3]));
        assert_eq!(hops[&(2, net("0.0.0.0/0"))], gateway("10.0.0.2"));
        assert_eq!(hops[&(3, net("0.0.0.0/0"))], gateway("10.0.0.1"));
    }
}
