//! Packets that came out of IPsec.

use core::mem::{MaybeUninit, size_of};

use aya_ebpf::{
    Global,
    bindings::{__sk_buff, bpf_xfrm_state},
    helpers::generated::bpf_skb_get_xfrm_state,
};

/// Whether the kernel has XFRM. Without it there is no such helper, and the program would be refused: the daemon
/// sets this to 0 then, and the verifier never comes to the call.
#[unsafe(no_mangle)]
static XFRM: Global<u8> = Global::new(1);

/// Whether a packet that arrives was decapsulated from an IPsec transport or tunnel.
#[inline(always)]
pub(super) fn is_decapsulated(skb: *mut __sk_buff) -> bool {
    if XFRM.load() == 0 {
        return false;
    }
    let mut state = MaybeUninit::<bpf_xfrm_state>::uninit();
    // SAFETY: a valid context, and a buffer of the size that is given, which the helper fills in any case.
    unsafe { bpf_skb_get_xfrm_state(skb, 0, state.as_mut_ptr(), size_of::<bpf_xfrm_state>() as u32, 0) == 0 }
}
