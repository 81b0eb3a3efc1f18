//! Dumps of netlink families that no crate at hand speaks: bytes out, attributes in.

use std::io;

use rtnetlink::sys::{Socket, SocketAddr};

/// `NETLINK_NETFILTER`
pub(crate) const NETFILTER: isize = 12;
/// `struct nlmsghdr`
const HEADER: usize = 16;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// Asks for all of something, or, without `dump`, for one thing, and gives the payloads of the answer.
///
/// # Errors
///
/// When the kernel has no such family, or refuses.
pub(crate) fn ask(family: isize, message_type: u16, dump: bool, body: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    let mut socket = Socket::new(family)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let flags = if dump { NLM_F_REQUEST | NLM_F_DUMP } else { NLM_F_REQUEST };
    let length = u32::try_from(HEADER + body.len()).map_err(io::Error::other)?;
    let mut request = length.to_ne_bytes().to_vec();
    request.extend(message_type.to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    // Sequence number and port.
    request.extend([0; 8]);
    request.extend(body);
    socket.send(&request, 0)?;
    let mut payloads = Vec::new();
    loop {
        let (answer, _) = socket.recv_from_full()?;
        for (kind, payload) in messages(&answer) {
            match kind {
                NLMSG_DONE => return Ok(payloads),
                NLMSG_ERROR => return Err(error(payload)),
                _ => payloads.push(payload.to_vec()),
            }
        }
        if !dump || answer.is_empty() {
            return Ok(payloads);
        }
    }
}

/// `struct nlmsgerr`
fn error(payload: &[u8]) -> io::Error {
    let code = number(payload).map(i32::from_ne_bytes).unwrap_or_default();
    io::Error::from_raw_os_error(code.saturating_neg())
}

fn messages(answer: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = answer;
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(number(rest)?) as usize;
        let kind = u16::from_ne_bytes(number(rest.get(4..)?)?);
        let payload = rest.get(HEADER..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, payload))
    })
}

/// The attributes (`struct nlattr`) of a message or of one of them: numbers and values.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    /// `NLA_TYPE_MASK`: without those that say that it is nested, or in network byte order.
    const TYPE: u16 = 0x3fff;
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(number(rest)?));
        let kind = u16::from_ne_bytes(number(rest.get(2..)?)?) & TYPE;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// One attribute of this number.
pub(crate) fn attribute(bytes: &[u8], number: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(kind, value)| (kind == number).then_some(value))
}

/// The first bytes, as those of a number.
pub(crate) fn number<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.first_chunk().copied()
}

/// A string, with or without a zero behind it.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.strip_suffix(&[0]).unwrap_or(bytes)).into_owned()
}

/// An attribute as it is sent.
pub(crate) fn encoded(number: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), number.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_are_written() {
        let bytes = [encoded(1, b"nat\0"), encoded(2 | 0x8000, &encoded(1, &[0, 0, 0, 3]))].concat();
        assert_eq!(attribute(&bytes, 1), Some(&b"nat\0"[..]));
        let hook = attribute(&bytes, 2).and_then(|hook| attribute(hook, 1)).and_then(number);
        assert_eq!(hook.map(u32::from_be_bytes), Some(3));
        assert_eq!(attribute(&bytes[..6], 1), None, "cut short");
    }
}
