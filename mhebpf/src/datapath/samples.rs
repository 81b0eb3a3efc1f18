//! Samples of packets that did not simply pass.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{Array, MapData, PerCpuArray, RingBuf},
};
use mhebpf_ebpf::{Sample, Sampler};

use super::{maps::take, raw::Raw};

/// The ring buffer of samples, and the rate at which they come. It is readable when one is there.
pub struct Samples {
    ring: RingBuf<MapData>,
    rate: Array<MapData, u32>,
    samplers: PerCpuArray<MapData, Raw<Sampler>>,
    /// How many were left out by others that these are in place of.
    suppressed_before: u64,
}

impl Samples {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self> {
        Ok(Self {
            ring: RingBuf::try_from(take(ebpf, "SAMPLES")?)?,
            rate: Array::try_from(take(ebpf, "SAMPLE_RATE")?)?,
            samplers: PerCpuArray::try_from(take(ebpf, "SAMPLERS")?)?,
            suppressed_before: 0,
        })
    }

    /// Has each CPU take so many samples in a second and direction, and as many at once; none with 0, which is how it
    /// is at first.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to write the map.
    pub fn set_rate(&mut self, per_second: u32) -> Result<()> {
        self.rate.set(0, per_second, 0).context("setting the rate of samples")
    }

    /// Goes on from how many were left out by others, which are taken no more.
    ///
    /// # Errors
    ///
    /// As [`Samples::suppressed`].
    pub fn go_on_from(&mut self, others: &Self) -> Result<()> {
        self.suppressed_before = others.suppressed()?;
        Ok(())
    }

    /// A descriptor that is readable when a sample is there, to wait for without the maps at hand.
    ///
    /// # Errors
    ///
    /// When no descriptor is left.
    pub fn readiness(&self) -> Result<OwnedFd> {
        self.as_fd().try_clone_to_owned().context("duplicating the descriptor of the samples")
    }

    /// How many packets were not sampled while samples were taken, for the rate or for a lack of room.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read the map.
    pub fn suppressed(&self) -> Result<u64> {
        let mut sum = self.suppressed_before;
        for direction in 0..self.samplers.len() {
            let per_cpu =
                self.samplers.get(&direction, 0).context("reading how many samples were left out")?;
            sum += per_cpu.iter().map(|Raw(sampler)| sampler.suppressed).sum::<u64>();
        }
        Ok(sum)
    }
}

/// The samples that are there, until there are none; later there may be more.
impl Iterator for Samples {
    type Item = Sample;

    fn next(&mut self) -> Option<Sample> {
        loop {
            let item = self.ring.next()?;
            if item.len() >= size_of::<Sample>() {
                // SAFETY: as many bytes are there, at any alignment, and every bit pattern is a valid sample.
                return Some(unsafe { item.as_ptr().cast::<Sample>().read_unaligned() });
            }
        }
    }
}

impl AsFd for Samples {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

impl AsRawFd for Samples {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}
