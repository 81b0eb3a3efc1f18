//! Samples for those who watch.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_skb_load_bytes},
};
use mhebpf_ebpf::{CounterKey, SAMPLED, Sampler};

use super::{
    judge::EGRESS,
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
    let offset = ruling.offset() as u32;
    // SAFETY: the kernel passes a valid context, whose fields the verifier knows.
    sample.length = unsafe { (*skb).len }.saturating_sub(offset);
    // The last byte's place, as a number whose bounds the verifier sees right before they matter.
    let last = opaque(u64::from(sample.length.min(SAMPLED as u32)).wrapping_sub(1));
    sample.sampled = 0;
    if last < SAMPLED as u64 {
        let sampled = last as u32 + 1;
        sample.sampled = sampled as u8;
        // SAFETY: a valid context, and a buffer with room for as many bytes, as the verifier checks again.
        unsafe { bpf_skb_load_bytes(skb.cast(), offset, sample.bytes.as_mut_ptr().cast(), sampled) };
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
