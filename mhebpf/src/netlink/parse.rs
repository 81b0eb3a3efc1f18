//! From netlink messages to the model.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use netlink_packet_core::{DecodeError, Nla as _, Parseable as _};
use netlink_packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope},
    link::{
        AfSpecInet, AfSpecInet6, AfSpecUnspec, InfoData, InfoVlan, InfoVrf, LinkAttribute, LinkFlags,
        LinkInfo, LinkLayerType, LinkMessage,
    },
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteNextHop,
        RouteNextHopFlags, RoutePreference, RouteProtocol, RouteType, RouteVia,
    },
    rule::RuleMessage,
};

use super::{nexthops::Nexthops, routes::PlacedRoute};
use crate::model::{
    Address, Framing, Hop, Host, Link, LinkKind, LocalRoute, Metrics, OtherRoute, Route,
    host::{MAIN_TABLE, prefix},
    steering::interface_of,
};

/// The bits of a kind that say something else (`NLA_TYPE_MASK` of linux/netlink.h).
const KIND: u16 = 0x3fff;

/// Where a message has names of interfaces, which need not be UTF-8: the kernel takes any byte but blanks, colons and slashes
/// (`dev_valid_name`, Linux 6.18).
struct Names {
    /// Where the attributes begin, behind the header of the message.
    attributes: usize,
    /// Those that are names.
    kinds: &'static [u16],
    /// Those that have further names inside, which nobody asks for.
    further: Option<u16>,
}

/// `IFLA_IFNAME`, `IFLA_QDISC`, `IFLA_IFALIAS`, `IFLA_PHYS_PORT_NAME` and `IFLA_PROP_LIST` of linux/if_link.h.
const OF_LINKS: Names = Names { attributes: 16, kinds: &[3, 6, 20, 38], further: Some(52) };
/// `IFA_LABEL` of linux/if_addr.h.
const OF_ADDRESSES: Names = Names { attributes: 8, kinds: &[3], further: None };
/// `FRA_IIFNAME` and `FRA_OIFNAME` of linux/fib_rules.h.
const OF_RULES: Names = Names { attributes: 12, kinds: &[3, 17], further: None };

/// Reads a link; what is not UTF-8 in its names is replaced.
///
/// # Errors
///
/// When it can't be read for another reason.
pub(crate) fn link_message(payload: &[u8]) -> Result<LinkMessage, DecodeError> {
    or_with_readable_names(payload, &OF_LINKS, LinkMessage::parse)
}

/// The same of an address.
///
/// # Errors
///
/// When it can't be read for another reason.
pub(super) fn address_message(payload: &[u8]) -> Result<AddressMessage, DecodeError> {
    or_with_readable_names(payload, &OF_ADDRESSES, AddressMessage::parse)
}

/// The same of a rule.
///
/// # Errors
///
/// When it can't be read for another reason.
pub(crate) fn rule_message(payload: &[u8]) -> Result<RuleMessage, DecodeError> {
    or_with_readable_names(payload, &OF_RULES, RuleMessage::parse)
}

fn or_with_readable_names<T>(
    payload: &[u8],
    names: &Names,
    read: impl Fn(&[u8]) -> Result<T, DecodeError>,
) -> Result<T, DecodeError> {
    read(payload)
        .or_else(|error| with_readable_names(payload, names).map_or(Err(error), |readable| read(&readable)))
}

/// The same message with names that are UTF-8.
fn with_readable_names(payload: &[u8], names: &Names) -> Option<Vec<u8>> {
    let (header, mut rest) = payload.split_at_checked(names.attributes)?;
    let mut readable = header.to_vec();
    while let [a, b, c, d, ..] = *rest {
        let (length, kind) = (u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]) & KIND);
        let attribute = rest.get(..length.into())?;
        let value = attribute.get(4..)?;
        if names.kinds.contains(&kind) {
            let name = String::from_utf8_lossy(value);
            readable.extend(u16::try_from(4 + name.len()).ok()?.to_ne_bytes());
            readable.extend(kind.to_ne_bytes());
            readable.extend(name.as_bytes());
        } else if names.further != Some(kind) {
            readable.extend(attribute);
        }
        readable.resize(readable.len().next_multiple_of(4), 0);
        rest = rest.get(usize::from(length).next_multiple_of(4)..).unwrap_or_default();
    }
    Some(readable)
}

