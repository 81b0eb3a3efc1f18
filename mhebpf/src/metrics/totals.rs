//! What was counted, by the names of interfaces.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mhebpf_ebpf::{Direction, Family, Reason};

use crate::datapath::Count;

/// What packets are counted by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series {
    /// The name of the interface on which they were judged.
    pub interface: String,
    /// Which way they crossed it.
    pub direction: Direction,
    /// What carried the judged address.
    pub family: Family,
    /// Why they did not simply pass.
    pub reason: Reason,
    /// Whether they were left alone and only counted.
    pub observed: bool,
}

/// Of how many interfaces that are gone there are totals.
const GONE: usize = 256;

/// Totals by the names of interfaces, which never go backwards.
///
/// The programs count by ifindex. An interface can be renamed, and one that is made anew has the name of another and starts at
/// zero: what is added to a counter goes to the name that the interface has when it is looked at.
///
/// Names that no interface has any more are dropped in the end, and begin at zero if they come back: there is no end of names
/// on a host with many containers. Added up under one name they would look like packets of now.
#[derive(Debug, Default)]
pub struct Totals {
    seen: BTreeMap<Key, u64>,
    series: BTreeMap<Series, u64>,
    /// Names that interfaces had, the first to be dropped first.
    gone: VecDeque<String>,
}

type Key = (u32, Direction, Family, Reason, bool);

impl Totals {
    /// Adds what was counted since the last time on interfaces that have a name.
    pub fn add(&mut self, counts: &[Count], name: impl Fn(u32) -> Option<String>) {
        for count in counts {
            let Count { ifindex, direction, family, reason, observed, packets } = *count;
            let Some(interface) = name(ifindex) else { continue };
            let before = self.seen.insert((ifindex, direction, family, reason, observed), packets);
            let new = packets.saturating_sub(before.unwrap_or_default());
            if new != 0 {
                let series = Series { interface, direction, family, reason, observed };
                *self.series.entry(series).or_default() += new;
            }
        }
    }

    /// Adds what counters had that are freed: these are at zero if there is anything to count again.
    pub fn add_last(&mut self, counts: &[Count], name: impl Fn(u32) -> Option<String>) {
        self.add(counts, name);
        for Count { ifindex, direction, family, reason, observed, .. } in counts {
            self.seen.remove(&(*ifindex, *direction, *family, *reason, *observed));
        }
    }

    /// Notes that interfaces do not have these names any more, unless they are among those that are used now.
    pub fn retire(&mut self, names: impl IntoIterator<Item = String>, used: &BTreeSet<&str>) {
        self.gone.retain(|gone| !used.contains(gone.as_str()));
        for name in names {
            if !used.contains(name.as_str()) && self.has(&name) {
                self.gone.retain(|gone| *gone != name);
                self.gone.push_back(name);
            }
        }
        while self.gone.len() > GONE {
            let Some(dropped) = self.gone.pop_front() else { return };
            self.series.retain(|series, _| series.interface != dropped);
        }
    }

    fn has(&self, name: &str) -> bool {
        let first = Series {
            interface: name.to_owned(),
            direction: Direction::Egress,
            family: Family::Ipv4,
            reason: Reason::Redirected,
            observed: false,
        };
        self.series.range(first..).next().is_some_and(|(series, _)| series.interface == name)
    }

    /// All of them.
    pub fn series(&self) -> impl Iterator<Item = (&Series, u64)> {
        self.series.iter().map(|(series, packets)| (series, *packets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(ifindex: u32, packets: u64) -> Count {
        Count {
            ifindex,
            direction: Direction::Egress,
            family: Family::Ipv4,
            reason: Reason::Redirected,
            observed: false,
            packets,
        }
    }

    fn by_name(totals: &Totals) -> Vec<(&str, u64)> {
        totals.series().map(|(series, packets)| (series.interface.as_str(), packets)).collect()
    }

    #[test]
    fn an_interface_that_is_made_anew_goes_on_where_the_last_one_of_its_name_ended() {
        let mut totals = Totals::default();
        totals.add(&[count(2, 100)], |_| Some("eth0".to_owned()));
        totals.add(&[count(2, 100), count(9, 5)], |_| Some("eth0".to_owned()));
        assert_eq!(by_name(&totals), [("eth0", 105)]);
        totals.add(&[count(2, 100), count(9, 5)], |_| Some("eth0".to_owned()));
        assert_eq!(by_name(&totals), [("eth0", 105)], "nothing is counted twice");
    }

    #[test]
    fn an_index_that_is_used_again_begins_at_zero() {
        let mut totals = Totals::default();
        totals.add(&[count(2, 100)], |_| Some("eth0".to_owned()));
        totals.add_last(&[count(2, 103)], |_| Some("eth0".to_owned()));
        totals.add(&[count(2, 5)], |_| Some("lan0".to_owned()));
        assert_eq!(by_name(&totals), [("eth0", 103), ("lan0", 5)]);
    }

    #[test]
    fn names_do_not_grow_without_end_and_those_that_are_used_stay() {
        let mut totals = Totals::default();
        let used = BTreeSet::from(["veth0"]);
        for n in 0..10 * GONE as u32 {
            totals.add_last(&[count(n, 1)], |_| Some(format!("veth{n}")));
            // What has counted nothing takes nobody's place.
            totals.retire([format!("veth{n}"), format!("tap{n}")], &used);
        }
        assert_eq!(totals.series.len(), GONE + 1);
        let last = format!("veth{}", 10 * GONE - 1);
        assert!(["veth0", &last].iter().all(|name| totals.has(name)) && !totals.has("veth1"));
        totals.add(&[count(1, 1)], |_| Some("veth1".to_owned()));
        assert!(totals.has("veth1"), "it may come back");
    }

    #[test]
    fn a_renamed_interface_takes_nothing_from_its_old_name() {
        let mut totals = Totals::default();
        totals.add(&[count(2, 100)], |_| Some("eth0".to_owned()));
        totals.add(&[count(2, 101)], |_| Some("lan0".to_owned()));
        assert_eq!(by_name(&totals), [("eth0", 100), ("lan0", 1)]);
    }
}
