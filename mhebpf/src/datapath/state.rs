//! What the daemon notes for those who look when it is gone.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use aya::maps::{Array, MapData};
use mhebpf_ebpf::State;

use super::{maps::Source, raw::Raw};

/// The map of the daemon's notes.
pub struct StateMap {
    map: Array<MapData, Raw<State>>,
}

impl StateMap {
    pub(super) fn take(source: Source<'_>) -> Result<Self> {
        Ok(Self { map: Array::try_from(source("STATE")?)? })
    }

    /// Notes that the maps are in step with the host now.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to write the map.
    pub fn note(&mut self) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // Never 0, which says that it was not noted yet.
        let state = State { written: now.as_secs().max(1), pid: std::process::id(), reserved: 0 };
        self.map.set(0, Raw(state), 0).context("noting when the maps were written")
    }

    /// What was last noted.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read the map.
    pub fn read(&self) -> Result<State> {
        self.map.get(&0, 0).map(|Raw(state)| state).context("reading when the maps were written")
    }
}
