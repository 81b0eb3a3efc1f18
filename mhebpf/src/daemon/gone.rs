//! What was counted on interfaces that are gone. The kernel's table is for those that are there.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use anyhow::Result;
use mhebpf_ebpf::{Direction, Family, Reason};
use tokio::time::Instant;
use tracing::warn;

use super::Daemon;
use crate::{
    datapath::{Count, Position},
    model::Host,
    pins::Pinned,
};

/// How long an interface is gone before its counters are freed, so that packets on their way are counted, and how long there
/// is at least between two looks at the table.
const REST: Duration = Duration::from_secs(1);

/// How long after a failure it is tried again.
const RETRY: Duration = Duration::from_secs(30);

/// How many interfaces are remembered one by one.
const REMEMBERED: usize = 64;

/// What is known of interfaces that are gone.
#[derive(Debug, Default)]
pub(super) struct Gone {
    /// Those whose counters may be in the kernel still, and since when they are gone.
    leaving: BTreeMap<u32, Instant>,
    /// The look at the table that is under way.
    sweep: Option<Sweep>,
    /// When the next one begins at the earliest.
    not_before: Option<Instant>,
    /// The last ones that had counts, by the name that they had.
    remembered: VecDeque<Remembered>,
    /// How many are not remembered any more, and what they had.
    earlier: (u64, Sums),
}

/// A look at the table, part by part.
#[derive(Debug)]
struct Sweep {
    position: Option<Position>,
    /// The interfaces that were gone when it began.
    due: BTreeSet<u32>,
    freed: BTreeMap<u32, Vec<Count>>,
}

/// An interface that is gone.
#[derive(Clone, Debug)]
pub(super) struct Remembered {
    pub(super) name: String,
    pub(super) ifindex: u32,
    pub(super) counts: Vec<Count>,
}

type Sums = BTreeMap<(Direction, Family, Reason, bool), u64>;

impl Gone {
    /// When there is something to be done.
    pub(super) fn due(&self) -> Option<Instant> {
        let first = self.leaving.values().min().map(|since| *since + REST);
        if self.sweep.is_some() { Some(Instant::now()) } else { first.max(first.and(self.not_before)) }
    }

    /// An interface is gone.
    pub(super) fn note(&mut self, ifindex: u32) {
        self.leaving.entry(ifindex).or_insert_with(Instant::now);
    }

    /// Those that are remembered, the last one first.
    pub(super) fn remembered(&self) -> impl Iterator<Item = &Remembered> {
        self.remembered.iter().rev()
    }

    /// How many interfaces there were before those, and what they had: their index is 0.
    pub(super) fn earlier(&self) -> (u64, Vec<Count>) {
        let (interfaces, sums) = &self.earlier;
        let count = |(key, packets): (&(Direction, Family, Reason, bool), &u64)| {
            let (direction, family, reason, observed) = *key;
            Count { ifindex: 0, direction, family, reason, observed, packets: *packets }
        };
        (*interfaces, sums.iter().map(count).collect())
    }

    /// What was freed and has its interface's index still.
    fn freed(&self) -> impl Iterator<Item = Count> {
        self.sweep.iter().flat_map(|sweep| sweep.freed.values().flatten().copied())
    }

    fn remember(&mut self, ifindex: u32, name: Option<String>, counts: Vec<Count>) {
        let same =
            |each: &&mut Remembered| each.ifindex == ifindex && name.as_ref().is_none_or(|n| each.name == *n);
        if let Some(remembered) = self.remembered.iter_mut().rev().find(same) {
            add(&mut remembered.counts, counts);
            return;
        }
        let name = name.unwrap_or_else(|| format!("if{ifindex}"));
        self.remembered.push_back(Remembered { name, ifindex, counts });
        while self.remembered.len() > REMEMBERED {
            let Some(oldest) = self.remembered.pop_front() else { return };
            let (interfaces, sums) = &mut self.earlier;
            *interfaces += 1;
            for Count { direction, family, reason, observed, packets, .. } in oldest.counts {
                *sums.entry((direction, family, reason, observed)).or_default() += packets;
            }
        }
    }
}

/// Adds counts of the same interface.
fn add(counts: &mut Vec<Count>, more: Vec<Count>) {
    for count in more {
        match counts.iter_mut().find(|each| Count { packets: count.packets, ..**each } == count) {
            Some(each) => each.packets += count.packets,
            None => counts.push(count),
        }
    }
}

