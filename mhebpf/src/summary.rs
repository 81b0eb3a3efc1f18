//! The summary at the end of a run.

use std::collections::BTreeMap;

use crate::datapath::Count;

/// Renders counters as lines, one for each; `names` are those that the interfaces had last.
pub fn lines(counts: &[Count], names: &BTreeMap<u32, String>) -> Vec<String> {
    if counts.is_empty() {
        return vec![
            "every packet belonged where it was: nothing was redirected, rewritten or dropped".to_owned(),
        ];
    }
    let mut lines =
        vec![format!("{:<16} {:<8} {:<6} {:<18} {:>12}", "interface", "way", "family", "reason", "packets")];
    for count in counts {
        let name = names.get(&count.ifindex).cloned().unwrap_or_else(|| format!("if{}", count.ifindex));
        let observed = if count.observed { "  (observed only)" } else { "" };
        lines.push(format!(
            "{name:<16} {:<8} {:<6} {:<18} {:>12}{observed}",
            count.direction, count.family, count.reason, count.packets
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use mhebpf_ebpf::{Direction, Family, Reason};

    use super::*;

    #[test]
    fn counters_are_named() {
        let count = Count {
            ifindex: 2,
            direction: Direction::Egress,
            family: Family::Ipv4,
            reason: Reason::Redirected,
            observed: true,
            packets: 42,
        };
        let lines = lines(
            &[count, Count { ifindex: 3, observed: false, ..count }],
            &BTreeMap::from([(2, "eth0".to_owned())]),
        );
        assert!(lines[1].starts_with("eth0 "), "{lines:?}");
        assert!(lines[1].contains("redirected") && lines[1].contains("42"), "{lines:?}");
        assert!(lines[1].ends_with("(observed only)"), "{lines:?}");
        assert!(lines[2].starts_with("if3 ") && lines[2].ends_with("42"), "{lines:?}");
    }
}
