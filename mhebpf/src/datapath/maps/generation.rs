//! The map of the generation of all other tables.

use anyhow::Result;
use aya::maps::{Array, MapData, MapError};

use super::Source;

/// A number that is odd while tables are written, and another one each time.
///
/// What a program has remembered counts only in the generation that it was decided on in. So it counts no more before the first
/// table is written, and what is decided on meanwhile is not remembered.
pub(super) struct GenerationMap {
    map: Array<MapData, u32>,
    written: u32,
}

impl GenerationMap {
    pub(super) fn take(source: Source<'_>) -> Result<Self> {
        Ok(Self { map: Array::try_from(source("GENERATION")?)?, written: 0 })
    }

    /// Before the first table is written.
    pub(super) fn begin(&mut self) -> Result<(), MapError> {
        self.write(self.written | 1)
    }

    /// After the last one was.
    pub(super) fn end(&mut self) -> Result<(), MapError> {
        // Zero would mean that nothing was ever written.
        self.write((self.written | 1).checked_add(1).unwrap_or(2))
    }

    fn write(&mut self, generation: u32) -> Result<(), MapError> {
        self.map.set(0, generation, 0)?;
        self.written = generation;
        Ok(())
    }
}
