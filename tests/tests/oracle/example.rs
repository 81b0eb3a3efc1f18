//! A host to test with by hand.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    host::{Address, Forwarding, Hop, Host, Interface, Kind, LOCAL, Link, LocalRoute, MAIN, Route},
    policy::Policy,
    prefix::Prefix,
};

/// The interfaces of the [`example`].
pub(crate) const ETH0: u32 = 2;
/// In the same subnets as [`ETH0`], which has the only default routes.
pub(crate) const ETH1: u32 = 3;
/// Without an address.
pub(crate) const ADDRESSLESS: u32 = 4;
/// In subnets without a gateway. Its index is beyond the programs' array.
pub(crate) const STORAGE: u32 = 5000;
/// Without carrier.
pub(crate) const UNPLUGGED: u32 = 6;
/// Without Ethernet headers.
pub(crate) const TUNNEL: u32 = 5;
/// A VRF of two interfaces.
pub(crate) const RED: u32 = 9;
/// A port of [`RED`], with an address that [`ETH1`] has too.
pub(crate) const RED0: u32 = 7;
/// A port of [`RED`].
pub(crate) const RED1: u32 = 8;

/// The address of [`ETH0`].
pub(crate) const OF_ETH0: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 100);
/// The address of [`ETH1`], and in another world that of [`RED0`].
pub(crate) const OF_ETH1: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 101);
/// The address of [`STORAGE`].
pub(crate) const OF_STORAGE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The address of [`UNPLUGGED`].
pub(crate) const OF_UNPLUGGED: Ipv4Addr = Ipv4Addr::new(10, 6, 0, 1);
/// The address of [`TUNNEL`], whose other end is a gateway to [`BEYOND_TUNNEL`].
pub(crate) const OF_TUNNEL: Ipv4Addr = Ipv4Addr::new(10, 5, 0, 1);
/// The address of [`RED1`].
pub(crate) const OF_RED1: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 108);
/// The address of [`RED`], and so of both its ports.
pub(crate) const OF_RED: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
/// An address of loopback, and so of every interface but those of [`RED`].
pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// The gateway of the default route.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 1);
/// A neighbour of [`ETH0`] and [`ETH1`], and in another world of [`RED0`] and [`RED1`].
pub(crate) const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 9);
/// Not an address of this host, and behind the gateway.
pub(crate) const REMOTE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
/// Not an address of this host, and behind the tunnel. The route there is by a gateway of IPv6.
pub(crate) const BEYOND_TUNNEL: Ipv4Addr = Ipv4Addr::new(10, 55, 0, 7);
/// One of the addresses that are local on [`ETH1`] by a route.
pub(crate) const ROUTED_TO_ETH1: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);
/// One of the addresses that are local everywhere by a route.
pub(crate) const ROUTED_TO_LO: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 130);

/// The address of [`ETH0`].
pub(crate) const OF_ETH0_6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100);
/// The address of [`ETH1`], and in another world that of [`RED0`].
pub(crate) const OF_ETH1_6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x101);
/// The address of [`STORAGE`].
pub(crate) const OF_STORAGE_6: Ipv6Addr = Ipv6Addr::new(0xfd10, 0, 0, 0, 0, 0, 0, 1);
/// The address of [`UNPLUGGED`].
pub(crate) const OF_UNPLUGGED_6: Ipv6Addr = Ipv6Addr::new(0xfd06, 0, 0, 0, 0, 0, 0, 1);
/// The address of [`TUNNEL`].
pub(crate) const OF_TUNNEL_6: Ipv6Addr = Ipv6Addr::new(0xfd05, 0, 0, 0, 0, 0, 0, 1);
/// The other end of [`TUNNEL`].
pub(crate) const END_OF_TUNNEL_6: Ipv6Addr = Ipv6Addr::new(0xfd05, 0, 0, 0, 0, 0, 0, 2);
/// The address of [`RED1`].
pub(crate) const OF_RED1_6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x108);
/// The address of [`RED`], and so of both its ports.
pub(crate) const OF_RED_6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 1);
/// The link-local address of [`ETH0`] and of [`STORAGE`].
pub(crate) const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x100);
/// The link-local address of [`ETH1`].
pub(crate) const LINK_LOCAL_OF_ETH1: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x101);
/// An address of loopback, and so of every interface but those of [`RED`].
pub(crate) const VIP_6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1);
/// The gateway of the default route.
pub(crate) const GATEWAY_6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// A neighbour of [`ETH0`] and [`ETH1`], and in another world of [`RED0`] and [`RED1`].
pub(crate) const NEIGHBOUR_6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 7, 9);
/// Not an address of this host, and behind the gateway.
pub(crate) const REMOTE_6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 7);
/// One of the addresses that are local on [`ETH1`] by a route.
pub(crate) const ROUTED_TO_ETH1_6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 0x77);
/// One of the addresses that are local everywhere by a route.
pub(crate) const ROUTED_TO_LO_6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 0x77);

/// The table of [`RED`].
const TABLE_OF_RED: u32 = 10;

