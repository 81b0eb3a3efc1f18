//! A Bloom filter of the local addresses, with one hash function: it says that an address is surely not local, or that it may
//! be.
//!
//! That saves the lookup of nearly all foreign addresses. The local ones of both families and of all VRFs are in one filter.

/// How many words the filter has: 64 KiB, which a second-level cache holds. With 10,000 local addresses 2% of the foreign
/// ones may be local by it, with 100,000 17%.
pub const WORDS: usize = 1 << WORD_BITS;

const WORD_BITS: u32 = 13;

/// The bits of local addresses, each at its place.
pub type Filter = [u64; WORDS];

/// The bit of an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bit(u64);

/// 2^64 by the golden ratio, made odd: the uppermost bits of a product by it depend on all of a number's (Knuth, The Art
/// of Computer Programming, volume 3, section 6.4).
pub const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

impl Bit {
    /// Of an IPv4 address, given as [`crate::Ipv4::to_wire`] has it.
    #[inline(always)]
    pub const fn of_ipv4(address: u64) -> Self {
        Self::of_product(address.wrapping_mul(FACTOR))
    }

    /// Of an IPv6 address, given as [`crate::Ipv6::halves`].
    #[inline(always)]
    pub const fn of_ipv6(high: u64, low: u64) -> Self {
        // A product's upper bits depend on all of a number's, its lower ones on few. So the halves must begin with their
        // last octets, in which most addresses differ, and the first product is turned around.
        let high = u64::from_be(high).wrapping_mul(FACTOR).rotate_left(32);
        Self::of_product((high ^ u64::from_be(low)).wrapping_mul(FACTOR))
    }

    /// The uppermost bits, mixed with some below: by themselves those of numbers at regular distances are at regular
    /// distances too, and neighbouring subnets would fall on one another.
    #[inline(always)]
    const fn of_product(product: u64) -> Self {
        Self((product ^ product << 26) >> (u64::BITS - WORD_BITS - 6))
    }

    /// Whether the bit is set: the address may be local. It surely is not if the bit is not set.
    #[inline(always)]
    pub const fn is_set(self, filter: &Filter) -> bool {
        self.is_set_in(filter[self.word()])
    }

    /// The same, by the bit's word alone.
    #[inline(always)]
    pub const fn is_set_in(self, word: u64) -> bool {
        word >> (self.0 & 63) & 1 != 0
    }

    /// Sets the bit.
    pub const fn set(self, filter: &mut Filter) {
        filter[self.word()] |= 1 << (self.0 & 63);
    }

    /// The index of the bit's word.
    #[inline(always)]
    pub const fn word(self) -> usize {
        (self.0 >> 6) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ipv4, Ipv6};

    /// How many of 10,000 addresses may be local where 10,000 others are. Perfect chance would have it for 189.
    fn taken_for_local(of: impl Fn(u32) -> Bit) -> usize {
        let mut filter = [0; WORDS];
        let (local, foreign) = (0..10_000, 10_000..20_000);
        local.clone().for_each(|n| of(n).set(&mut filter));
        assert!(local.clone().all(|n| of(n).is_set(&filter)));
        foreign.filter(|n| of(*n).is_set(&filter)).count()
    }

    #[test]
    fn addresses_of_every_pattern_are_told_apart() {
        let ipv4 = |step: u32| {
            move |n: u32| {
                let address = 0x0a00_0000_u32.wrapping_add(n.wrapping_mul(step));
                Bit::of_ipv4(Ipv4::new(address.to_be_bytes()).to_wire().into())
            }
        };
        let ipv6 = |shift: u32| {
            move |n: u32| {
                let address = (0x2001_0db8_u128 << 96) + (u128::from(n) << shift);
                let (high, low) = Ipv6::new(address.to_be_bytes()).halves();
                Bit::of_ipv6(high, low)
            }
        };
        for step in [1, 2, 3, 7, 16, 64, 255, 256, 257, 1024, 4096, 65_536] {
            let taken = taken_for_local(ipv4(step));
            assert!(taken < 400, "IPv4 {step}: {taken}");
        }
        for shift in (0..=80).step_by(4) {
            let taken = taken_for_local(ipv6(shift));
            assert!(taken < 400, "IPv6 {shift}: {taken}");
        }
    }
}
