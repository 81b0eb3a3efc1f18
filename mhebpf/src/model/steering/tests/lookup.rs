//! Random hosts: what the kernel would do by the rules and tables is what the programs would do without them.

use proptest::prelude::*;

use super::*;
use crate::model::{host::prefix, next_hops};

const LAST: u32 = 6;

fn v4(n: u32) -> IpAddr {
    Ipv4Addr::from(0x0a00_0000 | n).into()
}

/// Addresses and prefixes in 10.0.0.0/26, so that they meet often.
fn any_address() -> impl Strategy<Value = IpAddr> {
    (0..64_u32).prop_map(v4)
}

fn any_prefix() -> impl Strategy<Value = IpNet> {
    (any_address(), prop_oneof![Just(0_u8), Just(24), 26..=32_u8])
        .prop_map(|(address, length)| prefix(address, length))
}

fn any_hop() -> impl Strategy<Value = Hop> {
    (2..=LAST, proptest::option::of(any_address())).prop_map(|(ifindex, gateway)| Hop::new(ifindex, gateway))
}

fn any_route() -> impl Strategy<Value = Route> {
    (any_prefix(), 0..3_u32, proptest::collection::vec(any_hop(), 1..3)).prop_map(
        |(destination, metric, hops)| Route {
            table: MAIN_TABLE,
            destination,
            metric,
            hops,
            metrics: Metrics::default(),
            preference: 0,
        },
    )
}

fn any_host() -> impl Strategy<Value = Host> {
    let addresses = proptest::collection::vec((1..=LAST, any_address(), 26..=32_u8), 0..12);
    let routes = proptest::collection::vec(any_route(), 0..14);
    let others = proptest::collection::vec((any_prefix(), 0..3_u32), 0..3);
    let local = proptest::collection::vec((1..=LAST, any_prefix()), 0..2);
    (addresses, routes, others, local).prop_map(|(addresses, routes, others, local)| {
        let addresses = addresses.into_iter().map(|(ifindex, local, length)| Address {
            ifindex,
            local,
            subnet: prefix(local, length),
            tentative: false,
            host_scope: false,
        });
        let mut host = host(links(LAST), addresses);
        host.routes = routes;
        host.other_routes =
            others.into_iter().map(|(destination, metric)| OtherRoute { destination, metric }).collect();
        let local = local.into_iter().filter(|(_, prefix)| prefix.prefix_len() > 26);
        host.local_routes =
            local.map(|(ifindex, prefix)| LocalRoute { domain: MAIN_DOMAIN, prefix, ifindex }).collect();
        host
    })
}

/// Interfaces 2 to 4 are enforced, 5 and 6 are not.
const ENFORCED: [u32; 3] = [2, 3, 4];

/// What a lookup gives.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// The table main has the word.
    Main,
    /// These ways.
    Through(u32, Vec<Option<IpAddr>>),
}

/// The kernel's lookup: the first rule that matches, the longest prefix of its table, then the next rule.
fn kernel(steering: &Steering, source: IpAddr, destination: IpAddr) -> Found {
    let rule = steering.rules.iter().find(|rule| rule.source.contains(&source));
    let routes = rule.and_then(|rule| steering.tables.get(&rule.table)).into_iter().flatten();
    let best = routes.filter(|(to, _)| to.contains(&destination)).max_by_key(|(to, _)| to.prefix_len());
    match best {
        Some((_, SteeringRoute::Through(way))) => {
            Found::Through(way.ifindex, way.gateways.iter().map(|gateway| gateway.address).collect())
        }
        _ => Found::Main,
    }
}

/// Whether main leads through an interface that is not enforced, or nowhere: by longest prefix, then by metric.
fn main_stands(host: &Host, owner: u32, destination: IpAddr) -> bool {
    let lengths = |to: &IpNet| to.contains(&destination).then_some(to.prefix_len());
    let special = host.other_routes.iter().map(|other| (other.destination, Some(other.metric)));
    let local = host.local_routes.iter().map(|local| (local.prefix, None));
    let special: Vec<(IpNet, Option<u32>)> = special.chain(local).collect();
    let all = host.routes.iter().map(|route| route.destination).chain(special.iter().map(|(to, _)| *to));
    let Some(longest) = all.filter_map(|to| lengths(&to)).max() else { return true };
    let to = prefix(destination, longest);
    // The first of those with the least metric.
    let route = host.routes.iter().filter(|route| route.destination == to).min_by_key(|route| route.metric);
    let mut special = special.iter().filter(|(each, _)| *each == to).map(|(_, metric)| *metric);
    let Some(route) = route else { return true };
    let is_elsewhere = longest > 0 && route.hops.iter().all(|hop| hop.ifindex != owner);
    let has_own = || next_hops::of_owners(host, &[owner].into()).contains_key(&(owner, to));
    special.any(|metric| metric.is_none_or(|metric| metric <= route.metric))
        || (is_elsewhere && !has_own())
        || (route.hops.iter().all(|hop| hop.ifindex != owner)
            && route.hops.iter().any(|hop| !ENFORCED.contains(&hop.ifindex)))
}

