//! The flows that each CPU has redirected last, and where to.
//!
//! What the host's routing sends to the wrong interface it sends there again and again. The owner, its state and the next hop
//! are looked up for the first packet, and then for the first one after any change of the tables: what is remembered carries
//! the epoch of the tables that it was made from, and counts in no other.

use aya_ebpf::{macros::map, maps::PerCpuArray};
use mhebpf_ebpf::{Action, Datagram, Neighbour, next_hop};

use super::maps;

/// How many flows of each family a CPU remembers, a power of two; one takes the place of another.
const FLOWS_OF_FAMILY: u32 = 256;

#[map]
static FLOWS: PerCpuArray<Flow> = PerCpuArray::with_max_entries(2 * FLOWS_OF_FAMILY, 0);

/// A flow, as long as a cache line. Zeroes are no flow: there is no epoch 0.
#[repr(C, align(64))]
struct Flow {
    epoch: u32,
    ifindex: u32,
    source: [u32; 4],
    destination: [u32; 4],
    owner: u32,
    next_hop: Neighbour,
}

/// The entry of one flow, whoever has it now. Only this CPU has it, and no program for packets that leave interrupts
/// another one on the same CPU: they run with softirqs disabled (`__dev_queue_xmit`, Linux 5.10 to 6.18). Where that is
/// not enough, with PREEMPT_RT, the daemon lets no epoch begin.
pub(super) struct Entry {
    flow: &'static mut Flow,
    epoch: u32,
    ifindex: u32,
    source: Neighbour,
    destination: Neighbour,
}

impl Entry {
    /// The entry of a datagram's flow; `None` where nothing is to be remembered now.
    #[inline(always)]
    pub(super) fn of<A: Copy + Into<Neighbour>>(ifindex: u32, datagram: &Datagram<A>) -> Option<Self> {
        let epoch = maps::epoch()?;
        let (source, destination) = (datagram.source.into(), datagram.destination.into());
        let flow = FLOWS.get_ptr_mut(index(&source, &destination))?;
        // SAFETY: an element of the map, which lives as long as the program, and nobody else has it meanwhile.
        let flow = unsafe { &mut *flow };
        Some(Self { flow, epoch, ifindex, source, destination })
    }

    /// Where the flow went the last time: the owner and the next hop.
    #[inline(always)]
    pub(super) fn recall(&self) -> Option<(u32, Neighbour)> {
        let Flow { epoch, ifindex, ref source, ref destination, owner, next_hop } = *self.flow;
        let is_this = epoch == self.epoch
            && ifindex == self.ifindex
            && is_same(source, &self.source)
            && is_same(destination, &self.destination);
        is_this.then_some((owner, next_hop))
    }

    /// Remembers a redirect to a next hop.
    #[inline(always)]
    pub(super) fn keep(self, Action { owner, address, .. }: &Action) {
        *self.flow = Flow {
            epoch: self.epoch,
            ifindex: self.ifindex,
            source: self.source.address,
            destination: self.destination.address,
            owner: *owner,
            next_hop: *address,
        };
    }
}

/// Which one it is: each family has its own, and neighbouring addresses have different ones.
#[inline(always)]
fn index(source: &Neighbour, destination: &Neighbour) -> u32 {
    let family = if destination.family == Neighbour::INET { 0 } else { FLOWS_OF_FAMILY };
    let number = next_hop::flow(source, destination);
    (number >> (u32::BITS - FLOWS_OF_FAMILY.trailing_zeros())) + family
}

/// Whether an address is the one that is kept.
#[inline(always)]
fn is_same(kept: &[u32; 4], address: &Neighbour) -> bool {
    let words = address.address;
    if address.family == Neighbour::INET {
        return kept[0] == words[0];
    }
    (kept[0] ^ words[0]) | (kept[1] ^ words[1]) | (kept[2] ^ words[2]) | (kept[3] ^ words[3]) == 0
}
