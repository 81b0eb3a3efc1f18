//! What is left of an engine whose test was killed: files and control groups.

use std::{fs, path::Path};

use super::cgroups;

/// How everything is named that an engine makes; the process id of the test follows.
pub(super) const PREFIX: &str = "mhebpf-docker-";

/// Removes what tests have left that are no more.
pub(super) fn remove() {
    for name in names_in(&std::env::temp_dir()) {
        let _ = fs::remove_dir_all(std::env::temp_dir().join(name));
    }
    for name in cgroups::hierarchies().iter().flat_map(|hierarchy| names_in(hierarchy)) {
        cgroups::remove(&name);
    }
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| is_abandoned(name)).collect()
}

fn is_abandoned(name: &str) -> bool {
    let rest = name.strip_prefix(PREFIX);
    let maker = rest.and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
    maker.is_some_and(|maker| !Path::new(&format!("/proc/{maker}")).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_dead_have_left_is_abandoned() {
        let of = |maker: u32| format!("{PREFIX}{maker}-0");
        assert!(!is_abandoned(&of(std::process::id())));
        assert!(is_abandoned(&of(u32::MAX)), "no process has this id");
        assert!(!is_abandoned("docker") && !is_abandoned(PREFIX));
    }
}
