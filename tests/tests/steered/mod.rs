//! What tests of policy routing share.

use anyhow::Result;
use mhebpf_tests::{Lab, NetNs, PEER};

/// The routing protocol of its rules and routes.
pub(crate) const PROTOCOL: u8 = 208;

/// The table of the host's end of a port.
pub(crate) fn table(lab: &Lab, port: usize) -> Result<u32> {
    let index = lab.host.run(|| mhebpf_tests::interface::index(&format!("eth{port}_int")))?;
    Ok(280_080_000 + index)
}

/// All rules and routes of a namespace, as `ip` shows them.
pub(crate) fn routing(ns: &NetNs) -> Result<String> {
    let commands = ["rule", "-6 rule", "route show table all", "-6 route show table all"];
    commands.into_iter().map(|command| ns.ip(command)).collect()
}

/// The daemon's rules and routes, in order.
pub(crate) fn ours(ns: &NetNs) -> Result<Vec<String>> {
    let all = routing(ns)?;
    let ours = all.lines().filter(|line| line.contains(&format!("proto {PROTOCOL}")));
    let mut ours: Vec<String> = ours.map(|line| line.trim_end().to_owned()).collect();
    ours.sort();
    // Without `-4`, `ip route show table all` shows both families.
    ours.dedup();
    Ok(ours)
}

/// The article's lab with both families and a default route of each through port 0.
pub(crate) fn lab() -> Result<Lab> {
    let lab = Lab::article6()?;
    lab.host.ip(&format!("route add default via {PEER}"))?;
    Ok(lab)
}
