//! Hardware addresses.

/// A hardware address of Ethernet, as a number that can be compared at once.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(transparent)]
pub struct Mac(u64);

impl Mac {
    /// That of no station.
    pub const ZERO: Self = Self(0);

    /// That of all stations.
    pub const BROADCAST: Self = Self::new([0xff; 6]);

    /// Makes one of its six octets, the first one first.
    #[inline(always)]
    pub const fn new(octets: [u8; 6]) -> Self {
        let [a, b, c, d, e, f] = octets;
        Self(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
    }

    /// Makes one of the first four octets and of the four from the third on, each as they lie in memory.
    #[inline(always)]
    pub const fn from_words(first: u32, third: u32) -> Self {
        Self(first.to_le() as u64 | ((third.to_le() >> 16) as u64) << 32)
    }

    /// The octets, the first one lowest, below zeroes.
    #[inline(always)]
    pub const fn to_number(self) -> u64 {
        self.0
    }

    /// Whether it is that of a group of stations, broadcast included: the first bit on the wire (IEEE 802).
    #[inline(always)]
    pub const fn is_group(self) -> bool {
        self.0 & 1 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_made_of_words_is_the_same_as_one_made_of_octets() {
        let octets = [0x02, 0xfe, 0x12, 0x34, 0x56, 0x78];
        let word =
            |at: usize| u32::from_ne_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]]);
        assert_eq!(Mac::from_words(word(0), word(2)), Mac::new(octets));
        assert!(!Mac::new(octets).is_group() && Mac::new([0x33, 0x33, 0, 0, 0, 1]).is_group());
    }
}
