//! Random hosts, crowded: few subnets, many interfaces in each, many addresses in common.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::{Index, subsequence},
};

use super::{
    addresses::{Pool, pools},
    interfaces::interfaces,
    routes::{local_routes, routes, rules, tables_of},
};
use crate::oracle::{Address, Forwarding, Host, Interface, Kind, Link};

/// The indices of all interfaces but lo, on both sides of where the programs' array ends.
pub(crate) const INDICES: [u32; 14] = [2, 3, 4, 5, 6, 7, 8, 9, 4094, 4095, 4096, 5000, 70_000, 1_000_000];

/// MTUs where all is IPv4: near the length of random packets, and down to the least that it allows.
const SMALL_MTUS: [u32; 5] = [1500, 1500, 68, 72, 80];

/// MTUs where there is IPv6, down to the least that it allows.
const MTUS: [u32; 5] = [1500, 1500, 1280, 1290, 1320];

/// A random host: loopback and one to fourteen more interfaces.
pub(crate) fn hosts() -> impl Strategy<Value = Host> {
    let indices = subsequence(INDICES.to_vec(), 1..=INDICES.len()).prop_shuffle();
    let interfaces = vec(interfaces(), INDICES.len());
    let tables = (
        vec(routes(), 0..12),
        vec(rules(), 0..5),
        prop_oneof![vec(local_routes(), 0), vec(local_routes(), 1..5)],
    );
    // An address of every interface has more owners than fit into one entry of the programs' table.
    let everywhere = prop::bool::weighted(0.15);
    let on_loopback = option::weighted(0.25, any::<Index>());
    let small = prop::bool::weighted(0.25);
    (small, pools(), indices, interfaces, tables, everywhere, on_loopback).prop_map(
        |(small, pool, indices, recipes, (routes, rules, local_routes), everywhere, on_loopback)| {
            let (pool, mtus) = if small { (pool.of_ipv4(), &SMALL_MTUS) } else { (pool, &MTUS) };
            let mut interfaces = vec![loopback(&pool, on_loopback)];
            let mut connected = Vec::new();
            for (index, recipe) in indices.iter().zip(&recipes) {
                let mut interface = recipe.build(*index, &mut interfaces, &pool, mtus);
                for common in [pool.addresses.first(), pool.addresses.last()].into_iter().flatten() {
                    if everywhere && interface.addresses.iter().all(|address| address.local != common.local) {
                        interface.addresses.push(*common);
                    }
                }
                interfaces.push(interface);
                connected.extend(recipe.connected.then_some(*index));
            }
            interfaces.sort_by_key(|interface| interface.index);
            let mut host =
                Host { interfaces, routes: Vec::new(), local_routes: Vec::new(), rules: Vec::new() };
            host.rules = rules.iter().map(|recipe| recipe.build(&host, &pool)).collect();
            host.routes = tables_of(&host, &connected, &routes, &pool);
            host.local_routes = local_routes.iter().map(|recipe| recipe.build(&host, &pool)).collect();
            bind_all_but_downlinks(&mut host);
            host
        },
    )
}

/// Nothing but a downlink can be said to leave its addresses to all.
fn bind_all_but_downlinks(host: &mut Host) {
    let downlinks: Vec<u32> =
        host.interfaces.iter().filter(|interface| host.is_downlink(interface)).map(|i| i.index).collect();
    for interface in host.interfaces.iter_mut().filter(|interface| !downlinks.contains(&interface.index)) {
        interface.policy.iter_mut().for_each(|policy| policy.binds = true);
    }
}

fn loopback(pool: &Pool, pick: Option<Index>) -> Interface {
    let mut addresses = vec![Address { local: Ipv4Addr::LOCALHOST.into(), peer: None, length: 8 }];
    if pool.subnets.iter().any(|subnet| subnet.address.is_ipv6()) {
        addresses.push(Address { local: Ipv6Addr::LOCALHOST.into(), peer: None, length: 128 });
    }
    addresses.extend(pick.map(|pick| *pick.get(&pool.addresses)));
    Interface {
        index: 1,
        kind: Kind::Loopback,
        master: None,
        link: Link::None,
        outer: None,
        is_ethernet: true,
        mac: [0; 6],
        mtu: 65_536,
        up: true,
        route_localnet: false,
        forwarding: Forwarding::default(),
        addresses,
        policy: None,
    }
}
