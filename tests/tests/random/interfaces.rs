//! Random interfaces, stacked in any way that has no circle, and random policies.

use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::{Index, select},
};

use super::addresses::{Pool, nth};
use crate::oracle::{
    Address, Announce, Forwarded, Forwarding, Interface, Kind, Link, Policy, Prefix, Receive, Send, Unknown,
};

/// The tables of VRFs count up from here.
pub(super) const FIRST_TABLE_OF_VRF: u32 = 1000;

/// All of an interface but its index, and whom it is connected with.
#[derive(Clone, Debug)]
pub(super) struct InterfaceRecipe {
    shape: Shape,
    others: Vec<Index>,
    mac: [u8; 3],
    mtu: Index,
    /// Which of a tunnel's addresses its packets have outside.
    outer: Option<Index>,
    up: bool,
    route_localnet: bool,
    forwarding: Forwarding,
    addresses: Vec<Index>,
    crowd: Option<(Index, u8, u8)>,
    link_local: Option<u8>,
    loopback: Option<bool>,
    pub(super) connected: bool,
    policy: Option<PolicyRecipe>,
}

/// What an interface is, as far as it can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Alone(Kind, Header),
    /// With a link here.
    On(Kind, Header),
    /// With a link in another network namespace.
    OnElsewhere(Kind, Header),
    /// The second end of a pair, if there is something that can be the first.
    Paired,
    /// With ports.
    Over(Kind),
    Vrf,
    /// A macvlan of a virtual router.
    VirtualRouter,
}

/// What its frames start with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Header {
    Ethernet,
    None,
}

/// A policy whose prefixes are of addresses by their places in the pool, and shorter than these alone.
#[derive(Clone, Debug)]
struct PolicyRecipe {
    policy: Policy,
    allow: Vec<(Index, u8)>,
    owns: Vec<(Index, u8)>,
}

fn shapes() -> impl Strategy<Value = Shape> {
    use Header::Ethernet;
    let other = prop_oneof![3 => Just(Ethernet), 1 => Just(Header::None)];
    prop_oneof![
        8 => Just(Shape::Alone(Kind::Wire, Ethernet)),
        2 => Just(Shape::Alone(Kind::Tunnel, Header::None)),
        1 => Just(Shape::Alone(Kind::Tunnel, Ethernet)),
        1 => Just(Shape::Alone(Kind::Dummy, Ethernet)),
        1 => other.prop_map(|header| Shape::Alone(Kind::Other, header)),
        1 => Just(Shape::On(Kind::Tunnel, Header::None)),
        2 => prop_oneof![Just(0), Just(7)].prop_map(|number| Shape::On(Kind::Vlan(number), Ethernet)),
        4 => Just(Shape::On(Kind::Macvlan, Ethernet)),
        2 => Just(Shape::On(Kind::Ipvlan, Ethernet)),
        1 => Just(Shape::On(Kind::Other, Ethernet)),
        1 => Just(Shape::OnElsewhere(Kind::Macvlan, Ethernet)),
        4 => Just(Shape::OnElsewhere(Kind::Other, Ethernet)),
        2 => Just(Shape::Paired),
        2 => Just(Shape::Over(Kind::Bridge)),
        2 => Just(Shape::Over(Kind::Bond)),
        1 => Just(Shape::Over(Kind::Other)),
        3 => Just(Shape::Vrf),
        1 => Just(Shape::VirtualRouter),
    ]
}

