//! What passes at a glance: nearly every packet of a host, judged by a few loads and compares.

use network_types::{
    eth::EthHdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
};

use crate::{
    Address as _, Direction, Frame as _, Iface, Ipv4, Unknown,
    address::join,
    filter::Bit,
    packet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, NEXT_HEADER_ICMPV6},
};

/// The first bytes of a frame, at places that are known beforehand.
pub trait Head {
    /// Whether the frame has so many bytes.
    fn has(&self, length: usize) -> bool;

    /// Four bytes as they lie in memory; the upper half is zero. What it gives where [`Head::has`] did not say that they
    /// are there means nothing.
    fn word<const OFFSET: usize>(&self) -> u64;
}

impl Head for [u8] {
    fn has(&self, length: usize) -> bool {
        self.len() >= length
    }

    fn word<const OFFSET: usize>(&self) -> u64 {
        self.read_words(OFFSET).map_or(0, |[word]| word.into())
    }
}

/// The length of an Ethernet frame with an IPv4 header and nothing behind it.
pub const IPV4_FRAME: usize = EthHdr::LEN + Ipv4Hdr::LEN;
/// The same for IPv6.
pub const IPV6_FRAME: usize = EthHdr::LEN + Ipv6Hdr::LEN;

/// The word at [`ETHERTYPE`], with nothing behind the EtherType.
const fn word_of(ethertype: u16) -> u64 {
    let [a, b] = ethertype.to_be_bytes();
    u32::from_ne_bytes([a, b, 0, 0]) as u64
}
const IPV4: u64 = word_of(ETHERTYPE_IPV4);
const IPV6: u64 = word_of(ETHERTYPE_IPV6);
const ETHERTYPE_MASK: u64 = word_of(u16::MAX);

/// Where in a frame is what.
const ETHERTYPE: usize = EthHdr::LEN - 2;
const IPV4_SOURCE: usize = EthHdr::LEN + 12;
const IPV4_DESTINATION: usize = EthHdr::LEN + 16;
const IPV6_SECOND_WORD: usize = EthHdr::LEN + 4;
const IPV6_SOURCE: [usize; 4] = [EthHdr::LEN + 8, EthHdr::LEN + 12, EthHdr::LEN + 16, EthHdr::LEN + 20];
const IPV6_DESTINATION: [usize; 4] = [EthHdr::LEN + 24, EthHdr::LEN + 28, EthHdr::LEN + 32, EthHdr::LEN + 36];

/// Whether a frame surely passes: it has an inline address of the interface as its source (egress) or destination
/// (ingress), one in the interface's block, or one that surely is not local where foreign ones pass; and
/// [`crate::decide::decide`] lets it pass whatever else is the case. `may_be_local` reads the [`crate::Filter`].
///
/// So nothing else is looked at: not the policy, since what is owned passes under all of them; not tags beside the
/// frame, since what is in a VLAN passes too; nor the version and length in the IP header, since what is malformed
/// passes. ICMPv6 is not for this function: neighbour discovery has a target besides. `false` says nothing.
#[inline(always)]
pub fn passes<F: Head + ?Sized>(
    direction: Direction,
    iface: &Iface,
    frame: &F,
    may_be_local: impl Fn(Bit) -> bool,
) -> bool {
    // Neither IPv4 nor IPv6 has a shorter frame.
    if !iface.has_ethernet() || !frame.has(IPV4_FRAME) {
        return false;
    }
    match frame.word::<ETHERTYPE>() & ETHERTYPE_MASK {
        IPV4 => {
            let address = match direction {
                Direction::Egress => frame.word::<IPV4_SOURCE>(),
                Direction::Ingress => frame.word::<IPV4_DESTINATION>(),
            };
            iface.has_first_or_in_block(address)
                || iface.has_behind_first(address)
                || is_foreign_that_passes(direction, iface, address, may_be_local)
        }
        IPV6 => {
            let [.., next_header, _] = (frame.word::<IPV6_SECOND_WORD>() as u32).to_ne_bytes();
            if next_header == NEXT_HEADER_ICMPV6 || !frame.has(IPV6_FRAME) {
                return false;
            }
            let (high, low) = match direction {
                Direction::Egress => (
                    pair::<{ IPV6_SOURCE[0] }, { IPV6_SOURCE[1] }>(frame),
                    pair::<{ IPV6_SOURCE[2] }, { IPV6_SOURCE[3] }>(frame),
                ),
                Direction::Ingress => (
                    pair::<{ IPV6_DESTINATION[0] }, { IPV6_DESTINATION[1] }>(frame),
                    pair::<{ IPV6_DESTINATION[2] }, { IPV6_DESTINATION[3] }>(frame),
                ),
            };
            iface.has_first_or_in_block6(high, low)
                || iface.has_behind_first6(high, low)
                || is_foreign_that_passes6(direction, iface, high, low, may_be_local)
        }
        _ => false,
    }
}

