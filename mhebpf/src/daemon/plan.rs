//! What a synchronisation is to bring about.

use std::collections::BTreeMap;

use anyhow::Result;
use tokio::time::Instant;

use crate::{
    model::{Policy, Selection, Selector, Tables},
    netlink::{Dumper, Events, Snapshot},
    settings::Settings,
    stop,
};

/// The host, what is enforced on it, and the tables for that.
pub(super) struct Plan {
    /// When the host was looked at.
    pub(super) at: Instant,
    pub(super) snapshot: Snapshot,
    pub(super) selection: Selection,
    pub(super) policies: BTreeMap<u32, Policy>,
    pub(super) tables: Tables,
}

impl Plan {
    /// Looks at the host.
    ///
    /// # Errors
    ///
    /// When a dump fails, or the daemon is told to end.
    pub(super) fn make(
        (settings, selector): (&Settings, &Selector),
        dumper: &mut Dumper,
        events: &Events,
    ) -> Result<Self> {
        let at = Instant::now();
        let snapshot = dumper.snapshot_if(|| !events.is_pending())?;
        let selection = selector.select(&snapshot.host);
        stop::check()?;
        let policies = settings.policies(&snapshot.host, &selection);
        let tables = Tables::new(&snapshot.host, &policies);
        stop::check()?;
        Ok(Self { at, snapshot, selection, policies, tables })
    }

    /// Whether nothing has changed since. Neighbours are not followed yet where they matter; routes that are followed have events of
    /// their own, and another look is quick then.
    pub(super) fn holds(&self, dumper: &mut Dumper, events: &Events) -> bool {
        let knows = self.snapshot.exact && self.snapshot.choices.is_empty() && dumper.leaves().is_none();
        knows && !events.is_pending()
    }
}
