//! Choices made from random bytes.
//!
//! The bytes are proptest's, which shrinks a failure towards zeroes, or those of a fast generator. Therefore
//! the first of several possibilities is always the plainest.

/// How many bytes one packet is made from.
pub(crate) const BYTES: usize = 64;

/// The bytes, from which the next choice is made.
pub(super) struct Entropy<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Entropy<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next byte; zero behind the last.
    pub(super) fn byte(&mut self) -> u8 {
        let byte = self.bytes.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        byte
    }

    pub(super) fn number(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// Whether something happens that happens so many times out of 256.
    pub(super) fn chance(&mut self, times: u8) -> bool {
        self.byte() >= 255 - (times - 1)
    }

    /// Which of some possibilities with these weights happens.
    pub(super) fn choice(&mut self, weights: &[u16]) -> usize {
        let mut left = self.number() % weights.iter().sum::<u16>();
        for (position, weight) in weights.iter().enumerate() {
            if left < *weight {
                return position;
            }
            left -= weight;
        }
        0
    }

    /// One of these; `None` where there are none.
    pub(super) fn one_of<'b, T>(&mut self, all: &'b [T]) -> Option<&'b T> {
        all.get(usize::from(self.number()) % all.len().max(1))
    }

    /// Bytes that nobody looks at, or shouldn't: they need not be shrunk one by one.
    pub(super) fn filler(&mut self, length: usize) -> impl Iterator<Item = u8> + use<> {
        let start = u32::from(self.number());
        let step = |state: &u32| Some(state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
        std::iter::successors(Some(start), step).map(|state| state.to_be_bytes()[0]).take(length)
    }
}

/// A fast generator of such bytes: xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift
/// generators, scrambled").
pub(crate) struct Generator(u64);

impl Generator {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(crate) fn bytes(&mut self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        for word in bytes.chunks_exact_mut(8) {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            word.copy_from_slice(&self.0.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
        }
        bytes
    }
}
