//! Routes of our tables.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use netlink_packet_core::{DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteNextHop,
        RouteNextHopFlags, RouteProtocol, RouteScope, RouteType, RouteVia,
    },
};

use super::{parse, request::Requests, rules::unless};
use crate::model::{
    Metrics,
    host::prefix,
    steering::{Gateway, PROTOCOL, SteeringRoute, Way, interface_of},
};

/// A route in one of our tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedRoute {
    /// The table.
    pub table: u32,
    /// The destination.
    pub destination: IpNet,
    /// The metric, which tells it from other routes to the destination.
    pub metric: u32,
    /// Who added it (`rtm_protocol`).
    pub protocol: u8,
    /// What it says, if that is of a kind that we have.
    pub route: Option<SteeringRoute>,
}

impl PlacedRoute {
    /// Whether it was added by mhebpf.
    pub fn is_ours(&self) -> bool {
        self.protocol == PROTOCOL
    }

    /// Whether it says the same as `wanted`. That a gateway was taken for on-link does not matter once it is there.
    pub fn says(&self, wanted: &SteeringRoute) -> bool {
        match (&self.route, wanted) {
            (Some(SteeringRoute::Throw), SteeringRoute::Throw) => true,
            (Some(SteeringRoute::Through(given)), SteeringRoute::Through(wanted)) => {
                let sorted = |way: &Way| {
                    let mut gateways = way.gateways.clone();
                    gateways.sort();
                    gateways
                };
                given.ifindex == wanted.ifindex
                    && sorted(given) == sorted(wanted)
                    && given.metrics == wanted.metrics
            }
            _ => false,
        }
    }

    /// Names it for a message.
    pub fn describe(&self) -> String {
        format!("{} table {} protocol {}", self.destination, self.table, self.protocol)
    }
}

/// The route of a dumped message, if it is in one of our tables.
pub(super) fn placed(message: &RouteMessage) -> Option<PlacedRoute> {
    let header = &message.header;
    let mut found = PlacedRoute {
        table: u32::from(header.table),
        destination: IpNet::from(match header.address_family {
            AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            _ => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }),
        metric: 0,
        protocol: header.protocol.into(),
        route: None,
    };
    let mut destination = found.destination.addr();
    let mut metrics = Metrics::default();
    let mut hops = Vec::new();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(table) => found.table = *table,
            RouteAttribute::Destination(RouteAddress::Inet(address)) => destination = (*address).into(),
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => destination = (*address).into(),
            RouteAttribute::Priority(priority) => found.metric = *priority,
            RouteAttribute::Metrics(all) => metrics = all.iter().map(parse::value_of).collect(),
            RouteAttribute::Oif(index) => hops.extend(parse::hop(*index, &message.attributes)),
            RouteAttribute::MultiPath(all) => {
                hops.extend(all.iter().filter_map(parse::weighted_hop));
            }
            _ => {}
        }
    }
    interface_of(found.table)?;
    found.destination = prefix(destination, header.destination_prefix_length);
    found.route = match (header.kind, hops.first()) {
        (RouteType::Throw, _) => Some(SteeringRoute::Throw),
        (RouteType::Unicast, Some(first)) if hops.iter().all(|hop| hop.ifindex == first.ifindex) => {
            Some(SteeringRoute::Through(Way {
                ifindex: first.ifindex,
                gateways: hops
                    .iter()
                    .map(|hop| Gateway { address: hop.gateway, weight: hop.weight })
                    .collect(),
                on_link: false,
                metric: found.metric,
                metrics,
            }))
        }
        _ => None,
    };
    Some(found)
}

/// Adds a route, or has it replace the one with the same destination and metric.
///
/// # Errors
///
/// When the kernel refuses.
pub(crate) fn set(
    requests: &mut Requests,
    table: u32,
    destination: IpNet,
    route: &SteeringRoute,
) -> io::Result<()> {
    let message = RouteNetlinkMessage::NewRoute(message(table, destination, route));
    requests.send(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, |_| {}).map(drop)
}

/// Adds a throw that comes before all else that the table may have for a destination, whose packets so go on to the table
/// main.
///
/// # Errors
///
/// When the kernel refuses.
pub(crate) fn set_aside(requests: &mut Requests, table: u32, destination: IpNet) -> io::Result<()> {
    let mut message = message(table, destination, &SteeringRoute::Throw);
    message.attributes.retain(|attribute| !matches!(attribute, RouteAttribute::Priority(_)));
    // IPv6 takes 1024 for 0.
    let metric = if destination.addr().is_ipv4() { 0 } else { 1 };
    message.attributes.push(RouteAttribute::Priority(metric));
    let message = RouteNetlinkMessage::NewRoute(message);
    requests.send(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, |_| {}).map(drop)
}

/// Removes a route. One that is not there any more counts as removed.
///
/// # Errors
///
/// When the kernel refuses.
pub(crate) fn remove(requests: &mut Requests, route: &PlacedRoute) -> io::Result<()> {
    let mut message = begin(route.table, route.destination);
    message.header.protocol = RouteProtocol::from(route.protocol);
    message.header.scope = RouteScope::NoWhere;
    message.attributes.push(RouteAttribute::Priority(route.metric));
    let removed = requests.send(RouteNetlinkMessage::DelRoute(message), NLM_F_ACK, |_| {});
    unless(removed.map(drop), libc::ESRCH)
}

