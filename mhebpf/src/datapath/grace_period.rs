//! Not waiting long for RCU.
//!
//! The kernel waits for an RCU grace period each time that a TCX program is attached or detached, and holds the RTNL lock
//! meanwhile (`tcx_entry_sync`, Linux 6.6 to 6.18), so that several threads would only wait for one another. That is 10 to
//! 25 ms, twice for each interface, in which no other process can change an address, link or route of the host
//! either. An expedited grace period takes less than one millisecond; the kernel expedites all while
//! `/sys/kernel/rcu_expedited` is not zero, at the price of an interrupt on each processor that is not idle.

use std::{fs, io, path::Path};

use tracing::{debug, warn};

/// The kernel's switch, which counts for the whole machine. A kernel that was started with `rcu_normal` or
/// `rcu_normal_after_boot`, as those for real-time work are, does not heed it.
const SWITCH: &str = "/sys/kernel/rcu_expedited";

/// What is written to it: any number turns it on, and this one says who did. It is "mh" in ASCII, as the handle of the
/// filters.
const OURS: &str = "28008";
const OFF: &str = "0";

/// Does something that may wait for many grace periods, which are expedited meanwhile where that can be had.
pub fn expedited<T>(work: impl FnOnce() -> T) -> T {
    let _expedited = Expedited::begin();
    work()
}

/// Grace periods are expedited as long as this lives.
///
/// Without the right to write the switch (a container, a service with `ProtectKernelTunables=`) they take as long
/// as they do.
#[derive(Debug)]
pub(super) struct Expedited(());

impl Expedited {
    /// Turns the switch on, unless somebody else has.
    ///
    /// Whoever has turned it on turns it off again, so that no order of the steps of two daemons, in two network namespaces,
    /// leaves it on; at worst one of them goes on without. What a daemon that was killed has left is taken for
    /// this one's.
    pub(super) fn begin() -> Option<Self> {
        match try_begin(Path::new(SWITCH)) {
            Ok(is_ours) => is_ours.then_some(Self(())),
            Err(error) => {
                debug!("attaching and detaching take longer: {SWITCH} can't be used: {error}");
                None
            }
        }
    }
}

impl Drop for Expedited {
    fn drop(&mut self) {
        if let Err(error) = fs::write(SWITCH, OFF) {
            warn!("RCU grace periods stay expedited, until {OFF} is written to {SWITCH}: {error}");
        }
    }
}

/// Whether the switch is to be turned off again.
fn try_begin(switch: &Path) -> io::Result<bool> {
    match fs::read_to_string(switch)?.trim() {
        OFF | OURS => {
            fs::write(switch, OURS)?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_that_somebody_else_has_turned_on_stays_theirs() {
        let file = std::env::temp_dir().join(format!("mhebpf-switch-{}", std::process::id()));
        for (before, ours) in [("0\n", true), ("28008\n", true), ("1\n", false), ("2\n", false)] {
            fs::write(&file, before).expect("a temporary file");
            assert_eq!(try_begin(&file).expect("a readable switch"), ours, "{before}");
            let expected = if ours { OURS } else { before };
            assert_eq!(fs::read_to_string(&file).expect("the switch"), expected);
        }
        fs::remove_file(&file).expect("the temporary file");
        assert!(try_begin(&file).is_err(), "a kernel without the switch");
    }
}
