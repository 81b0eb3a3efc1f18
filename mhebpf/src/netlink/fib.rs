//! The routes of a host that has very many: kept by their events, and compared with a dump from time to time.
//!
//! Some of what happens to routes has no event: those of IPv4 that go with an interface or with their preferred source address
//! (`fib_table_flush`, Linux 6.18), and events that found no room. A dump finds that.

use std::collections::{BTreeMap, HashMap, HashSet};

use ipnet::IpNet;

use super::{parse::AnyRoute, routes::PlacedRoute};
use crate::model::{
    Hop, Host, Leaves, Route,
    host::{is_default, is_link_local},
};

/// A routing table and a destination.
type Place = (u32, IpNet);

/// How a route came, by the flags of its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// In place of another one with the same metric (`NLM_F_REPLACE`).
    Instead,
    /// Behind others with the same metric (`NLM_F_APPEND`).
    Behind,
    /// In front of them.
    InFront,
}

/// What an event says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RouteEvent {
    /// There is a new route.
    New(AnyRoute, Added),
    /// A route is gone.
    Gone(AnyRoute),
    /// Something that only a dump can tell.
    Unclear,
}

/// The routes of a host.
#[derive(Debug, Default)]
pub(super) struct Fib {
    /// Those that say nothing but where packets go.
    pub(super) leaves: Leaves,
    /// All others, each with the generation in which it was seen last.
    others: BTreeMap<Place, Vec<(AnyRoute, u8)>>,
    /// How many of the others there are to a prefix, in whatever table.
    others_to: HashMap<IpNet, usize>,
    generation: u8,
    /// What events have told of since the running dump began: what they say is younger.
    told: Option<HashSet<IpNet>>,
    others_have_changed: bool,
    /// Something may be wrong, which a dump finds out.
    pub(super) in_doubt: bool,
}

impl Fib {
    /// How many routes there are.
    pub(super) fn len(&self) -> usize {
        self.leaves.len() + self.others.values().map(Vec::len).sum::<usize>()
    }

    /// Whether routes have changed that say more than where packets go, since the last call.
    pub(super) fn take_others_have_changed(&mut self) -> bool {
        std::mem::take(&mut self.others_have_changed)
    }

    /// Adds what is not in the leaves to a host.
    pub(super) fn add_to(&self, host: &mut Host, placed: &mut Vec<PlacedRoute>) {
        host.leaves = self.leaves.interfaces();
        for (route, _) in self.others.values().flatten() {
            route.clone().add_to(host, placed);
        }
    }

    /// What follows up to [`Fib::end_dump`] is a dump, in which everything is.
    pub(super) fn begin_dump(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        self.told = Some(HashSet::new());
    }

    /// Takes a route from the dump.
    pub(super) fn dumped(&mut self, route: AnyRoute) {
        let (table, to) = place(&route);
        if self.told.as_ref().is_some_and(|told| told.contains(&to)) {
            return;
        }
        let generation = self.generation;
        if let Some(list) = self.others.get_mut(&(table, to)) {
            // They are in the order in which the kernel tries them: those that were dumped, then those that may be gone.
            let at = list.iter().filter(|(_, seen)| *seen == generation).count();
            match list.iter().position(|(known, seen)| *known == route && *seen != generation) {
                Some(before) => {
                    self.others_have_changed |= before != at;
                    list.remove(before);
                }
                None => {
                    *self.others_to.entry(to).or_default() += 1;
                    self.others_have_changed = true;
                }
            }
            list.insert(at, (route, generation));
            return;
        }
        match (leaf(&route), self.leaves.get(to)) {
            (Some(leaf), None) if !self.others_to.contains_key(&to) => {
                self.leaves.insert(leaf.clone(), generation);
            }
            // Another one that was seen in this dump is there beside it; one that was not seems to be gone.
            (Some(leaf), Some(known)) if known == *leaf || !self.leaves.is_of(to, generation) => {
                self.leaves.insert(leaf.clone(), generation);
            }
            _ => self.add_other(route, Vec::len),
        }
    }

    /// The dump is at its end. What it had not is gone, unless it was interrupted.
    pub(super) fn end_dump(&mut self, exact: bool) {
        let told = self.told.take().unwrap_or_default();
        self.in_doubt |= !exact;
        if !exact {
            return;
        }
        let generation = self.generation;
        for to in self.leaves.older_than(generation) {
            if !told.contains(&to) {
                self.leaves.remove(to);
            }
        }
        let mut gone = Vec::new();
        for ((table, to), list) in &mut self.others {
            if !told.contains(to) {
                let before = list.len();
                list.retain(|(_, seen)| *seen == generation);
                if list.len() < before {
                    gone.push(((*table, *to), before - list.len()));
                }
            }
        }
        for (place, count) in gone {
            self.have_gone(place, count);
        }
    }