pub(super) fn interfaces() -> impl Strategy<Value = InterfaceRecipe> {
    let addresses = prop_oneof![
        1 => vec(any::<Index>(), 0),
        7 => vec(any::<Index>(), 1..5),
        // More than the programs keep with the interface, of each family.
        2 => vec(any::<Index>(), 12..24),
    ];
    // More than the programs keep with the interface, next to each other and mostly its alone.
    let crowd = option::weighted(0.2, (any::<Index>(), 16..200u8, 6..40u8));
    let addresses = (addresses, crowd, option::weighted(0.6, 1..4u8), option::weighted(0.05, any::<bool>()));
    let forwarding = (prop::bool::weighted(0.25), prop::bool::weighted(0.25))
        .prop_map(|(ipv4, ipv6)| Forwarding { ipv4, ipv6 });
    let state =
        (prop::bool::weighted(0.85), prop::bool::weighted(0.15), forwarding, prop::bool::weighted(0.9));
    let outer = option::of(any::<Index>());
    let link = (shapes(), vec(any::<Index>(), 1..6), any::<[u8; 3]>(), any::<Index>(), outer);
    (link, state, addresses, option::weighted(0.75, policies())).prop_map(
        |(
            (shape, others, mac, mtu, outer),
            (up, route_localnet, forwarding, connected),
            (addresses, crowd, link_local, loopback),
            policy,
        )| {
            InterfaceRecipe {
                shape,
                others,
                mac,
                mtu,
                outer,
                up,
                route_localnet,
                forwarding,
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
    let prefix = || (any::<Index>(), lengths());
    let allow = prop_oneof![2 => vec(prefix(), 0), 1 => vec(prefix(), 1..4)];
    let owns = prop_oneof![5 => vec(prefix(), 0), 1 => vec(prefix(), 1..3)];
    (
        select(vec![Send::Redirect, Send::Redirect, Send::Redirect, Send::Drop, Send::Observe, Send::Off]),
        select(vec![Receive::Drop, Receive::Drop, Receive::Observe, Receive::Off]),
        select(vec![Announce::Enforce, Announce::Enforce, Announce::Observe, Announce::Off]),
        select(vec![Unknown::Pass, Unknown::Drop]),
        select(vec![Forwarded::Enforce, Forwarded::Enforce, Forwarded::Observe, Forwarded::Off]),
        (allow, owns, any::<bool>()),
    )
        .prop_map(|(send, receive, announce, unknown, forwarded, (allow, owns, binds))| {
            let (allowed, owned) = (Vec::new(), Vec::new());
            let policy =
                Policy { send, receive, announce, unknown, forwarded, allow: allowed, owns: owned, binds };
            PolicyRecipe { policy, allow, owns }
        })
}

/// How much shorter a prefix is than an address: mostly not at all, or little.
pub(super) fn lengths() -> impl Strategy<Value = u8> {
    prop_oneof![6 => Just(0), 6 => 1..8u8, 3 => 8..16u8, 1 => Just(16)]
}

impl InterfaceRecipe {
    /// Only interfaces that are there `before` can be below, so that there is no circle. Those that get a new master, or become
    /// the end of a pair, are told so.
    pub(super) fn build(&self, index: u32, before: &mut [Interface], pool: &Pool, mtus: &[u32]) -> Interface {
        let (kind, link, header) = self.place(index, before);
        let is_ethernet = header == Header::Ethernet;
        let [a, b, c] = self.mac;
        let mac = match (self.shape, kind) {
            (Shape::VirtualRouter, Kind::Macvlan) => [0, 0, 0x5e, 0, 1 + a % 2, b],
            // A bond speaks with the hardware address of its first port.
            (_, Kind::Bond) => before
                .iter()
                .find(|other| other.master == Some(index))
                .map_or([2, 0, 0, a, b, c], |port| port.mac),
            // One in the mode passthru has its link's.
            (Shape::On(..), Kind::Macvlan) if a % 4 == 0 => {
                let lower = before.iter().find(|other| link == Link::To(other.index));
                lower.map_or([2, 0, 0, a, b, c], |lower| lower.mac)
            }
            _ if is_ethernet => [2, 0, 0, a, b, c],
            _ => [0; 6],
        };
        let addresses = self.addresses_of(pool);
        let is_tunnel = kind == Kind::Tunnel && !is_ethernet && !addresses.is_empty();
        Interface {
            index,
            master: None,
            link,
            outer: self.outer.filter(|_| is_tunnel).map(|pick| pick.get(&addresses).local),
            is_ethernet,
            mac,
            mtu: *self.mtu.get(mtus),
            up: self.up,
            route_localnet: self.route_localnet,
            forwarding: self.forwarding,
            addresses,
            policy: self.policy.as_ref().filter(|_| kind.has_wire()).map(|policy| policy.build(pool)),
            kind,
        }
    }

    fn place(&self, index: u32, before: &mut [Interface]) -> (Kind, Link, Header) {
        let others = |is_wanted: fn(&Interface) -> bool| {
            let is_other = |other: &&Interface| other.kind != Kind::Loopback && is_wanted(other);
            before.iter().filter(is_other).map(|other| other.index).collect::<Vec<u32>>()
        };
        let one_of = |candidates: &[u32]| match candidates {
            [] => None,
            _ => Some(*self.others[0].get(candidates)),
        };
        // The kernel puts a macvlan on another one's link, and so an ipvlan.
        let lowers = others(|i| i.is_ethernet && !i.kind.is_vrf() && i.kind != Kind::Macvlan);
        let ethernet_ports = others(|i| i.is_ethernet && !i.kind.is_vrf() && i.master.is_none());
        let vrf_ports = others(|i| !i.kind.is_vrf() && i.master.is_none());
        let peers = others(|i| i.kind == Kind::Other && i.link == Link::None);
        let mut enslave = |candidates: &[u32]| {
            let ports =
                self.others.iter().filter(|_| !candidates.is_empty()).map(|pick| *pick.get(candidates));
            let ports: Vec<u32> = ports.collect();
            before.iter_mut().filter(|i| ports.contains(&i.index)).for_each(|port| port.master = Some(index));
        };
        match self.shape {
            Shape::Alone(kind, header) => (kind, Link::None, header),
            Shape::OnElsewhere(kind, header) => (kind, Link::Elsewhere, header),
            Shape::On(kind, header) => match one_of(&lowers) {
                Some(lower) => (kind, Link::To(lower), header),
                None => (Kind::Wire, Link::None, Header::Ethernet),
            },
            Shape::VirtualRouter => match one_of(&lowers) {
                Some(lower) => (Kind::Macvlan, Link::To(lower), Header::Ethernet),
                None => (Kind::Wire, Link::None, Header::Ethernet),
            },
            Shape::Paired => {
                let peer = one_of(&peers);
                before.iter_mut().filter(|i| Some(i.index) == peer).for_each(|i| i.link = Link::To(index));
                (Kind::Other, peer.map_or(Link::None, Link::To), Header::Ethernet)
            }
            Shape::Over(kind) => {
                enslave(&ethernet_ports);
                (kind, Link::None, Header::Ethernet)
            }
            Shape::Vrf => {
                enslave(&vrf_ports);
                (Kind::Vrf(FIRST_TABLE_OF_VRF + before.len() as u32), Link::None, Header::Ethernet)
            }
        }
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
        let prefixes = |recipes: &[(Index, u8)]| {
            recipes.iter().map(|(address, shorter)| pool.prefix(*address, *shorter)).collect()
        };
        Policy { allow: prefixes(&self.allow), owns: prefixes(&self.owns), ..self.policy.clone() }
    }
}
