//! What becomes of a packet by the maps as they are.

use anyhow::{Context as _, Result};

use super::Daemon;
use crate::control::{
    protocol::{Crossing, Enforced, Judgement, Ruling},
    recording,
};

impl Daemon<'_> {
    /// The programs' own decision, from what is in the kernel's maps now.
    ///
    /// # Errors
    ///
    /// When a map can't be read, or the words are no packet.
    pub(super) fn judge(&self, crossing: &Crossing) -> Result<Judgement> {
        let live = self.datapath.maps.live();
        let (verdict, read) = recording::judge(&live, crossing)
            .context("such a packet does not exist: its parts don't go together")?;
        live.finish()?;
        let policies =
            self.policies.iter().map(|(ifindex, policy)| Enforced::new(*ifindex, policy)).collect();
        Ok(Judgement { verdict: Ruling::of(&verdict), read, policies })
    }
}
