//! Requests to the kernel's generic netlink families, by which devices are set up that `ip` alone cannot.

use anyhow::{Context as _, Result};

use crate::netlink::{ACK, Message, Netlink, REQUEST, attribute, find};

/// `GENL_ID_CTRL`: the family that knows all others.
const CONTROLLER: u16 = 0x10;
/// `CTRL_CMD_GETFAMILY`.
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

/// The families' versions have all been 1 so far.
const VERSION: u8 = 1;

/// Has a family of the calling thread's namespace carry out a command.
///
/// # Errors
///
/// When the kernel has no such family, or refuses.
pub(crate) fn command(family: &str, command: u8, attributes: &[Vec<u8>]) -> Result<()> {
    let mut netlink = Netlink::open(libc::NETLINK_GENERIC)?;
    let mut name = family.as_bytes().to_vec();
    name.push(0);
    let question = message(CONTROLLER, REQUEST, GET_FAMILY, &[attribute(FAMILY_NAME, &name)]);
    let answer = netlink.ask(&question).with_context(|| format!("looking up the netlink family {family}"))?;
    let id = answer.get(4..).and_then(|attributes| find(attributes, FAMILY_ID)?.first_chunk());
    let id = u16::from_ne_bytes(*id.context("a netlink family without an id")?);
    netlink
        .transact(&[message(id, REQUEST | ACK, command, attributes)])
        .with_context(|| format!("command {command} of the netlink family {family}"))
}

/// Behind the header of netlink comes `struct genlmsghdr`: command, version, two bytes that are reserved.
fn message(kind: u16, flags: u16, command: u8, attributes: &[Vec<u8>]) -> Message {
    Message::new(kind, flags, &[&[command, VERSION, 0, 0][..], &attributes.concat()].concat())
}
