//! Entry points: one classifier for each direction.

mod act;
mod flows;
mod frame;
mod judge;
mod maps;
mod outcome;
mod report;
mod ruling;
mod too_big;
mod watch;
mod xfrm;

use core::mem::MaybeUninit;

use aya_ebpf::{bindings::__sk_buff, macros::classifier, programs::TcContext};

use mhebpf_ebpf::{
    Iface, Neighbour, Tables as _,
    glance::{self, Head as _, IPV4_FRAME, IPV6_FRAME},
    packet::{
        ETHERTYPE_8021AD, ETHERTYPE_8021Q, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, NEXT_HEADER_ICMPV6,
    },
};

use self::{
    frame::SkbFrame,
    judge::{EGRESS, INGRESS, Place},
    maps::BpfTables,
    outcome::Outcome,
    ruling::Ruling,
};

/// Judges packets that leave by their source.
#[classifier]
pub(crate) fn mhebpf_egress(ctx: TcContext) -> i32 {
    classify::<EGRESS>(ctx.skb.skb)
}

/// Judges packets that arrive by their destination.
#[classifier]
pub(crate) fn mhebpf_ingress(ctx: TcContext) -> i32 {
    classify::<INGRESS>(ctx.skb.skb)
}

/// Lets pass what passes at a glance.
#[inline(always)]
fn classify<const DIRECTION: u8>(skb: *mut __sk_buff) -> i32 {
    // SAFETY: the kernel passes a valid context, whose fields the verifier knows.
    let ifindex = unsafe { (*skb).ifindex };
    let Some(iface) = BpfTables.find(ifindex) else { return Outcome::Pass.code() };
    let may_be_local = |bit| BpfTables.may_be_local(bit);
    if glance::passes(judge::direction(DIRECTION), iface, &SkbFrame::of(skb), may_be_local) {
        return Outcome::Pass.code();
    }
    look_closely::<DIRECTION>(skb, iface)
}

/// Judges a packet, and does what is to be done with it.
///
/// A function of its own for the kernel too: the way of most packets has neither its stack nor its registers to set up.
#[inline(never)]
fn look_closely<const DIRECTION: u8>(skb: *mut __sk_buff, iface: &Iface) -> i32 {
    let mut address = MaybeUninit::uninit();
    let ruling = judge_by_protocol::<DIRECTION>(skb, iface, &mut address);
    if ruling.is_pass() {
        return Outcome::Pass.code();
    }
    // SAFETY: every ruling but this one comes with an address.
    let address = unsafe { address.assume_init_ref() };
    act::carry_out::<DIRECTION>(skb, iface, ruling, address).code()
}

/// Finds out what a packet is, nearly always with one look at the EtherType, and has it judged.
///
/// ICMPv6 and ARP take the slower way: there is less of them, and less for the verifier to follow.
#[inline(always)]
fn judge_by_protocol<const DIRECTION: u8>(
    skb: *mut __sk_buff,
    iface: &Iface,
    address: &mut MaybeUninit<Neighbour>,
) -> Ruling {
    let tag_beside = frame::tag_beside(skb);
    if iface.has_ethernet() && tag_beside == 0 {
        let frame = SkbFrame::of(skb);
        match frame.ethertype() {
            Some(ETHERTYPE_IPV4) if frame.has(IPV4_FRAME) => {
                return judge::ipv4::<DIRECTION>(skb, iface, address);
            }
            Some(ETHERTYPE_IPV6)
                if frame.has(IPV6_FRAME) && frame.next_header() != Some(NEXT_HEADER_ICMPV6) =>
            {
                return judge::ipv6::<DIRECTION>(skb, iface, address);
            }
            _ => {}
        }
    }
    let place = Place::find(skb, iface.has_ethernet(), tag_beside);
    match place.ethertype() {
        ETHERTYPE_IPV4 => judge::ipv4_at::<DIRECTION>(skb, iface, place, address),
        ETHERTYPE_IPV6 => judge::ipv6_at::<DIRECTION>(skb, iface, place, address),
        ETHERTYPE_8021Q | ETHERTYPE_8021AD => judge::behind_tags::<DIRECTION>(skb, iface, address),
        ETHERTYPE_ARP => judge::arp_at::<DIRECTION>(skb, iface, place, address),
        _ => Ruling::PASS,
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The programs call helpers that the kernel reserves for GPL-compatible ones; MIT together with GPL is one
/// of the licences that it knows (`license_is_gpl_compatible`).
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
