//! The programs, the pure decision and the oracle, side by side on the same packets.

use anyhow::{Context as _, Result, bail, ensure};

use super::{Cb, Counts, Kernel, answer, is_too_short};
use crate::{
    oracle::{Action, Crossing, Host, Verdict, judge},
    subject::{self, Tables},
};

/// Runs the programs on packets of one host, and adds up what they must count.
pub(crate) struct Trial<'a> {
    kernel: &'a mut Kernel,
    pub(crate) host: Host,
    tables: Tables,
    before: Counts,
    /// What the counters must say.
    pub(crate) counts: Counts,
    /// Whether samples are compared too, as those who watch get them: they tell the owner.
    watching: bool,
}

impl<'a> Trial<'a> {
    pub(crate) fn new(kernel: &'a mut Kernel, host: Host) -> Result<Self> {
        let tables = subject::tables(&host);
        kernel.write(&tables)?;
        let before = kernel.counts()?;
        Ok(Self { kernel, host, tables, counts: before.clone(), before, watching: false })
    }

    /// The same, and what is redirected must go to its owner.
    pub(crate) fn watching(kernel: &'a mut Kernel, host: Host) -> Result<Self> {
        kernel.sample(u32::MAX)?;
        Ok(Self { watching: true, ..Self::new(kernel, host)? })
    }

    /// Runs the program on a packet and compares; returns the verdict.
    pub(crate) fn run(&mut self, crossing: &Crossing, cb: Cb) -> Result<Verdict> {
        self.run_unless_refused(crossing, cb)?.with_context(|| format!("the kernel refuses {crossing:?}"))
    }

    /// The same for packets that may be too short for the kernel to run any program on them, or have no
    /// Ethernet header: those have no verdict.
    pub(crate) fn run_unless_refused(&mut self, crossing: &Crossing, cb: Cb) -> Result<Option<Verdict>> {
        let expected = judge(&self.host, crossing);
        let decided = subject::verdict(&self.tables, crossing);
        ensure!(decided == expected, "decided {decided:?} instead of {expected:?} on {crossing:?}");
        if self.host.interface(crossing.interface).is_some_and(|interface| !interface.is_ethernet) {
            return Ok(None);
        }
        if crossing.arrived && !self.kernel.knows_arrival {
            return Ok(None);
        }
        let mut ran = match self.kernel.run(crossing, cb)? {
            Ok(ran) => ran,
            Err(refusal) => {
                let is_known = refusal.raw_os_error() == Some(libc::EINVAL) && is_too_short(&crossing.frame);
                ensure!(is_known, "{refusal} on {crossing:?}");
                return Ok(None);
            }
        };
        if let Verdict::Violation { action: Action::SendBy { .. } | Action::SendToGroupBy { .. }, .. } =
            expected
        {
            // The mark is the programs' own affair.
            ran.cb[16..].copy_from_slice(&cb[16..]);
        }
        let answer = answer(&self.host, crossing, cb, expected, &mut self.counts);
        ensure!(ran == answer, "{ran:?} instead of {answer:?} for {expected:?} on {crossing:?}");
        if self.watching {
            self.compare_owner(expected).with_context(|| format!("for {expected:?} on {crossing:?}"))?;
        }
        Ok(Some(expected))
    }

    fn compare_owner(&mut self, expected: Verdict) -> Result<()> {
        let (samples, _) = self.kernel.samples()?;
        let Verdict::Violation { action, .. } = expected else {
            ensure!(samples.is_empty(), "what passes is sampled: {samples:?}");
            return Ok(());
        };
        let [sample] = samples.as_slice() else { bail!("{} samples of one packet", samples.len()) };
        let owner = match action {
            Action::SendBy { owner, .. } | Action::SendToGroupBy { owner, .. } => owner,
            Action::Drop | Action::AskAs(_) | Action::SpeakAs(_) => 0,
        };
        ensure!(sample.owner == owner, "it goes to {} and not to {owner}", sample.owner);
        Ok(())
    }

    /// Compares the counters, and returns how many packets were counted.
    pub(crate) fn finish(self) -> Result<u64> {
        let counts = self.kernel.counts()?;
        ensure!(counts == self.counts, "counted {counts:?} instead of {:?} in {:?}", self.counts, self.host);
        Ok(counts.values().sum::<u64>() - self.before.values().sum::<u64>())
    }
}
