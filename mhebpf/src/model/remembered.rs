//! Gateways that only the table of a rule knew.
//!
//! Agents of clouds write such tables anew whenever a lease is renewed, and who hears that mhebpf does what their rules are for
//! may remove them. Between two snapshots the interface has not moved to another network, so its gateway is still there: it is
//! kept for as long as the interface has an address in the gateway's subnet.

use std::collections::HashSet;

use super::host::{Host, Route, is_default};

/// Adds to `host` the default routes that tables of rules had for its interfaces in `before`, the same host a moment ago, where
/// no table has any now.
pub fn remember(host: &mut Host, before: &Host) {
    let known: HashSet<(u32, bool)> = by_source(host).map(|(ifindex, route)| key(ifindex, route)).collect();
    let remembered = before.remembered.iter().filter_map(|route| Some((route.hops.first()?.ifindex, route)));
    let mut kept: Vec<Route> = Vec::new();
    for (ifindex, route) in by_source(before).chain(remembered) {
        let hops: Vec<_> = route.hops.iter().filter(|hop| hop.ifindex == ifindex).copied().collect();
        let is_near = hops.iter().filter_map(|hop| hop.gateway).any(|gateway| {
            host.addresses.iter().any(|a| a.ifindex == ifindex && a.subnet.contains(&gateway))
        });
        let is_kept = kept.iter().any(|kept| kept.hops == hops && kept.destination == route.destination);
        if is_near && !is_kept && !known.contains(&key(ifindex, route)) {
            kept.push(Route { hops, ..route.clone() });
        }
    }
    host.remembered = kept;
}

/// The default routes of tables that rules from the addresses of interfaces lead to, each with the interface.
fn by_source(host: &Host) -> impl Iterator<Item = (u32, &Route)> {
    let tables = host.tables_by_source();
    tables.into_iter().flat_map(|(ifindex, tables)| {
        let of_interface = move |route: &&Route| {
            tables.iter().any(|table| table.has(route))
                && is_default(&route.destination)
                && route.hops.iter().any(|hop| hop.ifindex == ifindex && hop.gateway.is_some())
        };
        host.routes.iter().filter(of_interface).map(move |route| (ifindex, route))
    })
}

fn key(ifindex: u32, route: &Route) -> (u32, bool) {
    (ifindex, route.destination.addr().is_ipv4())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::{
        Hop, LinkKind, Metrics, Rule,
        next_hops::{self, NextHop},
        testing::{address, host, ip, link, net},
        uplinks::Uplinks,
    };

    fn with_rule() -> Host {
        let addresses = [address(2, "10.1.0.5/24"), address(3, "10.2.0.5/24")];
        let mut host = host([2, 3].map(|index| link(index, LinkKind::Wire)), addresses);
        let hops = vec![Hop::new(3, Some(ip("10.2.0.1")))];
        let destination = net("0.0.0.0/0");
        host.routes = vec![Route {
            table: 101,
            destination,
            metric: 0,
            hops,
            metrics: Metrics::default(),
            preference: 0,
        }];
        let source = Some(net("10.2.0.5/32"));
        let rule =
            Rule { ipv4: true, priority: 100, source, table: 101, protocol: 3, mark: None, selects: false };
        host.rules = vec![rule];
        host
    }

    fn next_hop(host: &Host) -> Option<NextHop> {
        let next_hops = next_hops::of_owners(host, &BTreeSet::from([2, 3]));
        next_hops.get(&(3, net("0.0.0.0/0"))).map(|hops| hops[0].0)
    }

    #[test]
    fn a_gateway_is_kept_when_its_rule_and_table_are_gone() {
        let before = with_rule();
        let mut after = Host { rules: Vec::new(), routes: Vec::new(), ..before.clone() };
        after.links.values_mut().for_each(|link| link.forwards = true);
        let forgotten = after.clone();
        remember(&mut after, &before);
        assert_eq!(next_hop(&after), Some(NextHop::Gateway(ip("10.2.0.1"))));
        assert!(Uplinks::of(&after).uplinks.contains(&3) && Uplinks::of(&forgotten).downlinks.contains(&3));
        let mut later = forgotten;
        remember(&mut later, &after);
        assert_eq!(later.remembered, after.remembered, "and for as long as it goes on");
        let mut back = with_rule();
        remember(&mut back, &later);
        assert!(back.remembered.is_empty());
    }

    #[test]
    fn a_gateway_of_another_network_is_not_kept() {
        let before = with_rule();
        let mut moved = Host { rules: Vec::new(), routes: Vec::new(), ..before.clone() };
        moved.addresses[1] = address(3, "10.3.0.5/24");
        remember(&mut moved, &before);
        assert_eq!((moved.remembered.len(), next_hop(&moved)), (0, None));
    }
}
