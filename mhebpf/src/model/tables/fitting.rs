//! What is left out where the maps have no room for all.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use mhebpf_ebpf::{DIRECT_IFACES, FurtherOwnerKey, Iface, Owners, OwnersKey, Unknown};

use super::{Entries, FamilyTables, Tables, WireAddress};

/// What has no room, by ifindex; 0 is for the addresses that every interface owns.
pub type LeftOut = BTreeMap<u32, Missing>;

/// What is left out of an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// So many of its addresses and prefixes are foreign to all interfaces.
    pub addresses: usize,
    /// Nothing is enforced on it.
    pub is_unjudged: bool,
}

/// Tables that there is room for, and what is missing in them.
///
/// Interfaces are in them as a whole or not at all: the enforced ones first, then those that own addresses, each by ifindex. A smaller
/// one may be in place of one before that is too large. Single addresses that the hash maps have no room for go to the tries, where
/// finding them takes longer. What is left out is foreign, so it passes: no interface then drops foreign sources in a domain where
/// addresses are missing, nor has a prefix around one of these owners that it does not have itself.
pub fn fit(mut tables: Tables, room: Entries, enforced: &BTreeSet<u32>) -> (Tables, LeftOut) {
    if Entries::of(&tables).fit_in(room) {
        return (tables, LeftOut::new());
    }
    let mut left_out = LeftOut::new();
    let mut ranked: Vec<u32> = tables.ifaces.keys().copied().collect();
    ranked.sort_by_key(|ifindex| (!enforced.contains(ifindex), !tables.owners.contains(ifindex), *ifindex));
    leave_out_ifaces(&mut tables, room, &ranked, &mut left_out);

    let further: HashSet<FurtherOwnerKey> = std::mem::take(&mut tables.further_owners);
    let (carriers, sets): (Vec<_>, Vec<_>) =
        further.into_iter().partition(|key| key.set & FurtherOwnerKey::CARRIERS == FurtherOwnerKey::CARRIERS);
    let mut room = room;
    keep_carriers(&mut tables, &by(carriers, |key| key.ifindex), &mut room, &ranked, &mut left_out);

    let mut sets = Sets { members: by(sets, |key| key.set), kept: HashSet::new() };
    let mut ipv4 =
        Pool::new(std::mem::take(&mut tables.ipv4.owners), std::mem::take(&mut tables.ipv4.prefixes));
    let mut ipv6 =
        Pool::new(std::mem::take(&mut tables.ipv6.owners), std::mem::take(&mut tables.ipv6.prefixes));
    ranked.retain(|ifindex| tables.ifaces.contains_key(ifindex));
    // Those without an owner of their own last.
    ranked.push(NOBODY);
    for owner in ranked {
        let (of4, of6) = (ipv4.waiting_of(owner), ipv6.waiting_of(owner));
        let new_sets = sets.new_of(of4.iter().map(|each| each.1).chain(of6.iter().map(|each| each.1)));
        let further = sets.members_of(&new_sets);
        let (Some(fit4), Some(fit6)) =
            (fit_in(&of4, room.owners, room.prefixes), fit_in(&of6, room.owners6, room.prefixes6))
        else {
            continue;
        };
        if further.len() > room.further_owners {
            continue;
        }
        let taken = Entries {
            owners: fit4.singles,
            owners6: fit6.singles,
            prefixes: fit4.prefixes,
            prefixes6: fit6.prefixes,
            further_owners: further.len(),
            high_ifaces: 0,
        };
        room = room.with(taken, usize::saturating_sub);
        tables.further_owners.extend(further);
        sets.kept.extend(new_sets);
        ipv4.keep(&of4, fit4.is_in_trie, &mut tables.ipv4);
        ipv6.keep(&of6, fit6.is_in_trie, &mut tables.ipv6);
    }
    let mut lenient = BTreeSet::new();
    ipv4.note_missing(&mut tables.ipv4, &mut left_out, &mut lenient);
    ipv6.note_missing(&mut tables.ipv6, &mut left_out, &mut lenient);
    let domains4 = tables.ipv4.prefixes.keys().map(|(key, _)| key.domain);
    let domains6 = tables.ipv6.prefixes.keys().map(|(key, _)| key.domain);
    let with_prefixes: BTreeSet<u32> = domains4.chain(domains6).collect();
    for iface in tables.ifaces.values_mut() {
        if with_prefixes.contains(&iface.domain) {
            iface.flags |= Iface::PREFIXES;
        }
        if lenient.contains(&iface.domain) {
            iface.unknown = Unknown::Pass as u8;
        }
    }
    (tables, left_out)
}

/// In place of an ifindex, for addresses without an owner of their own.
const NOBODY: u32 = 0;

/// Leaves out the interfaces with a high index that come last.
fn leave_out_ifaces(tables: &mut Tables, room: Entries, ranked: &[u32], left_out: &mut LeftOut) {
    let high = ranked.iter().filter(|ifindex| **ifindex >= DIRECT_IFACES);
    for ifindex in high.skip(room.high_ifaces) {
        let iface = tables.ifaces.remove(ifindex);
        // Of others nobody asks anything.
        if iface.is_some_and(|iface| is_judged(&iface)) {
            left_out.entry(*ifindex).or_default().is_unjudged = true;
        }
    }
}

