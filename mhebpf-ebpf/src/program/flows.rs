//! The flows that each CPU has redirected last, and where to.
//!
//! What the host's routing sends to the wrong interface it sends there again and again. The owner, its state and the next hop
//! are looked up for the first packet, and then for the first one after any change of the tables: what is remembered carries
//! the generation of the tables that it was made from, and counts in no other.

use core::{
    arch::asm,
    ptr::{read_volatile, write_volatile},
};

use aya_ebpf::{macros::map, maps::PerCpuArray};
use mhebpf_ebpf::{Action, Datagram, Ipv4, Ipv6, Neighbour};

use super::maps;

/// How many flows of each family a CPU remembers, a power of two; one takes the place of another.
const FLOWS_OF_FAMILY: u32 = 256;

#[map]
static FLOWS: PerCpuArray<Flow> = PerCpuArray::with_max_entries(2 * FLOWS_OF_FAMILY, 0);

/// A flow, in one cache line. Zeroes are no flow: there is no generation 0.
#[repr(C, align(64))]
struct Flow {
    generation: u32,
    ifindex: u32,
    source: [u32; 4],
    destination: [u32; 4],
    owner: u32,
    /// [`Neighbour::family`] of the next hop.
    family: u8,
    /// Whether somebody is at it: a softirq can interrupt the program that sends for a process, and its own program runs then
    /// on the same CPU.
    busy: u8,
    reserved: [u8; 2],
    next_hop: [u32; 4],
}

const _: () = assert!(size_of::<Flow>() == 64);

/// The place of one flow, whoever has it now.
pub(super) struct Place {
    flow: *mut Flow,
    generation: u32,
    ifindex: u32,
    source: Neighbour,
    destination: Neighbour,
}

impl Place {
    /// The place of a datagram's flow; `None` where nothing is to be remembered now.
    #[inline(always)]
    pub(super) fn of<A: Copy + Into<Neighbour>>(ifindex: u32, datagram: &Datagram<A>) -> Option<Self> {
        let generation = maps::generation()?;
        let (source, destination) = (datagram.source.into(), datagram.destination.into());
        let flow = FLOWS.get_ptr_mut(index(&source, &destination))?;
        Some(Self { flow, generation, ifindex, source, destination })
    }

    /// The generation of the tables that the flow is to be decided on by.
    #[inline(always)]
    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    /// Where the flow went the last time: the owner and the next hop.
    #[inline(always)]
    pub(super) fn recall(&self) -> Option<(u32, Neighbour)> {
        let flow = self.flow;
        // SAFETY: an element of the map, which lives as long as the program. Only this CPU has it, and nobody else on it
        // while it is busy. Volatile, so that the compiler leaves the order as it is.
        unsafe {
            if read_volatile(&raw const (*flow).busy) != 0 {
                return None;
            }
            write_volatile(&raw mut (*flow).busy, 1);
            let is_this = read_volatile(&raw const (*flow).generation) == self.generation
                && read_volatile(&raw const (*flow).ifindex) == self.ifindex
                && is_same(&raw const (*flow).source, &self.source)
                && is_same(&raw const (*flow).destination, &self.destination);
            let owner = read_volatile(&raw const (*flow).owner);
            let next_hop = Neighbour {
                family: read_volatile(&raw const (*flow).family).into(),
                address: read_volatile(&raw const (*flow).next_hop),
            };
            write_volatile(&raw mut (*flow).busy, 0);
            is_this.then_some((owner, next_hop))
        }
    }

    /// Remembers a redirect to a next hop.
    #[inline(always)]
    pub(super) fn keep(&self, Action { owner, address, .. }: &Action) {
        let flow = self.flow;
        // SAFETY: as above.
        unsafe {
            if read_volatile(&raw const (*flow).busy) != 0 {
                return;
            }
            write_volatile(&raw mut (*flow).busy, 1);
            write_volatile(&raw mut (*flow).generation, self.generation);
            write_volatile(&raw mut (*flow).ifindex, self.ifindex);
            write_volatile(&raw mut (*flow).source, self.source.address);
            write_volatile(&raw mut (*flow).destination, self.destination.address);
            write_volatile(&raw mut (*flow).owner, *owner);
            write_volatile(&raw mut (*flow).family, address.family as u8);
            write_volatile(&raw mut (*flow).next_hop, address.address);
            write_volatile(&raw mut (*flow).busy, 0);
        }
    }
}

/// An address that tables are asked for.
pub(super) trait InOrder: Copy + Into<Neighbour> {
    /// The same address, for lookups that the processor must not do before `generation` was read: a flow would carry the
    /// generation of tables that are newer than those it was decided on by.
    fn after(self, generation: u32) -> Self;
}

impl InOrder for Ipv4 {
    #[inline(always)]
    fn after(self, generation: u32) -> Self {
        Self::from_wire(after(self.to_wire(), generation))
    }
}

impl InOrder for Ipv6 {
    #[inline(always)]
    fn after(self, generation: u32) -> Self {
        let [first, second, third, last] = self.to_wire();
        Self::from_wire([after(first, generation), second, third, last])
    }
}

/// The same word. What is read at an address that depends on a number is read after that, on every processor that BPF runs
/// on.
#[inline(always)]
fn after(word: u32, generation: u32) -> u32 {
    let mut nothing = generation;
    // SAFETY: an instruction that makes zero of a register. The compiler would know that it does.
    unsafe { asm!("{0} ^= {0}", inout(reg) nothing, options(pure, nomem, nostack)) };
    word ^ nothing
}

/// Which one it is: each family has its own, and neighbouring addresses have different ones.
#[inline(always)]
fn index(source: &Neighbour, destination: &Neighbour) -> u32 {
    let family = if destination.family == Neighbour::INET { 0 } else { FLOWS_OF_FAMILY };
    let number = word(source).rotate_left(16) ^ word(destination);
    // The uppermost bits of a product by a large number depend on all bits.
    let product = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (product >> (u64::BITS - FLOWS_OF_FAMILY.trailing_zeros())) as u32 + family
}

/// A word in which addresses of the family differ.
#[inline(always)]
fn word(address: &Neighbour) -> u32 {
    let [first, second, third, last] = address.address;
    if address.family == Neighbour::INET { first } else { first ^ second ^ third ^ last }
}

/// Whether an address is the one that is kept.
///
/// # Safety
///
/// Four words must be there.
#[inline(always)]
unsafe fn is_same(kept: *const [u32; 4], address: &Neighbour) -> bool {
    let words = address.address;
    // SAFETY: as the caller vouches.
    unsafe {
        if address.family == Neighbour::INET {
            return read_volatile(kept.cast::<u32>()) == words[0];
        }
        let kept = read_volatile(kept);
        (kept[0] ^ words[0]) | (kept[1] ^ words[1]) | (kept[2] ^ words[2]) | (kept[3] ^ words[3]) == 0
    }
}
