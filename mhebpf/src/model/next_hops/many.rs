//! Next hops of very many routes, of which only what changes is computed anew.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
    rc::Rc,
};

use ipnet::IpNet;

use super::{NextHops, by_weight, of_routes};
use crate::model::{
    host::{Host, Metrics, Route, prefix},
    leaves::{Leaf, Leaves, Use},
    tables::Hops,
};

/// What owners have for a prefix: the owner and a number for its hops, in the order of the owners.
type OfOwners = Rc<[(u32, u32)]>;

/// The entries for [`Leaves`], as they are written.
///
/// Whatever share its hops with others has the same next hops, so there is little to compute but which entries are repetitions:
/// what the next shorter prefix says for the owner is not written.
#[derive(Debug, Default)]
pub struct ManyNextHops {
    host: Rc<Host>,
    owners: BTreeSet<u32>,
    /// The next hops of all other routes, which are written by others, by prefix.
    others: BTreeMap<IpNet, OfOwners>,
    /// Those of what there are routes of.
    of_uses: HashMap<Use, OfOwners>,
    hops: Numbers<Hops>,
    /// What was written for routes. The first one is nothing.
    written: Numbers<OfOwners>,
    /// Of IPv4, and of IPv6.
    entries: [usize; 2],
    /// All is to be looked at, and not only what has changed.
    is_behind: bool,
    /// Prefixes for which others say something else than before.
    around_changed: BTreeSet<IpNet>,
}

/// An entry that is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The owner.
    pub owner: u32,
    /// The destinations.
    pub prefix: IpNet,
    /// What was there.
    pub before: Option<Hops>,
    /// What is to be there.
    pub after: Option<Hops>,
}

impl ManyNextHops {
    /// How many entries there are, of IPv4 and of IPv6.
    pub fn entries(&self) -> [usize; 2] {
        self.entries
    }

    /// Has `owners` on `host` from now on, where all other routes give the entries `others`.
    pub fn set(
        &mut self,
        host: &Rc<Host>,
        owners: &BTreeSet<u32>,
        others: impl Iterator<Item = (u32, IpNet, Hops)>,
        leaves: &Leaves,
    ) {
        self.host = Rc::clone(host);
        self.owners.clone_from(owners);
        let mut by_prefix: BTreeMap<IpNet, Vec<(u32, u32)>> = BTreeMap::new();
        for (owner, prefix, hops) in others {
            by_prefix.entry(prefix).or_default().push((owner, self.hops.of(hops)));
        }
        let others: BTreeMap<IpNet, OfOwners> = by_prefix
            .into_iter()
            .map(|(prefix, mut of_owners)| {
                of_owners.sort_unstable();
                (prefix, of_owners.into())
            })
            .collect();
        let before = std::mem::replace(&mut self.others, others);
        let changed = |(prefix, _): &(&IpNet, &OfOwners)| before.get(prefix) != self.others.get(prefix);
        let changed = before.iter().chain(&self.others).filter(changed).map(|(prefix, _)| *prefix);
        self.around_changed.extend(changed);
        let before = std::mem::take(&mut self.of_uses);
        self.learn(leaves, leaves.uses().collect());
        self.is_behind |= self.of_uses.iter().any(|(each, now)| before.get(each).is_some_and(|b| b != now));
    }