/// Whether an IPv4 address, given as [`Ipv4::to_wire`], surely is not local, and foreign ones pass.
#[inline(always)]
pub fn is_foreign_that_passes(
    direction: Direction,
    iface: &Iface,
    address: u64,
    may_be_local: impl Fn(Bit) -> bool,
) -> bool {
    // Loopback is in no table, and is judged all the same.
    passes_foreign(direction, iface)
        && !Ipv4::from_wire(address as u32).is_loopback()
        && !may_be_local(Bit::of_ipv4(address))
}

/// The same for an IPv6 address, given as [`crate::Ipv6::halves`].
#[inline(always)]
pub fn is_foreign_that_passes6(
    direction: Direction,
    iface: &Iface,
    high: u64,
    low: u64,
    may_be_local: impl Fn(Bit) -> bool,
) -> bool {
    passes_foreign(direction, iface) && !may_be_local(Bit::of_ipv6(high, low))
}

/// Whether what is in no table of single addresses passes.
#[inline(always)]
fn passes_foreign(direction: Direction, iface: &Iface) -> bool {
    !iface.has_prefixes() && (direction == Direction::Ingress || iface.unknown() == Unknown::Pass)
}

/// Eight bytes as they lie in memory.
#[inline(always)]
fn pair<const FIRST: usize, const SECOND: usize>(frame: &(impl Head + ?Sized)) -> u64 {
    join(frame.word::<FIRST>(), frame.word::<SECOND>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Announce, Ipv6, Receive, Send, Slot6};

    /// The filter of a host where every address may be local.
    const ALL: fn(Bit) -> bool = |_| true;

    const OWN: [u8; 4] = [192, 168, 0, 100];
    const OWN6: [u8; 16] = [0xfd, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

    fn iface() -> Iface {
        let mut iface = Iface {
            send: Send::Drop as u8,
            receive: Receive::Drop as u8,
            announce: Announce::Enforce as u8,
            unknown: Unknown::Drop as u8,
            ..Iface::EMPTY
        };
        iface.addresses[7] = Ipv4::new(OWN);
        iface.addresses6[7] = Slot6(Ipv6::new(OWN6));
        iface
    }

    /// A frame with this byte at `offset`, `bytes` behind it at `at`, and ones elsewhere.
    fn frame(ethertype: u16, offset: usize, byte: u8, at: usize, bytes: &[u8]) -> [u8; 64] {
        let mut frame = [1; 64];
        frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
        frame[offset] = byte;
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    }

    #[test]
    fn an_own_address_passes_in_its_place_only() {
        for (direction, ipv4_at, ipv6_at) in [(Direction::Egress, 26, 22), (Direction::Ingress, 30, 38)] {
            let passes = |frame: &[u8]| passes(direction, &iface(), frame, ALL);
            let ipv4 = |at| frame(ETHERTYPE_IPV4, 14, 0x45, at, &OWN);
            let ipv6 = |at| frame(ETHERTYPE_IPV6, 20, 17, at, &OWN6);
            assert!(passes(&ipv4(ipv4_at)) && passes(&ipv6(ipv6_at)));
            assert!(!passes(&ipv4(56 - ipv4_at)) && !passes(&ipv6(48)));
            assert!(!passes(&ipv4(ipv4_at)[..33]) && !passes(&ipv6(ipv6_at)[..ipv6_at + 15]));
            assert!(!passes(&frame(0x0806, 14, 0, ipv4_at, &OWN)));
        }
    }

    #[test]
    fn icmpv6_is_looked_at_more_closely() {
        let frame = frame(ETHERTYPE_IPV6, 20, NEXT_HEADER_ICMPV6, 22, &OWN6);
        assert!(!passes(Direction::Egress, &iface(), &frame[..], ALL));
    }

    #[test]
    fn an_interface_without_ethernet_has_no_frames_to_glance_at() {
        let iface = Iface { flags: Iface::NO_ETHERNET, ..iface() };
        let frame = frame(ETHERTYPE_IPV4, 14, 0x45, 26, &OWN);
        assert!(!passes(Direction::Egress, &iface, &frame[..], ALL));
    }

    #[test]
    fn what_is_surely_foreign_passes_where_foreign_addresses_do() {
        let lenient = Iface { unknown: Unknown::Pass as u8, ..iface() };
        let by_prefix = Iface { flags: Iface::PREFIXES, ..lenient };
        for (direction, ipv4_at, ipv6_at) in [(Direction::Egress, 26, 22), (Direction::Ingress, 30, 38)] {
            let ipv4 = |address: [u8; 4]| frame(ETHERTYPE_IPV4, 14, 0x45, ipv4_at, &address);
            let foreign = [ipv4([198, 51, 100, 1]), frame(ETHERTYPE_IPV6, 20, 17, ipv6_at, &[0xfd; 16])];
            for frame in foreign.iter().map(|frame| &frame[..]) {
                let may_pass = |iface, may_be| passes(direction, iface, frame, |_| may_be);
                assert!(
                    may_pass(&lenient, false) && !may_pass(&lenient, true) && !may_pass(&by_prefix, false)
                );
                assert_eq!(
                    may_pass(&iface(), false),
                    direction == Direction::Ingress,
                    "foreign sources are dropped"
                );
            }
            let loopback = ipv4([127, 0, 0, 1]);
            assert!(!passes(direction, &lenient, &loopback[..], |_| false), "loopback is judged");
        }
    }
}
