//! Giving memory back.

use crate::model::Host;

/// A host of this many addresses and routes leaves more than a megabyte behind.
const LARGE: usize = 1000;

/// Gives what a synchronisation with a large host has used back to the system: a burst of changes does not happen
/// often, and the daemon lives long.
pub(super) fn give_back(host: &Host) {
    if host.addresses.len() + host.routes.len() >= LARGE {
        trim();
    }
}

/// Gives back all that is not in use. The start needs much: aya reads the whole BTF of the kernel.
#[cfg(target_env = "gnu")]
pub(super) fn trim() {
    // SAFETY: no pointers are involved; glibc locks its heaps meanwhile.
    unsafe { libc::malloc_trim(0) };
}

/// Other C libraries give back by themselves.
#[cfg(not(target_env = "gnu"))]
pub(super) fn trim() {}