    /// Brings the entries in step with the routes, and tells what is to be written for that.
    pub fn follow(&mut self, leaves: &mut Leaves, write: &mut dyn FnMut(Change)) {
        let unknown: Vec<Use> = leaves.uses().filter(|each| !self.of_uses.contains_key(each)).collect();
        if !unknown.is_empty() {
            self.learn(leaves, unknown);
        }
        let changed = leaves.take_changed();
        for (prefix, written) in &changed {
            if *written != 0 {
                // One that is there again has been written by nobody.
                self.change(*prefix, *written, 0, write);
            }
        }
        let around = std::mem::take(&mut self.around_changed);
        if std::mem::take(&mut self.is_behind) {
            for all in ["0.0.0.0/0", "::/0"].into_iter().filter_map(|all| all.parse().ok()) {
                self.look(leaves, all, write);
            }
            return;
        }
        let mut done: Option<IpNet> = None;
        let prefixes: BTreeSet<IpNet> = around.into_iter().chain(changed.into_keys()).collect();
        for prefix in prefixes {
            // With a prefix all inside it is looked at, as it may say the same or not any more.
            if done.is_none_or(|done| !done.contains(&prefix)) {
                self.look(leaves, prefix, write);
                done = Some(prefix);
            }
        }
    }

    /// Tells all entries that are written, for another place to have them as well.
    pub fn repeat(&self, leaves: &mut Leaves, write: &mut dyn FnMut(Change)) {
        for (prefix, leaf) in leaves.by_prefix().iter() {
            for (owner, hops) in self.entries_of(leaf.written).iter() {
                write(Change { owner: *owner, prefix: *prefix, before: None, after: self.hops.get(*hops) });
            }
        }
    }

    /// Finds the next hops of what there are routes of: those of a route like them to somewhere.
    fn learn(&mut self, leaves: &Leaves, uses: Vec<Use>) {
        let stand_in = |number: usize, each: Use| {
            let number = number as u32;
            let address: IpAddr = if each.ipv4 {
                Ipv4Addr::from_bits(number).into()
            } else {
                Ipv6Addr::from_bits(number.into()).into()
            };
            IpNet::from(address)
        };
        let mut routes: Vec<Route> = self.host.routes.clone();
        let are_meant = routes.len();
        routes.extend(uses.iter().enumerate().map(|(number, each)| Route {
            table: each.table,
            destination: stand_in(number, *each),
            metric: 0,
            preference: 0,
            hops: leaves.hops(*each).to_vec(),
            metrics: Metrics::default(),
        }));
        // No other route to them counts.
        let places: BTreeSet<IpNet> = routes[are_meant..].iter().map(|route| route.destination).collect();
        let mut place = 0;
        routes.retain(|route| {
            place += 1;
            place > are_meant || !places.contains(&route.destination)
        });
        let mut found: NextHops = of_routes(&self.host, &routes, &self.owners);
        for (number, each) in uses.into_iter().enumerate() {
            let destination = stand_in(number, each);
            let of_owner = |owner: &u32| {
                let hops = found.remove(&(*owner, destination))?;
                Some((*owner, self.hops.of(by_weight(&hops))))
            };
            let of_owners: OfOwners = self.owners.iter().filter_map(of_owner).collect();
            self.of_uses.insert(each, of_owners);
        }
    }

    /// Looks at all routes to prefixes within this one.
    fn look(&mut self, leaves: &mut Leaves, within: IpNet, write: &mut dyn FnMut(Change)) {
        let mut around = self.around(leaves, within);
        let range = range_of(within);
        let others: Vec<(IpNet, OfOwners)> =
            self.others.range(range.clone()).map(|(prefix, of)| (*prefix, Rc::clone(of))).collect();
        let mut others = others.into_iter().peekable();
        let mut rewritten = Vec::new();
        for (destination, leaf) in leaves.by_prefix().range_mut(range) {
            while let Some((other, of_owners)) = others.next_if(|(other, _)| other <= destination) {
                enter(&mut around, other, of_owners);
            }
            let of_owners = self.of_use(leaf, *destination);
            leave(&mut around, destination);
            let is_new = |(owner, hops): &&(u32, u32)| said(&around, *owner) != Some(*hops);
            let wanted: OfOwners = of_owners.iter().filter(is_new).copied().collect();
            let wanted = if wanted.is_empty() { 0 } else { self.written.of(wanted) + 1 };
            if wanted != leaf.written {
                rewritten.push((*destination, leaf.written, wanted));
                leaf.written = wanted;
            }
            around.push((*destination, of_owners));
        }
        for (prefix, before, after) in rewritten {
            self.change(prefix, before, after, write);
        }
    }

