//! The host that the programs judge for: two interfaces, of which one has many addresses.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use mhebpf::model::{Address, Framing, Hop, Host, Link, LinkKind, Metrics, Policy, Route, Tables, host};
use mhebpf_ebpf::{Announce, Receive};

use super::cases::Setting;

/// The interface with the many addresses.
pub(crate) const ETH0: u32 = 10;
/// The interface with one address of each family.
pub(crate) const ETH1: u32 = 11;

/// In the subnets of ETH0.
pub(crate) const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(10, 255, 0, 1);
/// In the subnets of ETH0.
pub(crate) const NEIGHBOUR6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0xffff, 0, 0, 1);

/// The address of ETH1.
pub(crate) const OF_ETH1: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 1);
/// The address of ETH1.
pub(crate) const OF_ETH1_6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);

/// Consecutive addresses that nobody has, as many as anyone asks for.
pub(crate) const FOREIGN: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
/// The same.
pub(crate) const FOREIGN_6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0);

/// The addresses of ETH0 are consecutive; this is the first.
pub(crate) const OF_ETH0: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The same.
pub(crate) const OF_ETH0_6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// The last of `count` consecutive addresses.
pub(crate) fn last(first: Ipv4Addr, count: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(first.to_bits() + count - 1)
}

/// The same.
pub(crate) fn last6(first: Ipv6Addr, count: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(first.to_bits() + u128::from(count) - 1)
}

/// What the programs know of a host where ETH0 has the addresses.
pub(crate) fn tables(Setting { count, send, unknown }: Setting) -> Tables {
    let mut addresses = Vec::new();
    for number in 1..=count {
        addresses.push(address(ETH0, last(OF_ETH0, number).into(), 8));
        addresses.push(address(ETH0, last6(OF_ETH0_6, number).into(), 64));
    }
    addresses.push(address(ETH1, OF_ETH1.into(), 24));
    addresses.push(address(ETH1, OF_ETH1_6.into(), 64));
    let subnets = [
        (ETH0, host::prefix(OF_ETH0.into(), 8)),
        (ETH0, host::prefix(OF_ETH0_6.into(), 64)),
        (ETH1, host::prefix(OF_ETH1.into(), 24)),
        (ETH1, host::prefix(OF_ETH1_6.into(), 64)),
    ];
    let host = Host {
        links: [ETH0, ETH1].into_iter().map(|index| (index, link(index))).collect(),
        addresses,
        routes: subnets.into_iter().map(|(ifindex, destination)| route(ifindex, destination)).collect(),
        ..Host::default()
    };
    let policy = Policy {
        send,
        receive: Receive::Drop,
        announce: Announce::Enforce,
        unknown,
        forwarded: send,
        allow: Vec::new(),
        owns: Vec::new(),
        binds: true,
    };
    Tables::new(&host, &BTreeMap::from([(ETH0, policy.clone()), (ETH1, policy)]))
}

fn address(ifindex: u32, local: IpAddr, length: u8) -> Address {
    Address { ifindex, local, subnet: host::prefix(local, length), tentative: false, host_scope: false }
}

fn route(ifindex: u32, destination: IpNet) -> Route {
    let hops = vec![Hop::new(ifindex, None)];
    Route {
        table: host::MAIN_TABLE,
        destination,
        metric: 0,
        hops,
        metrics: Metrics::default(),
        preference: 0,
    }
}

fn link(index: u32) -> Link {
    Link {
        index,
        name: format!("eth{index}"),
        kind: LinkKind::Wire,
        framing: Framing::Ethernet,
        mac: Some([2, 0, 0, 0, 0, index as u8]),
        mtu: 1500,
        up: true,
        master: None,
        link: None,
        link_elsewhere: false,
        outer: None,
        route_localnet: false,
        forwards: false,
        router: false,
        arp_ignore: 0,
        arp_filter: false,
        strict_reverse_path: false,
    }
}
