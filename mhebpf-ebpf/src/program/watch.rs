//! Samples for those who watch.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_hdr_start_off::BPF_HDR_START_NET},
    helpers::generated::{
        bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_skb_load_bytes, bpf_skb_load_bytes_relative,
    },
};
use mhebpf_ebpf::{CounterKey, Metadata as _, SAMPLED, Sampler};

use super::{
    frame::SkbMetadata,
    judge::{EGRESS, INGRESS},
    maps,
    ruling::{Ruling, opaque},
};

/// Begins a sample of a packet, before anything is done with it; `None` where nobody watches, or the rate is used up.
#[inline(always)]
pub(super) fn begin<const DIRECTION: u8>(
    skb: *mut __sk_buff,
    ruling: Ruling,
) -> Option<&'static mut Sampler> {
    // SAFETY: a helper without arguments.
    let sampler = maps::sampler(DIRECTION, || unsafe { bpf_ktime_get_ns() })?;
    let sample = &mut sampler.sample;
    sample.time = sampler.asked;
    // Only what this host sends has a socket of its own yet.
    // SAFETY: a valid context.
    sample.socket = if DIRECTION == EGRESS { unsafe { bpf_get_socket_cookie(skb.cast()) } } else { 0 };
    sample.forwarded = u8::from(DIRECTION == EGRESS && SkbMetadata(skb).has_arrived());
    let offset = ruling.offset() as u32;
    // SAFETY: the kernel passes a valid context, whose fields the verifier knows.
    sample.length = unsafe { (*skb).len }.saturating_sub(offset);
    // The last byte's place, as a number whose bounds the verifier sees right before they matter.
    let last = opaque(u64::from(sample.length.min(SAMPLED as u32)).wrapping_sub(1));
    sample.sampled = 0;
    if last < SAMPLED as u64 {
        let sampled = last as u32 + 1;
        sample.sampled = sampled as u8;
        let to = sample.bytes.as_mut_ptr().cast();
        // SAFETY: a valid context, and a buffer with room for as many bytes, as the verifier checks again.
        unsafe {
            // See `SkbNetwork` for what may be in front of a packet without an Ethernet header.
            let bare = DIRECTION == INGRESS && offset == 0;
            if !bare || bpf_skb_load_bytes_relative(skb.cast(), 0, to, sampled, BPF_HDR_START_NET) != 0 {
                bpf_skb_load_bytes(skb.cast(), offset, to, sampled);
            }
        }
    }
    Some(sampler)
}

/// Completes a sample with what was done, and sends it.
#[inline(always)]
pub(super) fn finish(sampler: &mut Sampler, ruling: Ruling, counted: &CounterKey) {
    let sample = &mut sampler.sample;
    sample.counted = *counted;
    sample.act = ruling.act();
    sample.owner = ruling.owner();
    maps::send(sampler);
}
