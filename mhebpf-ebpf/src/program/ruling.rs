//! A verdict as one number, by which the ways of a packet through the judging functions come together again.
//!
//! The verifier follows every way on its own as long as it knows something different on each: acting would be
//! verified once for every family, reason and policy. Of a number from memory that anybody may write it knows nothing.

use core::{cell::UnsafeCell, ptr};

use mhebpf_ebpf::{Act, Family, Reason};

/// What is done with a packet: the fields of [`mhebpf_ebpf::Verdict`] but for the address, and where the packet's
/// network layer starts.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Ruling(u64);

const ACT: u32 = 32;
const FAMILY: u32 = 36;
const REASON: u32 = 40;
const OFFSET: u32 = 48;
/// All bits that there are for it.
const MOST_OFFSET: u16 = (1 << (ENFORCED - OFFSET)) - 1;
const ENFORCED: u32 = 62;
/// Set in every ruling but [`Ruling::PASS`].
const COUNTED: u32 = 63;

impl Ruling {
    /// The packet passes, and nothing is counted.
    pub(super) const PASS: Self = Self(0);

    #[inline(always)]
    pub(super) fn new(
        family: Family,
        reason: Reason,
        act: Act,
        owner: u32,
        enforced: bool,
        offset: usize,
    ) -> Self {
        Self(opaque(
            u64::from(owner)
                | (act as u64) << ACT
                | (family as u64) << FAMILY
                | (reason as u64) << REASON
                | (offset as u64) << OFFSET
                | u64::from(enforced) << ENFORCED
                | 1 << COUNTED,
        ))
    }

    #[inline(always)]
    pub(super) fn is_pass(self) -> bool {
        self.0 == 0
    }

    #[inline(always)]
    pub(super) fn is_enforced(self) -> bool {
        self.0 >> ENFORCED & 1 != 0
    }

    /// An [`Act`].
    #[inline(always)]
    pub(super) fn act(self) -> u8 {
        (self.0 >> ACT) as u8 & 0xf
    }

    #[inline(always)]
    pub(super) fn owner(self) -> u32 {
        self.0 as u32
    }

    /// A [`Family`].
    #[inline(always)]
    pub(super) fn family(self) -> u8 {
        (self.0 >> FAMILY) as u8 & 0xf
    }

    /// A [`Reason`].
    #[inline(always)]
    pub(super) fn reason(self) -> u8 {
        (self.0 >> REASON) as u8
    }

    /// Where the network layer's header starts, in bytes from the start of the frame.
    #[inline(always)]
    pub(super) fn offset(self) -> usize {
        usize::from((self.0 >> OFFSET) as u16 & MOST_OFFSET)
    }
}

/// Eight bytes that are zero and stay so; but they could be written, so that the verifier takes them for anything.
#[repr(transparent)]
struct Writable(UnsafeCell<u64>);

// SAFETY: nobody writes it.
unsafe impl Sync for Writable {}

static ZERO: Writable = Writable(UnsafeCell::new(0));

/// The same number, of which the verifier knows nothing.
#[inline(always)]
pub(super) fn opaque(number: u64) -> u64 {
    // SAFETY: a valid pointer to eight initialised bytes. Volatile: the compiler knows that they are zero.
    number ^ unsafe { ptr::read_volatile(ZERO.0.get()) }
}
