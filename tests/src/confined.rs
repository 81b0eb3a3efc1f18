//! What the shipped unit grants, and no more.

use std::{io, os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context as _, Result};

/// The unit, from which the capabilities are read so that the tests can't have others.
const UNIT: &str = include_str!("../../mhebpf/systemd/mhebpf.service");

/// The capabilities of Linux 5.9 to 7.3 by their numbers, without `CAP_` (linux/capability.h).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Has a command run with the capabilities of the unit and `NoNewPrivileges=`, after all else that was asked to be done before it
/// starts.
///
/// # Errors
///
/// When the unit grants what no kernel is known to have.
pub fn as_by_the_unit(command: &mut Command) -> Result<()> {
    let kept = granted(UNIT)?;
    keep(command, kept);
    // SAFETY: prctl is async-signal-safe, and nothing is allocated.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
    Ok(())
}

/// Has a command run with these capabilities at most, by their numbers: root has the bounding set after execve.
pub fn keep(command: &mut Command, kept: Vec<libc::c_ulong>) {
    // SAFETY: prctl is async-signal-safe, and nothing is allocated.
    unsafe {
        command.pre_exec(move || {
            for capability in (0..64).filter(|capability| !kept.contains(capability)) {
                // Fails beyond the last capability that the kernel knows.
                libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0);
            }
            Ok(())
        });
    }
}

fn granted(unit: &str) -> Result<Vec<libc::c_ulong>> {
    let names = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let number = |name: &str| {
        let place = NAMES.iter().position(|known| name.strip_prefix("CAP_") == Some(known));
        place.map(|place| place as libc::c_ulong).with_context(|| format!("there is no capability {name}"))
    };
    names.context("the unit has no CapabilityBoundingSet=")?.split_whitespace().map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_unit_grants_is_understood() -> Result<()> {
        assert_eq!(granted("[Service]\nCapabilityBoundingSet=CAP_CHOWN CAP_BPF\n")?, [0, 39]);
        assert!(granted("CapabilityBoundingSet=CAP_FLY").is_err() && granted("").is_err());
        let granted = granted(UNIT)?;
        assert!(
            granted.contains(&12) && !granted.contains(&21),
            "CAP_NET_ADMIN, and not CAP_SYS_ADMIN: {granted:?}"
        );
        Ok(())
    }
}
