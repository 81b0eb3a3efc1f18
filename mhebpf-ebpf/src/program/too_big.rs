//! Packets that are too large for the interface that they are redirected to.
//!
//! The sender sized them for the interface that the kernel routed to. A redirect can't fragment, so the
//! sender is told, by the ICMP message that a router with the smaller link behind it would send, and adapts.

mod message;

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_INGRESS, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC},
    helpers::generated::{
        bpf_redirect, bpf_skb_adjust_room, bpf_skb_change_head, bpf_skb_change_tail, bpf_skb_load_bytes,
    },
};
use mhebpf_ebpf::{
    Iface,
    packet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV6_NEXT_HEADER_OFFSET},
};
use network_types::{
    eth::EthHdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
};

use super::outcome::Outcome;

/// Where an IPv4 header has the number of the protocol that it carries.
const IPV4_PROTOCOL_OFFSET: u32 = 9;
const PROTOCOL_TCP: u8 = 6;
const UDP_LEN: u32 = 8;
/// The byte of a TCP header whose upper half is the header's length in words of four bytes (RFC 9293).
const TCP_DATA_OFFSET: u32 = 12;

/// Whether the largest datagram that the packet becomes on the wire is longer than `mtu`, IP header included.
///
/// The packet, which crosses `iface`, is untagged IP. One that is to be segmented (GSO) becomes segments.
#[inline(always)]
pub(super) fn is_too_big(skb: *mut __sk_buff, iface: &Iface, ethertype: u16, mtu: u32) -> bool {
    let start = link_header(iface);
    // SAFETY: the kernel passes a valid context, whose fields the verifier knows.
    let (length, segment) = unsafe { ((*skb).len, (*skb).gso_size) };
    if segment == 0 {
        return length - start > mtu;
    }
    let (header_length, protocol_at) = match ethertype {
        ETHERTYPE_IPV4 => (u32::from(byte(skb, start) & 0xf) * 4, start + IPV4_PROTOCOL_OFFSET),
        // What has extension headers is not segmented by devices, but for options that nobody sends.
        _ => (Ipv6Hdr::LEN as u32, start + IPV6_NEXT_HEADER_OFFSET as u32),
    };
    let transport_length = if byte(skb, protocol_at) == PROTOCOL_TCP {
        u32::from(byte(skb, start + header_length + TCP_DATA_OFFSET) >> 4) * 4
    } else {
        UDP_LEN
    };
    segment + header_length + transport_length > mtu
}

/// Zero where the packet ends before.
#[inline(always)]
fn byte(skb: *mut __sk_buff, offset: u32) -> u8 {
    let mut byte = 0u8;
    // SAFETY: a valid context, and a pointer to one byte.
    unsafe { bpf_skb_load_bytes(skb.cast(), offset, (&raw mut byte).cast(), 1) };
    byte
}

#[inline(always)]
fn link_header(iface: &Iface) -> u32 {
    if iface.has_ethernet() { EthHdr::LEN as u32 } else { 0 }
}

/// Turns the packet into the ICMP message that its sender gets, and has it arrive on `owner`, whose entry in the
/// tables is `to`.
///
/// It comes from the packet's destination: the address of a router on the way would do as well, but this one
/// is known to be reached through `owner`, and is none of this host's, from which the kernel takes nothing.
#[inline(never)]
pub(super) fn answer_ipv4(skb: *mut __sk_buff, iface: &Iface, owner: u32, to: &Iface) -> Outcome {
    let made = make_room(skb, iface, to, Ipv4Hdr::LEN + message::ICMP_LEN, message::QUOTED_BY_ICMP)
        && if iface.has_ethernet() || to.has_ethernet() {
            message::fragmentation_needed::<{ EthHdr::LEN }>(skb, to.mtu)
        } else {
            message::fragmentation_needed::<0>(skb, to.mtu)
        };
    arrive(skb, made, owner, to, ETHERTYPE_IPV4)
}

/// The same for IPv6.
#[inline(never)]
pub(super) fn answer_ipv6(skb: *mut __sk_buff, iface: &Iface, owner: u32, to: &Iface) -> Outcome {
    let made = make_room(skb, iface, to, Ipv6Hdr::LEN + message::ICMP_LEN, message::QUOTED_BY_ICMPV6)
        && if iface.has_ethernet() || to.has_ethernet() {
            message::packet_too_big::<{ EthHdr::LEN }>(skb, to.mtu)
        } else {
            message::packet_too_big::<0>(skb, to.mtu)
        };
    arrive(skb, made, owner, to, ETHERTYPE_IPV6)
}

#[inline(always)]
fn arrive(skb: *mut __sk_buff, made: bool, owner: u32, to: &Iface, ethertype: u16) -> Outcome {
    if !made || (to.has_ethernet() && !message::store(skb, 0, &ethernet_header(to, ethertype))) {
        return Outcome::Drop;
    }
    // SAFETY: no pointers are involved.
    Outcome::from_helper(unsafe { bpf_redirect(owner, u64::from(BPF_F_INGRESS)) })
}

/// Leaves of the packet what is quoted, and makes room for `headers` between it and the Ethernet header, which
/// there is then if either interface has one.
#[inline(always)]
fn make_room(skb: *mut __sk_buff, iface: &Iface, to: &Iface, headers: usize, quoted: usize) -> bool {
    // SAFETY: a valid context.
    unsafe {
        bpf_skb_change_tail(skb, link_header(iface) + quoted as u32, 0) == 0
            && bpf_skb_adjust_room(skb, headers as i32, BPF_ADJ_ROOM_MAC, 0) == 0
            && (iface.has_ethernet()
                || !to.has_ethernet()
                || bpf_skb_change_head(skb, EthHdr::LEN as u32, 0) == 0)
    }
}

/// From the owner to itself.
#[inline(always)]
fn ethernet_header(to: &Iface, ethertype: u16) -> [u8; EthHdr::LEN] {
    let [a, b, c, d, e, f] = to.mac;
    let [high, low] = ethertype.to_be_bytes();
    [a, b, c, d, e, f, a, b, c, d, e, f, high, low]
}
