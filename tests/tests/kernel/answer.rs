//! The answer that the program owes for a verdict.

use std::net::IpAddr;

use super::{Cb, Counts, DROP, PASS, REDIRECT, Ran};
use crate::oracle::{Action, Crossing, Host, Verdict};

/// How many priority tags are taken off what is redirected to a neighbour, besides one that the kernel then holds beside the
/// frame. With more it is dropped.
const TAKEN_OFF: usize = 4;

/// How much of a datagram that is too large is quoted to its sender.
const QUOTED_BY_ICMP: usize = 68;
/// The same for IPv6.
const QUOTED_BY_ICMPV6: usize = 96;

/// What running the program on this packet must give, but for the mark that a redirect leaves, and what it is
/// to add to the counters.
pub(crate) fn answer(host: &Host, crossing: &Crossing, cb: Cb, verdict: Verdict, counts: &mut Counts) -> Ran {
    let mut frame = crossing.frame.clone();
    let Verdict::Violation { family, mut reason, action, enforced } = verdict else {
        return Ran { code: PASS, frame, cb };
    };
    let content = offset_of_content(&frame);
    let code = match action {
        _ if !enforced => PASS,
        Action::Drop => DROP,
        Action::SendBy { .. } if has_too_many_tags(content) => {
            reason = "redirect_failed";
            take_off_what_goes(&mut frame);
            DROP
        }
        Action::SendToGroupBy { owner, .. } if !is_ethernet(host, owner) && has_too_many_tags(content) => {
            reason = "redirect_failed";
            take_off_what_goes(&mut frame);
            DROP
        }
        Action::SendBy { owner, .. } if is_too_big(host, crossing, owner, content) => {
            reason = "too_big";
            frame = too_big(host, owner, &frame, content);
            REDIRECT
        }
        Action::SendBy { .. } => {
            // What is sent to a neighbour gets an Ethernet header of its own, with no tag.
            frame.drain(12..content - 2);
            REDIRECT
        }
        Action::SendToGroupBy { owner, source } => {
            if is_ethernet(host, owner) {
                frame[6..12].copy_from_slice(&source);
            } else {
                // The kernel takes the Ethernet header off, but no tags.
                frame.drain(12..content - 2);
            }
            REDIRECT
        }
        Action::AskAs(sender) => {
            frame[content + 14..content + 18].copy_from_slice(&sender.octets());
            PASS
        }
        Action::SpeakAs(IpAddr::V4(source)) => {
            let header = &mut frame[content..];
            update_checksum(header, 10, 12, source.octets());
            header[12..16].copy_from_slice(&source.octets());
            PASS
        }
        Action::SpeakAs(IpAddr::V6(source)) => {
            let message = &mut frame[content..];
            for (word, octets) in source.octets().chunks(4).enumerate() {
                let (at, octets) = (8 + 4 * word, [octets[0], octets[1], octets[2], octets[3]]);
                update_checksum(message, 42, at, octets);
                message[at..at + 4].copy_from_slice(&octets);
            }
            PASS
        }
    };
    *counts.entry((crossing.interface, crossing.direction, family, reason, !enforced)).or_default() += 1;
    Ran { code, frame, cb }
}

fn has_too_many_tags(content: usize) -> bool {
    content > 14 + 4 * (TAKEN_OFF + 1)
}

/// With each that it takes off, the kernel moves the next one beside the frame.
fn take_off_what_goes(frame: &mut Vec<u8>) {
    frame.drain(12..12 + 4 * (TAKEN_OFF + 1));
}

/// Whether a packet that is to leave by this owner does not fit: its sender has kept to the MTU of the
/// interface that it crosses, which is larger. The sender is told so then, instead.
fn is_too_big(host: &Host, crossing: &Crossing, owner: u32, content: usize) -> bool {
    let mtu = |index| host.interface(index).map_or(0, |interface| interface.mtu);
    let length = crossing.frame.len() - content;
    mtu(owner) < mtu(crossing.interface) && length > mtu(owner) as usize
}

fn is_ethernet(host: &Host, owner: u32) -> bool {
    host.interface(owner).is_none_or(|owner| owner.is_ethernet)
}