    /// Follows an event.
    pub(super) fn follow(&mut self, event: RouteEvent) {
        let route = match &event {
            RouteEvent::New(route, _) | RouteEvent::Gone(route) => route,
            RouteEvent::Unclear => {
                self.in_doubt = true;
                return;
            }
        };
        let (_, to) = place(route);
        if let Some(told) = &mut self.told {
            told.insert(to);
        }
        match event {
            RouteEvent::New(route, added) => self.add(route, added),
            RouteEvent::Gone(route) => self.remove(&route),
            RouteEvent::Unclear => {}
        }
    }

    fn add(&mut self, route: AnyRoute, added: Added) {
        let (table, to) = place(&route);
        // Where one like it is there, it may be another one, which differs in what is not read: a preferred source, say.
        let is_known = |known: &AnyRoute| *known == route;
        let of_others =
            self.others.get(&(table, to)).is_some_and(|list| list.iter().any(|(known, _)| is_known(known)));
        let of_leaves = || self.leaves.get(to).is_some_and(|known| leaf(&route) == Some(&known));
        self.in_doubt |= added != Added::Instead && to.addr().is_ipv4() && (of_others || of_leaves());
        if let Some(known) = self.leaves.get(to) {
            if let Some(leaf) = leaf(&route)
                && known.table == table
                && known.metric == leaf.metric
                && (added == Added::Instead || includes(leaf, &known))
            {
                self.leaves.insert(leaf.clone(), self.generation);
                return;
            }
            if added == Added::Instead && known.table == table && known.metric == metric(&route) {
                self.leaves.remove(to);
            }
        } else if let Some(leaf) = leaf(&route)
            && !self.others_to.contains_key(&to)
        {
            self.leaves.insert(leaf.clone(), self.generation);
            return;
        }
        let generation = self.generation;
        let list = self.others.get_mut(&(table, to));
        let metric = metric(&route);
        if let Some(list) = list {
            // Which of several it replaces, and whether it alone, depends on more than is known here.
            let alike = list.iter().filter(|(known, _)| self::metric(known) == metric).count();
            self.in_doubt |= added == Added::Instead && alike > 1;
            let is_instead = |(known, _): &&mut (AnyRoute, u8)| match (unicast(known), unicast(&route)) {
                (Some(known), Some(route)) if known.metric == route.metric && includes(route, known) => true,
                _ => added == Added::Instead && self::metric(known) == metric,
            };
            if let Some(known) = list.iter_mut().find(is_instead) {
                self.others_have_changed |= known.0 != route;
                *known = (route, generation);
                return;
            }
            if list.iter().any(|(known, _)| *known == route) {
                // Blackhole and unreachable are the same here, for one.
                self.in_doubt |= unicast(&route).is_none();
                return;
            }
        }
        self.add_other(route, |list| {
            let is_same = |(known, _): &(AnyRoute, u8)| self::metric(known) == metric;
            match added {
                Added::InFront => list.iter().position(is_same).unwrap_or(list.len()),
                _ => list.iter().rposition(is_same).map_or(list.len(), |last| last + 1),
            }
        });
    }

    fn remove(&mut self, route: &AnyRoute) {
        let (table, to) = place(route);
        if let Some(known) = self.leaves.get(to) {
            match leaf(route) {
                Some(gone) if known.table == table && known.metric == gone.metric => {
                    match without(&known, gone) {
                        Some(left) => self.leaves.insert(left, self.generation),
                        None => drop(self.leaves.remove(to)),
                    }
                }
                _ => self.in_doubt = true,
            }
            return;
        }
        let Some(list) = self.others.get_mut(&(table, to)) else {
            // That a route is gone that is not known is no news.
            return;
        };
        self.others_have_changed = true;
        if let Some(at) = list.iter().position(|(known, _)| known == route) {
            list.remove(at);
            self.have_gone((table, to), 1);
            return;
        }
        let is_part = |known: &Route| unicast(route).is_some_and(|gone| known.metric == gone.metric);
        let at = list.iter().position(|(known, _)| unicast(known).is_some_and(is_part));
        match at.and_then(|at| Some((at, without(unicast(&list[at].0)?, unicast(route)?)))) {
            Some((at, Some(left))) => list[at] = (AnyRoute::Unicast(left), self.generation),
            Some((at, None)) => {
                list.remove(at);
                self.have_gone((table, to), 1);
            }
            None => self.in_doubt = true,
        }
    }

