//! Policy routing that has the kernel choose the owner by itself: a rule for each source, and a table for each owner.
//!
//! Without it the kernel routes a packet by its destination, and the egress program of that interface redirects it to the
//! owner of its source. Where the routed interface has no carrier, or can't resolve the next hop, the packet never
//! gets that far. With it, `route(src, dst, TOS) -> gateway, interface` (RFC 1122 section 3.3.1.2) is the kernel's.
//!
//! Rules are for packets of local origin only (`iif lo`): a forwarded packet whose source falls into the prefix of a rule is
//! not judged, and not steered either. With the same rules a strict reverse path filter is right, since the kernel looks up
//! the way back as if this host had sent it (`fib_validate_source`, `net/ipv4/fib_frontend.c`).

mod cover;
mod routes;
mod sources;
#[cfg(test)]
mod tests;
pub mod text;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use mhebpf_ebpf::Send;

use super::{
    host::{Host, LinkKind, MAIN_DOMAIN, Metrics},
    ownership::{self, Bindings},
    policy::Policy,
    stacking::Stacking,
};

/// The table of the interface with ifindex `i` is `TABLE_BASE + i`: far from the tables that people number (up to 255, or
/// round), that of wg-quick (51820) and those of systemd-networkd's VRFs.
pub const TABLE_BASE: u32 = 280_080_000;

/// The greatest ifindex is that of a positive 32-bit integer.
const LAST_TABLE: u32 = TABLE_BASE + i32::MAX as u32;

/// The priority of every rule: after those for the table local (0) and for VRFs (1000), before that for main
/// (32766). A rule that is added without a priority gets that of the second rule that is there, minus one
/// (`fib_default_rule_pref`, net/core/fib_rules.c): it comes before ours if it is added later. The prefixes of rules do not overlap, so one is
/// enough.
pub const PRIORITY: u32 = 28_008;

/// The bits of a mark that must not be set in a packet that is steered.
pub const ALL_MARKS: u32 = u32::MAX;

/// The routing protocol (`rtm_protocol`, `FRA_PROTOCOL`, Linux 4.17) by which rules and routes are known as those of mhebpf.
/// Neither `linux/rtnetlink.h` nor iproute2's `rt_protos` gives it to another.
pub const PROTOCOL: u8 = 208;

/// More rules are worth a warning. The kernel tries them one after the other: 1,000 cost 12 microseconds for each datagram of
/// an unconnected socket.
pub const MANY_RULES: usize = 64;

/// A table with more routes than this is not kept.
pub const MOST_ROUTES: usize = 10_000;

/// A route can't say more of a gateway (`rtnh_hops`); nexthop objects can.
pub const MOST_WEIGHT: u16 = 256;

/// The rules and tables of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steering {
    /// Routes by table and destination.
    pub tables: BTreeMap<u32, BTreeMap<IpNet, SteeringRoute>>,
    /// Rules. Their prefixes do not overlap.
    pub rules: BTreeSet<SteeringRule>,
    /// What has none, though one could expect them.
    pub left_out: Vec<LeftOut>,
}

/// A rule: packets of local origin from `source` that nobody has marked are looked up in `table` (`ip rule add from SOURCE iif
/// lo fwmark 0/0xffffffff lookup TABLE`). What is marked, for a VPN say, is left to the rules for marks, whatever their
/// priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SteeringRule {
    /// A prefix in which all local addresses have the same owner.
    pub source: IpNet,
    /// The table of that owner.
    pub table: u32,
}

/// A route of a table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SteeringRoute {
    /// The lookup goes on with the next rule, and so comes to the table main (type throw).
    Throw,
    /// Packets go through the owner.
    Through(Way),
}

/// A way through an owner.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Way {
    /// The owner.
    pub ifindex: u32,
    /// Several for a multipath route of which the owner can use more than one hop. Never empty.
    pub gateways: Vec<Gateway>,
    /// The gateways are in no subnet that the table has: the kernel must take them for reachable (`onlink`).
    pub on_link: bool,
    /// The metric of the route that it comes from.
    pub metric: u32,
    /// The metrics of connections, from the same route.
    pub metrics: Metrics,
}

/// A gateway of a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gateway {
    /// `None` for destinations that are on-link.
    pub address: Option<IpAddr>,
    /// Its share beside the others' of the way, at least 1.
    pub weight: u16,
}

impl Gateway {
    /// With the weight that gateways have by default.
    pub const fn new(address: Option<IpAddr>) -> Self {
        Self { address, weight: 1 }
    }
}

impl Way {
    /// Whether the destinations are on-link.
    pub fn is_on_link(&self) -> bool {
        self.gateways.iter().all(|gateway| gateway.address.is_none())
    }
}

/// Something that is not steered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LeftOut {
    /// What.
    pub what: Object,
    /// Why.
    pub why: Why,
}

