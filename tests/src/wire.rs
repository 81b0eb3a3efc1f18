//! A device that looks like a card: it has no other end in this machine that the host could know.

use anyhow::Result;

use crate::netns::NetNs;

/// Adds a card to a namespace, up and without an address. It is a macvlan (which takes [`crate::features::Feature::Macvlan`]) on
/// a device of another namespace, which has to be kept.
///
/// # Errors
///
/// When the kernel has no macvlans.
pub fn add(ns: &NetNs, elsewhere: &NetNs, name: &str) -> Result<()> {
    let path = ns.path();
    elsewhere.ip_batch(&format!(
        "link add {name}_low type veth peer name {name}_end\nlink set {name}_low up\nlink set {name}_end up\n\
         link add link {name}_low name {name} netns {path} type macvlan mode passthru"
    ))?;
    ns.ip(&format!("link set {name} up")).map(drop)
}
