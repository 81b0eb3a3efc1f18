//! How a block of addresses is replaced by another one, while programs read it.
//!
//! The kernel copies an element of an array without a promise of how many bytes at once (`copy_map_value`, Linux 7.3), and a
//! program reads a block by several loads. So it can have read some bytes before a write and others after it, and of two blocks
//! make a third one, which would let pass what is owned elsewhere. But a program that ran before an RCU grace period has ended
//! after it. So a block is closed before it is moved, and opened after, with a grace period before each of these two; it holds
//! no address meanwhile:
//!
//! 1. closed: [`BlockAddress::SHUT`] is behind the prefix, which no address of a block matches, whatever else is read of the
//!    old one: the first byte of the last address is not 0xff, which `model/tables/blocks.rs` sees to. What is read of
//!    the old one's bits behind the prefix without that makes a part of the old block.
//! 2. moved: the last address is that of the new block. Whatever is read of both, it is closed.
//! 3. open: what is read of the new one's bits behind the prefix makes a part of the new block.
//!
//! Closing never waits: an address that is somebody else's by now must not pass. What is in no block is looked up, so that
//! nothing depends on when the rest is done.

use std::io;

use mhebpf_ebpf::{Block, Iface, Ipv4, Ipv6, Slot6};

/// `MEMBARRIER_CMD_GLOBAL` of linux/membarrier.h.
const MEMBARRIER_CMD_GLOBAL: libc::c_long = 1;