impl Daemon<'_> {
    /// What was counted on interfaces that are there, and on those that are about to be forgotten.
    pub(super) fn counts(&self) -> Result<Vec<Count>> {
        let mut counts = self.datapath.counters.read()?;
        counts.extend(self.gone.freed());
        Ok(counts)
    }

    /// The same, and what was counted on interfaces that are gone.
    pub(super) fn all_counts(&self) -> Result<Vec<Count>> {
        let mut counts = self.counts()?;
        counts.extend(self.gone.remembered().flat_map(|each| each.counts.iter().copied()));
        counts.extend(self.gone.earlier().1);
        Ok(counts)
    }

    /// Notes which of the interfaces that were ever enforced are not there.
    pub(super) fn note_gone(&mut self, host: &Host) {
        for ifindex in self.names.keys().filter(|ifindex| !host.links.contains_key(ifindex)) {
            self.gone.note(*ifindex);
        }
    }

    /// Notes the names that enforced interfaces have.
    pub(super) fn note_names(&mut self, named: impl IntoIterator<Item = (u32, String)>) {
        let mut former = Vec::new();
        for (ifindex, name) in named {
            if let Some(before) =
                self.names.insert(ifindex, name).filter(|before| self.names[&ifindex] != *before)
            {
                former.push(before);
            }
        }
        self.retire(former);
    }

    /// What an earlier daemon has counted is of an interface that is there only where one of its links says so.
    pub(super) fn free_inherited(&mut self, links: &[Pinned]) {
        // What can't be asked is there.
        let there = links.iter().filter(|link| link.is_in_force().unwrap_or(true));
        let there: BTreeSet<u32> = there.map(|link| link.ifindex).collect();
        if let Err(error) = self.free_at_once(|ifindex| !there.contains(&ifindex)) {
            warn!("counters of interfaces that are gone stay in the table: {error:#}");
        }
    }

    /// An index that another interface had before begins at zero.
    pub(super) fn begin_at_zero(&mut self, new: &[(u32, String)]) {
        let leaving = |ifindex: &u32| self.gone.leaving.contains_key(ifindex);
        let reused: BTreeSet<u32> = new.iter().map(|(ifindex, _)| *ifindex).filter(leaving).collect();
        if reused.is_empty() {
            return;
        }
        if let Err(error) = self.free_at_once(|ifindex| reused.contains(&ifindex)) {
            warn!("counting on where interfaces that are gone have ended: {error:#}");
        }
        self.forget_names(reused);
    }

    fn free_at_once(&mut self, is_gone: impl Fn(u32) -> bool) -> Result<()> {
        let mut position = None;
        let mut all: BTreeMap<u32, Vec<Count>> = BTreeMap::new();
        let result = loop {
            let (freed, next) = match self.datapath.counters.free(position, &is_gone) {
                Ok(freed) => freed,
                Err(error) => break Err(error),
            };
            self.totals.add_last(&freed, |ifindex| self.names.get(&ifindex).cloned());
            freed.into_iter().for_each(|count| all.entry(count.ifindex).or_default().push(count));
            if next.is_none() {
                break Ok(());
            }
            position = next;
        };
        if let Some(sweep) = &mut self.gone.sweep {
            for (ifindex, counts) in sweep.freed.extract_if(.., |ifindex, _| is_gone(*ifindex)) {
                all.entry(ifindex).or_default().extend(counts);
            }
        }
        self.remember(all);
        result
    }

    /// Frees the next counters of interfaces that are gone. The table is looked at in parts, for which nobody waits long.
    pub(super) fn free_some(&mut self, host: &Host) {
        let Gone { leaving, sweep, .. } = &mut self.gone;
        let now = Instant::now();
        let sweep = sweep.get_or_insert_with(|| Sweep {
            position: None,
            due: leaving
                .iter()
                .filter(|(_, since)| **since + REST <= now)
                .map(|(ifindex, _)| *ifindex)
                .collect(),
            freed: BTreeMap::new(),
        });
        let is_gone = |ifindex: u32| match leaving.contains_key(&ifindex) {
            // Of the others some packets may be on their way.
            true => sweep.due.contains(&ifindex),
            false => !host.links.contains_key(&ifindex),
        };
        let next = match self.datapath.counters.free(sweep.position, is_gone) {
            Ok((freed, next)) => {
                self.totals.add_last(&freed, |ifindex| self.names.get(&ifindex).cloned());
                freed.into_iter().for_each(|count| sweep.freed.entry(count.ifindex).or_default().push(count));
                sweep.position = next;
                next
            }
            Err(error) => {
                warn!("counters of interfaces that are gone stay in the table for now: {error:#}");
                self.gone.not_before = Some(now + RETRY);
                let freed = self.gone.sweep.take().map_or_else(BTreeMap::new, |sweep| sweep.freed);
                return self.remember(freed);
            }
        };
        if next.is_some() {
            return;
        }
        let Some(Sweep { due, freed, .. }) = self.gone.sweep.take() else { return };
        self.gone.not_before = Some(now + REST);
        self.remember(freed);
        // One of them may have been made anew, and begun at zero.
        let due = due.into_iter().filter(|ifindex| self.gone.leaving.contains_key(ifindex)).collect();
        self.forget_names(due);
    }

    fn remember(&mut self, freed: BTreeMap<u32, Vec<Count>>) {
        for (ifindex, counts) in freed {
            self.gone.remember(ifindex, self.names.get(&ifindex).cloned(), counts);
        }
    }

    /// All that had these indices is told of what is remembered.
    fn forget_names(&mut self, indices: BTreeSet<u32>) {
        let mut former = Vec::new();
        for ifindex in indices {
            self.gone.leaving.remove(&ifindex);
            former.extend(self.names.remove(&ifindex));
        }
        self.retire(former);
    }

    fn retire(&mut self, former: Vec<String>) {
        if !former.is_empty() {
            let used: BTreeSet<&str> = self.names.values().map(String::as_str).collect();
            self.totals.retire(former, &used);
        }
    }
}
