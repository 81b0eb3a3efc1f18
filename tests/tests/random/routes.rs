//! Random routing tables.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::{Index, select},
};

use super::{
    addresses::{Pool, network, nth},
    interfaces::lengths,
};
use crate::oracle::{
    Hop, Host, Interface, Kind, LocalRoute, Prefix, Route, Rule,
    host::{LOCAL, MAIN, OWN_PROTOCOL},
    owners::Domain,
};

/// An index that no interface has; routes to it are those of interfaces that have just gone.
const GONE: u32 = 99;

/// Tables that belong to no VRF, but perhaps to a rule.
const OF_RULES: [u32; 3] = [100, 101, 102];

/// Where routes lead besides the subnets of addresses.
const DESTINATIONS: [(Ipv4Addr, u8); 8] = [
    (Ipv4Addr::new(0, 0, 0, 0), 0),
    (Ipv4Addr::new(0, 0, 0, 0), 1),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(192, 168, 4, 0), 22),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 4), 31),
    (Ipv4Addr::new(203, 0, 113, 5), 32),
];

/// The same of IPv6.
const DESTINATIONS6: [(Ipv6Addr, u8); 8] = [
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 0), 0),
    (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0), 8),
    (Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 0), 64),
    (Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 0), 120),
    (Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 4), 127),
    (Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 5), 128),
];

/// A gateway of a route.
#[derive(Clone, Debug)]
enum GatewayRecipe {
    /// In a subnet of the host.
    Near(Index, u8),
    /// Link-local.
    LinkLocal(u8),
}

#[derive(Clone, Debug)]
struct HopRecipe {
    /// Whether the interface is one of those that the table is for, as is usual.
    of_table: bool,
    interface: Index,
    gateway: Option<GatewayRecipe>,
}

/// A route.
#[derive(Clone, Debug)]
pub(super) struct RouteRecipe {
    table: TableRecipe,
    destination: Prefix,
    metric: u32,
    hops: Vec<HopRecipe>,
    before_connected: bool,
}

/// A route of type local.
#[derive(Clone, Debug)]
pub(super) struct LocalRouteRecipe {
    table: TableRecipe,
    address: Index,
    shorter: u8,
    of_table: bool,
    interface: Index,
    by_kernel: bool,
}

/// A table.
#[derive(Clone, Debug)]
enum TableRecipe {
    Main,
    Local,
    OfVrf(Index),
    OfRule(u32),
}

/// A rule.
#[derive(Clone, Debug)]
pub(super) struct RuleRecipe {
    /// The address that it is for, and how much shorter the prefix is than that.
    source: Option<(Index, u8)>,
    ipv4: bool,
    table: TableRecipe,
    protocol: u8,
    mark: Option<(u32, u32)>,
    is_choosy: bool,
}

pub(super) fn routes() -> impl Strategy<Value = RouteRecipe> {
    let gateway = prop_oneof![
        4 => (any::<Index>(), 1..8u8).prop_map(|(subnet, number)| GatewayRecipe::Near(subnet, number)),
        1 => (1..5u8).prop_map(GatewayRecipe::LinkLocal),
    ];
    let hop = (prop::bool::weighted(0.8), any::<Index>(), option::weighted(0.85, gateway))
        .prop_map(|(of_table, interface, gateway)| HopRecipe { of_table, interface, gateway })
        .boxed();
    let hops = prop_oneof![3 => vec(hop.clone(), 1), 1 => vec(hop, 2..4)];
    let destination = prop_oneof![
        select(DESTINATIONS.to_vec()).prop_map(|(address, length)| Prefix::new(address, length)),
        select(DESTINATIONS6.to_vec()).prop_map(|(address, length)| Prefix::new(address, length)),
    ];
    (tables(), destination, select(vec![0, 100, 100, 200]), hops, any::<bool>()).prop_map(
        |(table, destination, metric, hops, before_connected)| RouteRecipe {
            table,
            destination,
            metric,
            hops,
            before_connected,
        },
    )
}

pub(super) fn local_routes() -> impl Strategy<Value = LocalRouteRecipe> {
    let interface = (prop::bool::weighted(0.7), any::<Index>());
    (tables(), any::<Index>(), lengths(), interface, prop::bool::weighted(0.15)).prop_map(
        |(table, address, shorter, (of_table, interface), by_kernel)| LocalRouteRecipe {
            table,
            address,
            shorter,
            of_table,
            interface,
            by_kernel,
        },
    )
}

fn tables() -> impl Strategy<Value = TableRecipe> {
    prop_oneof![
        5 => Just(TableRecipe::Main),
        2 => Just(TableRecipe::Local),
        4 => any::<Index>().prop_map(TableRecipe::OfVrf),
        5 => select(OF_RULES.to_vec()).prop_map(TableRecipe::OfRule),
    ]
}

pub(super) fn rules() -> impl Strategy<Value = RuleRecipe> {
    let source = option::weighted(0.85, (any::<Index>(), lengths()));
    let table = prop_oneof![
        8 => select(OF_RULES.to_vec()).prop_map(TableRecipe::OfRule),
        1 => tables(),
    ];
    let protocol = prop_oneof![8 => Just(0), 2 => Just(3), 1 => Just(OWN_PROTOCOL)];
    let mark = option::weighted(0.2, (select(vec![0, 1]), select(vec![1, u32::MAX])));
    (source, any::<bool>(), table, protocol, mark, prop::bool::weighted(0.1)).prop_map(
        |(source, ipv4, table, protocol, mark, is_choosy)| RuleRecipe {
            source,
            ipv4,
            table,
            protocol,
            mark,
            is_choosy,
        },
    )
}

