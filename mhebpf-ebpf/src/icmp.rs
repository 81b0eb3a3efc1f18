//! ICMP errors (RFC 792, RFC 4443 section 2.1), and whom the packet was for that an error is about: the invoking packet.

use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use crate::{Frame, Ipv4, Ipv6};

/// An ICMP header, of either version. What an error is about follows it.
const HEADER: usize = 8;

/// The types of errors: destination unreachable, source quench, redirect, time exceeded, parameter problem.
const ERRORS: [u8; 5] = [3, 4, 5, 11, 12];

/// The flag of an IPv4 header, in the first octet of flags and fragment offset.
const DONT_FRAGMENT: u8 = 0x40;

/// The types of ICMPv6 errors are below this one.
const FIRST_INFORMATIONAL: u8 = 128;

/// The destination of the packet that has invoked an ICMP error; `None` for what is none, or is cut off. `offset` is where the
/// error's IPv4 header starts.
#[inline(always)]
pub fn ipv4_destination<F: Frame + ?Sized>(frame: &F, offset: usize) -> Option<Ipv4> {
    let [first, second] = frame.read_words(offset)?;
    let ([version_and_length, ..], [_, _, flags, fragment]) = (first.to_ne_bytes(), second.to_ne_bytes());
    // A fragment, but for one that may not be fragmented further.
    if (flags & !DONT_FRAGMENT) | fragment != 0 {
        return None;
    }
    let icmp = offset + usize::from(version_and_length & 0xf) * 4;
    let [kind] = frame.read(icmp)?;
    let [_, _, _, _, destination] = frame.read_words::<{ Ipv4Hdr::LEN / 4 }>(icmp + HEADER)?;
    let [a, b, c, d, e] = ERRORS;
    // Written out, so that there is no loop for the verifier to walk.
    let is_error = kind == a || kind == b || kind == c || kind == d || kind == e;
    is_error.then_some(Ipv4::from_wire(destination))
}

/// The same for ICMPv6 that follows the fixed header at once.
#[inline(always)]
pub fn ipv6_destination<F: Frame + ?Sized>(frame: &F, offset: usize) -> Option<Ipv6> {
    let [kind] = frame.read(offset + Ipv6Hdr::LEN)?;
    let header: [u32; Ipv6Hdr::LEN / 4] = frame.read_words(offset + Ipv6Hdr::LEN + HEADER)?;
    (kind < FIRST_INFORMATIONAL).then_some(Ipv6::from_wire([header[6], header[7], header[8], header[9]]))
}