/// The next hops that the programs know for an owner, in order.
fn next_hops(host: &Host, owner: u32, destination: IpAddr) -> Option<Vec<Option<IpAddr>>> {
    let next_hops = next_hops::of_owners(host, &[owner].into());
    let longest = (0..=32).rev().find_map(|length| next_hops.get(&(owner, prefix(destination, length))))?;
    let gateway = |(hop, _): &(next_hops::NextHop, u16)| match hop {
        next_hops::NextHop::OnLink => None,
        next_hops::NextHop::Gateway(gateway) => Some(*gateway),
    };
    Some(longest.iter().map(gateway).collect())
}

/// The interfaces that an address is configured on or routed to; `None` where it is everybody's or nobody's.
fn owners(host: &Host, source: IpAddr) -> Option<BTreeSet<u32>> {
    let configured = host.addresses.iter().filter(|a| a.local == source).map(|a| a.ifindex);
    let routed = host.local_routes.iter().filter(|r| r.prefix.contains(&source)).map(|r| r.ifindex);
    let owners: BTreeSet<u32> = configured.chain(routed).collect();
    (!owners.is_empty() && !owners.contains(&1)).then_some(owners)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_kernel_chooses_as_the_programs_would(host in any_host()) {
        let steering = Steering::new(&host, &policies(ENFORCED));
        for source in (0..64).map(v4) {
            let owners = owners(&host, source);
            for destination in (0..64).map(v4).chain([ip("192.0.2.1")]) {
                let found = kernel(&steering, source, destination);
                let owner = match &owners {
                    Some(owners) if owners.len() == 1 => owners.first().copied(),
                    Some(_) => None,
                    // A foreign address is never judged, and may fall into the prefix of a rule.
                    None if host.addresses.iter().all(|address| address.local != source) => continue,
                    None => None,
                };
                let Some(owner) = owner.filter(|owner| ENFORCED.contains(owner)) else {
                    prop_assert_eq!(found, Found::Main, "{} has no owner to be steered to", source);
                    continue;
                };
                if main_stands(&host, owner, destination) {
                    prop_assert_eq!(found, Found::Main, "{} to {}", source, destination);
                    continue;
                }
                // The kernel takes no gateway that is an address of its own.
                let is_local = |gateway: &IpAddr| host.addresses.iter().any(|a| a.local == *gateway);
                match (next_hops(&host, owner, destination), found) {
                    (Some(hops), _) if hops.iter().flatten().any(is_local) => {}
                    (None, found) => prop_assert_eq!(found, Found::Main, "{} to {}", source, destination),
                    (Some(hops), Found::Through(ifindex, mut gateways)) => {
                        prop_assert_eq!(ifindex, owner);
                        gateways.sort();
                        gateways.dedup();
                        let mut hops = hops.clone();
                        hops.sort();
                        hops.dedup();
                        prop_assert_eq!(gateways, hops, "{} to {}", source, destination);
                    }
                    (Some(_), Found::Main) => {
                        // A prefix that is around others of another owner can't be said by a rule.
                        let overlapped = steering.left_out.iter().any(|each| each.why == Why::Overlapped);
                        prop_assert!(overlapped, "{source} of {owner} to {destination} is not steered");
                    }
                }
            }
        }
    }

    #[test]
    fn rules_do_not_overlap_and_stay_within_subnets(host in any_host()) {
        let steering = Steering::new(&host, &policies(ENFORCED));
        for rule in &steering.rules {
            for other in &steering.rules {
                prop_assert!(rule == other || !rule.source.contains(&other.source), "{rule} and {other}");
            }
            let owner = interface_of(rule.table);
            let local = |address: &&Address| rule.source.contains(&address.local);
            for address in host.addresses.iter().filter(local) {
                prop_assert_eq!(Some(address.ifindex), owner, "{} covers {}", rule, address.local);
            }
            let is_single = rule.source.prefix_len() == 32;
            let in_subnet = host.addresses.iter().any(|address| {
                Some(address.ifindex) == owner && address.subnet.contains(&rule.source)
            });
            let in_route = host.local_routes.iter().any(|route| {
                Some(route.ifindex) == owner && route.prefix.contains(&rule.source)
            });
            prop_assert!(is_single || in_subnet || in_route, "{rule}");
        }
    }

    #[test]
    fn two_neighbouring_rules_could_not_be_one(host in any_host()) {
        let steering = Steering::new(&host, &policies(ENFORCED));
        let rules: Vec<&SteeringRule> = steering.rules.iter().collect();
        for pair in rules.windows(2) {
            if pair[0].table != pair[1].table {
                continue;
            }
            let (one, other) = (pair[0].source, pair[1].source);
            let length = (0..=32).rev().find(|length| prefix(one.addr(), *length) == prefix(other.addr(), *length));
            let around = prefix(one.addr(), length.unwrap_or_default());
            let owner = interface_of(pair[0].table);
            let in_subnet = host.addresses.iter().any(|address| {
                Some(address.ifindex) == owner && address.subnet.contains(&around)
            });
            let between = host.addresses.iter().map(|address| (IpNet::from(address.local), address.ifindex));
            let routed = host.local_routes.iter().map(|route| (route.prefix, route.ifindex));
            let is_uniform = between.chain(routed).all(|(prefix, ifindex)| {
                Some(ifindex) == owner || !(around.contains(&prefix) || prefix.contains(&around))
            });
            prop_assert!(!(in_subnet && is_uniform), "{} and {}", pair[0], pair[1]);
        }
    }
}