/// Waits until every program that runs now has ended: an RCU grace period (`synchronize_rcu` in `membarrier`, Linux 4.3), which
/// takes milliseconds.
///
/// # Errors
///
/// When some processors run without a tick (`nohz_full`), whose kernels refuse it, and on kernels built without.
pub fn wait_for_grace_period() -> io::Result<()> {
    // SAFETY: no pointers are involved.
    match unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// An address of a block.
pub(super) trait BlockAddress: Copy + Eq {
    /// All zeroes: what the end of a block is that was never one.
    const ZERO: Self;
    /// Ones in the first byte only.
    const SHUT: Self;
}

impl BlockAddress for Ipv4 {
    const ZERO: Self = Self::UNSPECIFIED;
    const SHUT: Self = Self::new([0xff, 0, 0, 0]);
}

impl BlockAddress for Slot6 {
    const ZERO: Self = Self(Ipv6::UNSPECIFIED);
    const SHUT: Self = Self(Ipv6::new([0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
}

/// A block on its way to another one. In what is wanted, zeroes are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Staged<A> {
    now: Block<A>,
    wanted: Block<A>,
}

impl<A: BlockAddress> Staged<A> {
    const NONE: Block<A> = Block { last: A::ZERO, behind: A::ZERO };

    /// Of an interface that no program looks at yet.
    fn begin(wanted: Block<A>) -> Self {
        let none = Block { last: A::ZERO, behind: A::SHUT };
        Self { now: if wanted == Self::NONE { none } else { wanted }, wanted }
    }

    /// The block with the next step done, and which are to be done after a grace period only if there was one since the last.
    fn next(self, is_after_grace_period: bool) -> Block<A> {
        let Self { now, wanted } = self;
        let closed = Block { behind: A::SHUT, ..now };
        let is_closed = now == closed;
        if wanted == Self::NONE || (now.last != wanted.last && !is_closed) {
            closed
        } else if !is_closed {
            // The longer of two blocks with the same last address has the other one in it.
            wanted
        } else if !is_after_grace_period {
            now
        } else if now.last == wanted.last {
            wanted
        } else {
            Block { last: wanted.last, behind: A::SHUT }
        }
    }

    fn is_done(self) -> bool {
        self.now == self.next(true)
    }
}

/// The blocks of an interface, as they are in the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Blocks {
    ipv4: Staged<Ipv4>,
    ipv6: Staged<Slot6>,
}

impl Blocks {
    /// Those of an interface that no program looks at yet.
    pub(super) fn begin(iface: &Iface) -> Self {
        Self { ipv4: Staged::begin(iface.block), ipv6: Staged::begin(iface.block6) }
    }

    /// On the way to those of an interface, with what can be done at once.
    pub(super) fn towards(mut self, iface: &Iface) -> Self {
        (self.ipv4.wanted, self.ipv6.wanted) = (iface.block, iface.block6);
        self.after(false)
    }

    /// With the next step done, after a grace period or not.
    pub(super) fn after(mut self, grace_period: bool) -> Self {
        self.ipv4.now = self.ipv4.next(grace_period);
        self.ipv6.now = self.ipv6.next(grace_period);
        self
    }

    /// Whether they are what is wanted.
    pub(super) fn are_done(self) -> bool {
        self.ipv4.is_done() && self.ipv6.is_done()
    }

    /// The interface with the blocks as they are.
    pub(super) fn of(self, iface: Iface) -> Iface {
        Iface { block: self.ipv4.now, block6: self.ipv6.now, ..iface }
    }
}

/// An interface that was read, with no block where there is a closed one.
pub(super) fn without_closed(mut iface: Iface) -> Iface {
    if iface.block.behind == Ipv4::SHUT {
        iface.block = Iface::EMPTY.block;
    }
    if iface.block6.behind == Slot6::SHUT {
        iface.block6 = Iface::EMPTY.block6;
    }
    iface
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    /// Octets of an address as a number, to be taken apart.
    trait Octets: BlockAddress + std::fmt::Debug {
        const LENGTH: usize;
        fn octets(self) -> Vec<u8>;
        fn of(octets: &[u8]) -> Self;
    }

    impl Octets for Ipv4 {
        const LENGTH: usize = 4;
        fn octets(self) -> Vec<u8> {
            self.to_wire().to_ne_bytes().to_vec()
        }
        fn of(octets: &[u8]) -> Self {
            Self::new(octets.try_into().expect("four"))
        }
    }

    impl Octets for Slot6 {
        const LENGTH: usize = 16;
        fn octets(self) -> Vec<u8> {
            self.0.octets().to_vec()
        }
        fn of(octets: &[u8]) -> Self {
            Self(Ipv6::new(octets.try_into().expect("sixteen")))
        }
    }

    /// Whether all that a block holds, by the compare of the programs, is in another one.
    fn is_within<A: Octets>(part: Block<A>, whole: Block<A>) -> bool {
        let [part_last, part_behind, last, behind] =
            [part.last, part.behind, whole.last, whole.behind].map(Octets::octets);
        let mut holds_some = true;
        let mut is_inside = true;
        for at in 0..A::LENGTH {
            holds_some &= part_behind[at] & !part_last[at] == 0;
            is_inside &= part_behind[at] & !behind[at] == 0 && part_last[at] | behind[at] == last[at];
        }
        !holds_some || is_inside
    }

    /// A linear congruential generator (Knuth, MMIX): the same at each run.
    struct Random(u64);

    impl Random {
        fn below(&mut self, n: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) as usize % n
        }
    }

    /// What a program can have read that ran while a block was in each of these states: each byte is of one of them.
    fn mixture<A: Octets>(random: &mut Random, states: &[Block<A>]) -> Block<A> {
        let mut mix = |of: fn(&Block<A>) -> A| {
            let octets: Vec<u8> =
                (0..A::LENGTH).map(|at| of(&states[random.below(states.len())]).octets()[at]).collect();
            A::of(&octets)
        };
        Block { last: mix(|block| block.last), behind: mix(|block| block.behind) }
    }

    /// Blocks come and go at any time, and grace periods end at any time: whatever is read is a part of a block that was open.
    fn no_third_block_is_ever_read<A: Octets>(blocks: &[Block<A>]) {
        let mut random = Random(1);
        let mut opened = 0;
        for _ in 0..3000 {
            let begin = blocks[random.below(blocks.len())];
            let mut staged = Staged::begin(begin);
            let mut states = vec![staged.now];
            for _ in 0..12 {
                let is_grace_period_over = random.below(2) == 0;
                if is_grace_period_over {
                    // Those that read what was there before have ended.
                    states.drain(..states.len() - 1);
                } else {
                    staged.wanted = blocks[random.below(blocks.len())];
                }
                staged.now = staged.next(is_grace_period_over);
                states.push(staged.now);
                opened += usize::from(staged.now == staged.wanted);
                for _ in 0..40 {
                    let read = mixture(&mut random, &states);
                    assert!(
                        states.iter().any(|state| is_within(read, *state)),
                        "{read:?} is in none of {states:?}"
                    );
                }
            }
            for _ in 0..3 {
                staged.now = staged.next(true);
            }
            let is_there = if staged.wanted == Staged::NONE { A::SHUT } else { staged.wanted.behind };
            assert!(staged.is_done() && staged.now.behind == is_there, "in the end it is what is wanted");
        }
        assert!(opened > 3000, "{opened}");
    }

    #[test]
    fn of_two_blocks_no_third_is_read() {
        let block =
            |last: [u8; 4], behind: [u8; 4]| Block { last: Ipv4::new(last), behind: Ipv4::new(behind) };
        no_third_block_is_ever_read(&[
            Staged::<Ipv4>::NONE,
            block([10, 0, 0, 255], [0, 0, 0, 255]),
            block([10, 7, 3, 255], [0, 0, 0, 255]),
            block([10, 7, 3, 255], [0, 0, 3, 255]),
            block([170, 255, 255, 255], [0, 255, 255, 255]),
            block([85, 85, 85, 87], [0, 0, 0, 3]),
            block([127, 255, 255, 255], [127, 255, 255, 255]),
        ]);
        let block = |prefix: &str, length: u32| {
            let hosts = u128::MAX.checked_shr(length).unwrap_or(0);
            let address = prefix.parse::<Ipv6Addr>().expect("an address").to_bits();
            let slot = |bits: u128| Slot6(Ipv6::new(bits.to_be_bytes()));
            Block { last: slot(address | hosts), behind: slot(hosts) }
        };
        no_third_block_is_ever_read(&[
            Staged::<Slot6>::NONE,
            block("2001:db8::", 64),
            block("2001:db8::100", 120),
            block("2001:db8:1::", 48),
            block("2001:db8:1:ffff:ffff:ffff:ffff:fff0", 124),
            block("fe80::", 10),
            block("fd00:1:2:3:4:5:6:0", 113),
            block("2000::", 3),
        ]);
    }

    #[test]
    fn closing_does_not_wait() {
        let net = |last: Ipv4Addr, length: u32| Block {
            last: Ipv4::new(last.octets()),
            behind: Ipv4::new((u32::MAX >> length).to_be_bytes()),
        };
        let old = net(Ipv4Addr::new(10, 0, 0, 255), 24);
        for wanted in [Staged::NONE, net(Ipv4Addr::new(10, 0, 1, 255), 24)] {
            let staged = Staged { now: old, wanted };
            assert_eq!(staged.next(false), Block { behind: Ipv4::SHUT, ..old });
        }
    }
}