fn begin(table: u32, destination: IpNet) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = match destination {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    };
    message.header.destination_prefix_length = destination.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_UNSPEC;
    message.attributes = vec![RouteAttribute::Table(table)];
    if destination.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(destination.addr().into()));
    }
    message
}

fn message(table: u32, destination: IpNet, route: &SteeringRoute) -> RouteMessage {
    let mut message = begin(table, destination);
    message.header.protocol = RouteProtocol::from(PROTOCOL);
    message.header.kind = RouteType::Throw;
    message.attributes.push(RouteAttribute::Priority(route.metric(&destination)));
    let SteeringRoute::Through(way) = route else { return message };
    message.header.kind = RouteType::Unicast;
    if way.is_on_link() {
        // What gateways are looked up by must have this scope (`fib_check_nh`, net/ipv4/fib_semantics.c).
        message.header.scope = RouteScope::Link;
    }
    if !way.metrics.is_empty() {
        let metrics = way
            .metrics
            .iter()
            .map(|(number, value)| RouteMetric::Other(DefaultNla::new(number, value.to_vec())));
        message.attributes.push(RouteAttribute::Metrics(metrics.collect()));
    }
    let is_ipv4 = destination.addr().is_ipv4();
    if let [gateway] = way.gateways.as_slice() {
        if way.on_link {
            message.header.flags = RouteFlags::Onlink;
        }
        message.attributes.push(RouteAttribute::Oif(way.ifindex));
        message.attributes.extend(gateway.address.map(|gateway| via(gateway, is_ipv4)));
        return message;
    }
    let hops = way.gateways.iter().map(|gateway| {
        let mut hop = RouteNextHop::default();
        hop.interface_index = way.ifindex;
        // Of weights in one byte, as this message has them.
        hop.hops = u8::try_from(gateway.weight - 1).unwrap_or(u8::MAX);
        hop.attributes.extend(gateway.address.map(|gateway| via(gateway, is_ipv4)));
        // The kernel refuses the flag without a gateway (`fib_check_nh_nongw`, net/ipv4/fib_semantics.c).
        if way.on_link && gateway.address.is_some() {
            hop.flags = RouteNextHopFlags::Onlink;
        }
        hop
    });
    message.attributes.push(RouteAttribute::MultiPath(hops.collect()));
    message
}

/// The gateway of a route; that of an IPv4 route may be an IPv6 address.
fn via(gateway: IpAddr, is_ipv4: bool) -> RouteAttribute {
    match gateway {
        IpAddr::V6(gateway) if is_ipv4 => RouteAttribute::Via(RouteVia::Inet6(gateway)),
        gateway => RouteAttribute::Gateway(gateway.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing::{ip, net};

    const TABLE: u32 = 280_080_003;

    fn way(gateways: &[Option<&str>]) -> Way {
        let metrics = [(Metrics::MTU, Box::from(1400_u32.to_ne_bytes()))];
        Way {
            ifindex: 3,
            gateways: gateways.iter().map(|gateway| Gateway::new(gateway.map(ip))).collect(),
            on_link: false,
            metric: 100,
            metrics: metrics.into_iter().collect(),
        }
    }

    #[test]
    fn a_route_is_read_back() {
        for (destination, gateways) in [
            ("10.0.0.0/8", [None].as_slice()),
            ("0.0.0.0/0", &[Some("192.168.0.1")]),
            ("0.0.0.0/0", &[Some("fe80::1")]),
            ("::/0", &[Some("fe80::1"), Some("fe80::2")]),
        ] {
            let route = SteeringRoute::Through(way(gateways));
            let placed = placed(&message(TABLE, net(destination), &route)).expect("our table");
            assert!(placed.is_ours() && placed.says(&route), "{placed:?}");
            assert_eq!((placed.table, placed.destination, placed.metric), (TABLE, net(destination), 100));
        }
        let throw = placed(&message(TABLE, net("2001:db8::/32"), &SteeringRoute::Throw)).expect("our table");
        assert!(throw.says(&SteeringRoute::Throw) && throw.metric == 1024, "{throw:?}");
    }

    #[test]
    fn a_route_that_differs_is_told_from_it() {
        let route = SteeringRoute::Through(way(&[Some("192.168.0.1")]));
        let placed = placed(&message(TABLE, net("0.0.0.0/0"), &route)).expect("our table");
        let other = SteeringRoute::Through(way(&[Some("192.168.0.2")]));
        let without_mtu =
            SteeringRoute::Through(Way { metrics: Metrics::default(), ..way(&[Some("192.168.0.1")]) });
        for other in [other, without_mtu, SteeringRoute::Throw] {
            assert!(!placed.says(&other), "{other:?}");
        }
    }

    #[test]
    fn routes_of_other_tables_are_none_of_ours() {
        assert_eq!(placed(&message(254, net("0.0.0.0/0"), &SteeringRoute::Throw)), None);
    }
}
