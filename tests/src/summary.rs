//! The counters that mhebpf prints when it ends.

/// Counts of packets by interface and reason.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    lines: Vec<Vec<String>>,
}

impl Summary {
    /// Finds the counters in what mhebpf said.
    pub fn parse(stderr: &str) -> Self {
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
        Self { lines: stderr.lines().map(words).collect() }
    }

    /// How often a reason was counted on an interface, whichever direction and family.
    pub fn count(&self, interface: &str, reason: &str) -> u64 {
        let counts = self.lines.iter().filter_map(|words| {
            let about = words.iter().any(|word| word.trim_end_matches(':') == interface);
            let at = words.iter().position(|word| word == reason)?;
            let number = words.get(at + 1..)?.iter().find_map(|word| word.parse::<u64>().ok())?;
            about.then_some(number)
        });
        counts.sum()
    }
}
