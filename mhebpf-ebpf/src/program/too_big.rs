//! Packets that are too large for the interface that they are redirected to.
//!
//! The sender sized them for the interface that the kernel routed to. A redirect can't fragment, so the sender is told, by the ICMP
//! message that a router with the smaller link behind it would send, and adapts.

use core::mem::size_of;

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

/// How much of the packet the message quotes: the longest IPv4 header and the eight bytes behind it that name the flow. Less than
/// the least MTU of IPv4, so that there is always as much; and enough to reach over the TCP checksum, which
/// `bpf_skb_change_tail` (Linux 6.18) does not cut off.
const QUOTED: usize = 68;

/// The headers in front of the quotation.
const HEADERS: usize = EthHdr::LEN + Ipv4Hdr::LEN + ICMP_LEN;

const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_TCP: u8 = 6;
const UDP_LEN: u32 = 8;
/// The byte of a TCP header whose upper half is the header's length in words of four bytes (RFC 9293).
const TCP_DATA_OFFSET: u32 = 12;
/// "Destination unreachable", "fragmentation needed and DF set".
const FRAGMENTATION_NEEDED: [u8; 2] = [3, 4];

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
/// It comes from the packet's destination: the address of a router on the way would do as well, but this one is known to be reached
/// through `owner`, and is none of this host's, from which the kernel takes nothing.
#[inline(always)]
pub(super) fn answer(skb: *mut __sk_buff, owner: u32, iface: &Iface, datagram: Ipv4Datagram) -> Outcome {
    let mut quoted = [0u8; QUOTED];
    // SAFETY: a valid context, and a buffer of the size that is given.
    let shortened = unsafe {
        bpf_skb_change_tail(skb, (EthHdr::LEN + QUOTED) as u32, 0) == 0
            && bpf_skb_change_head(skb, (Ipv4Hdr::LEN + ICMP_LEN) as u32, 0) == 0
            && bpf_skb_load_bytes(skb.cast(), HEADERS as u32, quoted.as_mut_ptr().cast(), QUOTED as u32) == 0
    };
    if !shortened {
        return Outcome::Drop;
    }

    let mut ethernet = [0u8; EthHdr::LEN];
    ethernet[..6].copy_from_slice(&iface.mac);
    ethernet[6..12].copy_from_slice(&iface.mac);
    ethernet[12..].copy_from_slice(&ETHERTYPE_IPV4.to_be_bytes());

    let mut ip = [0u8; Ipv4Hdr::LEN];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&((Ipv4Hdr::LEN + ICMP_LEN + QUOTED) as u16).to_be_bytes());
    ip[8] = 64;
    ip[9] = PROTOCOL_ICMP;
    ip[12..16].copy_from_slice(&datagram.destination.octets());
    ip[16..].copy_from_slice(&datagram.source.octets());
    let checksum = fold(sum(&ip, 0));
    ip[10..12].copy_from_slice(&checksum.to_ne_bytes());

    let mut icmp = [0u8; ICMP_LEN];
    icmp[..2].copy_from_slice(&FRAGMENTATION_NEEDED);
    icmp[6..].copy_from_slice(&(iface.mtu as u16).to_be_bytes());
    let checksum = fold(sum(&quoted, sum(&icmp, 0)));
    icmp[2..4].copy_from_slice(&checksum.to_ne_bytes());

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
fn store<const N: usize>(skb: *mut __sk_buff, offset: usize, bytes: &[u8; N]) -> bool {
    // SAFETY: a valid context, and a pointer to `N` initialised bytes.
    unsafe { bpf_skb_store_bytes(skb.cast(), offset as u32, bytes.as_ptr().cast(), N as u32, 0) == 0 }
}

/// The ones' complement sum of the bytes, whose number is a multiple of four, on top of `seed`.
#[inline(always)]
fn sum<const N: usize>(bytes: &[u8; N], seed: u32) -> u32 {
    const { assert!(N.is_multiple_of(size_of::<u32>())) };
    // SAFETY: a pointer to `N` initialised bytes, and nothing to subtract.
    unsafe {
        bpf_csum_diff(core::ptr::null_mut(), 0, bytes.as_ptr().cast_mut().cast(), N as u32, seed) as u32
    }
}

/// The checksum of RFC 1071 from a sum.
#[inline(always)]
const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}