/// `everywhere` are the sysctls of `all`, which are combined with those of the link.
pub(super) fn link(message: &LinkMessage, everywhere: Everywhere) -> Link {
    let header = &message.header;
    let loopback = header.flags.contains(LinkFlags::Loopback);
    let mut link = Link {
        index: header.index,
        name: String::new(),
        kind: if loopback { LinkKind::Loopback } else { LinkKind::Wire },
        framing: framing(header.link_layer_type, header.flags),
        mac: None,
        mtu: 0,
        up: header.flags.contains(LinkFlags::Up) && header.flags.contains(LinkFlags::LowerUp),
        master: None,
        link: None,
        link_elsewhere: false,
        outer: None,
        route_localnet: everywhere.route_localnet > 0,
        forwards: false,
        router: false,
        arp_ignore: everywhere.arp_ignore,
        arp_filter: everywhere.arp_filter > 0,
        strict_reverse_path: everywhere.rp_filter == 1,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(bytes) => {
                link.mac = bytes.as_slice().try_into().ok();
                link.outer = outer(header.link_layer_type, bytes);
            }
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Controller(master) => link.master = Some(*master),
            LinkAttribute::Link(lower) => link.link = Some(*lower),
            LinkAttribute::LinkNetNsId(_) => link.link_elsewhere = true,
            LinkAttribute::LinkInfo(infos) if !loopback => {
                link.kind = kind(infos);
            }
            LinkAttribute::AfSpecUnspec(families) => sysctls(families, everywhere, &mut link),
            _ => {}
        }
    }
    if link.link_elsewhere {
        link.link = None;
    }
    link
}

/// `net.ipv4.conf` and `net.ipv6.conf` of a link, which come with it in its message, unless it does not have the family.
fn sysctls(families: &[AfSpecUnspec], everywhere: Everywhere, link: &mut Link) {
    for family in families {
        match family {
            AfSpecUnspec::Inet(attributes) => {
                for attribute in attributes {
                    let AfSpecInet::DevConf(own) = attribute else { continue };
                    // `IN_DEV_ORCONF` and `IN_DEV_MAXCONF` of linux/inetdevice.h.
                    link.route_localnet = everywhere.route_localnet.max(own.route_localnet) > 0;
                    link.forwards = own.forwarding > 0;
                    link.arp_ignore =
                        everywhere.arp_ignore.max(u8::try_from(own.arp_ignore).unwrap_or_default());
                    link.arp_filter = everywhere.arp_filter.max(own.arpfilter) > 0;
                    link.strict_reverse_path = everywhere.rp_filter.max(own.rp_filter) == 1;
                }
            }
            AfSpecUnspec::Inet6(attributes) => {
                for attribute in attributes {
                    let AfSpecInet6::DevConf(own) = attribute else { continue };
                    link.router = own.forwarding > 0;
                }
            }
            _ => {}
        }
    }
}

/// GRE devices that may send to several peers have an outer header in front of the packet (`ipgre_header`, Linux
/// 6.18); with a fixed peer they are point-to-point and have none.
fn framing(layer: LinkLayerType, flags: LinkFlags) -> Framing {
    match layer {
        LinkLayerType::Ether => Framing::Ethernet,
        LinkLayerType::None
        | LinkLayerType::Ppp
        | LinkLayerType::Rawip
        | LinkLayerType::Tunnel
        | LinkLayerType::Tunnel6
        | LinkLayerType::Sit => Framing::Bare,
        LinkLayerType::Ipgre | LinkLayerType::Ip6gre if flags.contains(LinkFlags::Pointopoint) => {
            Framing::Bare
        }
        _ => Framing::Unknown,
    }
}

/// The hardware address of a tunnel is the one that its packets have outside; unspecified where that is chosen for each.
fn outer(layer: LinkLayerType, bytes: &[u8]) -> Option<IpAddr> {
    let address = match layer {
        LinkLayerType::Tunnel | LinkLayerType::Sit | LinkLayerType::Ipgre => {
            IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)
        }
        LinkLayerType::Tunnel6 | LinkLayerType::Ip6gre => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
        _ => return None,
    };
    (!address.is_unspecified()).then_some(address)
}

