//! Memory of a program: regions whose addresses fit into the 32 bits that `struct __sk_buff` has for them.

use anyhow::{Context as _, Result};

/// Regions, each at the start of its own mebibyte.
#[derive(Default)]
pub(crate) struct Memory {
    regions: Vec<Vec<u8>>,
}

/// No address of a region is zero, or the number of a map.
const FIRST: u64 = 1 << 8;
const SHIFT: u32 = 20;

impl Memory {
    /// Adds a region and returns its address.
    ///
    /// # Errors
    ///
    /// When it is too large, or there are too many.
    pub(crate) fn add(&mut self, bytes: Vec<u8>) -> Result<u64> {
        anyhow::ensure!(bytes.len() < 1 << SHIFT, "a region of {} bytes is too large", bytes.len());
        let address = (FIRST + self.regions.len() as u64) << SHIFT;
        anyhow::ensure!(address < 1 << 32, "too many regions");
        self.regions.push(bytes);
        Ok(address)
    }

    /// `length` bytes from an address on.
    ///
    /// # Errors
    ///
    /// When they are not all in one region.
    pub(crate) fn bytes(&self, address: u64, length: usize) -> Result<&[u8]> {
        self.rest_of(address)?.get(..length).with_context(|| outside(address, length))
    }

    /// All bytes from an address to the end of its region.
    ///
    /// # Errors
    ///
    /// When it is in no region.
    pub(crate) fn rest_of(&self, address: u64) -> Result<&[u8]> {
        let (region, offset) = split(address)?;
        self.regions.get(region).and_then(|bytes| bytes.get(offset..)).with_context(|| outside(address, 0))
    }

    /// Writes bytes.
    ///
    /// # Errors
    ///
    /// When they would not all be in one region.
    pub(crate) fn copy_to(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        let (region, offset) = split(address)?;
        let region = self.regions.get_mut(region).with_context(|| outside(address, bytes.len()))?;
        let place =
            region.get_mut(offset..offset + bytes.len()).with_context(|| outside(address, bytes.len()))?;
        place.copy_from_slice(bytes);
        Ok(())
    }

    /// Reads a number of `width` bytes, in the machine's order.
    ///
    /// # Errors
    ///
    /// When it is in no region.
    pub(crate) fn load(&self, address: u64, width: usize) -> Result<u64> {
        let bytes = self.bytes(address, width)?;
        Ok(match *bytes {
            [byte] => byte.into(),
            [a, b] => u16::from_ne_bytes([a, b]).into(),
            [a, b, c, d] => u32::from_ne_bytes([a, b, c, d]).into(),
            _ => u64::from_ne_bytes(bytes.try_into()?),
        })
    }

    /// Writes the lower `width` bytes of a number, in the machine's order.
    ///
    /// # Errors
    ///
    /// When they would be in no region.
    pub(crate) fn store(&mut self, address: u64, width: usize, value: u64) -> Result<()> {
        match width {
            1 => self.copy_to(address, &(value as u8).to_ne_bytes()),
            2 => self.copy_to(address, &(value as u16).to_ne_bytes()),
            4 => self.copy_to(address, &(value as u32).to_ne_bytes()),
            _ => self.copy_to(address, &value.to_ne_bytes()),
        }
    }
}

fn split(address: u64) -> Result<(usize, usize)> {
    let region = (address >> SHIFT).checked_sub(FIRST).with_context(|| outside(address, 0))?;
    Ok((region as usize, (address & ((1 << SHIFT) - 1)) as usize))
}

fn outside(address: u64, length: usize) -> String {
    format!("{length} bytes at {address:#x} are outside of all memory")
}
