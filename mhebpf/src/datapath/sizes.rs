//! How large the maps are made.
//!
//! A hash map takes 16 bytes for each entry that it has room for, be there one or not, and the array of interfaces 256; no map can
//! be made larger afterwards. Tries take memory for what is in them only.

use std::{env, ops::RangeInclusive};

use mhebpf_ebpf::DIRECT_IFACES;
use tracing::warn;

use crate::model::tables::Entries;

/// Makes maps small, for tests: `16` has them begin with 16 entries, and with `16-64` they never have more than 64.
const FOR_TESTS: &str = "MHEBPF_MAP_ENTRIES";

/// With how many entries maps begin on a small host: together less than 64 KiB.
const LEAST: Entries = Entries {
    owners: 1024,
    owners6: 1024,
    prefixes: TRIE,
    prefixes6: TRIE,
    further_owners: 1024,
    high_ifaces: 64,
};

/// How many they have at most: of the array 32 MiB, of each hash map 64 MiB.
const MOST: Entries = Entries {
    owners: 1 << 22,
    owners6: 1 << 22,
    prefixes: TRIE,
    prefixes6: TRIE,
    further_owners: 1 << 22,
    high_ifaces: 1 << 17,
};

/// As large as they are in the object.
const TRIE: usize = 1 << 24;

/// For how many entries maps are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes(Entries);

impl Sizes {
    /// For so many entries, and as many more at least.
    pub fn for_entries(entries: Entries) -> Self {
        let (least, most) = bounds();
        Self(comfortable(entries, least, most))
    }

    /// Larger ones than maps have now in which one is nearly full with `entries`; `None` where none is, or can be larger.
    pub fn larger(now: Entries, entries: Entries) -> Option<Self> {
        larger(now, entries, bounds()).map(Self)
    }

    /// By the names of the maps.
    pub(super) fn by_name(self) -> [(&'static str, u32); 7] {
        let Self(entries) = self;
        // None is larger than `MOST`.
        let high = entries.high_ifaces as u32;
        [
            ("IFACES", DIRECT_IFACES + high),
            ("IFACE_SLOTS", high),
            ("OWNERS", entries.owners as u32),
            ("OWNERS6", entries.owners6 as u32),
            ("PREFIXES", entries.prefixes as u32),
            ("PREFIXES6", entries.prefixes6 as u32),
            ("FURTHER_OWNERS", entries.further_owners as u32),
        ]
    }
}

/// Twice as many, up to the next power of two, as the kernel has for the buckets of a hash map anyway.
fn comfortable(entries: Entries, least: Entries, most: Entries) -> Entries {
    let twice = entries.with(Entries::default(), |number, _| {
        number.saturating_mul(2).checked_next_power_of_two().unwrap_or(usize::MAX)
    });
    twice.with(least, usize::max).with(most, usize::min)
}

fn larger(now: Entries, entries: Entries, (least, most): (Entries, Entries)) -> Option<Entries> {
    // Three quarters, which leaves some room for while larger ones are made.
    let is_nearly_full = !entries
        .with(Entries::default(), |number, _| number.saturating_mul(4))
        .fit_in(now.with(Entries::default(), |room, _| room.saturating_mul(3)));
    let wanted = now.with(comfortable(entries, least, most), usize::max);
    (is_nearly_full && wanted != now).then_some(wanted)
}

fn bounds() -> (Entries, Entries) {
    let Ok(wanted) = env::var(FOR_TESTS) else { return (LEAST, MOST) };
    match for_tests(&wanted) {
        Some(range) => (Entries::all(*range.start()), Entries::all(*range.end()).with(MOST, usize::min)),
        None => {
            warn!("{FOR_TESTS} is a number or a range: {wanted:?} is left aside");
            (LEAST, MOST)
        }
    }
}

fn for_tests(text: &str) -> Option<RangeInclusive<usize>> {
    let (least, most) = match text.split_once('-') {
        Some((least, most)) => (least.parse().ok()?, most.parse().ok()?),
        None => (text.parse().ok()?, TRIE),
    };
    (0 < least && least <= most && most <= TRIE).then_some(least..=most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owners(owners: usize) -> Entries {
        Entries { owners, ..Entries::default() }
    }

    #[test]
    fn a_small_host_has_small_maps_and_a_large_one_room_for_as_much_again() {
        assert_eq!(comfortable(owners(3), LEAST, MOST), LEAST);
        assert_eq!(comfortable(owners(3000), LEAST, MOST), Entries { owners: 8192, ..LEAST });
        assert_eq!(comfortable(owners(usize::MAX), LEAST, MOST), Entries { owners: MOST.owners, ..LEAST });
    }

    #[test]
    fn maps_grow_when_three_quarters_are_taken_and_never_shrink() {
        let bounds = (Entries::all(16), Entries::all(64));
        assert_eq!(larger(Entries::all(16), owners(12), bounds), None);
        assert_eq!(
            larger(Entries::all(16), owners(13), bounds),
            Some(Entries { owners: 32, ..Entries::all(16) })
        );
        assert_eq!(
            larger(Entries::all(16), owners(1000), bounds),
            Some(Entries { owners: 64, ..Entries::all(16) })
        );
        assert_eq!(larger(Entries { owners: 64, ..Entries::all(16) }, owners(1000), bounds), None);
        let other = Entries { owners: 2, prefixes6: 13, ..Entries::default() };
        let now = Entries { owners: 64, ..Entries::all(16) };
        assert_eq!(larger(now, other, bounds), Some(Entries { prefixes6: 32, ..now }));
    }

    #[test]
    fn tests_make_them_small_by_a_number_or_a_range() {
        assert_eq!(for_tests("16"), Some(16..=TRIE));
        assert_eq!(for_tests("16-64"), Some(16..=64));
        for other in ["", "0", "64-16", "-3", "3-", "x", "1-99999999999"] {
            assert_eq!(for_tests(other), None, "{other}");
        }
    }
}
