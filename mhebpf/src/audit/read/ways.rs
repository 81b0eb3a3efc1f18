//! Where the kernel sends packets with the host's own sources.

use std::{
    collections::{BTreeMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

use crate::{
    audit::snapshot::{To, View, Way},
    model::{Host, host::MAIN_DOMAIN},
    netlink::RouteLookup,
};

/// Destinations that may stand for all that is far: one that no route but the default one holds is taken. They are
/// only looked up, nothing is sent to them.
const FAR: [IpAddr; 6] = [
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)),
    IpAddr::V4(Ipv4Addr::new(9, 9, 9, 9)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2620, 0xfe, 0, 0, 0, 0, 0, 0xfe)),
];

/// How many addresses of a subnet are tried to find one that is not the host's.
const TRIES: usize = 4096;

/// What to ask: for each address a neighbour in its subnet, and a destination beyond the gateways.
pub(super) fn questions(view: &View<'_>) -> Vec<Way> {
    let host = &view.snapshot.host;
    let local: HashSet<IpAddr> = host.addresses.iter().map(|address| address.local).collect();
    let mut neighbours: BTreeMap<(u32, IpNet), Option<IpAddr>> = BTreeMap::new();
    let mut far: BTreeMap<(u32, bool), Option<IpAddr>> = BTreeMap::new();
    let mut questions = Vec::new();
    for address in view.judged_addresses() {
        let (domain, source) = (view.domain_of(address.ifindex), address.local);
        let mut ask = |destination: Option<IpAddr>, to| {
            if let Some(destination) = destination {
                let configured = address.ifindex;
                questions.push(Way { source, configured, domain, destination, to, route: None });
            }
        };
        let subnet = address.subnet;
        if subnet.prefix_len() < subnet.max_prefix_len() && subnet.contains(&source) {
            let neighbour = neighbours
                .entry((domain, subnet))
                .or_insert_with(|| neighbour(host, host.table_of(domain), subnet, &local));
            ask(*neighbour, To::Subnet(subnet));
        }
        let far = far
            .entry((domain, source.is_ipv6()))
            .or_insert_with(|| destination_beyond(host, host.table_of(domain), source.is_ipv6()));
        ask(*far, To::Beyond);
    }
    questions
}

/// A gateway in the subnet, or else its first address that is not the host's.
fn neighbour(host: &Host, table: u32, subnet: IpNet, local: &HashSet<IpAddr>) -> Option<IpAddr> {
    let routes = host.routes.iter().filter(|route| route.table == table);
    let mut gateways = routes.flat_map(|route| route.hops.iter().filter_map(|hop| hop.gateway));
    let first = || {
        // The first address of an IPv6 subnet is that of all its routers.
        let skipped = usize::from(subnet.addr().is_ipv6());
        subnet.hosts().skip(skipped).take(TRIES).find(|address| !local.contains(address))
    };
    gateways.find(|gateway| subnet.contains(gateway) && !local.contains(gateway)).or_else(first)
}

/// A destination for which the default route is the best; `None` where there is no such route.
fn destination_beyond(host: &Host, table: u32, ipv6: bool) -> Option<IpAddr> {
    let routes = || host.routes.iter().filter(|route| route.table == table);
    FAR.into_iter().filter(|far| far.is_ipv6() == ipv6).find(|far| {
        let best = routes().map(|route| route.destination).filter(|prefix| prefix.contains(far));
        best.max_by_key(IpNet::prefix_len).is_some_and(|prefix| prefix.prefix_len() == 0)
    })
}

/// Asks the kernel. A packet of a VRF is looked up there.
pub(super) fn ask(mut questions: Vec<Way>, lookup: &mut RouteLookup) -> Vec<Way> {
    for way in &mut questions {
        let vrf = (way.domain != MAIN_DOMAIN).then_some(way.domain);
        way.route = lookup.route(Some(way.source), way.destination, vrf).ok();
    }
    questions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audit::snapshot::Snapshot,
        model::{
            Hop, LinkKind, Metrics, Route,
            host::MAIN_TABLE,
            testing::{address, host, ip, link, net},
        },
    };

    fn asked(addresses: &[(u32, &str)], routes: &[(&str, Option<&str>)]) -> Vec<(String, String, To)> {
        let mut host = host(
            [link(2, LinkKind::Wire), link(3, LinkKind::Wire), link(1, LinkKind::Loopback)],
            addresses.iter().map(|(ifindex, text)| address(*ifindex, text)),
        );
        host.routes = routes
            .iter()
            .map(|(prefix, gateway)| Route {
                table: MAIN_TABLE,
                destination: net(prefix),
                metric: 0,
                hops: vec![Hop::new(2, gateway.map(ip))],
                metrics: Metrics::default(),
                preference: 0,
            })
            .collect();
        let snapshot = Snapshot { host, company: [2, 3].into(), ..Snapshot::default() };
        let view = View::new(&snapshot);
        questions(&view).iter().map(|q| (q.source.to_string(), q.destination.to_string(), q.to)).collect()
    }

    #[test]
    fn a_neighbour_is_no_address_of_the_host() {
        let subnet = To::Subnet(net("10.0.0.0/24"));
        let expected = [
            ("10.0.0.1".to_owned(), "10.0.0.3".to_owned(), subnet),
            ("10.0.0.2".to_owned(), "10.0.0.3".to_owned(), subnet),
        ];
        assert_eq!(asked(&[(2, "10.0.0.1/24"), (3, "10.0.0.2/24"), (2, "fe80::2/64")], &[]), expected);
        // A gateway is a better example.
        let routes = [("0.0.0.0/0", Some("10.0.0.254"))];
        let asked = asked(&[(2, "10.0.0.1/24")], &routes);
        assert_eq!(asked[0].1, "10.0.0.254");
        assert_eq!((asked[1].1.as_str(), asked[1].2), ("198.51.100.1", To::Beyond));
    }

    #[test]
    fn what_is_far_is_in_no_smaller_route() {
        let routes =
            [("0.0.0.0/0", Some("10.0.0.254")), ("198.51.100.0/24", None), ("::/0", Some("fe80::1"))];
        let asked = asked(&[(2, "10.0.0.1/32"), (3, "2001:db8::1/64"), (1, "10.9.9.9/32")], &routes);
        let beyond: Vec<&str> =
            asked.iter().filter(|(_, _, to)| *to == To::Beyond).map(|(_, far, _)| far.as_str()).collect();
        assert_eq!(beyond, ["203.0.113.1", "2001:db8:ffff::1"]);
        assert_eq!(asked.len(), 3, "an address on lo is everybody's: {asked:?}");
    }
}
