//! The control groups of an engine, which nobody but its maker removes.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::wait::{PATIENCE, wait_until};

const ROOT: &str = "/sys/fs/cgroup";

/// Where a group can be: in each hierarchy of version 1, and in the one of version 2.
pub(super) fn hierarchies() -> Vec<PathBuf> {
    let below = fs::read_dir(ROOT).into_iter().flatten().flatten().map(|entry| entry.path());
    below.filter(|path| path.is_dir()).chain([PathBuf::from(ROOT)]).collect()
}

/// Whether this machine has control groups for containers.
pub(super) fn are_mounted() -> bool {
    let root = Path::new(ROOT);
    root.join("cgroup.controllers").exists() || root.join("devices").is_dir()
}

/// Removes a group and those in it from all hierarchies. Their processes have been killed and may still be leaving.
pub(super) fn remove(name: &str) {
    for group in hierarchies().iter().map(|hierarchy| hierarchy.join(name)) {
        // A group that stays is found by the next engine.
        let _ = wait_until("the control groups to be empty", PATIENCE, || {
            remove_tree(&group);
            Ok((!group.exists()).then_some(()))
        });
    }
}

fn remove_tree(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_tree(&entry.path());
        }
    }
    let _ = fs::remove_dir(group);
}
