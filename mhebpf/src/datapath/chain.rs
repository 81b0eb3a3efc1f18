//! The place of the programs among those of others, and whose those are.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use aya::programs::loaded_programs;

use super::{
    load::EGRESS,
    tcx::{self, Member},
};
use crate::pins::{self, Pins, Side};

/// A place among the programs that see the packets of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub place: usize,
    /// How many programs there are.
    pub programs: usize,
}

/// Whether programs on an interface are of another daemon, or of one that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strangers {
    /// There are none.
    None,
    /// There are.
    There,
    /// There are programs of others, whose names this process may not know.
    Unknown,
}

impl Strangers {
    /// Of the programs on egress of an interface, but for that with a link of its own.
    ///
    /// Names of programs take `CAP_SYS_ADMIN` (`BPF_PROG_GET_FD_BY_ID`, Linux 7.3); links that are pinned in the usual place are
    /// known without.
    pub(super) fn on(ifindex: u32, own: Option<u32>) -> Self {
        let mut others: Vec<Member> = tcx::chain(ifindex, Side::Egress).unwrap_or_default();
        others.retain(|member| Some(member.link) != own);
        if others.is_empty() {
            return Self::None;
        }
        let names = program_names();
        let is_of_mhebpf = |member: &Member| names.get(&member.program).is_some_and(|name| name == EGRESS);
        if others.iter().any(is_of_mhebpf) {
            return Self::There;
        }
        let pinned = pinned_links().unwrap_or_default();
        if others.iter().any(|member| pinned.contains(&member.link)) {
            Self::There
        } else if names.is_empty() {
            Self::Unknown
        } else {
            Self::None
        }
    }
}

/// The links of this network namespace that are pinned where `mhebpf run --pin` pins them.
fn pinned_links() -> Result<BTreeSet<u32>> {
    let Some(directory) = Pins::find(&pins::directory(None))? else { return Ok(BTreeSet::new()) };
    Ok(pins::links(&directory)?.iter().filter_map(|link| link.id().ok().flatten()).collect())
}

/// The names of the loaded programs by their ids, as far as this process may know them.
pub fn program_names() -> BTreeMap<u32, String> {
    let loaded = loaded_programs().map_while(Result::ok);
    loaded.filter_map(|info| Some((info.id(), info.name_as_str()?.to_owned()))).collect()
}
