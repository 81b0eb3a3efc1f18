//! Which interfaces are enforced.

use std::collections::{BTreeMap, BTreeSet};

use glob::Pattern;

use super::{
    host::Host,
    uplinks::{Uplinks, not_enforceable},
};

/// How the operator names the interfaces to enforce.
#[derive(Clone, Debug)]
pub enum Selector {
    /// Those whose name matches one of the patterns.
    Matching(Vec<Pattern>),
    /// The uplinks.
    Uplinks {
        /// The downlinks as well.
        downlinks: bool,
    },
}

/// The outcome of a selection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// The ifindices of the enforced interfaces.
    pub enforced: BTreeSet<u32>,
    /// Interfaces that are left out, each with the reason.
    pub left_out: BTreeMap<u32, &'static str>,
    /// All uplinks and downlinks of the host, enforced or not.
    pub host: Uplinks,
}

impl Selector {
    /// Selects among the links of `host`.
    ///
    /// Matching names take every device that a packet can leave by; of the others they say why not. Uplinks are told by
    /// [`Uplinks`].
    pub fn select(&self, host: &Host) -> Selection {
        let known = Uplinks::of(host);
        let mut selection = Selection::default();
        match self {
            Self::Matching(patterns) => {
                for link in host.links.values() {
                    if !patterns.iter().any(|pattern| pattern.matches(&link.name)) {
                        continue;
                    }
                    match not_enforceable(link) {
                        None => _ = selection.enforced.insert(link.index),
                        Some(reason) => _ = selection.left_out.insert(link.index, reason),
                    }
                }
            }
            Self::Uplinks { downlinks } => {
                selection.enforced.clone_from(&known.uplinks);
                selection.left_out.clone_from(&known.left_out);
                if *downlinks {
                    let is_downlink = |why: &&'static str| **why == *super::uplinks::DOWNLINK;
                    let taken = known.left_out.iter().filter(|(_, why)| is_downlink(why));
                    selection.enforced.extend(taken.map(|(ifindex, _)| *ifindex));
                    selection.left_out.retain(|ifindex, _| !selection.enforced.contains(ifindex));
                }
            }
        }
        selection.host = known;
        selection
    }

    /// Names the selector for a message.
    pub fn describe(&self) -> String {
        match self {
            Self::Matching(patterns) => {
                patterns.iter().map(|pattern| format!("'{pattern}'")).collect::<Vec<_>>().join(" or ")
            }
            Self::Uplinks { downlinks: false } => "--all".to_owned(),
            Self::Uplinks { downlinks: true } => "--all --downlinks".to_owned(),
        }
    }
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
