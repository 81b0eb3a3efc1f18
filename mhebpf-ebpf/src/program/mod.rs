//! Entry points: one classifier for each direction.

mod act;
mod frame;
mod judge;
mod maps;
mod too_big;
mod xfrm;

use aya_ebpf::{bindings::__sk_buff, macros::classifier, programs::TcContext};

use mhebpf_ebpf::{
    Location,
    packet::{self, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6},
};

use self::{
    act::Outcome,
    frame::{SkbBytes, SkbFrame},
    judge::{EGRESS, INGRESS, Place},
    maps::BpfTables,
};

/// Judges packets that leave by their source.
#[classifier]
pub(crate) fn mhebpf_egress(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: the kernel passes a valid context, whose fields the verifier knows.
    let ingress_ifindex = unsafe { (*skb).ingress_ifindex };
    // Forwarded or bridged: its source was never chosen by this host. Packets of local origin have none
    // (Linux 6.18).
    if ingress_ifindex != 0 {
        return Outcome::Pass.code();
    }
    classify::<EGRESS>(skb).code()
}

/// Judges packets that arrive by their destination.
#[classifier]
pub(crate) fn mhebpf_ingress(ctx: TcContext) -> i32 {
    classify::<INGRESS>(ctx.skb.skb).code()
}

/// Finds out what a packet is, nearly always with one look at the EtherType, and has it judged.
#[inline(always)]
fn classify<const DIRECTION: u8>(skb: *mut __sk_buff) -> Outcome {
    // SAFETY: the kernel passes a valid context, whose fields the verifier knows.
    let ifindex = unsafe { (*skb).ifindex };
    let Some(iface) = BpfTables.find(ifindex) else { return Outcome::Pass };
    let tag_beside = frame::tag_beside(skb);
    if iface.has_ethernet() && tag_beside == 0 {
        match SkbFrame::of(skb).ethertype() {
            Some(ETHERTYPE_IPV4) => return judge::ipv4::<DIRECTION>(skb, iface),
            Some(ETHERTYPE_IPV6) => return judge::ipv6::<DIRECTION>(skb, iface),
            Some(ETHERTYPE_ARP) => return judge::arp::<DIRECTION>(skb, iface),
            _ => {}
        }
    }
    let location = if iface.has_ethernet() {
        packet::locate(&SkbBytes(skb), tag_beside)
    } else {
        Some(Location::without_ethernet(frame::protocol(skb)))
    };
    let Some(Location { ethertype, offset, group }) = location else { return Outcome::Pass };
    let place = Place::new(offset, group);
    match ethertype {
        ETHERTYPE_IPV4 => judge::ipv4_at::<DIRECTION>(skb, iface, place),
        ETHERTYPE_IPV6 => judge::ipv6_at::<DIRECTION>(skb, iface, place),
        ETHERTYPE_ARP => judge::arp_at::<DIRECTION>(skb, iface, place),
        _ => Outcome::Pass,
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
