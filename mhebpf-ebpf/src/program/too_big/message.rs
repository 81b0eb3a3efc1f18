//! The ICMP messages "fragmentation needed" (RFC 1191) and "packet too big" (RFC 4443 section 3.2).
//!
//! Headers are built as words: arrays of bytes that are zero in part would have the compiler call `memset`, whose
//! loop the verifier refuses without CAP_PERFMON.

use core::{mem::size_of, ptr};

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_csum_diff, bpf_skb_store_bytes},
};
use mhebpf_ebpf::{Frame as _, packet::NEXT_HEADER_ICMPV6};
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use crate::program::frame::SkbBytes;

/// An ICMP header, of either version.
pub(super) const ICMP_LEN: usize = 8;

/// How much of the packet the ICMP message quotes: the longest IPv4 header and the eight bytes behind it that name
/// the flow. Less than the least MTU of IPv4, so that there is always as much; and enough to reach over the
/// TCP checksum, which `bpf_skb_change_tail` (Linux 6.18) does not cut off.
pub(super) const QUOTED_BY_ICMP: usize = 68;

/// The same for ICMPv6: the fixed header, extension headers as they are seen in front of TCP, and the TCP header
/// up to its checksum.
pub(super) const QUOTED_BY_ICMPV6: usize = 96;

/// The first word of an IPv4 header of 20 bytes, without the datagram's length.
const VERSION_AND_LENGTH: u32 = 0x4500_0000;
/// The third word: a TTL of 64, and ICMP.
const TTL_AND_PROTOCOL: u32 = 64 << 24 | 1 << 16;
/// The first word of an ICMP header: "destination unreachable", "fragmentation needed and DF set".
const FRAGMENTATION_NEEDED: u32 = 0x0304_0000;

/// The first word of an IPv6 header, without traffic class and flow label.
const VERSION: u32 = 0x6000_0000;
/// The second word, without the payload's length: ICMPv6, and a hop limit of 64.
const NEXT_HEADER_AND_HOP_LIMIT: u32 = (NEXT_HEADER_ICMPV6 as u32) << 8 | 64;
/// The first word of an ICMPv6 header: "packet too big".
const PACKET_TOO_BIG: u32 = 0x0200_0000;

/// Writes an IPv4 and an ICMP header at `START`, in front of what they quote. `false` where the packet is too
/// short.
#[inline(always)]
pub(super) fn fragmentation_needed<const START: usize>(skb: *mut __sk_buff, mtu: u32) -> bool {
    let quoted = START + Ipv4Hdr::LEN + ICMP_LEN;
    // The sender and the destination of what is quoted.
    let Some([destination, source]) = SkbBytes(skb).read_words(quoted + 12) else { return false };
    let length = (Ipv4Hdr::LEN + ICMP_LEN + QUOTED_BY_ICMP) as u32;
    let mut ip = [(VERSION_AND_LENGTH | length).to_be(), 0, TTL_AND_PROTOCOL.to_be(), source, destination];
    ip[2] |= u32::from(checksum(sum(&ip, 0))).to_be();
    let mut icmp = [FRAGMENTATION_NEEDED.to_be(), mtu.to_be()];
    let Some(sum) = sum_of_packet::<QUOTED_BY_ICMP>(skb, quoted, sum(&icmp, 0)) else {
        return false;
    };
    icmp[0] |= u32::from(checksum(sum)).to_be();
    store(skb, START, &ip) && store(skb, START + Ipv4Hdr::LEN, &icmp)
}

/// Writes an IPv6 and an ICMPv6 header at `START`, in front of what they quote. `false` where the packet is too
/// short.
#[inline(always)]
pub(super) fn packet_too_big<const START: usize>(skb: *mut __sk_buff, mtu: u32) -> bool {
    let quoted = START + Ipv6Hdr::LEN + ICMP_LEN;
    // The sender and the destination of what is quoted.
    let Some([e, f, g, h, a, b, c, d]) = SkbBytes(skb).read_words(quoted + 8) else { return false };
    let length = (ICMP_LEN + QUOTED_BY_ICMPV6) as u32;
    // The pseudo-header of RFC 8200 section 8.1 comes first in the place of the header.
    let mut ip = [length.to_be(), u32::from(NEXT_HEADER_ICMPV6).to_be(), a, b, c, d, e, f, g, h];
    let mut icmp = [PACKET_TOO_BIG.to_be(), mtu.to_be()];
    let seed = sum(&icmp, sum(&ip, 0));
    let Some(sum) = sum_of_packet::<QUOTED_BY_ICMPV6>(skb, quoted, seed) else {
        return false;
    };
    icmp[0] |= u32::from(checksum(sum)).to_be();
    ip[0] = VERSION.to_be();
    ip[1] = (length << 16 | NEXT_HEADER_AND_HOP_LIMIT).to_be();
    store(skb, START, &ip) && store(skb, START + Ipv6Hdr::LEN, &icmp)
}

/// The sum of `N` bytes of the packet's linear part, on top of `seed`; `None` where it ends before.
#[inline(always)]
fn sum_of_packet<const N: usize>(skb: *mut __sk_buff, offset: usize, seed: u32) -> Option<u32> {
    // SAFETY: the kernel passes a valid context; the bytes are within the packet, as the verifier checks again.
    unsafe {
        let start = (*skb).data as usize + offset;
        if start + N > (*skb).data_end as usize {
            return None;
        }
        Some(bpf_csum_diff(ptr::null_mut(), 0, start as *mut u32, N as u32, seed) as u32)
    }
}

#[inline(always)]
pub(super) fn store<T>(skb: *mut __sk_buff, offset: usize, header: &T) -> bool {
    // SAFETY: a valid context, and a pointer to an initialised header of integers without padding, with its
    // size.
    unsafe {
        bpf_skb_store_bytes(skb.cast(), offset as u32, ptr::from_ref(header).cast(), size_of::<T>() as u32, 0)
            == 0
    }
}

/// The ones' complement sum of words in network byte order, on top of `seed`.
#[inline(always)]
fn sum<const N: usize>(words: &[u32; N], seed: u32) -> u32 {
    // SAFETY: a pointer to initialised words with their size, and nothing to subtract.
    unsafe {
        bpf_csum_diff(ptr::null_mut(), 0, words.as_ptr().cast_mut(), size_of::<[u32; N]>() as u32, seed)
            as u32
    }
}

/// The checksum of RFC 1071, in host byte order, from a sum of words in network byte order.
#[inline(always)]
const fn checksum(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    u16::from_be(!(sum as u16))
}
