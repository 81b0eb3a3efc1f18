//! Which devices are uplinks: those by which packets leave for networks that this host is an end system of.
//!
//! They are read from the topology and the routes, for a host and a container alike. A device that nobody knew when this was
//! written is none, unless a default route leads through it; and what is none is not judged, its addresses being everyone's.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use ipnet::IpNet;

use super::{
    host::{Framing, Host, Link, LinkKind, is_default, is_link_local},
    stacking::Stacking,
};

/// Why a device is no uplink, and can't be enforced on at all.
pub const UNKNOWN_FRAMING: &str = "neither Ethernet nor plain IP is on it";
/// Why a device is no uplink, and can't be enforced on at all.
pub const WITHOUT_WIRE: &str = "no packet leaves the host through it";
/// Why a device is no uplink, and can't be enforced on at all.
pub const VRF: &str = "a VRF: its ports are the interfaces";
const PORT: &str = "a port: its bridge, bond or team is the interface";
const OTHER_NAMESPACE: &str = "its other end is in another network namespace: a container's";
const PAIR: &str = "both ends of the pair are in this network namespace";
const INSIDE_BRIDGE: &str = "a bridge without an uplink among its ports";
const TUNNEL: &str = "a tunnel or tap without a default route";
const VIRTUAL_ROUTER: &str = "a VRRP virtual router's, which speaks with its lower device's addresses";
const WITHOUT_SUBNET: &str = "it has neither a subnet nor a gateway of its own";
const INSIDE: &str = "the device that it lies on is no uplink";
const UNKNOWN: &str = "mhebpf does not know this kind of device, and no default route leads through it";
/// Why a device is no uplink: what is behind it this host is the router of.
pub const DOWNLINK: &str = "a downlink: this host forwards there, and no gateway is known through it, so it is that network's router";

/// The hardware addresses of VRRP virtual routers, for IPv4 and for IPv6 (RFC 5798 section 7.3).
const VIRTUAL_ROUTER_MACS: [[u8; 5]; 2] = [[0x00, 0x00, 0x5e, 0x00, 0x01], [0x00, 0x00, 0x5e, 0x00, 0x02]];

/// The devices of a host, told apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uplinks {
    /// The uplinks.
    pub uplinks: BTreeSet<u32>,
    /// Devices, no matter of which kind, behind which are networks that this host is the router of (RFC 1812 section 5.2.3: a
    /// router accepts what is addressed to any of its addresses, and answers from it).
    pub downlinks: BTreeSet<u32>,
    /// What is no uplink, and why. Downlinks that would be uplinks otherwise are among them.
    pub left_out: BTreeMap<u32, &'static str>,
}

impl Uplinks {
    /// Tells the devices of a host apart.
    pub fn of(host: &Host) -> Self {
        let ways = Ways::of(host);
        let mut found = Self::default();
        for link in host.links.values() {
            match ways.objection(link) {
                None => _ = found.uplinks.insert(link.index),
                Some(why) => _ = found.left_out.insert(link.index, why),
            }
        }
        if found.uplinks.is_empty() {
            ways.take_what_there_is(&mut found);
        }
        found.downlinks = ways.downlinks(&found.uplinks);
        for downlink in &found.downlinks {
            if found.uplinks.remove(downlink) {
                found.left_out.insert(*downlink, DOWNLINK);
            }
        }
        found
    }
}

/// Why nothing can be enforced on a device, whoever names it.
pub fn not_enforceable(link: &Link) -> Option<&'static str> {
    if link.kind.is_without_wire() {
        Some(WITHOUT_WIRE)
    } else if matches!(link.kind, LinkKind::Vrf { .. }) {
        Some(VRF)
    } else if link.framing == Framing::Unknown {
        Some(UNKNOWN_FRAMING)
    } else {
        None
    }
}

/// Why a device is left out, and how it is taken all the same.
pub fn with_remedy(name: &str, why: &str) -> String {
    match why {
        WITHOUT_WIRE | VRF | UNKNOWN_FRAMING => why.to_owned(),
        DOWNLINK => format!("{why}; --downlinks holds it to its own addresses all the same"),
        _ => format!("{why}; --interface {name} takes it all the same"),
    }
}

/// The ways out of a host, as its links and routes show them.
struct Ways<'a> {
    host: &'a Host,
    stacking: Stacking<'a>,
    /// There is a wire here, or a bridge with one, so that other ends in other namespaces are those of containers.
    has_wire: bool,
    /// Interfaces with an address in a subnet, and these. A container's end on its node has none, or one for itself alone.
    subnets: BTreeMap<u32, BTreeSet<IpNet>>,
    /// Interfaces with a default route in the table main, or that of their VRF.
    with_default: HashSet<u32>,
    /// The same, in any table that a rule leads to.
    with_default_by_rule: HashSet<u32>,
    /// Interfaces with a gateway: of a route in the table main, that of their VRF, or one that a rule from one of their
    /// addresses leads to.
    with_gateway: HashSet<u32>,
}