    fn of_use(&self, leaf: &Leaf, destination: IpNet) -> OfOwners {
        self.of_uses.get(&leaf.as_use(destination)).cloned().unwrap_or_else(|| Rc::new([]))
    }

    /// What is said for shorter prefixes around this one.
    fn around(&self, leaves: &mut Leaves, within: IpNet) -> Vec<(IpNet, OfOwners)> {
        let mut around = Vec::new();
        for length in 0..within.prefix_len() {
            let outer = prefix(within.addr(), length);
            let of_leaf = leaves.by_prefix().get(&outer).map(|leaf| self.of_use(leaf, outer));
            if let Some(of_owners) = of_leaf.or_else(|| self.others.get(&outer).cloned()) {
                around.push((outer, of_owners));
            }
        }
        around
    }

    fn change(&mut self, prefix: IpNet, before: u32, after: u32, write: &mut dyn FnMut(Change)) {
        let [before, after] = [before, after].map(|written| self.entries_of(written));
        let entries = &mut self.entries[usize::from(prefix.addr().is_ipv6())];
        *entries = *entries + after.len() - before.len();
        for (owner, hops) in before.iter().filter(|(owner, _)| find(&after, *owner).is_none()) {
            write(Change { owner: *owner, prefix, before: self.hops.get(*hops), after: None });
        }
        for (owner, hops) in after.iter() {
            let before = find(&before, *owner);
            if before != Some(*hops) {
                let before = before.and_then(|before| self.hops.get(before));
                write(Change { owner: *owner, prefix, before, after: self.hops.get(*hops) });
            }
        }
    }

    fn entries_of(&self, written: u32) -> OfOwners {
        written.checked_sub(1).and_then(|place| self.written.get(place)).unwrap_or_else(|| Rc::new([]))
    }
}

/// What shorter prefixes say for an owner.
fn said(around: &[(IpNet, OfOwners)], owner: u32) -> Option<u32> {
    around.iter().rev().find_map(|(_, of_owners)| find(of_owners, owner))
}

fn find(of_owners: &[(u32, u32)], owner: u32) -> Option<u32> {
    of_owners.binary_search_by_key(&owner, |(owner, _)| *owner).ok().map(|place| of_owners[place].1)
}

fn leave(around: &mut Vec<(IpNet, OfOwners)>, prefix: &IpNet) {
    while around.last().is_some_and(|(outer, _)| !outer.contains(prefix)) {
        around.pop();
    }
}

fn enter(around: &mut Vec<(IpNet, OfOwners)>, prefix: IpNet, of_owners: OfOwners) {
    leave(around, &prefix);
    around.push((prefix, of_owners));
}

/// All prefixes within one, itself included.
fn range_of(within: IpNet) -> RangeInclusive<IpNet> {
    let last = match within {
        IpNet::V4(net) => IpAddr::from(net.broadcast()),
        IpNet::V6(net) => IpAddr::from(net.broadcast()),
    };
    within..=IpNet::from(last)
}

/// Values that are few, each with a number.
#[derive(Debug)]
struct Numbers<T> {
    values: Vec<T>,
    numbers: HashMap<T, u32>,
}

impl<T> Default for Numbers<T> {
    fn default() -> Self {
        Self { values: Vec::new(), numbers: HashMap::new() }
    }
}

impl<T: Clone + Eq + std::hash::Hash> Numbers<T> {
    fn of(&mut self, value: T) -> u32 {
        if let Some(number) = self.numbers.get(&value) {
            return *number;
        }
        let number = self.values.len() as u32;
        self.values.push(value.clone());
        self.numbers.insert(value, number);
        number
    }

    fn get(&self, number: u32) -> Option<T> {
        self.values.get(number as usize).cloned()
    }
}

#[cfg(test)]
mod tests;