/// Where what is judged starts in a frame: behind the Ethernet header and the tags.
pub(crate) fn offset_of_content(frame: &[u8]) -> usize {
    let is_tag = |bytes: &&[u8]| matches!(bytes, [0x81, 0x00, ..] | [0x88, 0xa8, ..]);
    14 + 4 * frame.get(12..).unwrap_or_default().chunks(4).take_while(is_tag).count()
}

/// The message for a datagram that is too large for its owner, as it arrives there.
fn too_big(host: &Host, owner: u32, frame: &[u8], content: usize) -> Vec<u8> {
    let (mac, mtu) = host.interface(owner).map_or(([0; 6], 0), |owner| (owner.mac, owner.mtu));
    // Where the owner has no Ethernet header the kernel takes off the one that the packet had.
    let macs = if is_ethernet(host, owner) { [mac, mac].concat() } else { frame[..12].to_vec() };
    let message = match frame[content] >> 4 {
        4 => fragmentation_needed(mtu, &frame[content..]),
        _ => packet_too_big(mtu, &frame[content..]),
    };
    [&macs, &frame[content - 2..content], &message].concat()
}

/// "Fragmentation needed" of RFC 792 and RFC 1191.
fn fragmentation_needed(mtu: u32, datagram: &[u8]) -> Vec<u8> {
    let [_, _, mtu_high, mtu_low] = mtu.to_be_bytes();
    let quoted = &datagram[..QUOTED_BY_ICMP];
    let icmp = [&[3, 4, 0, 0, 0, 0, mtu_high, mtu_low][..], quoted].concat();
    let length = 20 + icmp.len() as u8;
    let (source, destination) = (&datagram[12..16], &datagram[16..20]);
    let ip = [&[0x45, 0, 0, length, 0, 0, 0, 0, 64, 1, 0, 0][..], destination, source].concat();
    [with_checksum(ip, 10), with_checksum(icmp, 2)].concat()
}

/// "Packet too big" of RFC 4443 section 3.2.
fn packet_too_big(mtu: u32, datagram: &[u8]) -> Vec<u8> {
    let icmp = [&[2, 0, 0, 0][..], &mtu.to_be_bytes(), &datagram[..QUOTED_BY_ICMPV6]].concat();
    let length = icmp.len() as u8;
    let addresses = [&datagram[24..40], &datagram[8..24]].concat();
    // The checksum covers a pseudo-header (RFC 8200 section 8.1).
    let pseudo_header = [&addresses[..], &[0, 0, 0, length, 0, 0, 0, 58]].concat();
    let covered = with_checksum([pseudo_header, icmp].concat(), 40 + 2);
    [&[0x60, 0, 0, 0, 0, length, 58, 64][..], &addresses, &covered[40..]].concat()
}

/// Changes a checksum as four bytes that it covers change (RFC 1624). A wrong one stays wrong.
fn update_checksum(bytes: &mut [u8], at: usize, changed: usize, to: [u8; 4]) {
    let word = |bytes: &[u8]| u32::from(bytes[0]) * 256 + u32::from(bytes[1]);
    let inverted = |word: u32| 0xffff - word;
    let from = &bytes[changed..changed + 4];
    let sum = inverted(word(&bytes[at..]))
        + inverted(word(from))
        + inverted(word(&from[2..]))
        + word(&to)
        + word(&to[2..]);
    // Of the two zeroes of one's complement arithmetic only the one that is all ones comes out.
    let folded = (sum - 1) % 0xffff + 1;
    bytes[at..at + 2].copy_from_slice(&(inverted(folded) as u16).to_be_bytes());
}

/// Fills in the checksum of RFC 1071.
fn with_checksum(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    let sum: u32 = bytes.chunks(2).map(|word| u32::from(word[0]) * 256 + u32::from(word[1])).sum();
    // What does not fit into 16 bits is added again, for which twice is enough.
    let folded = (sum % 65_536 + sum / 65_536) % 65_536 + (sum % 65_536 + sum / 65_536) / 65_536;
    bytes[at..at + 2].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    bytes
}
