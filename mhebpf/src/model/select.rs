//! Which interfaces are enforced.

use std::collections::{BTreeMap, BTreeSet};

use glob::Pattern;
use ipnet::IpNet;

use super::host::{Address, Framing, Host, Link, LinkKind, is_link_local};

/// How the operator names the interfaces to enforce.
#[derive(Clone, Debug)]
pub enum Selector {
    /// Those whose name matches one of the patterns.
    Matching(Vec<Pattern>),
    /// The uplinks: see [`Selection`].
    Uplinks,
}

/// The outcome of a selection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// The ifindices of the enforced interfaces.
    pub enforced: BTreeSet<u32>,
    /// Interfaces that are left out, each with the reason.
    pub left_out: BTreeMap<u32, &'static str>,
}

const UNKNOWN_FRAMING: &str = "neither Ethernet nor plain IP is on it";
const WITHOUT_WIRE: &str = "no packet leaves the host through it";
const VRF: &str = "a VRF: its ports are the interfaces";
const PORT: &str = "a port: its bridge, bond or team is the interface";
const CONTAINER: &str = "its peer is in another network namespace: a container's";
const INSIDE_BRIDGE: &str = "a bridge without an uplink among its ports";
const TUNNEL: &str = "a tunnel or tap: say --interface to enforce on it";
const VIRTUAL_ROUTER: &str = "a VRRP virtual router's, which speaks with its lower device's addresses";

/// The hardware addresses of VRRP virtual routers, for IPv4 and for IPv6 (RFC 5798 section 7.3).
const VIRTUAL_ROUTER_MACS: [[u8; 5]; 2] = [[0x00, 0x00, 0x5e, 0x00, 0x01], [0x00, 0x00, 0x5e, 0x00, 0x02]];

impl Selector {
    /// Selects among the links of `host`.
    ///
    /// Matching names take every device that a packet can leave by; of the others they say why not. Uplinks are
    /// the devices through which packets leave the host as they are: neither loopback nor dummy, no port of a
    /// bridge, bond or team, no bridge between containers, no tunnel, no macvlan of a VRRP virtual router, and no
    /// veth to another namespace. A host that has nothing else is itself a container: there those veths are the
    /// uplinks that have an address in a subnet, or all of them if none has.
    pub fn select(&self, host: &Host) -> Selection {
        let mut selection = Selection::default();
        match self {
            Self::Matching(patterns) => {
                for link in host.links.values() {
                    if patterns.iter().any(|pattern| pattern.matches(&link.name)) {
                        selection.decide(link, not_enforceable(link));
                    }
                }
            }
            Self::Uplinks => {
                let known = KnownUplinks::of(host);
                for link in host.links.values() {
                    selection.decide(link, not_an_uplink(host, link, &known));
                }
            }
        }
        selection
    }

    /// Names the selector for a message.
    pub fn describe(&self) -> String {
        match self {
            Self::Matching(patterns) => {
                patterns.iter().map(|pattern| format!("'{pattern}'")).collect::<Vec<_>>().join(" or ")
            }
            Self::Uplinks => "--all".to_owned(),
        }
    }
}

impl Selection {
    fn decide(&mut self, link: &Link, objection: Option<&'static str>) {
        match objection {
            None => {
                self.enforced.insert(link.index);
            }
            Some(reason) => {
                self.left_out.insert(link.index, reason);
            }
        }
    }
}

fn not_enforceable(link: &Link) -> Option<&'static str> {
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

fn not_an_uplink(host: &Host, link: &Link, known: &KnownUplinks) -> Option<&'static str> {
    if let Some(reason) = not_enforceable(link) {
        return Some(reason);
    }
    let master = link.master.and_then(|master| host.links.get(&master));
    if master.is_some_and(|master| !matches!(master.kind, LinkKind::Vrf { .. })) {
        return Some(PORT);
    }
    if link.kind == LinkKind::Tunnel {
        return Some(TUNNEL);
    }
    if link.kind == LinkKind::Stacked && is_virtual_router(link) {
        return Some(VIRTUAL_ROUTER);
    }
    if is_container_veth(link) {
        let is_container = known.surely || (known.veths && !known.with_subnet.contains(&link.index));
        return is_container.then_some(CONTAINER);
    }
    let bridges_containers = link.kind == LinkKind::Aggregate && !known.with_uplink.contains(&link.index);
    (bridges_containers && (known.surely || known.veths)).then_some(INSIDE_BRIDGE)
}

/// What ways out the host has.
struct KnownUplinks {
    /// A device that is neither a veth nor made of veths.
    surely: bool,
    /// A veth to another namespace, no port, with an address in a subnet: a container's uplink.
    veths: bool,
    /// Interfaces with an address in a subnet, as uplinks have one. A container's end on its node has none, or one for
    /// itself alone.
    with_subnet: BTreeSet<u32>,
    /// Bridges, bonds and teams with a port that faces outward.
    with_uplink: BTreeSet<u32>,
}

