//! The place of the programs among those of others.

use aya::programs::{SchedClassifier, TcAttachType};
use mhebpf_ebpf::Direction;

use super::Programs;

/// A place in the chain of TCX programs on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub place: usize,
    /// How many programs there are.
    pub programs: usize,
}

impl Programs {
    /// Where the program for a direction stands on an interface; `None` where the kernel does not say: without TCX, and
    /// without `CAP_SYS_ADMIN`.
    pub fn place(&mut self, interface: &str, direction: Direction) -> Option<Place> {
        let (program, attach_type) = match direction {
            Direction::Egress => (self.egress(), TcAttachType::Egress),
            Direction::Ingress => (self.ingress(), TcAttachType::Ingress),
        };
        let own = program.ok()?.info().ok()?.id();
        let (_, chain) = SchedClassifier::query_tcx(interface, attach_type).ok()?;
        let before = chain.iter().position(|program| program.id() == own)?;
        Some(Place { place: before + 1, programs: chain.len() })
    }
}
