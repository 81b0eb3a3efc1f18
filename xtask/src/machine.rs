//! What the running kernel and this process have, read from `/proc` and `/sys`.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use crate::toolchain::Version;

/// Capabilities as numbered in `linux/capability.h`.
pub(crate) const CAP_NET_ADMIN: u32 = 12;
pub(crate) const CAP_SYS_ADMIN: u32 = 21;
pub(crate) const CAP_BPF: u32 = 39;

/// Tells whether this process runs as root.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Returns the release of the running kernel as it is written, and its number.
pub(crate) fn kernel() -> (String, Option<Version>) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
    let version = Version::parse(&release);
    (release, version)
}

/// Tells whether the kernel describes its types, which loading the programs takes.
pub(crate) fn has_btf() -> bool {
    Path::new("/sys/kernel/btf/vmlinux").exists()
}

/// Tells whether programs are compiled to machine code.
pub(crate) fn has_jit() -> bool {
    let setting = fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").unwrap_or_default();
    matches!(setting.trim(), "1" | "2")
}

/// Returns where a bpf file system is mounted.
pub(crate) fn bpffs() -> Option<String> {
    bpffs_in(&fs::read_to_string("/proc/self/mounts").unwrap_or_default())
}

fn bpffs_in(mounts: &str) -> Option<String> {
    let mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    mounts.filter(|mount| mount.get(2) == Some(&"bpf")).find_map(|mount| Some((*mount.get(1)?).to_owned()))
}

/// Returns the effective capabilities of this process as a bit set.
pub(crate) fn capabilities() -> u64 {
    capabilities_in(&fs::read_to_string("/proc/self/status").unwrap_or_default())
}

fn capabilities_in(status: &str) -> u64 {
    let value = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    value.and_then(|value| u64::from_str_radix(value.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effective_capabilities_are_read_from_the_status_of_the_process() {
        let status = "Name:\tcat\nCapPrm:\tffff\nCapEff:\t0000008000001000\nCapBnd:\tffff\n";
        assert_eq!(capabilities_in(status), 1 << CAP_BPF | 1 << CAP_NET_ADMIN);
        assert_eq!(capabilities_in("Name:\tcat\n"), 0);
    }

    #[test]
    fn a_bpf_file_system_is_found_by_its_type() {
        let mounts = "proc /proc proc rw 0 0\nbpf /sys/fs/bpf bpf rw,nosuid 0 0\n";
        assert_eq!(bpffs_in(mounts).as_deref(), Some("/sys/fs/bpf"));
        assert_eq!(bpffs_in("bpf /mnt ext4 rw 0 0\n"), None);
    }
}
