//! The counters that mhebpf prints when it ends.

/// Counts of packets by interface and reason.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    counts: Vec<Count>,
}

/// A line of the summary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// The interface on which packets were judged.
    pub interface: String,
    /// `egress` or `ingress`.
    pub way: String,
    /// `ipv4` or `arp`.
    pub family: String,
    /// `redirected`, `no_route`, …
    pub reason: String,
    /// How many.
    pub packets: u64,
    /// Whether the packets were left alone.
    pub observed: bool,
}

impl Summary {
    /// Finds the counters in what mhebpf said.
    pub fn parse(stderr: &str) -> Self {
        Self { counts: stderr.lines().filter_map(Count::parse).collect() }
    }

    /// How often a reason was acted upon on an interface, whichever way and family.
    pub fn count(&self, interface: &str, reason: &str) -> u64 {
        self.sum(|count| count.interface == interface && count.reason == reason && !count.observed)
    }

    /// How often a reason was found on an interface and nothing was done.
    pub fn observed(&self, interface: &str, reason: &str) -> u64 {
        self.sum(|count| count.interface == interface && count.reason == reason && count.observed)
    }

    /// How often a reason was found on all interfaces, acted upon or not.
    pub fn total(&self, reason: &str) -> u64 {
        self.sum(|count| count.reason == reason)
    }

    /// All the lines.
    pub fn counts(&self) -> &[Count] {
        &self.counts
    }

    fn sum(&self, wanted: impl Fn(&Count) -> bool) -> u64 {
        self.counts.iter().filter(|count| wanted(count)).map(|count| count.packets).sum()
    }
}

impl Count {
    /// Reads `eth0_int egress ipv4 redirected 42 (observed only)`; `None` for lines that are something else.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace().map(str::to_owned);
        let count = Self {
            interface: words.next()?,
            way: words.next().filter(|way| way == "egress" || way == "ingress")?,
            family: words.next()?,
            reason: words.next()?,
            packets: words.next()?.parse().ok()?,
            observed: line.ends_with("(observed only)"),
        };
        Some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_and_other_lines_are_not() {
        let summary = Summary::parse(
            "2026-01-01 INFO mhebpf ready: send Redirect, receive Drop on eth0_int\n\
             interface  way     family reason      packets\n\
             eth0_int   egress  ipv4   redirected       42\n\
             eth0_int   egress  ipv4   redirected        7  (observed only)\n\
             eth1_int   ingress arp    arp_target        3\n",
        );
        assert_eq!(summary.counts().len(), 3);
        assert_eq!(summary.count("eth0_int", "redirected"), 42);
        assert_eq!(summary.observed("eth0_int", "redirected"), 7);
        assert_eq!(summary.total("arp_target"), 3);
        assert_eq!(summary.count("eth1_int", "redirected"), 0);
    }
}
