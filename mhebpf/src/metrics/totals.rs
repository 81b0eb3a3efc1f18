//! What was counted, by the names of interfaces.

use std::collections::BTreeMap;

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

/// Totals by the names of interfaces, which never go backwards.
///
/// The programs count by ifindex. An interface can be renamed, and one that is made anew has the name of another and starts at
/// zero: what is added to a counter goes to the name that the interface has when it is looked at.
#[derive(Debug, Default)]
pub struct Totals {
    seen: BTreeMap<Key, u64>,
    series: BTreeMap<Series, u64>,
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
    fn a_renamed_interface_takes_nothing_from_its_old_name() {
        let mut totals = Totals::default();
        totals.add(&[count(2, 100)], |_| Some("eth0".to_owned()));
        totals.add(&[count(2, 101)], |_| Some("lan0".to_owned()));
        assert_eq!(by_name(&totals), [("eth0", 100), ("lan0", 1)]);
    }
}
