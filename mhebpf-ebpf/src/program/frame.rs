//! Access to the bytes of a packet.

use core::{arch::asm, array, mem::MaybeUninit, ptr};

use aya_ebpf::{
    bindings::{__sk_buff, bpf_hdr_start_off::BPF_HDR_START_NET},
    helpers::generated::{bpf_skb_load_bytes, bpf_skb_load_bytes_relative},
};
use mhebpf_ebpf::{
    Frame, Ipv4, Ipv6, Location, Mac, Metadata, glance::Head, icmp, packet::IPV6_NEXT_HEADER_OFFSET,
};
use network_types::eth::EthHdr;

use super::xfrm;

/// Where the EtherType stands in an Ethernet header.
const ETHERTYPE_OFFSET: usize = 12;

/// The linear part of a packet, between the bounds that the verifier checks accesses against.
///
/// Headers are nearly always in it. Frames from AF_PACKET rings and from some drivers have no more than the Ethernet
/// header there.
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

    /// The EtherType of the Ethernet header, in host byte order.
    #[inline(always)]
    pub(super) fn ethertype(&self) -> Option<u16> {
        self.read(ETHERTYPE_OFFSET).map(u16::from_be_bytes)
    }

    /// Where the network layer's header starts, if there is no tag.
    #[inline(always)]
    pub(super) fn location(&self, ethertype: u16) -> Option<Location> {
        self.read(0).map(|[first_octet]| Location::in_ethernet(ethertype, first_octet))
    }

    /// The next header's number of IPv6 behind the Ethernet header.
    #[inline(always)]
    pub(super) fn next_header(&self) -> Option<u8> {
        self.read(EthHdr::LEN + IPV6_NEXT_HEADER_OFFSET).map(|[number]| number)
    }

    /// Where `length` bytes at `offset` start, if the linear part has them.
    #[inline(always)]
    fn within(&self, offset: usize, length: usize) -> Option<usize> {
        let start = self.data + offset;
        if start + length > self.end { None } else { Some(start) }
    }
}

/// Reads four bytes at `OFFSET` behind `place` as they lie in memory, aligned or not.
///
/// What follows an Ethernet header is misaligned. The kernel reads such words at once, but the compiler would read them
/// byte by byte. Where a machine can't, the kernel aligns headers to four bytes (`NET_IP_ALIGN`), and the verifier
/// knows it.
///
/// # Safety
///
/// The four bytes lie within the packet.
#[inline(always)]
unsafe fn word<const OFFSET: usize>(place: usize) -> u64 {
    let word: u64;
    // SAFETY: an instruction that reads four bytes, for which the caller vouches and the verifier checks, into the lower
    // half of a register whose upper half it clears.
    unsafe {
        asm!(
            "{0} = *(u32 *)({1} + {2})",
            out(reg) word,
            in(reg) place,
            const OFFSET,
            options(pure, readonly, nostack)
        );
    }
    word
}

impl Head for SkbFrame {
    #[inline(always)]
    fn has(&self, length: usize) -> bool {
        self.within(0, length).is_some()
    }

    #[inline(always)]
    fn word<const OFFSET: usize>(&self) -> u64 {
        // SAFETY: the verifier refuses the program unless `has` was asked before.
        unsafe { word::<OFFSET>(self.data) }
    }
}

impl Frame for SkbFrame {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let start = self.within(offset, N)?;
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: `start..start + N` lies within the packet, as just checked; the verifier checks it again.
        unsafe {
            ptr::copy_nonoverlapping(start as *const u8, bytes.as_mut_ptr().cast(), N);
            Some(bytes.assume_init())
        }
    }

    #[inline(always)]
    fn read_words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        let start = self.within(offset, size_of::<[u32; N]>())?;
        // SAFETY: as above.
        Some(array::from_fn(|i| unsafe { word::<0>(start + 4 * i) as u32 }))
    }
}

/// The whole packet, read by a helper at any offset: slower, for what is rare.
pub(super) struct SkbBytes(pub(super) *mut __sk_buff);

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

/// A packet that arrives on a device without Ethernet, from its network layer's header on.
///
/// It need not start with that: what a tunnel has taken off is still in front of it before Linux 5.14 (GRE, IP tunnels), and
/// on xfrm interfaces (`skb->mac_len`).
pub(super) struct SkbNetwork(pub(super) *mut __sk_buff);

impl SkbNetwork {
    /// `T` is an array of integers, for which all bytes are right.
    #[inline(always)]
    fn load<T>(&self, offset: usize) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: as above.
        let loaded = unsafe {
            let length = size_of::<T>() as u32;
            let to = value.as_mut_ptr().cast();
            bpf_skb_load_bytes_relative(self.0.cast(), offset as u32, to, length, BPF_HDR_START_NET) == 0
        };
        if loaded {
            // SAFETY: it was filled.
            return Some(unsafe { value.assume_init() });
        }
        // The helper reads no more than the linear part.
        SkbBytes(self.0).load(offset)
    }
}

macro_rules! read_by_load {
    ($($frame:ty),+) => {$(
        impl Frame for $frame {
            #[inline(always)]
            fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
                self.load(offset)
            }

            #[inline(always)]
            fn read_words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
                self.load(offset)
            }
        }
    )+};
}

read_by_load!(SkbBytes, SkbNetwork);

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

/// What the kernel knows of a packet, and the hardware addresses in front of it.
pub(super) struct SkbMetadata(pub(super) *mut __sk_buff);

impl Metadata for SkbMetadata {
    #[inline(always)]
    fn has_arrived(&self) -> bool {
        // SAFETY: the kernel passes a valid context, whose fields the verifier knows. Packets of local origin have none
        // (Linux 6.18).
        unsafe { (*self.0).ingress_ifindex != 0 }
    }

    #[inline(always)]
    fn is_decapsulated(&self) -> bool {
        xfrm::is_decapsulated(self.0)
    }

    #[inline(always)]
    fn source_mac(&self) -> Mac {
        mac::<6>(self.0)
    }

    #[inline(always)]
    fn destination_mac(&self) -> Mac {
        mac::<0>(self.0)
    }

    #[inline(always)]
    fn invoking_ipv4(&self, offset: usize) -> Option<Ipv4> {
        icmp::ipv4_destination(&SkbBytes(self.0), offset)
    }

    #[inline(always)]
    fn invoking_ipv6(&self, offset: usize) -> Option<Ipv6> {
        icmp::ipv6_destination(&SkbBytes(self.0), offset)
    }
}

/// The hardware address at `OFFSET` of an Ethernet header, which is in the linear part of every frame that is sent or received.
#[inline(always)]
fn mac<const OFFSET: usize>(skb: *mut __sk_buff) -> Mac {
    let frame = SkbFrame::of(skb);
    match (frame.read_words(OFFSET), frame.read_words(OFFSET + 2)) {
        (Some([first]), Some([third])) => Mac::from_words(first, third),
        _ => Mac::ZERO,
    }
}

/// The interface that the packet crosses.
#[inline(always)]
pub(super) fn ifindex(skb: *mut __sk_buff) -> u32 {
    // SAFETY: the kernel passes a valid context, whose fields the verifier knows.
    unsafe { (*skb).ifindex }
}

/// The EtherType by which the kernel knows the packet, in host byte order.
#[inline(always)]
pub(super) fn protocol(skb: *mut __sk_buff) -> u16 {
    // SAFETY: the kernel passes a valid context, whose fields the verifier knows.
    u16::from_be(unsafe { (*skb).protocol } as u16)
}
