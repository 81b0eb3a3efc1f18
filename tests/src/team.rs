//! Teams, told by netlink what teamd would tell them.

use std::io;

use anyhow::{Context as _, Error, Result};

use crate::{
    generic_netlink, interface,
    netlink::{attribute, nested},
    netns::NetNs,
};

/// `TEAM_CMD_OPTIONS_SET`.
const SET_OPTIONS: u8 = 1;

/// The type of an option that is a text: that of an attribute (`NLA_STRING`).
const TEXT: u8 = 5;

/// Has a team without ports spread what it sends over its ports, by a hash that nobody has told it how to compute: so it uses the
/// first. It takes what comes through any of them.
///
/// # Errors
///
/// When it has ports already, or the kernel has no such mode.
pub fn set_load_balancing(ns: &NetNs, team: &str) -> Result<()> {
    // TEAM_ATTR_OPTION_NAME, _TYPE, _DATA.
    let option = [attribute(1, b"mode\0"), attribute(3, &[TEXT]), attribute(4, b"loadbalance\0")];
    ns.run(|| {
        let index = interface::index(team)?;
        // TEAM_ATTR_TEAM_IFINDEX, and TEAM_ATTR_LIST_OPTION with one TEAM_ATTR_ITEM_OPTION in it.
        let attributes = [attribute(1, &index.to_ne_bytes()), nested(2, &[nested(1, &option)])];
        generic_netlink::command("team", SET_OPTIONS, &attributes).or_else(unless_nobody_listens)
    })
    .with_context(|| format!("setting the mode of {team}"))
}

/// Once an option is set, the kernel tells all that listen to such changes; that nobody does is what it answers then
/// (`team_nl_send_event_options_get`, Linux 6.12).
fn unless_nobody_listens(error: Error) -> Result<()> {
    let code = error.root_cause().downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
    if code == Some(libc::ESRCH) { Ok(()) } else { Err(error) }
}
