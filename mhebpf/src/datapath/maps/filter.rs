//! The map of the filter.

use anyhow::Result;
use aya::maps::{Array, MapData, MapError};
use mhebpf_ebpf::{Filter, filter::WORDS};

use super::Source;

/// The filter, and what it was brought to.
pub(super) struct FilterMap {
    map: Array<MapData, Filter>,
    written: Box<Filter>,
}

impl FilterMap {
    pub(super) fn take(source: Source<'_>) -> Result<Self> {
        Ok(Self { map: Array::try_from(source("FILTER")?)?, written: Box::new([0; WORDS]) })
    }

    /// What is in the map.
    pub(super) fn read(&self) -> Result<Filter, MapError> {
        self.map.get(&0, 0)
    }

    /// Sets what is set in `filter`, and leaves what is set already.
    pub(super) fn add(&mut self, filter: &Filter) -> Result<(), MapError> {
        let mut all = self.written.clone();
        all.iter_mut().zip(filter).for_each(|(word, more)| *word |= more);
        self.write(all)
    }

    /// Makes the map equal to `filter`.
    ///
    /// Programs read it meanwhile, one word at a time and some bytes of that before others: they find what is set
    /// both before and after.
    pub(super) fn write(&mut self, filter: Box<Filter>) -> Result<(), MapError> {
        if filter != self.written {
            self.map.set(0, *filter, 0)?;
            self.written = filter;
        }
        Ok(())
    }
}