impl<'a> Ways<'a> {
    fn of(host: &'a Host) -> Self {
        let mut subnets: BTreeMap<u32, BTreeSet<IpNet>> = BTreeMap::new();
        for address in &host.addresses {
            let is_subnet = address.subnet.prefix_len() < address.subnet.max_prefix_len();
            if is_subnet && !is_link_local(address.local) {
                subnets.entry(address.ifindex).or_default().insert(address.subnet);
            }
        }
        let mut ways = Self {
            host,
            stacking: Stacking::of(host),
            // Until that is known, the ends of pairs are those of containers: a bridge on one is no wire.
            has_wire: true,
            subnets,
            with_default: HashSet::new(),
            with_default_by_rule: HashSet::new(),
            with_gateway: HashSet::new(),
        };
        ways.read_routes();
        let is_wire = |link: &Link| {
            let is_bridge = link.kind == LinkKind::Bridge;
            link.kind == LinkKind::Wire || (is_bridge && ways.faces_outward(link, 0))
        };
        ways.has_wire = host.links.values().any(is_wire);
        ways
    }

    fn read_routes(&mut self) {
        let by_source = self.host.tables_by_source();
        self.with_gateway
            .extend(self.host.remembered.iter().flat_map(|route| &route.hops).map(|hop| hop.ifindex));
        for (table, ifindex, ipv4) in &self.host.leaves {
            let is_by_source = by_source.get(ifindex).is_some_and(|tables| {
                tables.iter().any(|of_rule| of_rule.table == *table && of_rule.ipv4 == *ipv4)
            });
            if is_by_source || *table == self.host.table_of(self.host.domain_of(*ifindex)) {
                self.with_gateway.insert(*ifindex);
            }
        }
        let mut own_tables: HashMap<u32, u32> = HashMap::new();
        for route in &self.host.routes {
            for hop in &route.hops {
                let own_table = *own_tables
                    .entry(hop.ifindex)
                    .or_insert_with(|| self.host.table_of(self.host.domain_of(hop.ifindex)));
                let is_own = route.table == own_table;
                if is_default(&route.destination) {
                    self.with_default_by_rule.insert(hop.ifindex);
                    if is_own {
                        self.with_default.insert(hop.ifindex);
                    }
                }
                let is_by_source = || {
                    by_source
                        .get(&hop.ifindex)
                        .is_some_and(|tables| tables.iter().any(|table| table.has(route)))
                };
                if hop.gateway.is_some() && (is_own || is_by_source()) {
                    self.with_gateway.insert(hop.ifindex);
                }
            }
        }
    }