/// What is not steered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Object {
    /// All addresses of an interface.
    Interface(u32),
    /// An address, or a prefix that is routed locally.
    Source(IpNet),
}

/// Why something is not steered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// The rule for VRFs comes first, and the table of the VRF is the one that counts.
    Vrf(u32),
    /// Each of several interfaces may send from it, so the route that the kernel takes by itself may be right; a rule would
    /// take it away.
    SeveralOwners(Vec<u32>),
    /// Addresses inside it have other owners.
    Overlapped,
    /// The table would have more than [`MOST_ROUTES`] routes.
    TooManyRoutes,
    /// What it sends is not enforced: `send` is `off` or `observe`.
    NotEnforced,
    /// There is something else in its table.
    TableInUse(String),
}

impl Steering {
    /// Computes what is to be kept for `host`, with `policies` for the enforced interfaces by ifindex.
    ///
    /// The interfaces steered for, and away from, are those whose policy redirects or drops: where others' packets may
    /// leave, the kernel's own route stands.
    ///
    /// Takes time that grows with the routes and the interfaces, as next hops do, and with the addresses.
    pub fn new(host: &Host, policies: &BTreeMap<u32, Policy>) -> Self {
        let stacking = Stacking::of(host);
        let ownerships = ownership::of_addresses(&stacking, &Bindings::new(host, policies));
        let mut steering = Self::default();
        let mut steered = BTreeSet::new();
        for (ifindex, policy) in policies {
            if !matches!(policy.send, Send::Redirect | Send::Drop) {
                steering.leave_out(Object::Interface(*ifindex), Why::NotEnforced);
                continue;
            }
            match host.domain_of(*ifindex) {
                MAIN_DOMAIN => _ = steered.insert(*ifindex),
                vrf => steering.leave_out(Object::Interface(*ifindex), Why::Vrf(vrf)),
            }
        }
        for (ifindex, routes) in routes::of_owners(host, &steered) {
            match routes {
                Ok(routes) => _ = steering.tables.insert(TABLE_BASE + ifindex, routes),
                Err(why) => steering.leave_out(Object::Interface(ifindex), why),
            }
        }
        let sources = sources::of(&stacking, &ownerships, &mut steering);
        steering.rules = cover::of(&sources, &sources::subnets(host), &mut steering.left_out);
        steering.forget_unused_tables();
        steering
    }

    /// No rule needs the routes of a family in which an interface has no addresses.
    fn forget_unused_tables(&mut self) {
        let used: BTreeSet<(u32, bool)> =
            self.rules.iter().map(|rule| (rule.table, rule.source.addr().is_ipv4())).collect();
        for (table, routes) in &mut self.tables {
            routes.retain(|to, _| used.contains(&(*table, to.addr().is_ipv4())));
        }
        self.tables.retain(|_, routes| !routes.is_empty());
    }

    /// Whether an interface has a table with a way for a family.
    fn has_way(&self, ifindex: u32, ipv4: bool) -> bool {
        let routes = self.tables.get(&(TABLE_BASE + ifindex));
        let mut routes = routes.into_iter().flatten();
        routes.any(|(to, route)| to.addr().is_ipv4() == ipv4 && *route != SteeringRoute::Throw)
    }

    fn leave_out(&mut self, what: Object, why: Why) {
        self.left_out.push(LeftOut { what, why });
    }

    /// Takes an interface out, with its table and rules.
    pub fn withdraw(&mut self, ifindex: u32, why: Why) {
        let table = TABLE_BASE + ifindex;
        self.tables.remove(&table);
        self.rules.retain(|rule| rule.table != table);
        self.leave_out(Object::Interface(ifindex), why);
    }

    /// Takes a family out, with its rules and routes.
    pub fn without_family(&mut self, ipv4: bool) {
        self.rules.retain(|rule| rule.source.addr().is_ipv4() != ipv4);
        self.forget_unused_tables();
    }

    /// How many routes all tables have.
    pub fn routes(&self) -> usize {
        self.tables.values().map(BTreeMap::len).sum()
    }
}

/// The interface that a table is for; `None` where it is not one of ours.
pub fn interface_of(table: u32) -> Option<u32> {
    (TABLE_BASE < table && table <= LAST_TABLE).then(|| table - TABLE_BASE)
}

impl SteeringRoute {
    /// The route's metric: IPv6 has none without, and takes 1024 for 0.
    pub fn metric(&self, destination: &IpNet) -> u32 {
        match (self, destination) {
            (Self::Through(way), _) => way.metric,
            (Self::Throw, IpNet::V4(_)) => 0,
            (Self::Throw, IpNet::V6(_)) => 1024,
        }
    }
}

/// Whether a link can have routes at all.
fn takes_routes(host: &Host, ifindex: u32) -> bool {
    host.links.get(&ifindex).is_some_and(|link| !matches!(link.kind, LinkKind::Vrf { .. }))
}