/// Keeps what crosses interfaces, without which own frames of the devices on them would be judged as strangers': an interface for which
/// there is no room is not judged.
fn keep_carriers(
    tables: &mut Tables,
    carriers: &HashMap<u32, Vec<FurtherOwnerKey>>,
    room: &mut Entries,
    ranked: &[u32],
    left_out: &mut LeftOut,
) {
    for ifindex in ranked {
        let (Some(keys), Some(iface)) = (carriers.get(ifindex), tables.ifaces.get_mut(ifindex)) else {
            continue;
        };
        if keys.len() <= room.further_owners {
            room.further_owners -= keys.len();
            tables.further_owners.extend(keys);
        } else {
            if is_judged(iface) {
                left_out.entry(*ifindex).or_default().is_unjudged = true;
            }
            let Iface { send, receive, announce, unknown, forwarded, .. } = Iface::EMPTY;
            *iface = Iface {
                send,
                receive,
                announce,
                unknown,
                forwarded,
                flags: iface.flags & !Iface::CARRIES,
                ..*iface
            };
        }
    }
}

fn is_judged(iface: &Iface) -> bool {
    let policy = |iface: &Iface| (iface.send, iface.receive, iface.announce, iface.forwarded);
    policy(iface) != policy(&Iface::EMPTY)
}

fn by<K: Eq + std::hash::Hash>(
    keys: Vec<FurtherOwnerKey>,
    of: impl Fn(&FurtherOwnerKey) -> K,
) -> HashMap<K, Vec<FurtherOwnerKey>> {
    let mut all: HashMap<K, Vec<FurtherOwnerKey>> = HashMap::new();
    for key in keys {
        all.entry(of(&key)).or_default().push(key);
    }
    all
}

/// Sets of owners by their names, and those that there is room for.
struct Sets {
    members: HashMap<u64, Vec<FurtherOwnerKey>>,
    kept: HashSet<u64>,
}

impl Sets {
    fn new_of(&self, owners: impl Iterator<Item = Owners>) -> BTreeSet<u64> {
        owners
            .filter(|owners| owners.has_further() && !self.kept.contains(&owners.set))
            .map(|owners| owners.set)
            .collect()
    }

    fn members_of(&self, sets: &BTreeSet<u64>) -> Vec<FurtherOwnerKey> {
        sets.iter().filter_map(|set| self.members.get(set)).flatten().copied().collect()
    }
}

/// An address or prefix with its length in bits.
type Place<A> = (OwnersKey<A>, u8);

/// The addresses of one family that wait for room.
struct Pool<A: WireAddress> {
    waiting: HashMap<Place<A>, Owners>,
    by_owner: HashMap<u32, Vec<Place<A>>>,
}

/// How much of the room some addresses take.
struct Fit {
    singles: usize,
    prefixes: usize,
    /// The single ones go to the trie.
    is_in_trie: bool,
}

impl<A: WireAddress> Pool<A> {
    fn new(singles: HashMap<OwnersKey<A>, Owners>, prefixes: HashMap<Place<A>, Owners>) -> Self {
        let mut waiting = prefixes;
        waiting.extend(singles.into_iter().map(|(key, owners)| ((key, A::BITS), owners)));
        let mut by_owner: HashMap<u32, Vec<Place<A>>> = HashMap::new();
        for (place, owners) in &waiting {
            for owner in owners_of(owners) {
                by_owner.entry(owner).or_default().push(*place);
            }
        }
        Self { waiting, by_owner }
    }

    /// What still waits of an owner.
    fn waiting_of(&self, owner: u32) -> Vec<(Place<A>, Owners)> {
        let places = self.by_owner.get(&owner).into_iter().flatten();
        places.filter_map(|place| Some((*place, *self.waiting.get(place)?))).collect()
    }

    fn keep(&mut self, all: &[(Place<A>, Owners)], is_in_trie: bool, tables: &mut FamilyTables<A>) {
        for (place, owners) in all {
            self.waiting.remove(place);
            if place.1 == A::BITS && !is_in_trie {
                tables.owners.insert(place.0, *owners);
            } else {
                tables.prefixes.insert(*place, *owners);
            }
        }
    }

    /// Counts what waits in vain, and leaves out the prefixes around it. Gives the domains that it is in.
    fn note_missing(
        mut self,
        tables: &mut FamilyTables<A>,
        left_out: &mut LeftOut,
        domains: &mut BTreeSet<u32>,
    ) {
        let lengths: BTreeSet<u8> = tables.prefixes.keys().map(|(_, length)| *length).collect();
        let missing: Vec<Place<A>> = self.waiting.keys().copied().collect();
        for (OwnersKey { domain, address }, length) in missing {
            domains.insert(domain);
            for outer in lengths.range(..length) {
                let place = (OwnersKey { domain, address: address.truncated(*outer) }, *outer);
                if let Some(owners) = tables.prefixes.remove(&place) {
                    self.waiting.insert(place, owners);
                }
            }
        }
        for owner in self.waiting.values().flat_map(|owners| owners_of(owners).collect::<Vec<_>>()) {
            left_out.entry(owner).or_default().addresses += 1;
        }
    }
}

/// Those that have an address as their own; [`NOBODY`] where there is none.
fn owners_of(owners: &Owners) -> impl Iterator<Item = u32> {
    let [first, others @ ..] = owners.inline;
    [first].into_iter().chain(others.into_iter().filter(|owner| *owner != NOBODY))
}

/// `None` where there is no room for all.
fn fit_in<A: WireAddress>(all: &[(Place<A>, Owners)], singles: usize, prefixes: usize) -> Option<Fit> {
    let single = all.iter().filter(|((_, length), _)| *length == A::BITS).count();
    let others = all.len() - single;
    if single <= singles && others <= prefixes {
        Some(Fit { singles: single, prefixes: others, is_in_trie: false })
    } else {
        (all.len() <= prefixes).then_some(Fit { singles: 0, prefixes: all.len(), is_in_trie: true })
    }
}

#[cfg(test)]
mod tests;
