//! A host to test with by hand.

use std::net::Ipv4Addr;

use super::host::{Address, Hop, Host, Interface, Kind, Policy, Route};

/// The interfaces of the [`example`].
pub(crate) const ETH0: u32 = 2;
/// In the same subnet as [`ETH0`], which has the only default route.
pub(crate) const ETH1: u32 = 3;
/// Without an address.
pub(crate) const ADDRESSLESS: u32 = 4;
/// In a subnet without a gateway. Its index is beyond the programs' array.
pub(crate) const STORAGE: u32 = 5000;
/// Without carrier.
pub(crate) const UNPLUGGED: u32 = 6;

/// The address of [`ETH0`].
pub(crate) const OF_ETH0: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 100);
/// The address of [`ETH1`].
pub(crate) const OF_ETH1: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 101);
/// The address of [`STORAGE`].
pub(crate) const OF_STORAGE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The address of [`UNPLUGGED`].
pub(crate) const OF_UNPLUGGED: Ipv4Addr = Ipv4Addr::new(10, 6, 0, 1);
/// An address of loopback, and so of every interface.
pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// The gateway of the default route.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 1);
/// A neighbour of [`ETH0`] and [`ETH1`].
pub(crate) const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 9);
/// Not an address of this host, and behind the gateway.
pub(crate) const REMOTE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

/// A host with two interfaces in one subnet, some others, and the same policy on all.
pub(crate) fn example(policy: Policy) -> Host {
    let mut interfaces = vec![Interface {
        index: 1,
        kind: Kind::Loopback,
        mac: [0; 6],
        mtu: 65_536,
        up: true,
        route_localnet: false,
        addresses: vec![address(Ipv4Addr::LOCALHOST, 8), address(VIP, 32)],
        policy: None,
    }];
    for (index, addresses) in [
        (ETH0, vec![address(OF_ETH0, 21)]),
        (ETH1, vec![address(OF_ETH1, 21)]),
        (ADDRESSLESS, vec![]),
        (UNPLUGGED, vec![address(OF_UNPLUGGED, 24)]),
        (STORAGE, vec![address(OF_STORAGE, 24)]),
    ] {
        interfaces.push(Interface {
            index,
            kind: Kind::Wire,
            mac: mac(index),
            // Jumbo frames, as is usual for storage, on ETH0 too: it alone speaks to both kinds of peer.
            mtu: if [ETH0, STORAGE].contains(&index) { 9000 } else { 1500 },
            up: index != UNPLUGGED,
            route_localnet: false,
            addresses,
            policy: Some(policy),
        });
    }
    let subnet = Ipv4Addr::new(192, 168, 0, 0);
    let routes = vec![
        route(Ipv4Addr::UNSPECIFIED, 0, ETH0, Some(GATEWAY)),
        route(subnet, 21, ETH0, None),
        route(subnet, 21, ETH1, None),
        route(Ipv4Addr::new(10, 0, 0, 0), 24, STORAGE, None),
    ];
    Host { interfaces, routes }
}

/// The hardware address of an interface of the [`example`].
pub(crate) fn mac(index: u32) -> [u8; 6] {
    let [_, _, high, low] = index.to_be_bytes();
    [2, 0, 0, 1, high, low]
}

fn address(local: Ipv4Addr, length: u8) -> Address {
    Address { local, peer: None, length }
}

fn route(destination: Ipv4Addr, length: u8, interface: u32, gateway: Option<Ipv4Addr>) -> Route {
    Route { destination, length, metric: 0, hops: vec![Hop { interface, gateway }] }
}
