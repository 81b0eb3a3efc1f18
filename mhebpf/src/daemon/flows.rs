//! What enforcing would change, for the summary of observe mode.

use std::collections::BTreeMap;

use crate::{control::protocol::Seen, monitor};

/// How many flows are told apart.
const FLOWS: usize = 256;

/// How many are named in the summary.
const NAMED: usize = 20;

/// The flows that would be changed, as far as they were sampled.
#[derive(Debug, Default)]
pub(super) struct Flows {
    samples: BTreeMap<String, u64>,
    /// Samples of flows for which there was no room.
    beyond: u64,
}

impl Flows {
    pub(super) fn add(&mut self, seen: &Seen) {
        let flow = monitor::flow(seen);
        if let Some(samples) = self.samples.get_mut(&flow) {
            *samples += 1;
        } else if self.samples.len() < FLOWS {
            self.samples.insert(flow, 1);
        } else {
            self.beyond += 1;
        }
    }

    /// The last lines of the summary, where something was counted.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut flows: Vec<_> = self.samples.iter().collect();
        flows.sort_by_key(|(flow, samples)| (u64::MAX - *samples, *flow));
        let mut lines = vec!["enforcing would change these flows, of which samples were taken:".to_owned()];
        lines.extend(flows.iter().take(NAMED).map(|(flow, _)| format!("  {flow}")));
        if let Some(more @ 1..) = flows.len().checked_sub(NAMED) {
            let at_least = if self.beyond > 0 { "at least " } else { "" };
            lines.push(format!("  and {at_least}{more} more"));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(interface: &str) -> Seen {
        let bytes = "4500001d000000004011000000c0a80065c0a8000113880035".to_owned();
        let json = format!(
            r#"{{"time":0,"interface":"{interface}","direction":"egress","family":"ipv4","reason":"redirected","act":"redirect","observed":true,"redirected_to":"eth1","judged":null,"owners":[],"socket":0,"length":29,"bytes":"{bytes}"}}"#
        );
        serde_json::from_str(&json).expect("a packet")
    }

    #[test]
    fn the_table_is_bounded_and_the_summary_short() {
        let mut flows = Flows::default();
        for number in 0..2 * FLOWS {
            flows.add(&seen(&format!("eth{number}")));
        }
        flows.add(&seen("eth7"));
        assert_eq!((flows.samples.len(), flows.beyond), (FLOWS, FLOWS as u64));
        let lines = flows.lines();
        assert_eq!(lines.len(), NAMED + 2);
        assert!(lines[1].starts_with("  eth7 egress "), "the most frequent one: {lines:?}");
        assert_eq!(lines[NAMED + 1], format!("  and at least {} more", FLOWS - NAMED));
    }
}
