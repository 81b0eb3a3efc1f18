//! Routes.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use netlink_packet_core::Nla as _;
use netlink_packet_route::{
    AddressFamily,
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteNextHop,
        RouteNextHopFlags, RoutePreference, RouteProtocol, RouteType, RouteVia,
    },
};

use crate::{
    model::{
        Hop, Host, LocalRoute, Metrics, OtherRoute, Route,
        host::{MAIN_TABLE, prefix},
        steering::interface_of,
    },
    netlink::{
        nexthops::Nexthops,
        routes::{self, PlacedRoute},
    },
};

/// What a route says that matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::netlink) enum AnyRoute {
    /// Where packets go.
    Unicast(Route),
    /// That they go elsewhere than to a next hop.
    Other(OtherRoute),
    /// Some to next hops, and others elsewhere.
    Both(Route, OtherRoute),
    /// It is in one of our tables.
    Placed(PlacedRoute),
    /// What is the host's own, for each interface that it is routed to.
    Local(Vec<LocalRoute>),
}

impl AnyRoute {
    /// Adds it to a host, or to the routes in our tables.
    pub(in crate::netlink) fn add_to(self, host: &mut Host, placed: &mut Vec<PlacedRoute>) {
        match self {
            Self::Unicast(route) => host.routes.push(route),
            Self::Other(other) => host.other_routes.push(other),
            Self::Both(route, other) => {
                host.routes.push(route);
                host.other_routes.push(other);
            }
            Self::Placed(route) => placed.push(route),
            Self::Local(routes) => host.local_routes.extend(routes),
        }
    }
}

/// `RT_TABLE_COMPAT`: the table's number does not fit into the header.
const COMPAT: u8 = 252;

/// Whether a route is of a kind that [`route`] has use for.
pub(in crate::netlink) fn route_matters(header: &RouteHeader) -> bool {
    match header.kind {
        RouteType::Unicast => true,
        // The kernel's own come and go with the addresses, which say the same.
        RouteType::Local => header.protocol != RouteProtocol::Kernel,
        _ => is_other(header),
    }
}

/// Whether a route is of a kind that ends a lookup without a next hop, in the table main or one whose number does not fit
/// into the header, as ours.
fn is_other(header: &RouteHeader) -> bool {
    matches!(header.table, RouteHeader::RT_TABLE_MAIN | COMPAT)
        && matches!(
            header.kind,
            RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit | RouteType::Throw
        )
}

/// The tables whose routes are read.
#[derive(Clone, Debug, Default)]
pub(in crate::netlink) struct Tables {
    /// The domain of each table that has one.
    pub(in crate::netlink) domains: BTreeMap<u32, u32>,
    /// Those that rules lead to, each for IPv4 (`true`) or IPv6. They say where packets go, but nothing of what is local.
    pub(in crate::netlink) by_rule: BTreeSet<(u32, bool)>,
    /// What routes may name instead of next hops.
    pub(in crate::netlink) nexthops: RefCell<Nexthops>,
}

/// A unicast route that any packet may take, or a local one that does not come of an address, of the tables that
/// have a domain, another one of the table main, a unicast route of one that a rule leads to, or one of our own tables; `None`
/// for all others.
pub(in crate::netlink) fn route(message: &RouteMessage, tables: &Tables) -> Option<AnyRoute> {
    let header = &message.header;
    let table = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    let table = table.unwrap_or(u32::from(header.table));
    // A VRF may have any number.
    if !tables.domains.contains_key(&table) && interface_of(table).is_some() {
        return routes::placed(message).map(AnyRoute::Placed);
    }
    let domain = tables.domains.get(&table).copied();
    let is_by_rule = || tables.by_rule.contains(&(table, header.address_family == AddressFamily::Inet));
    if domain.is_none() && !(header.kind == RouteType::Unicast && is_by_rule()) {
        return None;
    }
    if header.flags.contains(RouteFlags::Dead) || !route_matters(header) {
        return None;
    }
    let mut destination = match header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let mut metric = 0;
    let mut preference = 0;
    let mut metrics = Metrics::default();
    let mut oif = None;
    let mut nexthop = None;
    let mut hops = Vec::new();
    let mut is_whole = true;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => destination = (*address).into(),
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => destination = (*address).into(),
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Metrics(all) => metrics = all.iter().map(value_of).collect(),
            RouteAttribute::Oif(index) => oif = Some(*index),
            RouteAttribute::MultiPath(next_hops) => {
                for next_hop in alive(next_hops) {
                    let hop = weighted_hop(next_hop);
                    is_whole &= hop.is_some();
                    hops.extend(hop);
                }
            }
            RouteAttribute::Preference(given) => {
                preference = match given {
                    RoutePreference::High => 1,
                    RoutePreference::Low => -1,
                    _ => 0,
                };
            }
            RouteAttribute::NhId(id) => nexthop = Some(*id),
            _ => {}
        }
    }
    if let Some(ifindex) = oif {
        hops.extend(hop(ifindex, &message.attributes));
    }
    // What a route that names a nexthop object says itself is whole, where it says anything (`nexthop_compat_mode`).
    if hops.is_empty()
        && is_whole
        && let Some(nexthop) = nexthop
    {
        tables.nexthops.borrow_mut().resolve(nexthop, &mut hops);
    }
    if header.address_family == AddressFamily::Inet6 {
        // An event has the hop first that it is about, and a dump does not; flows are to keep theirs.
        hops.sort_by_key(|hop| (hop.ifindex, hop.gateway));
    }
    let destination = prefix(destination, header.destination_prefix_length);
    let other =
        |metric| (table == MAIN_TABLE).then_some(OtherRoute { destination, metric }).map(AnyRoute::Other);
    // Routes for one TOS, or for some sources only (`from`, IPv6 subtrees).
    if header.tos != 0 || header.source_prefix_length > 0 {
        return other(0);
    }
    match header.kind {
        RouteType::Local => {
            let domain = domain?;
            let local = |hop: &Hop| LocalRoute { domain, prefix: destination, ifindex: hop.ifindex };
            Some(AnyRoute::Local(hops.iter().map(local).collect()))
        }
        RouteType::Unicast if !hops.is_empty() => {
            let route = Route { table, destination, metric, preference, hops, metrics };
            if is_whole || table != MAIN_TABLE {
                return Some(AnyRoute::Unicast(route));
            }
            Some(AnyRoute::Both(route, OtherRoute { destination, metric }))
        }
        _ => other(metric),
    }
}

