//! Random hosts, crowded: few subnets, many interfaces in each, many addresses in common.

use std::{collections::HashSet, net::Ipv4Addr};

use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::{Index, select, subsequence},
};

use crate::oracle::{Address, Hop, Host, Interface, Kind, Mode, Policy, Receive, Route, Unknown};

/// The indices of all interfaces but lo, on both sides of where the programs' array ends.
pub(crate) const INDICES: [u32; 10] = [2, 3, 4, 5, 6, 7, 4095, 4096, 5000, 70_000];

/// An index that no interface has; routes to it are those of interfaces that have just gone.
const GONE: u32 = 9;

/// Subnets to have addresses in, with their prefix lengths. They overlap.
const SUBNETS: [([u8; 4], u8); 9] = [
    ([10, 0, 0, 0], 24),
    ([10, 0, 0, 0], 8),
    ([10, 0, 1, 0], 25),
    ([192, 168, 0, 0], 21),
    ([192, 168, 0, 64], 16),
    ([172, 16, 0, 0], 30),
    ([172, 16, 0, 4], 31),
    ([198, 51, 100, 7], 32),
    ([203, 0, 113, 8], 0),
];

/// Where routes lead besides.
const DESTINATIONS: [([u8; 4], u8); 8] = [
    ([0, 0, 0, 0], 0),
    ([0, 0, 0, 0], 1),
    ([10, 0, 0, 0], 8),
    ([192, 168, 4, 0], 22),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    ([203, 0, 113, 4], 31),
    ([203, 0, 113, 5], 32),
];

/// A random host: loopback and two to eight more interfaces, stacked in any way that has no circle.
pub(crate) fn hosts() -> impl Strategy<Value = Host> {
    let pool = vec((any::<Index>(), 1..8u8, option::weighted(0.1, 1..8u8)), 6..18);
    let subnets = subsequence(SUBNETS.to_vec(), 2..=4);
    let indices = subsequence(INDICES.to_vec(), 2..=8).prop_shuffle();
    let interfaces = vec(interfaces(), 8);
    let routes = vec(routes(), 0..8);
    // An address of every interface has more owners than fit into one entry of the programs' table.
    let everywhere = prop::bool::weighted(0.15);
    let on_loopback = option::weighted(0.25, any::<Index>());
    (pool, subnets, indices, interfaces, routes, everywhere, on_loopback).prop_map(
        |(pool, subnets, indices, recipes, routes, everywhere, on_loopback)| {
            let pool = addresses(&pool, &subnets);
            let mut interfaces = vec![loopback(&pool, on_loopback)];
            for (position, (index, recipe)) in indices.iter().zip(&recipes).enumerate() {
                let mut interface = recipe.build(*index, &indices[..position], &interfaces, &pool);
                if everywhere && !interface.addresses.contains(&pool[0]) {
                    interface.addresses.push(pool[0]);
                }
                interfaces.push(interface);
            }
            interfaces.sort_by_key(|interface| interface.index);
            let routes = routing_table(&interfaces, &recipes, &routes, &subnets);
            Host { interfaces, routes }
        },
    )
}

/// How many subnets the programs know of an interface, to choose the address that an ARP request is sent with.
const MOST_SUBNETS: usize = 8;

/// Different addresses: each has one prefix and one peer wherever it is configured.
fn addresses(pool: &[(Index, u8, Option<u8>)], subnets: &[([u8; 4], u8)]) -> Vec<Address> {
    let mut addresses: Vec<Address> = Vec::new();
    let mut seen = HashSet::new();
    for (subnet, number, peer) in pool {
        let (base, length) = *subnet.get(subnets);
        let address = Address { local: nth(base, *number), peer: peer.map(|n| nth(subnets[0].0, n)), length };
        let bits = address.peer.unwrap_or(address.local).to_bits();
        let network = bits.checked_shr(u32::from(32 - length)).unwrap_or(0);
        let crowded = seen.len() == MOST_SUBNETS && !seen.contains(&(network, length));
        if !crowded && addresses.iter().all(|other| other.local != address.local) {
            seen.insert((network, length));
            addresses.push(address);
        }
    }
    addresses
}

/// An address near the start of a subnet.
fn nth(base: [u8; 4], number: u8) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from_be_bytes(base) + u32::from(number))
}

/// 127/8 is configured here only: on a wire the kernel itself discards it.
fn loopback(pool: &[Address], pick: Option<Index>) -> Interface {
    let mut addresses = vec![Address { local: Ipv4Addr::LOCALHOST, peer: None, length: 8 }];
    addresses.extend(pick.map(|pick| *pick.get(pool)));
    Interface {
        index: 1,
        kind: Kind::Loopback,
        mac: [0; 6],
        mtu: 65_536,
        up: true,
        route_localnet: false,
        addresses,
        policy: None,
    }
}

/// The kind of [`InterfaceRecipe`] that is a dummy.
const DUMMY: u8 = 8;

/// All of an interface but its index, and whom it is connected with.
#[derive(Clone, Debug)]
struct InterfaceRecipe {
    kind: u8,
    others: Vec<Index>,
    mac: [u8; 3],
    mtu: u32,
    up: bool,
    route_localnet: bool,
    addresses: Vec<Index>,
    connected: bool,
    policy: Option<Policy>,
}

