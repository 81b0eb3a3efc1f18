//! Random interfaces, stacked in any way that has no circle, and random policies.

use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::{Index, select},
};

use super::addresses::{Pool, nth};
use crate::oracle::{Address, Announce, Interface, Kind, Policy, Prefix, Receive, Send, Unknown};

/// The tables of VRFs count up from here.
pub(super) const FIRST_TABLE_OF_VRF: u32 = 1000;

/// All of an interface but its index, and whom it is connected with.
#[derive(Clone, Debug)]
pub(super) struct InterfaceRecipe {
    kind: Shape,
    others: Vec<Index>,
    mac: [u8; 3],
    mtu: Index,
    up: bool,
    route_localnet: bool,
    addresses: Vec<Index>,
    crowd: Option<(Index, u8, u8)>,
    link_local: Option<u8>,
    loopback: Option<bool>,
    pub(super) connected: bool,
    policy: Option<PolicyRecipe>,
}

/// A kind of interface, as far as it can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Wire,
    Tunnel,
    Dummy,
    Veth,
    OnTop,
    Over,
    Vrf,
}

/// A policy whose allowed prefixes are of addresses by their places in the pool, and shorter than these
/// alone.
#[derive(Clone, Debug)]
struct PolicyRecipe(Policy, Vec<(Index, u8)>);

pub(super) fn interfaces() -> impl Strategy<Value = InterfaceRecipe> {
    let kind = prop_oneof![
        8 => Just(Shape::Wire),
        2 => Just(Shape::Tunnel),
        1 => Just(Shape::Dummy),
        3 => Just(Shape::Veth),
        4 => Just(Shape::OnTop),
        2 => Just(Shape::Over),
        3 => Just(Shape::Vrf),
    ];
    let addresses = prop_oneof![
        1 => vec(any::<Index>(), 0),
        7 => vec(any::<Index>(), 1..5),
        // More than the programs keep with the interface, of each family.
        2 => vec(any::<Index>(), 12..24),
    ];
    // More than the programs keep with the interface, next to each other and mostly its alone.
    let crowd = option::weighted(0.2, (any::<Index>(), 16..200u8, 6..40u8));
    let addresses = (addresses, crowd, option::weighted(0.6, 1..4u8), option::weighted(0.05, any::<bool>()));
    let state = (prop::bool::weighted(0.85), prop::bool::weighted(0.15), prop::bool::weighted(0.9));
    let link = (kind, vec(any::<Index>(), 1..6), any::<[u8; 3]>(), any::<Index>());
    (link, state, addresses, option::weighted(0.9, policies())).prop_map(
        |(
            (kind, others, mac, mtu),
            (up, route_localnet, connected),
            (addresses, crowd, link_local, loopback),
            policy,
        )| {
            InterfaceRecipe {
                kind,
                others,
                mac,
                mtu,
                up,
                route_localnet,
                addresses,
                crowd,
                link_local,
                loopback,
                connected,
                policy,
            }
        },
    )
}

fn policies() -> impl Strategy<Value = PolicyRecipe> {
    let allow =
        prop_oneof![2 => vec((any::<Index>(), lengths()), 0), 1 => vec((any::<Index>(), lengths()), 1..4)];
    (
        select(vec![Send::Redirect, Send::Redirect, Send::Redirect, Send::Drop, Send::Observe, Send::Off]),
        select(vec![Receive::Drop, Receive::Drop, Receive::Observe, Receive::Off]),
        select(vec![Announce::Enforce, Announce::Enforce, Announce::Observe, Announce::Off]),
        select(vec![Unknown::Pass, Unknown::Drop]),
        allow,
    )
        .prop_map(|(send, receive, announce, unknown, allow)| {
            PolicyRecipe(Policy { send, receive, announce, unknown, allow: Vec::new() }, allow)
        })
}

/// How much shorter a prefix is than an address: mostly not at all, or little.
pub(super) fn lengths() -> impl Strategy<Value = u8> {
    prop_oneof![6 => Just(0), 6 => 1..8u8, 3 => 8..16u8, 1 => Just(16)]
}

