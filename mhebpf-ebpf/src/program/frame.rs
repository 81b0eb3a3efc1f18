//! Access to the bytes of a packet.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_skb_load_bytes, bpf_skb_pull_data},
};
use mhebpf_ebpf::packet::{Frame, IPV6_NEXT_HEADER_OFFSET, NEXT_HEADER_ICMPV6};
use network_types::eth::EthHdr;

/// Where the EtherType stands in an Ethernet header.
const ETHERTYPE_OFFSET: usize = 12;

/// The linear part of a packet, between the bounds that the verifier checks accesses against.
///
/// All offsets are constants: without CAP_PERFMON the verifier allows no others. See [`SkbBytes`] for those.
pub(super) struct SkbFrame {
    data: usize,
    end: usize,
}

impl SkbFrame {
    /// The linear part as it is.
    #[inline(always)]
    pub(super) fn of(skb: *mut __sk_buff) -> Self {
        // SAFETY: the kernel passes a valid context, whose fields the verifier knows.
        unsafe { Self { data: (*skb).data as usize, end: (*skb).data_end as usize } }
    }

    /// The linear part after `N` bytes were pulled into it, if the packet has as many.
    ///
    /// Headers are nearly always linear, and pulling costs more than all the rest, so it is done on need
    /// only: frames from AF_PACKET rings and from some drivers carry no more than the Ethernet header there.
    #[inline(always)]
    pub(super) fn with<const N: usize>(skb: *mut __sk_buff) -> Self {
        let frame = Self::of(skb);
        if frame.data + N <= frame.end {
            return frame;
        }
        // SAFETY: a valid context; the bounds are read anew. On failure they are as they were, and what cannot be
        // read is not judged.
        unsafe { bpf_skb_pull_data(skb, N as u32) };
        Self::of(skb)
    }

    /// The EtherType of the Ethernet header, in host byte order.
    #[inline(always)]
    pub(super) fn ethertype(&self) -> Option<u16> {
        self.read(ETHERTYPE_OFFSET).map(u16::from_be_bytes)
    }

    /// Whether IPv6 behind the Ethernet header carries ICMPv6.
    #[inline(always)]
    pub(super) fn is_icmpv6(&self) -> bool {
        self.read(EthHdr::LEN + IPV6_NEXT_HEADER_OFFSET) == Some([NEXT_HEADER_ICMPV6])
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

    #[inline(always)]
    fn read_words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        let start = self.data + offset;
        if start + size_of::<[u32; N]>() > self.end {
            return None;
        }
        // SAFETY: as above; nothing is promised of the alignment.
        Some(unsafe { core::ptr::read_unaligned(start as *const [u32; N]) })
    }
}

/// The whole packet, read by a helper at any offset: slower, for what is rare.
pub(super) struct SkbBytes(pub(super) *mut __sk_buff);

impl Frame for SkbBytes {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.load(offset)
    }

    #[inline(always)]
    fn read_words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        self.load(offset)
    }
}

impl SkbBytes {
    /// `T` is an array of integers, for which all bytes are right.
    #[inline(always)]
    fn load<T>(&self, offset: usize) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: a valid context, and a buffer of the size that is given, which is filled where the helper answers
        // 0.
        unsafe {
            let length = size_of::<T>() as u32;
            (bpf_skb_load_bytes(self.0.cast(), offset as u32, value.as_mut_ptr().cast(), length) == 0)
                .then(|| value.assume_init())
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

/// The EtherType by which the kernel knows the packet, in host byte order.
#[inline(always)]
pub(super) fn protocol(skb: *mut __sk_buff) -> u16 {
    // SAFETY: the kernel passes a valid context, whose fields the verifier knows.
    u16::from_be(unsafe { (*skb).protocol } as u16)
}
