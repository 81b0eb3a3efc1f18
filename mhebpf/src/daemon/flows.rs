//! What enforcing would change, for the summary of observe mode, and what is redirected in spite of steering.

use std::collections::BTreeMap;

use crate::{
    control::protocol::{Act, Seen},
    monitor,
};

/// How many flows are told apart.
const FLOWS: usize = 256;

/// How many are named in the summary.
const NAMED: usize = 20;

/// Which flows are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interest {
    /// Those that would be changed, in observe mode.
    WouldChange,
    /// Those that are redirected.
    Redirected,
}

impl Interest {
    fn is_in(self, seen: &Seen) -> bool {
        match self {
            Self::WouldChange => seen.observed,
            Self::Redirected => !seen.observed && seen.act == Act::Redirect,
        }
    }
}

/// The flows of interest, as far as they were sampled.
#[derive(Debug)]
pub(super) struct Flows {
    interest: Interest,
    samples: BTreeMap<String, u64>,
    /// Samples of flows for which there was no room.
    beyond: u64,
}

impl Flows {
    pub(super) fn new(interest: Interest) -> Self {
        Self { interest, samples: BTreeMap::new(), beyond: 0 }
    }

    pub(super) fn interest(&self) -> Interest {
        self.interest
    }

    pub(super) fn add(&mut self, seen: &Seen) {
        if !self.interest.is_in(seen) {
            return;
        }
        let flow = monitor::flow(seen);
        if let Some(samples) = self.samples.get_mut(&flow) {
            *samples += 1;
        } else if self.samples.len() < FLOWS {
            self.samples.insert(flow, 1);
        } else {
            self.beyond += 1;
        }
    }

    /// The most frequent ones first, at most [`NAMED`].
    pub(super) fn most_frequent(&self) -> Vec<&str> {
        let mut flows: Vec<_> = self.samples.iter().collect();
        flows.sort_by_key(|(flow, samples)| (u64::MAX - *samples, *flow));
        flows.iter().take(NAMED).map(|(flow, _)| flow.as_str()).collect()
    }

    /// The last lines of the summary, where something was counted.
    pub(super) fn lines(&self) -> Vec<String> {
        let first = match self.interest {
            Interest::WouldChange => "enforcing would change these flows, of which samples were taken:",
            Interest::Redirected if self.samples.is_empty() => return Vec::new(),
            Interest::Redirected => {
                "these flows had to be redirected all the same, of which samples were taken:"
            }
        };
        let mut lines = vec![first.to_owned()];
        lines.extend(self.most_frequent().iter().map(|flow| format!("  {flow}")));
        if let Some(more @ 1..) = self.samples.len().checked_sub(NAMED) {
            let at_least = if self.beyond > 0 { "at least " } else { "" };
            lines.push(format!("  and {at_least}{more} more"));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(interface: &str, observed: bool) -> Seen {
        let bytes = "4500001d000000004011000000c0a80065c0a8000113880035".to_owned();
        let json = format!(
            r#"{{"time":0,"interface":"{interface}","direction":"egress","family":"ipv4","reason":"redirected","act":"redirect","observed":{observed},"redirected_to":"eth1","judged":null,"owners":[],"socket":0,"length":29,"bytes":"{bytes}"}}"#
        );
        serde_json::from_str(&json).expect("a packet")
    }

    #[test]
    fn the_table_is_bounded_and_the_summary_short() {
        let mut flows = Flows::new(Interest::WouldChange);
        for number in 0..2 * FLOWS {
            flows.add(&seen(&format!("eth{number}"), true));
        }
        flows.add(&seen("eth7", true));
        flows.add(&seen("eth8", false));
        assert_eq!((flows.samples.len(), flows.beyond), (FLOWS, FLOWS as u64));
        let lines = flows.lines();
        assert_eq!(lines.len(), NAMED + 2);
        assert!(lines[1].starts_with("  eth7 egress "), "the most frequent one: {lines:?}");
        assert_eq!(lines[NAMED + 1], format!("  and at least {} more", FLOWS - NAMED));
    }

    #[test]
    fn while_steering_those_that_are_redirected_are_of_interest() {
        let mut flows = Flows::new(Interest::Redirected);
        assert_eq!(flows.lines(), [""; 0]);
        flows.add(&seen("eth7", true));
        flows.add(&seen("eth8", false));
        assert_eq!(flows.most_frequent().len(), 1);
        assert!(flows.lines()[1].starts_with("  eth8 egress "), "{:?}", flows.lines());
    }
}
