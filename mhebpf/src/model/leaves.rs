//! Routes through gateways, of hosts that have very many of them.
//!
//! Whatever else is on a host is little beside them, and they say nothing but where packets go: not what is an uplink, nor what is
//! on-link. They are kept in a form that takes little memory, and what has changed since the last look is known.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;

use super::host::{Hop, Metrics, Route};

/// One route for each prefix. Prefixes with more than one are not kept here.
#[derive(Debug, Default)]
pub struct Leaves {
    by_prefix: BTreeMap<IpNet, Leaf>,
    shared: Vec<Arc<Shared>>,
    places: HashMap<Arc<Shared>, u32>,
    uses: BTreeMap<Use, usize>,
    /// The prefixes whose routes have changed, with what was written for them when that was a route that is gone.
    changed: BTreeMap<IpNet, u32>,
}

/// A route. It takes 20 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The routing table.
    pub table: u32,
    /// The metric.
    pub metric: u32,
    /// Where what it shares with others is.
    shared: u32,
    /// By what [`super::next_hops::ManyNextHops`] knows the entries that it has written for it; 0 for none.
    pub(super) written: u32,
    /// The last dump that had it, or the event after that.
    generation: u8,
}

/// What routes share (`struct fib_info` of the kernel).
#[derive(Debug, PartialEq, Eq, Hash)]
struct Shared {
    hops: Vec<Hop>,
    metrics: Metrics,
    preference: i8,
}

/// What there are routes of: a table, what they share, and whether they are of IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Use {
    /// The routing table.
    pub table: u32,
    shared: u32,
    /// For IPv4, and not IPv6.
    pub ipv4: bool,
}

impl Leaf {
    /// What it is a route of.
    pub(super) fn as_use(&self, prefix: IpNet) -> Use {
        Use { table: self.table, shared: self.shared, ipv4: prefix.addr().is_ipv4() }
    }
}

impl Leaves {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_prefix.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_prefix.is_empty()
    }

    /// The route to exactly this prefix.
    pub fn get(&self, prefix: IpNet) -> Option<Route> {
        self.by_prefix.get(&prefix).map(|leaf| self.route(prefix, leaf))
    }

    /// All of them, shorter prefixes before those inside them.
    pub fn iter(&self) -> impl Iterator<Item = Route> {
        self.by_prefix.iter().map(|(prefix, leaf)| self.route(*prefix, leaf))
    }

    /// Adds a route, or replaces the one to the same prefix, in this generation.
    pub fn insert(&mut self, route: Route, generation: u8) {
        let Route { table, destination, metric, preference, hops, metrics } = route;
        let shared = self.place(Shared { hops, metrics, preference });
        let before = self.by_prefix.get(&destination).copied();
        // One that was removed since the last look has its entries still.
        let removed = || self.changed.get_mut(&destination).map(std::mem::take).unwrap_or_default();
        let written = before.map_or_else(removed, |before| before.written);
        let leaf = Leaf { table, metric, shared, written, generation };
        if before.is_some_and(|before| Leaf { generation, ..before } == leaf) {
            self.by_prefix.insert(destination, leaf);
            return;
        }
        if let Some(before) = before {
            self.uncount(before.as_use(destination));
        }
        *self.uses.entry(leaf.as_use(destination)).or_default() += 1;
        self.by_prefix.insert(destination, leaf);
        self.changed.entry(destination).or_default();
    }

    /// Removes the route to a prefix.
    pub fn remove(&mut self, prefix: IpNet) -> Option<Route> {
        let leaf = self.by_prefix.remove(&prefix)?;
        self.uncount(leaf.as_use(prefix));
        let written = self.changed.entry(prefix).or_default();
        if leaf.written != 0 {
            *written = leaf.written;
        }
        Some(self.route(prefix, &leaf))
    }

    /// Whether the route to a prefix is of this generation.
    pub fn is_of(&self, prefix: IpNet, generation: u8) -> bool {
        self.by_prefix.get(&prefix).is_some_and(|leaf| leaf.generation == generation)
    }

    /// The prefixes of routes that are not of this generation.
    pub fn older_than(&self, generation: u8) -> Vec<IpNet> {
        let old = self.by_prefix.iter().filter(|(_, leaf)| leaf.generation != generation);
        old.map(|(prefix, _)| *prefix).collect()
    }

    /// What there are routes of: few, however many routes there are.
    pub fn uses(&self) -> impl Iterator<Item = Use> {
        self.uses.keys().copied()
    }

    /// The hops of such routes.
    pub fn hops(&self, each: Use) -> &[Hop] {
        self.shared.get(each.shared as usize).map_or(&[], |shared| &shared.hops)
    }

    /// The interfaces that they lead through: the table, the index, and whether it is for IPv4.
    pub fn interfaces(&self) -> BTreeSet<(u32, u32, bool)> {
        let interfaces =
            |each: Use| self.hops(each).iter().map(move |hop| (each.table, hop.ifindex, each.ipv4));
        self.uses().flat_map(interfaces).collect()
    }

    /// The gateways among which the kernel chooses by whether they answer: see [`super::next_hops::choices`].
    pub fn choices(&self, ipv4_by_neighbours: bool) -> impl Iterator<Item = IpAddr> {
        let uses = self.uses().filter(move |each| !each.ipv4 || ipv4_by_neighbours);
        let hops = uses.map(|each| self.hops(each)).filter(|hops| hops.len() > 1);
        hops.flatten().filter_map(|hop| hop.gateway)
    }

    /// Whether some have changed since [`Leaves::take_changed`].
    pub fn have_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// The prefixes that have changed since the last call.
    pub(super) fn take_changed(&mut self) -> BTreeMap<IpNet, u32> {
        std::mem::take(&mut self.changed)
    }

    /// The map itself, for what is written for each.
    pub(super) fn by_prefix(&mut self) -> &mut BTreeMap<IpNet, Leaf> {
        &mut self.by_prefix
    }

    fn route(&self, destination: IpNet, leaf: &Leaf) -> Route {
        let shared = self.shared.get(leaf.shared as usize);
        Route {
            table: leaf.table,
            destination,
            metric: leaf.metric,
            preference: shared.map_or(0, |shared| shared.preference),
            hops: shared.map_or_else(Vec::new, |shared| shared.hops.clone()),
            metrics: shared.map_or_else(Metrics::default, |shared| shared.metrics.clone()),
        }
    }

    fn place(&mut self, shared: Shared) -> u32 {
        if let Some(place) = self.places.get(&shared) {
            return *place;
        }
        let shared = Arc::new(shared);
        let place = self.shared.len() as u32;
        self.shared.push(Arc::clone(&shared));
        self.places.insert(shared, place);
        place
    }

    fn uncount(&mut self, each: Use) {
        if let Some(count) = self.uses.get_mut(&each) {
            *count -= 1;
            if *count == 0 {
                self.uses.remove(&each);
            }
        }
    }
}
