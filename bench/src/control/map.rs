//! The daemon's map of owners, from outside.

use std::{fs, io, net::Ipv4Addr, os::fd::AsRawFd as _};

use anyhow::{Context as _, Result};
use aya::maps::{MapFd, loaded_maps};
use mhebpf_ebpf::{Owners as Entry, OwnersKey};

const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
/// The name of the map (`mhebpf-ebpf/src/program/maps.rs`).
const NAME: &str = "OWNERS";

/// The map.
pub(crate) struct Owners {
    pid: u32,
    map: MapFd,
}

/// The beginning of `union bpf_attr` for BPF_MAP_LOOKUP_ELEM.
#[repr(C)]
struct Lookup {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl Owners {
    /// The map of the daemon with this process id.
    ///
    /// # Errors
    ///
    /// When it has none.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).context("looking for the daemon's maps")? {
            // Descriptors come and go.
            let info = fs::read_to_string(entry?.path()).unwrap_or_default();
            ids.extend(
                info.lines().filter_map(|line| line.strip_prefix("map_id:")?.trim().parse::<u32>().ok()),
            );
        }
        for map in loaded_maps() {
            let map = map.context("listing maps")?;
            if map.name_as_str() == Some(NAME) && ids.contains(&map.id()) {
                return Ok(Self { pid, map: map.fd()? });
            }
        }
        anyhow::bail!("the daemon has no map {NAME}, but maps {ids:?}")
    }

    /// Looks for the map anew: the daemon replaces one that is nearly full by a larger one.
    ///
    /// # Errors
    ///
    /// When the daemon has none.
    pub(crate) fn find_again(&mut self) -> Result<()> {
        *self = Self::of(self.pid)?;
        Ok(())
    }

    /// Whether an address, outside VRFs, is known.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub(crate) fn contains(&self, address: Ipv4Addr) -> Result<bool> {
        let key = OwnersKey { domain: 0, address: mhebpf_ebpf::Ipv4::from(address) };
        let mut value = Entry::NONE;
        let mut lookup = Lookup {
            map: std::os::fd::AsFd::as_fd(&self.map).as_raw_fd().cast_unsigned(),
            padding: 0,
            key: &raw const key as u64,
            value: &raw mut value as u64,
            flags: 0,
        };
        // SAFETY: the attributes are as `union bpf_attr` begins for the command; key and value have the sizes that the
        // map was made with, and outlive the call.
        let result = unsafe {
            libc::syscall(libc::SYS_bpf, BPF_MAP_LOOKUP_ELEM, &raw mut lookup, size_of::<Lookup>())
        };
        match io::Error::last_os_error() {
            _ if result == 0 => Ok(true),
            error if error.kind() == io::ErrorKind::NotFound => Ok(false),
            error => Err(error).context("looking up an address"),
        }
    }
}