impl KnownUplinks {
    fn of(host: &Host) -> Self {
        let in_subnet = |address: &&Address| {
            address.subnet.prefix_len() < address.subnet.max_prefix_len() && !is_link_local(address.local)
        };
        let with_subnet: BTreeSet<u32> =
            host.addresses.iter().filter(in_subnet).map(|address| address.ifindex).collect();
        let faces_outward =
            |port: &&Link| !matches!(port.kind, LinkKind::Veth | LinkKind::Tunnel | LinkKind::Dummy);
        let surely = |link: &Link| {
            not_enforceable(link).is_none()
                && !matches!(link.kind, LinkKind::Veth | LinkKind::Aggregate | LinkKind::Tunnel)
        };
        let veth = |link: &Link| {
            is_container_veth(link) && link.master.is_none() && with_subnet.contains(&link.index)
        };
        Self {
            surely: host.links.values().any(surely),
            veths: host.links.values().any(veth),
            with_uplink: host.links.values().filter(faces_outward).filter_map(|port| port.master).collect(),
            with_subnet,
        }
    }
}

fn is_container_veth(link: &Link) -> bool {
    link.kind == LinkKind::Veth && link.link_elsewhere
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
mod tests {
    use super::*;
    use crate::model::testing::{address, host, link, port, stacked};

    fn veth_to_elsewhere(index: u32) -> Link {
        Link { link_elsewhere: true, ..link(index, LinkKind::Veth) }
    }

    fn uplinks(host: &Host) -> Vec<u32> {
        Selector::Uplinks.select(host).enforced.into_iter().collect()
    }

    #[test]
    fn names_match_by_glob() {
        let host = host([link(2, LinkKind::Other), link(3, LinkKind::Other), link(30, LinkKind::Other)], []);
        let selector = Selector::Matching(vec![Pattern::new("eth?").expect("a pattern")]);
        assert_eq!(selector.select(&host).enforced, BTreeSet::from([2, 3]));
    }

    #[test]
    fn in_a_container_the_veth_is_the_uplink() {
        let host = host([link(1, LinkKind::Loopback), veth_to_elsewhere(2), veth_to_elsewhere(3)], []);
        assert_eq!(uplinks(&host), [2, 3]);
    }

    #[test]
    fn in_a_container_that_is_a_node_itself_its_own_containers_are_left_alone() {
        let bridge_port = Link { master: Some(5), ..veth_to_elsewhere(6) };
        let links =
            [veth_to_elsewhere(2), veth_to_elsewhere(3), veth_to_elsewhere(4), link(5, LinkKind::Aggregate)];
        let addresses = [
            address(2, "172.18.0.2/16"),
            address(3, "169.254.1.1/32"),
            address(3, "fe80::3/64"),
            address(5, "10.244.0.1/24"),
        ];
        let host = host(links.into_iter().chain([bridge_port]), addresses);
        assert_eq!(uplinks(&host), [2]);
    }

    #[test]
    fn on_a_container_node_the_veths_and_their_bridge_are_left_alone() {
        let mut port = veth_to_elsewhere(5);
        port.master = Some(4);
        let host = host(
            [
                link(1, LinkKind::Loopback),
                link(2, LinkKind::Other),
                veth_to_elsewhere(3),
                link(4, LinkKind::Aggregate),
                port,
            ],
            [],
        );
        assert_eq!(uplinks(&host), [2]);
        let left_out = Selector::Uplinks.select(&host).left_out;
        assert_eq!(left_out[&3], CONTAINER);
        assert_eq!(left_out[&4], INSIDE_BRIDGE);
        assert_eq!(left_out[&5], PORT);
    }

    #[test]
    fn tunnels_virtual_routers_and_vrfs_are_no_uplinks() {
        let bare = Link { framing: Framing::Bare, ..link(3, LinkKind::Tunnel) };
        let virtual_router = Link { mac: Some([0, 0, 0x5e, 0, 1, 51]), ..stacked(5, 2) };
        let in_vrf = port(8, 7);
        let links = [
            link(2, LinkKind::Other),
            bare,
            link(4, LinkKind::Tunnel),
            virtual_router,
            stacked(6, 2),
            link(7, LinkKind::Vrf { table: 10 }),
            in_vrf,
        ];
        let host = host(links, []);
        assert_eq!(uplinks(&host), [2, 6, 8]);
        let left_out = Selector::Uplinks.select(&host).left_out;
        assert_eq!([3, 4, 5, 7].map(|index| left_out[&index]), [TUNNEL, TUNNEL, VIRTUAL_ROUTER, VRF]);
        let all = Selector::Matching(vec![Pattern::new("*").expect("a pattern")]);
        assert_eq!(all.select(&host).left_out, BTreeMap::from([(7, VRF)]));
    }

    #[test]
    fn a_bond_is_an_uplink_and_its_ports_are_not() {
        let mut port = link(2, LinkKind::Other);
        port.master = Some(9);
        let host = host([port, link(9, LinkKind::Aggregate)], []);
        assert_eq!(uplinks(&host), [9]);
    }

    #[test]
    fn shared_subnets_are_found() {
        let host = host(
            [link(2, LinkKind::Other), link(3, LinkKind::Other), link(4, LinkKind::Other)],
            [
                address(2, "192.168.0.100/21"),
                address(3, "192.168.0.101/21"),
                address(4, "10.0.0.1/8"),
                address(3, "fe80::3/64"),
                address(4, "fe80::4/64"),
            ],
        );
        let shared = shared_subnets(&host);
        assert_eq!(shared.len(), 1);
        assert_eq!(shared.values().next(), Some(&BTreeSet::from([2, 3])));
    }
}
