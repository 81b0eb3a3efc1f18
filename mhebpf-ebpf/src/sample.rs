//! Samples of the packets that did not simply pass, for those who watch.

use crate::counter::CounterKey;

/// How much of a packet a sample has, from the network layer's header on: an IPv6 header and what tells flows and
/// neighbour discovery apart behind it.
pub const SAMPLED: usize = 72;

/// A packet that did not simply pass, as it was before anything was done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Sample {
    /// When it was judged: nanoseconds of `CLOCK_MONOTONIC`.
    pub time: u64,
    /// The cookie of the local socket that sent it (`bpf_get_socket_cookie`, `SO_COOKIE`); 0 where there is none.
    pub socket: u64,
    /// What it was counted under.
    pub counted: CounterKey,
    /// The interface that it was redirected to; 0 where it was not.
    pub owner: u32,
    /// The length of the packet in bytes, from the network layer's header on.
    pub length: u32,
    /// A [`crate::Act`].
    pub act: u8,
    /// How many of the bytes are of the packet.
    pub sampled: u8,
    /// 1 where this host forwarded it.
    pub forwarded: u8,
    /// Zero.
    pub reserved: [u8; 5],
    /// The first bytes of the packet, from the network layer's header on.
    pub bytes: [u8; SAMPLED],
}

const _: () = assert!(size_of::<Sample>() == 112);

/// What each CPU keeps to limit its samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Sampler {
    /// When the last packet asked to be sampled: nanoseconds of `CLOCK_MONOTONIC`.
    pub asked: u64,
    /// What is left of the rate, in samples times 10^9.
    pub left: u64,
    /// How many were not sampled: for the rate, or because nobody had made room for them.
    pub suppressed: u64,
    /// The sample that is being made.
    pub sample: Sample,
}

const NANOSECONDS: u64 = 1_000_000_000;

impl Sampler {
    /// Whether a packet may be sampled `now`, at a `rate` in samples per second, and of as many at once.
    #[inline(always)]
    pub const fn admits(&mut self, now: u64, rate: u32) -> bool {
        let rate = rate as u64;
        let elapsed = now.wrapping_sub(self.asked);
        self.asked = now;
        // After a second the rate is whole again; and a longer time would overflow the product.
        self.left = if elapsed >= NANOSECONDS { rate * NANOSECONDS } else { self.left + elapsed * rate };
        if self.left > rate * NANOSECONDS {
            self.left = rate * NANOSECONDS;
        }
        if self.left < NANOSECONDS {
            self.suppressed += 1;
            return false;
        }
        self.left -= NANOSECONDS;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MapData;

    const MILLISECOND: u64 = 1_000_000;

    fn admitted(sampler: &mut Sampler, from: u64, to: u64, step: u64, rate: u32) -> usize {
        (from..to).step_by(step as usize).filter(|now| sampler.admits(*now, rate)).count()
    }

    #[test]
    fn as_many_as_the_rate_come_at_once_and_then_no_more_than_it() {
        let mut sampler = Sampler::zeroed();
        let start = 5 * NANOSECONDS;
        assert_eq!(admitted(&mut sampler, start, start + 1000, 1, 100), 100);
        assert_eq!(sampler.suppressed, 900);
        let later = admitted(&mut sampler, start + 1000, start + 2 * NANOSECONDS, MILLISECOND, 100);
        assert!((198..=201).contains(&later), "{later}");
    }

    #[test]
    fn a_rate_of_nothing_admits_nothing() {
        assert_eq!(admitted(&mut Sampler::zeroed(), NANOSECONDS, 9 * NANOSECONDS, MILLISECOND, 0), 0);
    }
}