    /// Adds a route to the others, at a place in the list of its destination. With it goes one of the leaves.
    fn add_other(&mut self, route: AnyRoute, at: impl FnOnce(&Vec<(AnyRoute, u8)>) -> usize) {
        let (table, to) = place(&route);
        if let Some(leaf) = self.leaves.remove(to) {
            self.others.entry((leaf.table, to)).or_default().push((AnyRoute::Unicast(leaf), self.generation));
            *self.others_to.entry(to).or_default() += 1;
        }
        let list = self.others.entry((table, to)).or_default();
        let at = at(list);
        list.insert(at, (route, self.generation));
        *self.others_to.entry(to).or_default() += 1;
        self.others_have_changed = true;
    }

    /// Some of the others have gone from a place. The last one may be one for the leaves.
    fn have_gone(&mut self, place: Place, count: usize) {
        self.others_have_changed = true;
        if self.others.get(&place).is_some_and(Vec::is_empty) {
            self.others.remove(&place);
        }
        let (_, to) = place;
        let left = self.others_to.get(&to).map_or(0, |known| known.saturating_sub(count));
        self.others_to.insert(to, left);
        if left == 0 {
            self.others_to.remove(&to);
        } else if left == 1
            && let Some((place, list)) = self.others.iter().find(|((_, other), _)| *other == to)
            && let Some(last) = list.first().and_then(|(route, _)| leaf(route)).cloned()
        {
            let place = *place;
            self.others.remove(&place);
            self.others_to.remove(&to);
            self.leaves.insert(last, self.generation);
        }
    }
}

/// Where a route is.
fn place(route: &AnyRoute) -> Place {
    match route {
        AnyRoute::Unicast(route) | AnyRoute::Both(route, _) => (route.table, route.destination),
        AnyRoute::Other(other) => (crate::model::host::MAIN_TABLE, other.destination),
        AnyRoute::Placed(placed) => (placed.table, placed.destination),
        // Of no table that there can be beside them.
        AnyRoute::Local(routes) => routes.first().map_or((0, IpNet::default()), |route| (0, route.prefix)),
    }
}

fn metric(route: &AnyRoute) -> u32 {
    match route {
        AnyRoute::Unicast(route) | AnyRoute::Both(route, _) => route.metric,
        AnyRoute::Other(other) => other.metric,
        AnyRoute::Placed(placed) => placed.metric,
        AnyRoute::Local(_) => 0,
    }
}

fn unicast(route: &AnyRoute) -> Option<&Route> {
    match route {
        AnyRoute::Unicast(route) => Some(route),
        _ => None,
    }
}

/// A route that says nothing but where packets to some destinations go.
fn leaf(route: &AnyRoute) -> Option<&Route> {
    let is_leaf = |route: &&Route| {
        !is_default(&route.destination)
            && !is_link_local(route.destination.addr())
            && !route.destination.addr().is_multicast()
            && route.hops.iter().all(|hop| hop.gateway.is_some())
    };
    unicast(route).filter(is_leaf)
}

/// Whether a route has all hops of another: it is that one with more of them, as IPv6 tells of one that is appended.
fn includes(route: &Route, known: &Route) -> bool {
    let is_more = route.destination.addr().is_ipv6() || route.hops.len() == known.hops.len();
    is_more && known.hops.iter().all(|hop| route.hops.contains(hop))
}

/// A route without the hops of another: IPv6 tells of one that is taken out of several.
fn without(known: &Route, gone: &Route) -> Option<Route> {
    let is_gone =
        |hop: &Hop| gone.hops.iter().any(|gone| (gone.ifindex, gone.gateway) == (hop.ifindex, hop.gateway));
    let mut hops: Vec<Hop> = known.hops.iter().filter(|hop| !is_gone(hop)).copied().collect();
    if let [only] = hops.as_mut_slice() {
        // Nothing is said of the weight of a single one.
        only.weight = 1;
    }
    let is_part = known.destination.addr().is_ipv6() && !hops.is_empty() && hops.len() < known.hops.len();
    is_part.then(|| Route { hops, ..known.clone() })
}