impl RuleRecipe {
    pub(super) fn build(&self, host: &Host, pool: &Pool) -> Rule {
        let source = self.source.map(|(address, shorter)| pool.prefix(address, shorter));
        let (table, _) = self.table.build(host);
        let ipv4 = source.map_or(self.ipv4, |source| source.address.is_ipv4());
        Rule { ipv4, source, table, protocol: self.protocol, mark: self.mark, is_choosy: self.is_choosy }
    }
}

impl TableRecipe {
    /// Its number, and the interfaces that use it.
    fn build(&self, host: &Host) -> (u32, Vec<u32>) {
        let of_domain = |domain| {
            host.interfaces.iter().map(|i| i.index).filter(|index| host.domain(*index) == domain).collect()
        };
        let vrfs: Vec<(u32, u32)> = host.interfaces.iter().filter_map(vrf).collect();
        match self {
            Self::OfVrf(pick) if !vrfs.is_empty() => {
                let (index, table) = *pick.get(&vrfs);
                (table, of_domain(Domain::Vrf(index)))
            }
            Self::Main | Self::OfVrf(_) => (MAIN, of_domain(Domain::Main)),
            Self::Local => (LOCAL, of_domain(Domain::Main)),
            Self::OfRule(table) => (*table, of_domain(Domain::Main)),
        }
    }
}

fn vrf(interface: &Interface) -> Option<(u32, u32)> {
    match interface.kind {
        Kind::Vrf(table) => Some((interface.index, table)),
        _ => None,
    }
}

impl HopRecipe {
    fn build(&self, host: &Host, pool: &Pool, of_table: &[u32], destination: Prefix) -> Hop {
        let interface = if self.of_table && !of_table.is_empty() {
            *self.interface.get(of_table)
        } else {
            // One place more than there are interfaces stands for one that is gone.
            let place = self.interface.index(host.interfaces.len() + 1);
            host.interfaces.get(place).map_or(GONE, |interface| interface.index)
        };
        let gateway = self.gateway.as_ref().map(|gateway| match gateway {
            GatewayRecipe::Near(subnet, number) => pool.near(*subnet, *number),
            GatewayRecipe::LinkLocal(number) => nth(IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 0_u16]), *number),
        });
        // A route of IPv4 may have a gateway of IPv6, but not the other way round.
        let gateway = gateway.filter(|gateway| gateway.is_ipv6() || destination.address.is_ipv4());
        Hop { interface, gateway }
    }
}

impl RouteRecipe {
    fn build(&self, host: &Host, pool: &Pool) -> Route {
        let Self { destination, metric, .. } = *self;
        let (table, of_table) = self.table.build(host);
        let hops = self.hops.iter().map(|hop| hop.build(host, pool, &of_table, destination));
        Route { table, destination, metric, hops: hops.collect() }
    }
}

impl LocalRouteRecipe {
    pub(super) fn build(&self, host: &Host, pool: &Pool) -> LocalRoute {
        let (table, of_table) = self.table.build(host);
        let all: Vec<u32> = host.interfaces.iter().map(|interface| interface.index).collect();
        let candidates = if self.of_table && !of_table.is_empty() { &of_table } else { &all };
        LocalRoute {
            table,
            destination: pool.prefix(self.address, self.shorter),
            interface: *self.interface.get(candidates),
            by_kernel: self.by_kernel,
        }
    }
}

/// All tables of a host: what the kernel adds for the addresses of the `connected` interfaces, with other
/// routes before and behind.
pub(super) fn tables_of(host: &Host, connected: &[u32], routes: &[RouteRecipe], pool: &Pool) -> Vec<Route> {
    let (before, after): (Vec<&RouteRecipe>, Vec<&RouteRecipe>) =
        routes.iter().partition(|recipe| recipe.before_connected);
    let before = before.into_iter().map(|recipe| recipe.build(host, pool));
    let after = after.into_iter().map(|recipe| recipe.build(host, pool));
    before.chain(connected_routes(host, connected)).chain(after).collect()
}

fn connected_routes(host: &Host, connected: &[u32]) -> Vec<Route> {
    let mut routes = Vec::new();
    for interface in host.interfaces.iter().filter(|interface| connected.contains(&interface.index)) {
        let table = match host.domain(interface.index) {
            Domain::Main => MAIN,
            Domain::Vrf(index) => host.interface(index).and_then(vrf).map_or(MAIN, |(_, table)| table),
        };
        for address in &interface.addresses {
            let destination = network(address.subnet());
            if destination.length < Prefix::exact(address.local).length && !address.local.is_loopback() {
                let hops = vec![Hop { interface: interface.index, gateway: None }];
                let metric = if address.local.is_ipv4() { 0 } else { 256 };
                routes.push(Route { table, destination, metric, hops });
            }
        }
    }
    routes
}
