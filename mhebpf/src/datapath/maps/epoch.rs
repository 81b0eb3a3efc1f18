//! The map of the epoch of all other tables.

use std::fs;

use anyhow::Result;
use aya::maps::{Array, MapData, MapError};

use super::Source;

/// A number that is odd while tables are written, and another one each time.
///
/// What a program has remembered counts only in the epoch that it was decided on in. So it counts no more before the first
/// table is written, and what is decided on meanwhile is not remembered.
pub(super) struct EpochMap {
    map: Array<MapData, u32>,
    written: u32,
    is_possible: bool,
}

impl EpochMap {
    pub(super) fn take(source: Source<'_>) -> Result<Self> {
        Ok(Self { map: Array::try_from(source("EPOCH")?)?, written: 0, is_possible: is_possible() })
    }

    /// Whether no table has been written since the last [`EpochMap::begin`].
    pub(super) fn has_begun(&self) -> bool {
        !self.is_possible || self.written != 0 && self.written & 1 == 0
    }

    /// Before the first table is written.
    pub(super) fn end(&mut self) -> Result<(), MapError> {
        self.write(self.written | 1)
    }

    /// After the last one was.
    pub(super) fn begin(&mut self) -> Result<(), MapError> {
        if !self.is_possible {
            return Ok(());
        }
        // Zero would mean that nothing was ever written.
        self.write((self.written | 1).checked_add(1).unwrap_or(2))
    }

    fn write(&mut self, epoch: u32) -> Result<(), MapError> {
        self.map.set(0, epoch, 0)?;
        self.written = epoch;
        Ok(())
    }
}

/// Whether programs can remember anything, which needs two things of the machine: that it reads in the order of the program, the
/// epoch before the tables, as x86 does; and that no program for packets that leave interrupts another one on its CPU,
/// which only PREEMPT_RT does.
fn is_possible() -> bool {
    // The file is of the kernels that were patched for it; what the mainline was built with its version says (`uname -v`).
    let is_patched = fs::read("/sys/kernel/realtime").is_ok_and(|said| said.starts_with(b"1"));
    let version = fs::read_to_string("/proc/sys/kernel/version").unwrap_or_default();
    cfg!(target_arch = "x86_64") && !is_patched && !is_realtime(&version)
}

/// Whether a kernel's version (`#1 SMP PREEMPT_RT Debian 6.12.9-1`) is one of PREEMPT_RT.
fn is_realtime(version: &str) -> bool {
    version.split_whitespace().any(|word| word == "PREEMPT_RT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_of_preempt_rt_are_known_by_their_version() {
        assert!(is_realtime("#1 SMP PREEMPT_RT Debian 6.12.9-1 (2025-01-10)"));
        for other in ["#1 SMP PREEMPT_DYNAMIC Debian 6.12.9-1 (2025-01-10)", "#35-Ubuntu SMP PREEMPT", ""] {
            assert!(!is_realtime(other), "{other}");
        }
    }
}
