//! The summary at the end of a run.

use crate::datapath::Count;

/// What interfaces are called that are gone, and of which there were too many to remember each.
pub const OTHERS: &str = "(others)";

/// Renders counters as lines, one for each with the name of its interface, and how many packets could not be counted.
pub fn lines(counts: &[(String, Count)], lost: u64) -> Vec<String> {
    let mut lines = Vec::new();
    if counts.is_empty() && lost == 0 {
        lines.push(
            "every packet belonged where it was: nothing was redirected, rewritten or dropped".to_owned(),
        );
    } else {
        lines.push(format!(
            "{:<16} {:<8} {:<6} {:<18} {:>12}",
            "interface", "way", "family", "reason", "packets"
        ));
    }
    for (name, count) in counts {
        let observed = if count.observed { "  (observed only)" } else { "" };
        lines.push(format!(
            "{name:<16} {:<8} {:<6} {:<18} {:>12}{observed}",
            count.direction, count.family, count.reason, count.packets
        ));
    }
    if lost > 0 {
        lines.push(format!("{lost} packets more were not counted: the table of counters had no room"));
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
        let other = Count { ifindex: 0, observed: false, ..count };
        let lines = lines(&[("eth0".to_owned(), count), (OTHERS.to_owned(), other)], 7);
        assert!(lines[1].starts_with("eth0 "), "{lines:?}");
        assert!(lines[1].contains("redirected") && lines[1].contains("42"), "{lines:?}");
        assert!(lines[1].ends_with("(observed only)"), "{lines:?}");
        assert!(lines[2].starts_with("(others) ") && lines[2].ends_with("42"), "{lines:?}");
        assert!(lines[3].starts_with("7 packets more were not counted"), "{lines:?}");
    }
}
