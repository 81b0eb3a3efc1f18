//! The answer that the program owes for a verdict.

use super::{Cb, Counts, DROP, PASS, REDIRECT, Ran};
use crate::oracle::{Action, Crossing, Host, Verdict};

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
        Action::SendBy { owner, .. } if is_too_big(host, crossing, owner, content) => {
            reason = "too_big";
            frame = fragmentation_needed(host, owner, &frame[content..]);
            REDIRECT
        }
        Action::SendBy { .. } => {
            // What is sent to a neighbour gets an Ethernet header of its own, with no tag.
            frame.drain(12..content - 2);
            REDIRECT
        }
        Action::SendToGroupBy { source, .. } => {
            frame[6..12].copy_from_slice(&source);
            REDIRECT
        }
        Action::AskAs(sender) => {
            frame[content + 14..content + 18].copy_from_slice(&sender.octets());
            PASS
        }
    };
    *counts.entry((crossing.interface, crossing.direction, family, reason, !enforced)).or_default() += 1;
    Ran { code, frame, cb }
}

/// Whether a packet that is to leave by this owner does not fit: its sender has kept to the MTU of the
/// interface that it crosses, which is larger. The sender is told so then, instead.
fn is_too_big(host: &Host, crossing: &Crossing, owner: u32, content: usize) -> bool {
    let mtu = |index| host.interface(index).map_or(0, |interface| interface.mtu);
    let length = crossing.frame.len() - content;
    mtu(owner) < mtu(crossing.interface) && length > mtu(owner) as usize
}

/// Where what is judged starts in a frame: behind the Ethernet header and the tags.
fn offset_of_content(frame: &[u8]) -> usize {
    let is_tag = |bytes: &&[u8]| matches!(bytes, [0x81, 0x00, ..] | [0x88, 0xa8, ..]);
    14 + 4 * frame[12..].chunks(4).take_while(is_tag).count()
}

/// The ICMP message for a datagram that is too large for its owner (RFC 792, RFC 1191), as it arrives there.
fn fragmentation_needed(host: &Host, owner: u32, datagram: &[u8]) -> Vec<u8> {
    let (mac, mtu) = host.interface(owner).map_or(([0; 6], 0), |owner| (owner.mac, owner.mtu));
    let [_, _, mtu_high, mtu_low] = mtu.to_be_bytes();
    let quoted = &datagram[..68];
    let icmp = [&[3, 4, 0, 0, 0, 0, mtu_high, mtu_low][..], quoted].concat();
    let length = 20 + icmp.len() as u8;
    let (source, destination) = (&datagram[12..16], &datagram[16..20]);
    let ip = [&[0x45, 0, 0, length, 0, 0, 0, 0, 64, 1, 0, 0][..], destination, source].concat();
    [&mac[..], &mac, &[0x08, 0x00], &with_checksum(ip, 10), &with_checksum(icmp, 2)].concat()
}

/// Fills in the checksum of RFC 1071.
fn with_checksum(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    let sum: u32 = bytes.chunks(2).map(|word| u32::from(word[0]) * 256 + u32::from(word[1])).sum();
    // What does not fit into 16 bits is added again, for which twice is enough.
    let folded = (sum % 65_536 + sum / 65_536) % 65_536 + (sum % 65_536 + sum / 65_536) / 65_536;
    bytes[at..at + 2].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    bytes
}
