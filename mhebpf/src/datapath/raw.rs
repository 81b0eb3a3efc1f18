//! Shared types as map keys and values.

use mhebpf_ebpf::MapData;

/// A shared type in the form that aya takes.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Raw<T>(pub(super) T);

// SAFETY: `MapData` promises the same of `T`, and the wrapper is transparent.
unsafe impl<T: MapData> aya::Pod for Raw<T> {}