impl InterfaceRecipe {
    /// Only interfaces that are there `before` can be below, so that there is no circle.
    pub(super) fn build(&self, index: u32, before: &[Interface], pool: &Pool, mtus: &[u32]) -> Interface {
        let kind = self.kind_among(before);
        let [a, b, c] = self.mac;
        Interface {
            index,
            mac: if kind.is_ethernet() { [2, 0, 0, a, b, c] } else { [0; 6] },
            mtu: *self.mtu.get(mtus),
            up: self.up,
            route_localnet: self.route_localnet,
            addresses: self.addresses_of(pool),
            policy: self.policy.as_ref().filter(|_| kind.has_wire()).map(|policy| policy.build(pool)),
            kind,
        }
    }

    fn kind_among(&self, before: &[Interface]) -> Kind {
        let with_wire: Vec<&Interface> = before.iter().filter(|other| other.kind != Kind::Loopback).collect();
        let ethernet = || with_wire.iter().filter(|other| other.kind.is_ethernet() && !other.kind.is_vrf());
        let one_of = |candidates: Vec<u32>| match candidates[..] {
            [] => None,
            _ => Some(*self.others[0].get(&candidates)),
        };
        let ports = |candidates: Vec<u32>| match candidates[..] {
            [] => Vec::new(),
            _ => free_ports(self.others.iter().map(|pick| *pick.get(&candidates)), before),
        };
        let kind = match self.kind {
            Shape::Wire => None,
            Shape::Tunnel => Some(Kind::Tunnel),
            Shape::Dummy => Some(Kind::Dummy),
            Shape::Veth => one_of(ethernet().map(|other| other.index).collect()).map(Kind::VethTo),
            Shape::OnTop => one_of(ethernet().map(|other| other.index).collect()).map(Kind::OnTopOf),
            Shape::Over => Some(Kind::Over(ports(ethernet().map(|other| other.index).collect()))),
            Shape::Vrf => {
                let candidates = with_wire.iter().filter(|other| !other.kind.is_vrf());
                let ports = ports(candidates.map(|other| other.index).collect());
                Some(Kind::Vrf { table: FIRST_TABLE_OF_VRF + before.len() as u32, ports })
            }
        };
        kind.unwrap_or(Kind::Wire)
    }

    fn addresses_of(&self, pool: &Pool) -> Vec<Address> {
        let has_ipv6 = pool.subnets.iter().any(|subnet| subnet.address.is_ipv6());
        let mut addresses: Vec<Address> = Vec::new();
        let mut add = |address: Address| {
            if addresses.iter().all(|other| other.local != address.local) {
                addresses.push(address);
            }
        };
        self.addresses.iter().map(|pick| *pick.get(&pool.addresses)).for_each(&mut add);
        if let Some((subnet, first, count)) = self.crowd
            && let subnet = subnet.get(&pool.subnets)
            // Behind short ones there are other subnets.
            && Prefix::exact(subnet.address).length - subnet.length >= 8
        {
            let address =
                |number| Address { local: nth(subnet.address, number), peer: None, length: subnet.length };
            (first..first + count).map(address).for_each(&mut add);
        }
        if let Some(number) = self.link_local.filter(|_| has_ipv6) {
            add(plain([0xfe80, 0, 0, 0, 0, 0, 0, number.into()], 64));
        }
        match self.loopback {
            Some(true) => add(Address { local: [127, 3, 0, 1].into(), peer: None, length: 8 }),
            Some(false) if has_ipv6 => add(plain([0, 0, 0, 0, 0, 0, 0, 1], 128)),
            _ => {}
        }
        addresses
    }
}

fn plain(local: [u16; 8], length: u8) -> Address {
    Address { local: local.into(), peer: None, length }
}

impl PolicyRecipe {
    fn build(&self, pool: &Pool) -> Policy {
        let Self(policy, allow) = self;
        let allow = allow.iter().map(|(address, shorter)| pool.prefix(*address, *shorter));
        Policy { allow: allow.collect(), ..policy.clone() }
    }
}

/// Those of `candidates` that are not yet a port of something, in the order of their indices.
fn free_ports(candidates: impl Iterator<Item = u32>, others: &[Interface]) -> Vec<u32> {
    let is_port = |index: &u32| others.iter().any(|other| other.kind.ports().contains(index));
    let mut ports: Vec<u32> = candidates.filter(|candidate| !is_port(candidate)).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}
