//! Packets that are too large for the interface that they are redirected to.
//!
//! The sender sized them for the interface that the kernel routed to. A redirect can't fragment, so the
//! sender is told, by the ICMP message that a router with the smaller link behind it would send, and adapts.

use core::{
    mem::{MaybeUninit, size_of},
    ptr,
};

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_INGRESS},
    helpers::generated::{
        bpf_csum_diff, bpf_redirect, bpf_skb_change_head, bpf_skb_change_tail, bpf_skb_load_bytes,
        bpf_skb_store_bytes,
    },
};
use mhebpf_ebpf::{Iface, Ipv4Datagram, packet::ETHERTYPE_IPV4};
use network_types::{eth::EthHdr, ip::Ipv4Hdr};

use super::act::Outcome;

/// An ICMP header (RFC 792).
const ICMP_LEN: usize = 8;

/// How much of the packet the message quotes: the longest IPv4 header and the eight bytes behind it that name
/// the flow. Less than the least MTU of IPv4, so that there is always as much; and enough to reach over the
/// TCP checksum, which `bpf_skb_change_tail` (Linux 6.18) does not cut off.
const QUOTED: usize = 68;

/// The headers in front of the quotation.
const HEADERS: usize = EthHdr::LEN + Ipv4Hdr::LEN + ICMP_LEN;

/// The first word of an IPv4 header of 20 bytes, without the datagram's length.
const VERSION_AND_LENGTH: u32 = 0x4500_0000;
/// The third word: a TTL of 64, and ICMP.
const TTL_AND_PROTOCOL: u32 = 64 << 24 | 1 << 16;
const PROTOCOL_TCP: u8 = 6;
const UDP_LEN: u32 = 8;
/// The byte of a TCP header whose upper half is the header's length in words of four bytes (RFC 9293).
const TCP_DATA_OFFSET: u32 = 12;
/// The first word of an ICMP header: "destination unreachable", "fragmentation needed and DF set".
const FRAGMENTATION_NEEDED: u32 = 0x0304_0000;

/// The length of the largest datagram that the packet becomes on the wire, in bytes, IPv4 header included.
///
/// The packet is untagged IPv4. For one that is to be segmented (GSO) it is a segment's length.
#[inline(always)]
pub(super) fn datagram_length(skb: *mut __sk_buff) -> u32 {
    // SAFETY: the kernel passes a valid context, whose fields the verifier knows.
    let (length, segment) = unsafe { ((*skb).len, (*skb).gso_size) };
    if segment == 0 {
        return length - EthHdr::LEN as u32;
    }
    let header_length = u32::from(byte(skb, EthHdr::LEN as u32) & 0xf) * 4;
    let transport = EthHdr::LEN as u32 + header_length;
    let protocol = byte(skb, EthHdr::LEN as u32 + 9);
    let transport_length = if protocol == PROTOCOL_TCP {
        u32::from(byte(skb, transport + TCP_DATA_OFFSET) >> 4) * 4
    } else {
        UDP_LEN
    };
    segment + header_length + transport_length
}

/// Zero where the packet ends before.
#[inline(always)]
fn byte(skb: *mut __sk_buff, offset: u32) -> u8 {
    let mut byte = 0u8;
    // SAFETY: a valid context, and a pointer to one byte.
    unsafe { bpf_skb_load_bytes(skb.cast(), offset, (&raw mut byte).cast(), 1) };
    byte
}

/// Turns the packet into the ICMP message that its sender gets, and has it arrive on `owner`.
///
/// It comes from the packet's destination: the address of a router on the way would do as well, but this one
/// is known to be reached through `owner`, and is none of this host's, from which the kernel takes nothing.
#[inline(always)]
pub(super) fn answer(skb: *mut __sk_buff, owner: u32, iface: &Iface, datagram: Ipv4Datagram) -> Outcome {
    let mut quoted = MaybeUninit::<[u32; QUOTED / 4]>::uninit();
    // SAFETY: a valid context, and a buffer of the size that is given.
    let shortened = unsafe {
        bpf_skb_change_tail(skb, (EthHdr::LEN + QUOTED) as u32, 0) == 0
            && bpf_skb_change_head(skb, (Ipv4Hdr::LEN + ICMP_LEN) as u32, 0) == 0
            && bpf_skb_load_bytes(skb.cast(), HEADERS as u32, quoted.as_mut_ptr().cast(), QUOTED as u32) == 0
    };
    if !shortened {
        return Outcome::Drop;
    }
    // SAFETY: the kernel has filled it.
    let quoted = unsafe { quoted.assume_init() };

    // Headers as words: arrays of bytes that are zero in part would have the compiler call `memset`, whose
    // loop the verifier refuses without CAP_PERFMON.
    let length = (Ipv4Hdr::LEN + ICMP_LEN + QUOTED) as u32;
    let (source, destination) = (datagram.destination.to_wire(), datagram.source.to_wire());
    let mut ip = [(VERSION_AND_LENGTH | length).to_be(), 0, TTL_AND_PROTOCOL.to_be(), source, destination];
    ip[2] |= u32::from(checksum(sum(&ip, 0))).to_be();
    let mut icmp = [FRAGMENTATION_NEEDED.to_be(), iface.mtu.to_be()];
    icmp[0] |= u32::from(checksum(sum(&quoted, sum(&icmp, 0)))).to_be();

    let mac = &iface.mac;
    let [high, low] = ETHERTYPE_IPV4.to_be_bytes();
    let ethernet = [
        mac[0], mac[1], mac[2], mac[3], mac[4], mac[5], mac[0], mac[1], mac[2], mac[3], mac[4], mac[5], high,
        low,
    ];
    let written = store(skb, 0, &ethernet)
        && store(skb, EthHdr::LEN, &ip)
        && store(skb, EthHdr::LEN + Ipv4Hdr::LEN, &icmp);
    if !written {
        return Outcome::Drop;
    }
    // SAFETY: no pointers are involved.
    Outcome::from_helper(unsafe { bpf_redirect(owner, u64::from(BPF_F_INGRESS)) })
}

#[inline(always)]
fn store<T>(skb: *mut __sk_buff, offset: usize, header: &T) -> bool {
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