fn interfaces() -> impl Strategy<Value = InterfaceRecipe> {
    let addresses = prop_oneof![
        1 => vec(any::<Index>(), 0),
        7 => vec(any::<Index>(), 1..4),
        // More than the programs keep with the interface.
        2 => vec(any::<Index>(), 8..14),
    ];
    (
        0..20u8,
        vec(any::<Index>(), 1..6),
        any::<[u8; 3]>(),
        // Near the length of random packets, and down to the least that IPv4 allows.
        select(vec![1500, 1500, 68, 72, 80]),
        prop::bool::weighted(0.85),
        prop::bool::weighted(0.15),
        addresses,
        prop::bool::weighted(0.9),
        option::weighted(0.9, policies()),
    )
        .prop_map(|(kind, others, mac, mtu, up, route_localnet, addresses, connected, policy)| {
            InterfaceRecipe { kind, others, mac, mtu, up, route_localnet, addresses, connected, policy }
        })
}

fn policies() -> impl Strategy<Value = Policy> {
    (
        select(vec![Mode::Redirect, Mode::Redirect, Mode::Drop, Mode::Observe]),
        select(vec![Receive::Drop, Receive::Drop, Receive::Observe, Receive::Off]),
        select(vec![Unknown::Pass, Unknown::Drop]),
    )
        .prop_map(|(mode, receive, unknown)| Policy { mode, receive, unknown })
}

impl InterfaceRecipe {
    /// Only interfaces that are there `before` can be below, so that there is no circle.
    fn build(&self, index: u32, before: &[u32], others: &[Interface], pool: &[Address]) -> Interface {
        let other = |pick: &Index| if before.is_empty() { None } else { Some(*pick.get(before)) };
        let kind = match self.kind {
            0..=4 => other(&self.others[0]).map(Kind::OnTopOf),
            5..=7 => Some(Kind::Over(free_ports(self.others.iter().filter_map(other), others))),
            DUMMY => Some(Kind::Dummy),
            9..=11 => other(&self.others[0]).map(Kind::VethTo),
            _ => None,
        };
        let [a, b, c] = self.mac;
        let mut addresses: Vec<Address> = Vec::new();
        for pick in &self.addresses {
            let address = *pick.get(pool);
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        Interface {
            index,
            kind: kind.unwrap_or(Kind::Wire),
            mac: [2, 0, 0, a, b, c],
            mtu: self.mtu,
            up: self.up,
            route_localnet: self.route_localnet,
            addresses,
            policy: if self.kind == DUMMY { None } else { self.policy },
        }
    }
}

/// Those of `candidates` that are not yet a port of something, in the order of their indices.
fn free_ports(candidates: impl Iterator<Item = u32>, others: &[Interface]) -> Vec<u32> {
    let is_port =
        |index: u32| others.iter().any(|o| matches!(&o.kind, Kind::Over(ports) if ports.contains(&index)));
    let mut ports: Vec<u32> = candidates.filter(|candidate| !is_port(*candidate)).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

type HopRecipe = (Index, Option<(Index, u8)>);

#[derive(Clone, Debug)]
struct RouteRecipe {
    destination: ([u8; 4], u8),
    metric: u32,
    hops: Vec<HopRecipe>,
    before_connected: bool,
}

fn routes() -> impl Strategy<Value = RouteRecipe> {
    let gateway = option::weighted(0.85, (any::<Index>(), 1..8u8));
    let hop = (any::<Index>(), gateway);
    let hops = prop_oneof![3 => vec(hop.clone(), 1), 1 => vec(hop, 2..4)];
    (select(DESTINATIONS.to_vec()), select(vec![0, 100, 100, 200]), hops, any::<bool>()).prop_map(
        |(destination, metric, hops, before_connected)| RouteRecipe {
            destination,
            metric,
            hops,
            before_connected,
        },
    )
}

fn routing_table(
    interfaces: &[Interface],
    recipes: &[InterfaceRecipe],
    routes: &[RouteRecipe],
    subnets: &[([u8; 4], u8)],
) -> Vec<Route> {
    let mut connected = Vec::new();
    let with_wire = interfaces.iter().filter(|interface| interface.kind != Kind::Loopback);
    for (interface, recipe) in with_wire.zip(recipes) {
        for address in interface.addresses.iter().filter(|a| recipe.connected && a.length < 32) {
            connected.push(Route {
                destination: network(address.peer.unwrap_or(address.local), address.length),
                length: address.length,
                metric: 0,
                hops: vec![Hop { interface: interface.index, gateway: None }],
            });
        }
    }
    let hop = |(pick, gateway): &HopRecipe| {
        // One place more than there are interfaces stands for one that is gone.
        let place = pick.index(interfaces.len() + 1);
        Hop {
            interface: interfaces.get(place).map_or(GONE, |interface| interface.index),
            gateway: gateway.map(|(subnet, number)| nth(subnet.get(subnets).0, number)),
        }
    };
    let build = |recipe: &RouteRecipe| Route {
        destination: Ipv4Addr::from(recipe.destination.0),
        length: recipe.destination.1,
        metric: recipe.metric,
        hops: recipe.hops.iter().map(hop).collect(),
    };
    let (before, after): (Vec<&RouteRecipe>, Vec<&RouteRecipe>) =
        routes.iter().partition(|r| r.before_connected);
    let before = before.into_iter().map(build);
    before.chain(connected).chain(after.into_iter().map(build)).collect()
}

/// The first address of the prefix that holds `address`.
fn network(address: Ipv4Addr, length: u8) -> Ipv4Addr {
    let suffix = u32::MAX.checked_shr(u32::from(length)).unwrap_or(0);
    Ipv4Addr::from_bits(address.to_bits() & !suffix)
}
