//! The place of the programs among those of others.

use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType};
use mhebpf_ebpf::Direction;

use super::{Programs, load::EGRESS, tcx};
use crate::pins::Side;

/// A place in the chain of TCX programs on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub place: usize,
    /// How many programs there are.
    pub programs: usize,
}

impl Programs {
    /// How many other programs with the name of the egress program are on an interface: those of another daemon, or of one that is
    /// gone. None is known of without `CAP_SYS_ADMIN`, which their names take.
    pub fn strangers(&mut self, interface: &str) -> usize {
        let mut count = || {
            let own = self.egress().ok()?.info().ok()?.id();
            let (_, chain) = SchedClassifier::query_tcx(interface, TcAttachType::Egress).ok()?;
            let is_stranger =
                |program: &&ProgramInfo| program.id() != own && program.name_as_str() == Some(EGRESS);
            Some(chain.iter().filter(is_stranger).count())
        };
        count().unwrap_or(0)
    }

    /// Where the program for a direction stands on an interface; `None` where the kernel does not say: without TCX.
    pub fn place(&mut self, ifindex: u32, direction: Direction) -> Option<Place> {
        let (program, side) = match direction {
            Direction::Egress => (self.egress(), Side::Egress),
            Direction::Ingress => (self.ingress(), Side::Ingress),
        };
        let own = program.ok()?.info().ok()?.id();
        let chain = tcx::chain(ifindex, side).ok()?;
        let before = chain.iter().position(|member| member.program == own)?;
        Some(Place { place: before + 1, programs: chain.len() })
    }
}