/// A host with two interfaces in one subnet, some others, and the same policy on all.
pub(crate) fn example(policy: &Policy) -> Host {
    let loopback: Vec<Address> = vec![
        address(Ipv4Addr::LOCALHOST, 8),
        address(VIP, 32),
        address(Ipv6Addr::LOCALHOST, 128),
        address(VIP_6, 128),
    ];
    let mut interfaces = vec![interface(1, Kind::Loopback, loopback, None)];
    for (index, kind, addresses) in [
        (ETH0, Kind::Wire, vec![address(OF_ETH0, 21), address(OF_ETH0_6, 64), address(LINK_LOCAL, 64)]),
        (
            ETH1,
            Kind::Wire,
            vec![address(OF_ETH1, 21), address(OF_ETH1_6, 64), address(LINK_LOCAL_OF_ETH1, 64)],
        ),
        (ADDRESSLESS, Kind::Wire, vec![]),
        (TUNNEL, Kind::Tunnel, vec![address(OF_TUNNEL, 24), address(OF_TUNNEL_6, 64)]),
        (UNPLUGGED, Kind::Wire, vec![address(OF_UNPLUGGED, 24), address(OF_UNPLUGGED_6, 64)]),
        (RED0, Kind::Wire, vec![address(OF_ETH1, 21), address(OF_ETH1_6, 64)]),
        (RED1, Kind::Wire, vec![address(OF_RED1, 21), address(OF_RED1_6, 64)]),
        (RED, Kind::Vrf(TABLE_OF_RED), vec![address(OF_RED, 32), address(OF_RED_6, 128)]),
        (
            STORAGE,
            Kind::Wire,
            vec![address(OF_STORAGE, 24), address(OF_STORAGE_6, 64), address(LINK_LOCAL, 64)],
        ),
    ] {
        interfaces.push(interface(index, kind, addresses, Some(policy.clone())));
    }
    Host { interfaces, routes: routes(), local_routes: local_routes(), rules: Vec::new() }
}

fn interface(index: u32, kind: Kind, addresses: Vec<Address>, policy: Option<Policy>) -> Interface {
    Interface {
        index,
        master: [RED0, RED1].contains(&index).then_some(RED),
        link: Link::None,
        outer: None,
        is_ethernet: kind != Kind::Tunnel,
        mac: if kind.has_wire() && kind != Kind::Tunnel { mac(index) } else { [0; 6] },
        mtu: match index {
            1 => 65_536,
            // Jumbo frames, as is usual for storage, on ETH0 too: it alone speaks to both kinds of peer.
            ETH0 | STORAGE => 9000,
            _ => 1500,
        },
        up: index != UNPLUGGED,
        route_localnet: false,
        forwarding: Forwarding::default(),
        kind,
        addresses,
        policy,
    }
}

/// The hardware address of an interface of the [`example`].
pub(crate) fn mac(index: u32) -> [u8; 6] {
    let [_, _, high, low] = index.to_be_bytes();
    [2, 0, 0, 1, high, low]
}

fn routes() -> Vec<Route> {
    let everything = Prefix::new(Ipv4Addr::UNSPECIFIED, 0);
    let everything6 = Prefix::new(Ipv6Addr::UNSPECIFIED, 0);
    let mut routes = vec![
        route(MAIN, everything, ETH0, Some(GATEWAY.into())),
        route(MAIN, Prefix::new(Ipv4Addr::new(10, 55, 0, 0), 16), TUNNEL, Some(END_OF_TUNNEL_6.into())),
        route(MAIN, everything6, ETH0, Some(GATEWAY_6.into())),
        route(TABLE_OF_RED, everything, RED0, Some(GATEWAY.into())),
        route(TABLE_OF_RED, everything6, RED0, Some(GATEWAY_6.into())),
    ];
    for (table, interfaces) in
        [(MAIN, &[ETH0, ETH1, TUNNEL, UNPLUGGED, STORAGE][..]), (TABLE_OF_RED, &[RED0, RED1])]
    {
        for interface in interfaces {
            let link = Prefix::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 64);
            let (subnet, subnet6) = subnets_of(*interface);
            routes.extend([subnet, subnet6, link].map(|prefix| route(table, prefix, *interface, None)));
        }
    }
    routes
}

fn subnets_of(interface: u32) -> (Prefix, Prefix) {
    let (subnet, length, subnet6) = match interface {
        TUNNEL => (Ipv4Addr::new(10, 5, 0, 0), 24, Ipv6Addr::new(0xfd05, 0, 0, 0, 0, 0, 0, 0)),
        UNPLUGGED => (Ipv4Addr::new(10, 6, 0, 0), 24, Ipv6Addr::new(0xfd06, 0, 0, 0, 0, 0, 0, 0)),
        STORAGE => (Ipv4Addr::new(10, 0, 0, 0), 24, Ipv6Addr::new(0xfd10, 0, 0, 0, 0, 0, 0, 0)),
        _ => (Ipv4Addr::new(192, 168, 0, 0), 21, Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0)),
    };
    (Prefix::new(subnet, length), Prefix::new(subnet6, 64))
}

fn local_routes() -> Vec<LocalRoute> {
    let local = |table, address: IpAddr, length, interface| LocalRoute {
        table,
        destination: Prefix::new(address, length),
        interface,
        by_kernel: false,
    };
    vec![
        local(LOCAL, Ipv4Addr::new(192, 0, 2, 64).into(), 26, ETH1),
        local(MAIN, Ipv4Addr::new(203, 0, 113, 128).into(), 25, 1),
        local(LOCAL, Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 0).into(), 64, ETH1),
        local(MAIN, Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 0).into(), 64, 1),
    ]
}

fn address(local: impl Into<IpAddr>, length: u8) -> Address {
    Address { local: local.into(), peer: None, length }
}

fn route(table: u32, destination: Prefix, interface: u32, gateway: Option<IpAddr>) -> Route {
    Route { table, destination, metric: 0, hops: vec![Hop { interface, gateway }] }
}