fn kind(infos: &[LinkInfo]) -> LinkKind {
    let kind = infos.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(LinkKind::from_info_kind(&kind.to_string())),
        _ => None,
    });
    let data = infos.iter().find_map(|info| match info {
        LinkInfo::Data(data) => Some(data),
        _ => None,
    });
    match (kind, data) {
        (Some(LinkKind::Vrf { .. }), Some(InfoData::Vrf(attributes))) => {
            let table = attributes.iter().find_map(|attribute| match attribute {
                InfoVrf::TableId(table) => Some(*table),
                _ => None,
            });
            LinkKind::Vrf { table: table.unwrap_or(MAIN_TABLE) }
        }
        (Some(LinkKind::Vlan { id: unknown }), Some(InfoData::Vlan(attributes))) => {
            let id = attributes.iter().find_map(|attribute| match attribute {
                InfoVlan::Id(id) => Some(*id),
                _ => None,
            });
            LinkKind::Vlan { id: id.unwrap_or(unknown) }
        }
        (kind, _) => kind.unwrap_or(LinkKind::Wire),
    }
}

/// Sysctls of `net.ipv4.conf.all` in the namespace of this process.
#[derive(Clone, Copy, Default)]
pub(super) struct Everywhere {
    route_localnet: i32,
    rp_filter: i32,
    arp_ignore: u8,
    arp_filter: i32,
}

impl Everywhere {
    /// What can't be read counts as 0.
    pub(super) fn read() -> Self {
        let read = |key| {
            let text = fs::read_to_string(format!("/proc/sys/net/ipv4/conf/all/{key}"));
            text.ok().and_then(|value| value.trim().parse().ok()).unwrap_or(0)
        };
        let arp_ignore = u8::try_from(read("arp_ignore")).unwrap_or_default();
        Self {
            route_localnet: read("route_localnet"),
            rp_filter: read("rp_filter"),
            arp_ignore,
            arp_filter: read("arp_filter"),
        }
    }
}

pub(super) fn address(message: &AddressMessage) -> Option<Address> {
    let (mut local, mut prefix_address) = (None, None);
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => prefix_address = Some(*address),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    // Without IFA_LOCAL there is no peer, and IFA_ADDRESS is the local address.
    let local = local.or(prefix_address)?;
    Some(Address {
        ifindex: message.header.index,
        local,
        subnet: prefix(prefix_address.unwrap_or(local), message.header.prefix_len),
        tentative: flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed),
        host_scope: message.header.scope == AddressScope::Host,
    })
}

/// What a route says that matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AnyRoute {
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
    pub(super) fn add_to(self, host: &mut Host, placed: &mut Vec<PlacedRoute>) {
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
pub(super) fn route_matters(header: &RouteHeader) -> bool {
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
pub(super) struct Tables {
    /// The domain of each table that has one.
    pub(super) domains: BTreeMap<u32, u32>,
    /// Those that rules lead to, each for IPv4 (`true`) or IPv6. They say where packets go, but nothing of what is local.
    pub(super) by_rule: BTreeSet<(u32, bool)>,
    /// What routes may name instead of next hops.
    pub(super) nexthops: RefCell<Nexthops>,
}

/// A unicast route that any packet may take, or a local one that does not come of an address, of the tables that
/// have a domain, another one of the table main, a unicast route of one that a rule leads to, or one of our own tables; `None`
/// for all others.
pub(super) fn route(message: &RouteMessage, tables: &Tables) -> Option<AnyRoute> {
    let header = &message.header;
    let table = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    let table = table.unwrap_or(u32::from(header.table));
    // A VRF may have any number.
    if !tables.domains.contains_key(&table) && interface_of(table).is_some() {
        return super::routes::placed(message).map(AnyRoute::Placed);
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
pub(super) enum Lifetime {
    /// Until something else ends it.
    Forever,
    /// For this long.
    Ends(Duration),
    /// No more. The kernel dumps it until its garbage collection comes by (`fib6_check_expired`, `fib6_run_gc`).
    Expired,
}

/// How long the kernel will use a route.
pub(super) fn lifetime(message: &RouteMessage) -> Lifetime {
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
pub(super) fn value_of(metric: &RouteMetric) -> (u16, Box<[u8]>) {
    let mut value = vec![0; metric.value_len()];
    metric.emit_value(&mut value);
    (metric.kind(), value.into_boxed_slice())
}

/// One of a multipath route: as [`hop`], with its weight.
pub(super) fn weighted_hop(hop: &RouteNextHop) -> Option<Hop> {
    let found = self::hop(hop.interface_index, &hop.attributes)?;
    // What is said is one less.
    Some(Hop { weight: 1 + u16::from(hop.hops), ..found })
}

/// `None` for next hops that a plain neighbour does not describe: an encapsulation.
pub(super) fn hop(ifindex: u32, attributes: &[RouteAttribute]) -> Option<Hop> {
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

#[cfg(test)]
mod tests;