/// How long a route is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::netlink) enum Lifetime {
    /// Until something else ends it.
    Forever,
    /// For this long.
    Ends(Duration),
    /// No more. The kernel dumps it until its garbage collection comes by (`fib6_check_expired`, `fib6_run_gc`).
    Expired,
}

/// How long the kernel will use a route.
pub(in crate::netlink) fn lifetime(message: &RouteMessage) -> Lifetime {
    let left = message.attributes.iter().find_map(|attribute| match attribute {
        // A signed number of hundredths of seconds (`rtnl_put_cacheinfo`), 0 for routes that do not expire.
        RouteAttribute::CacheInfo(info) => Some(info.expires.cast_signed()),
        _ => None,
    });
    match left {
        None | Some(0) => Lifetime::Forever,
        Some(left) => u64::try_from(left)
            .map_or(Lifetime::Expired, |left| Lifetime::Ends(Duration::from_millis(left.saturating_mul(10)))),
    }
}

/// The hops of a multipath route that the kernel uses: none that is dead, and those without carrier only where there is no other
/// (`ignore_routes_with_linkdown`).
fn alive(hops: &[RouteNextHop]) -> impl Iterator<Item = &RouteNextHop> {
    let is = |flag| move |hop: &&RouteNextHop| hop.flags.contains(flag);
    let (is_dead, is_down) = (is(RouteNextHopFlags::Dead), is(RouteNextHopFlags::Linkdown));
    let any_up = hops.iter().any(|hop| !is_dead(&hop) && !is_down(&hop));
    hops.iter().filter(move |hop| !(is_dead(hop) || any_up && is_down(hop)))
}

/// The number and the value of a metric, as the kernel has them.
pub(in crate::netlink) fn value_of(metric: &RouteMetric) -> (u16, Box<[u8]>) {
    let mut value = vec![0; metric.value_len()];
    metric.emit_value(&mut value);
    (metric.kind(), value.into_boxed_slice())
}

/// One of a multipath route: as [`hop`], with its weight.
pub(in crate::netlink) fn weighted_hop(hop: &RouteNextHop) -> Option<Hop> {
    let found = self::hop(hop.interface_index, &hop.attributes)?;
    // What is said is one less.
    Some(Hop { weight: 1 + u16::from(hop.hops), ..found })
}

/// `None` for next hops that a plain neighbour does not describe: an encapsulation.
pub(in crate::netlink) fn hop(ifindex: u32, attributes: &[RouteAttribute]) -> Option<Hop> {
    let mut gateway = None;
    for attribute in attributes {
        match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(address))
            | RouteAttribute::Via(RouteVia::Inet(address)) => gateway = Some(IpAddr::from(*address)),
            RouteAttribute::Gateway(RouteAddress::Inet6(address))
            | RouteAttribute::Via(RouteVia::Inet6(address)) => gateway = Some(IpAddr::from(*address)),
            RouteAttribute::Gateway(_)
            | RouteAttribute::Via(_)
            | RouteAttribute::Encap(_)
            | RouteAttribute::EncapType(_) => return None,
            _ => {}
        }
    }
    Some(Hop::new(ifindex, gateway))
}
