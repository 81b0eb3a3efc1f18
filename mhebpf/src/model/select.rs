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
    use crate::model::{
        LinkKind,
        testing::{address, host, link, port},
    };

    fn matching(pattern: &str) -> Selector {
        Selector::Matching(vec![Pattern::new(pattern).expect("a pattern")])
    }

    #[test]
    fn names_match_by_glob() {
        let host = host([2, 3, 30].map(|index| link(index, LinkKind::Wire)), []);
        assert_eq!(matching("eth?").select(&host).enforced, BTreeSet::from([2, 3]));
    }

    #[test]
    fn names_take_what_is_no_uplink_as_well_but_not_what_has_no_wire() {
        let links = [
            link(1, LinkKind::Loopback),
            link(2, LinkKind::Wire),
            link(3, LinkKind::Tunnel),
            port(4, 7),
            link(7, LinkKind::Vrf { table: 10 }),
        ];
        let selection = matching("*").select(&host(links, []));
        assert_eq!(selection.enforced, BTreeSet::from([2, 3, 4]));
        assert_eq!(selection.left_out.keys().copied().collect::<Vec<_>>(), [1, 7]);
    }

    #[test]
    fn downlinks_are_taken_where_they_are_asked_for() {
        let mut links = [2, 3].map(|index| link(index, LinkKind::Wire));
        links.iter_mut().for_each(|link| link.forwards = true);
        let host = host(links, [address(2, "10.0.0.2/24"), address(3, "10.0.1.3/24")]);
        let selected = |downlinks| Selector::Uplinks { downlinks }.select(&host);
        assert_eq!(selected(false).enforced, BTreeSet::new());
        assert_eq!((selected(true).enforced, selected(true).left_out), ([2, 3].into(), BTreeMap::new()));
    }
}
