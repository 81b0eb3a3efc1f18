//! The ways to a compiler for the eBPF programs, and which of them to try on a machine. Pure: nothing is run here.

use std::{ffi::OsStr, fmt};

use crate::toolchain::{DEBIAN_TOOLCHAIN, PINNED_NIGHTLY, Selector};

/// Debian's compiler, cargo, and `core` already compiled for the eBPF targets.
pub(crate) const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];

/// Where a compiler for the eBPF programs comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// A nightly toolchain of rustup, with the source of `core`.
    Rustup,
    /// Debian's packages.
    Debian,
}

impl Way {
    /// Parses the argument of `--way`.
    pub(crate) fn parse(name: &OsStr) -> Option<Self> {
        match name.to_str() {
            Some("rustup") => Some(Self::Rustup),
            Some("debian") => Some(Self::Debian),
            _ => None,
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rustup => "rustup",
            Self::Debian => "debian",
        })
    }
}

/// What the machine has that bears on the choice.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// rustup is installed.
    pub(crate) rustup: bool,
    /// Packages can be installed from the distribution.
    pub(crate) apt: bool,
    /// Toolchains of rustup that lack nothing but `rust-src`.
    pub(crate) without_source: Vec<String>,
    /// Debian's compiler and `core` are installed, and rustup does not know them yet.
    pub(crate) debian_unlinked: bool,
}

/// One step towards a compiler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    AddSource(String),
    InstallToolchain(String),
    InstallDebianPackages,
    LinkDebian,
}

/// Steps that end with a compiler which `selector` reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) way: Way,
    pub(crate) actions: Vec<Action>,
    pub(crate) selector: Selector,
}

/// Lists the attempts to make, best first, until one gives a compiler.
///
/// `forced` is the compiler that the environment asks for, `way` the one that the command line asks for.
pub(crate) fn attempts(way: Option<Way>, forced: Option<&str>, facts: &Facts) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    let debian_forced = forced.is_some_and(|name| name.is_empty() || name == DEBIAN_TOOLCHAIN);
    if facts.rustup && !debian_forced {
        let wanted = forced.map_or(vec![PINNED_NIGHTLY, "nightly"], |name| vec![name]);
        let lacking = wanted.iter().filter(|name| facts.without_source.iter().any(|other| other == *name));
        attempts.extend(lacking.map(|name| by_rustup(Action::AddSource((*name).to_owned()), name)));
        let install = forced.unwrap_or(PINNED_NIGHTLY);
        attempts.push(by_rustup(Action::InstallToolchain(install.to_owned()), install));
    }
    if facts.apt && (forced.is_none() || debian_forced) {
        attempts.push(by_debian(facts, forced));
    }
    attempts.retain(|attempt| way.is_none_or(|way| way == attempt.way));
    attempts
}

fn by_rustup(action: Action, name: &str) -> Attempt {
    Attempt { way: Way::Rustup, actions: vec![action], selector: Selector::Rustup(name.to_owned()) }
}

fn by_debian(facts: &Facts, forced: Option<&str>) -> Attempt {
    let mut actions = Vec::new();
    if !facts.debian_unlinked {
        actions.push(Action::InstallDebianPackages);
    }
    let linked = facts.rustup && forced != Some("");
    if linked {
        actions.push(Action::LinkDebian);
    }
    let selector = if linked { Selector::Rustup(DEBIAN_TOOLCHAIN.to_owned()) } else { Selector::Path };
    Attempt { way: Way::Debian, actions, selector }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actions(way: Option<Way>, forced: Option<&str>, facts: &Facts) -> Vec<Vec<Action>> {
        attempts(way, forced, facts).into_iter().map(|attempt| attempt.actions).collect()
    }

    fn add_source(name: &str) -> Vec<Action> {
        vec![Action::AddSource(name.to_owned())]
    }

    fn install(name: &str) -> Vec<Action> {
        vec![Action::InstallToolchain(name.to_owned())]
    }

    fn debian() -> Vec<Action> {
        vec![Action::InstallDebianPackages, Action::LinkDebian]
    }

    fn facts() -> Facts {
        Facts { rustup: true, apt: true, ..Facts::default() }
    }

    #[test]
    fn a_fresh_machine_gets_the_pinned_nightly_and_falls_back_to_debian() {
        assert_eq!(actions(None, None, &facts()), [install(PINNED_NIGHTLY), debian()]);
    }

    #[test]
    fn a_nightly_that_is_there_gets_its_source_first() {
        let facts = Facts { without_source: vec!["nightly".to_owned()], ..facts() };
        assert_eq!(actions(None, None, &facts), [add_source("nightly"), install(PINNED_NIGHTLY), debian()]);
    }

    #[test]
    fn debian_needs_no_link_where_there_is_no_rustup() {
        let facts = Facts { rustup: false, ..facts() };
        let all = attempts(None, None, &facts);
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].actions, [Action::InstallDebianPackages]);
        assert_eq!(all[0].selector, Selector::Path);
    }

    #[test]
    fn debian_is_only_linked_where_its_packages_are_installed() {
        let facts = Facts { debian_unlinked: true, ..facts() };
        assert_eq!(actions(Some(Way::Debian), None, &facts), [[Action::LinkDebian]]);
    }

    #[test]
    fn a_forced_way_has_no_fallback() {
        assert_eq!(actions(Some(Way::Rustup), None, &facts()), [install(PINNED_NIGHTLY)]);
        assert_eq!(actions(Some(Way::Debian), None, &facts()), [debian()]);
        assert!(attempts(Some(Way::Debian), None, &Facts { apt: false, ..facts() }).is_empty());
    }

    #[test]
    fn a_compiler_named_by_the_environment_is_the_only_one() {
        assert_eq!(actions(None, Some("nightly-2026-06-01"), &facts()), [install("nightly-2026-06-01")]);
        assert_eq!(actions(None, Some(DEBIAN_TOOLCHAIN), &facts()), [debian()]);
        assert_eq!(actions(None, Some(""), &facts()), [[Action::InstallDebianPackages]]);
        assert!(attempts(Some(Way::Rustup), Some(DEBIAN_TOOLCHAIN), &facts()).is_empty());
    }
}
