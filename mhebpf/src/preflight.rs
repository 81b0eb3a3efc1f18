//! What must be given before anything is tried.

use std::{fs, io};

use anyhow::{Context as _, Result, bail};

/// The oldest kernel with `bpf_redirect_neigh`.
const OLDEST_KERNEL: (u32, u32) = (5, 10);

/// Capabilities, by their numbers in `linux/capability.h`.
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_BPF: u32 = 39;

/// Checks the kernel and the privileges of this process.
///
/// BTF of the kernel is not needed: the programs use no kernel structures.
///
/// # Errors
///
/// One message that says what is missing and what to do.
pub fn check() -> Result<()> {
    check_kernel(&kernel_release()?)?;
    let status = fs::read_to_string("/proc/self/status").context("reading the privileges of this process")?;
    check_capabilities(&status)
}

/// Allows this process as many open files as it may have: two are held for each interface. Where that fails, what there is has
/// to do.
pub fn raise_descriptor_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointers are to a limit that lives through the calls.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

fn kernel_release() -> Result<String> {
    // SAFETY: an all-zero `utsname` is a valid one.
    let mut name: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: a pointer to a `utsname` that lives through the call.
    if unsafe { libc::uname(&raw mut name) } != 0 {
        return Err(io::Error::last_os_error()).context("reading the kernel's release");
    }
    let bytes: Vec<u8> = name.release.iter().map(|byte| *byte as u8).take_while(|byte| *byte != 0).collect();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn check_kernel(release: &str) -> Result<()> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().ok());
    let (Some(Some(major)), Some(Some(minor))) = (numbers.next(), numbers.next()) else {
        // An unreadable release is no reason to refuse; loading will tell.
        return Ok(());
    };
    let (oldest_major, oldest_minor) = OLDEST_KERNEL;
    if (major, minor) < OLDEST_KERNEL {
        bail!(
            "this kernel is Linux {release}, and mhebpf needs Linux {oldest_major}.{oldest_minor} or later \
             (bpf_redirect_neigh): upgrade the kernel"
        );
    }
    Ok(())
}

fn check_capabilities(status: &str) -> Result<()> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .context("finding the effective capabilities of this process in /proc/self/status")?;
    let has = |capability: u32| effective & (1 << capability) != 0;
    let mut missing = Vec::new();
    if !has(CAP_BPF) && !has(CAP_SYS_ADMIN) {
        missing.push("CAP_BPF");
    }
    if !has(CAP_NET_ADMIN) {
        missing.push("CAP_NET_ADMIN");
    }
    if !missing.is_empty() {
        bail!(
            "missing privileges: {} (to load BPF programs and attach them to interfaces): run mhebpf as root, for \
             example with sudo",
            missing.join(" and ")
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_before_5_10_are_refused_by_name() {
        let error = check_kernel("5.4.0-150-generic").expect_err("too old");
        assert!(error.to_string().contains("5.4.0-150-generic"), "{error}");
        for release in ["5.10.0-30-cloud-amd64", "6.18.44", "7.0-rc1", "unknown"] {
            check_kernel(release).expect(release);
        }
    }

    #[test]
    fn missing_capabilities_are_named() {
        let error = check_capabilities("CapEff:\t0000000000000000\n").expect_err("nothing is allowed");
        assert!(error.to_string().contains("CAP_BPF and CAP_NET_ADMIN"), "{error}");
        let bpf_and_net_admin = format!("CapEff:\t{:016x}\n", (1u64 << CAP_BPF) | (1 << CAP_NET_ADMIN));
        check_capabilities(&bpf_and_net_admin).expect("enough");
        let sys_admin_only = format!("CapEff:\t{:016x}\n", 1u64 << CAP_SYS_ADMIN);
        let error = check_capabilities(&sys_admin_only).expect_err("no network");
        assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
    }
}
