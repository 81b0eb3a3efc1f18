//! Giving memory back.

/// Gives all memory that is not in use back to the system: bursts of changes are rare, and the daemon lives long.
#[cfg(target_env = "gnu")]
pub(super) fn give_back() {
    // SAFETY: no pointers are involved; glibc locks its heaps meanwhile.
    unsafe { libc::malloc_trim(0) };
}

/// Other C libraries give it back by themselves.
#[cfg(not(target_env = "gnu"))]
pub(super) fn give_back() {}
