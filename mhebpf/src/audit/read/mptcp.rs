//! The endpoints of Multipath TCP (`ip mptcp endpoint`).

use std::{fs, io, net::IpAddr};

use crate::audit::snapshot::Endpoint;
use crate::netlink::raw::{ask, attribute, encoded, number};

/// `NETLINK_GENERIC`
const GENERIC: isize = 16;
/// `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY`, `CTRL_ATTR_FAMILY_ID` and `CTRL_ATTR_FAMILY_NAME` of linux/genetlink.h.
const CONTROL: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// `MPTCP_PM_CMD_GET_ADDR`, `MPTCP_PM_ATTR_ADDR` and others of linux/mptcp_pm.h.
const GET_ADDRESS: u8 = 3;
const ADDRESS: u16 = 1;
const ADDRESS_4: u16 = 3;
const ADDRESS_6: u16 = 4;
const FLAGS: u16 = 6;
const SIGNAL: u32 = 1;
/// `struct genlmsghdr`
const HEADER: usize = 4;

/// None where it is off, or the kernel has none.
///
/// # Errors
///
/// When the kernel shows them to root only.
pub(super) fn read() -> io::Result<Vec<Endpoint>> {
    let enabled = fs::read_to_string("/proc/sys/net/mptcp/enabled").unwrap_or_default();
    if enabled.trim() != "1" {
        return Ok(Vec::new());
    }
    let name = encoded(FAMILY_NAME, b"mptcp_pm\0");
    let answer = ask(GENERIC, CONTROL, false, &[&header(GET_FAMILY, 1)[..], &name].concat())?;
    let id = |message: &Vec<u8>| attribute(message.get(HEADER..)?, FAMILY_ID).and_then(number);
    let Some(family) = answer.iter().find_map(id).map(u16::from_ne_bytes) else { return Ok(Vec::new()) };
    let messages = ask(GENERIC, family, true, &header(GET_ADDRESS, 1))?;
    Ok(messages.iter().filter_map(|message| endpoint(message)).collect())
}

const fn header(command: u8, version: u8) -> [u8; HEADER] {
    [command, version, 0, 0]
}

fn endpoint(message: &[u8]) -> Option<Endpoint> {
    let attributes = attribute(message.get(HEADER..)?, ADDRESS)?;
    let ipv4 = || attribute(attributes, ADDRESS_4).and_then(number::<4>).map(IpAddr::from);
    let ipv6 = || attribute(attributes, ADDRESS_6).and_then(number::<16>).map(IpAddr::from);
    let flags = attribute(attributes, FLAGS).and_then(number).map_or(0, u32::from_ne_bytes);
    Some(Endpoint { address: ipv4().or_else(ipv6)?, signal: flags & SIGNAL != 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing::ip;

    #[test]
    fn an_endpoint_is_read_with_its_address() {
        let address = [encoded(ADDRESS_4, &[10, 0, 0, 2]), encoded(FLAGS, &5_u32.to_ne_bytes())].concat();
        let message = [header(GET_ADDRESS, 1).to_vec(), encoded(ADDRESS | 0x8000, &address)].concat();
        assert_eq!(endpoint(&message), Some(Endpoint { address: ip("10.0.0.2"), signal: true }));
        assert_eq!(endpoint(&message[..6]), None);
    }
}