    /// Why a link is no uplink, leaving aside which networks this host is the router of.
    fn objection(&self, link: &Link) -> Option<&'static str> {
        if let Some(reason) = not_enforceable(link) {
            return Some(reason);
        }
        if self.host.is_port(link) {
            return Some(PORT);
        }
        if link.kind == LinkKind::Macvlan && is_virtual_router(link) {
            return Some(VIRTUAL_ROUTER);
        }
        let has_default = self.with_default.contains(&link.index);
        let has_subnet = self.subnets.contains_key(&link.index);
        let has_gateway = self.with_gateway.contains(&link.index);
        let is_containers_way_out = !self.has_wire && (has_subnet || has_gateway);
        let (is_uplink, otherwise) = match link.kind {
            LinkKind::Loopback | LinkKind::Dummy | LinkKind::Vrf { .. } => (false, WITHOUT_WIRE),
            LinkKind::Wire | LinkKind::Bond => (true, WITHOUT_WIRE),
            LinkKind::Bridge => (has_default || self.faces_outward(link, 0), INSIDE_BRIDGE),
            LinkKind::Tunnel => (self.with_default_by_rule.contains(&link.index), TUNNEL),
            LinkKind::Vlan { .. } | LinkKind::Macvlan | LinkKind::Ipvlan if !self.faces_outward(link, 0) => {
                (has_default, INSIDE)
            }
            LinkKind::Vlan { .. } | LinkKind::Macvlan | LinkKind::Ipvlan => {
                (has_subnet || has_gateway || has_default, WITHOUT_SUBNET)
            }
            LinkKind::Other if self.host.is_pair(link) => (has_default, PAIR),
            LinkKind::Other if link.link_elsewhere => (has_default || is_containers_way_out, OTHER_NAMESPACE),
            LinkKind::Other => {
                let has_default = self.with_default_by_rule.contains(&link.index);
                (has_default || is_containers_way_out, UNKNOWN)
            }
        };
        (!is_uplink).then_some(otherwise)
    }

    /// Whether what leaves by a device can leave this network namespace with it, rather than only go to containers and virtual
    /// machines.
    fn faces_outward(&self, link: &Link, depth: usize) -> bool {
        // No stack is higher, unless a dump shows one in a circle.
        if depth > self.host.links.len() {
            return false;
        }
        let faces_outward = |other: &u32| {
            self.host.links.get(other).is_some_and(|other| self.faces_outward(other, depth + 1))
        };
        match link.kind {
            LinkKind::Wire | LinkKind::Bond => true,
            LinkKind::Bridge => self.stacking.ports(link.index).iter().any(faces_outward),
            LinkKind::Vlan { .. } | LinkKind::Macvlan | LinkKind::Ipvlan => {
                link.link.is_none() || link.link.as_ref().is_some_and(faces_outward)
            }
            // A container's way out can be the end of a pair; a VLAN on it, say, is one as well.
            LinkKind::Other => {
                !self.host.is_port(link)
                    && !self.host.is_pair(link)
                    && (!self.has_wire || self.with_default.contains(&link.index))
            }
            LinkKind::Loopback | LinkKind::Dummy | LinkKind::Vrf { .. } | LinkKind::Tunnel => false,
        }
    }

    /// A namespace without any way out that shows itself is a container whose addresses are still to come.
    fn take_what_there_is(&self, found: &mut Uplinks) {
        for reason in [OTHER_NAMESPACE, INSIDE_BRIDGE] {
            let left_out = found.left_out.iter().filter(|(_, why)| **why == reason);
            found.uplinks = left_out.map(|(ifindex, _)| *ifindex).collect();
            if !found.uplinks.is_empty() {
                break;
            }
        }
        found.left_out.retain(|ifindex, _| !found.uplinks.contains(ifindex));
    }

    /// The devices whose networks this host is the router of.
    fn downlinks(&self, candidates: &BTreeSet<u32>) -> BTreeSet<u32> {
        let mut candidates_of: HashMap<(u32, IpNet), Vec<u32>> = HashMap::new();
        for candidate in candidates {
            for subnet in self.subnets.get(candidate).into_iter().flatten() {
                let key = (self.host.domain_of(*candidate), *subnet);
                candidates_of.entry(key).or_default().push(*candidate);
            }
        }
        let shares = |ifindex: u32| {
            let domain = self.host.domain_of(ifindex);
            self.subnets.get(&ifindex).into_iter().flatten().any(|subnet| {
                let others = candidates_of.get(&(domain, *subnet)).into_iter().flatten();
                { others }.any(|other| *other != ifindex)
            })
        };
        let routed = self.routed();
        let has_way_out = |ifindex: &u32| {
            self.with_gateway.contains(ifindex) || self.with_default_by_rule.contains(ifindex)
        };
        let links = self.host.links.values().filter(|link| not_enforceable(link).is_none());
        links
            .filter(|link| {
                (link.forwards && routed.contains(&(link.index, true)))
                    || (link.router && routed.contains(&(link.index, false)))
            })
            .map(|link| link.index)
            .filter(|ifindex| !has_way_out(ifindex) && !shares(*ifindex))
            .collect()
    }

    /// The interfaces behind which there are hosts, by family (`true` for IPv4): they have an address, or a route leads there.
    fn routed(&self) -> HashSet<(u32, bool)> {
        let addresses = self.host.addresses.iter().filter(|address| !is_link_local(address.local));
        let addressed = addresses.map(|address| (address.ifindex, address.local.is_ipv4()));
        // Older kernels have a route to all groups on each link.
        let unicast = self.host.routes.iter().filter(|route| {
            let destination = route.destination.addr();
            !is_link_local(destination) && !destination.is_multicast()
        });
        let routed = unicast.flat_map(|route| {
            let is_ipv4 = route.destination.addr().is_ipv4();
            route.hops.iter().map(move |hop| (hop.ifindex, is_ipv4))
        });
        let through_leaves = self.host.leaves.iter().map(|(_, ifindex, ipv4)| (*ifindex, *ipv4));
        addressed.chain(routed).chain(through_leaves).collect()
    }
}

fn is_virtual_router(link: &Link) -> bool {
    link.mac.is_some_and(|mac| VIRTUAL_ROUTER_MACS.iter().any(|prefix| mac.starts_with(prefix)))
}

/// The subnets that more than one interface has an address in: where a weak end system hurts. Link-local ones,
/// which every interface has, are left out.
pub fn shared_subnets(host: &Host) -> BTreeMap<IpNet, BTreeSet<u32>> {
    let mut subnets: BTreeMap<IpNet, BTreeSet<u32>> = BTreeMap::new();
    for address in &host.addresses {
        let on_a_wire = host.links.get(&address.ifindex).is_some_and(|link| not_enforceable(link).is_none());
        let is_subnet = address.subnet.prefix_len() < address.subnet.max_prefix_len();
        if on_a_wire && is_subnet && !is_link_local(address.local) {
            subnets.entry(address.subnet).or_default().insert(address.ifindex);
        }
    }
    subnets.retain(|_, interfaces| interfaces.len() > 1);
    subnets
}

#[cfg(test)]
mod tests;
