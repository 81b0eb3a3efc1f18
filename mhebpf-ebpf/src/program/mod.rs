//! Entry points: one classifier for each direction.

mod act;
mod frame;
mod maps;
mod too_big;

use aya_ebpf::{bindings::__sk_buff, macros::classifier, programs::TcContext};
use mhebpf_ebpf::{Direction, Verdict, decide::decide, packet};

use self::{act::Outcome, frame::SkbFrame, maps::BpfTables};

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
    judge(skb, Direction::Egress).code()
}

/// Judges packets that arrive by their destination.
#[classifier]
pub(crate) fn mhebpf_ingress(ctx: TcContext) -> i32 {
    judge(ctx.skb.skb, Direction::Ingress).code()
}

#[inline(always)]
fn judge(skb: *mut __sk_buff, direction: Direction) -> Outcome {
    // SAFETY: the kernel passes a valid context, whose fields the verifier knows.
    let ifindex = unsafe { (*skb).ifindex };
    let Some(iface) = BpfTables.find(ifindex) else { return Outcome::Pass };
    let frame = SkbFrame::linear(skb);
    let Some(packet) = packet::parse(&frame, frame::tag_beside(skb)) else { return Outcome::Pass };
    match decide(&BpfTables, direction, ifindex, iface, &packet) {
        Verdict::Pass => Outcome::Pass,
        Verdict::Act { reason, action, enforced } => {
            let case = act::Case { skb, direction, ifindex, iface, packet: &packet, reason };
            if enforced { case.carry_out(action) } else { case.observe() }
        }
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
