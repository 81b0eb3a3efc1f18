//! Direct access to the bytes of a packet.

use core::mem::MaybeUninit;

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_pull_data};
use mhebpf_ebpf::packet::{Frame, MAX_HEADERS};
use network_types::{arp::ArpHdr, eth::EthHdr};

/// The most bytes that are read of a frame without tags: an ARP packet.
const UNTAGGED_HEADERS: usize = EthHdr::LEN + ArpHdr::LEN;

/// Where the EtherType stands in an Ethernet header.
const ETHERTYPE_OFFSET: usize = 12;

/// The linear part of a packet, between the bounds that the verifier checks accesses against.
pub(super) struct SkbFrame {
    data: usize,
    end: usize,
}

impl SkbFrame {
    /// Takes the packet's linear part, after pulling the headers into it where they are not all there.
    ///
    /// Headers are nearly always linear, and pulling costs more than all the rest, so it is done on need
    /// only: frames from AF_PACKET rings and from some drivers carry no more than the Ethernet header there.
    /// All bounds are constants: without CAP_PERFMON the verifier allows no others.
    #[inline(always)]
    pub(super) fn linear(skb: *mut __sk_buff) -> Self {
        let frame = Self::bounds(skb);
        if frame.data + MAX_HEADERS <= frame.end {
            return frame;
        }
        // SAFETY: the kernel passes a valid context, whose fields the verifier knows.
        let length = unsafe { (*skb).len };
        let wanted = if length >= MAX_HEADERS as u32 {
            MAX_HEADERS as u32
        } else if frame.data + UNTAGGED_HEADERS <= frame.end && !frame.is_tagged() {
            return frame;
        } else {
            length
        };
        // SAFETY: a valid context; the bounds are read anew below. On failure they are as they were, and what
        // cannot be read is not judged.
        unsafe { bpf_skb_pull_data(skb, wanted) };
        Self::bounds(skb)
    }

    #[inline(always)]
    fn is_tagged(&self) -> bool {
        matches!(self.read(ETHERTYPE_OFFSET), Some([0x81, 0x00] | [0x88, 0xa8]))
    }

    #[inline(always)]
    fn bounds(skb: *mut __sk_buff) -> Self {
        // SAFETY: the kernel passes a valid context, whose fields the verifier knows.
        unsafe { Self { data: (*skb).data as usize, end: (*skb).data_end as usize } }
    }
}

impl Frame for SkbFrame {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let start = self.data + offset;
        if start + N > self.end {
            return None;
        }
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: `start..start + N` lies within the packet, as just checked; the verifier checks it again.
        unsafe {
            core::ptr::copy_nonoverlapping(start as *const u8, bytes.as_mut_ptr().cast(), N);
            Some(bytes.assume_init())
        }
    }
}

/// The control information of the VLAN tag that the kernel keeps beside the packet; 0 when there is none.
#[inline(always)]
pub(super) fn tag_beside(skb: *mut __sk_buff) -> u16 {
    // SAFETY: the kernel passes a valid context, whose fields the verifier knows.
    unsafe {
        // `vlan_tci` may be left over from a tag that was taken off (`__vlan_hwaccel_clear_tag` before Linux
        // 6.1).
        if (*skb).vlan_present == 0 { 0 } else { (*skb).vlan_tci as u16 }
    }
}
