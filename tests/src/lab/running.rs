//! Waiting until links carry frames.

use std::ops::Range;

use anyhow::Result;

use super::{Lab, Segment};
use crate::{
    netns::NetNs,
    wait::{PATIENCE, wait_until},
};

impl Lab {
    /// Waits until a port carries frames from the host to its peer and back.
    ///
    /// # Errors
    ///
    /// When it does not in time.
    pub fn wait_running(&self, port: usize) -> Result<()> {
        self.wait_all_running(port..port + 1)
    }

    /// The same for several ports.
    pub(super) fn wait_all_running(&self, ports: Range<usize>) -> Result<()> {
        let bridge = |port: usize| Segment::nth(self.links[port].segment).bridge();
        let external = ports.clone().flat_map(|port| [format!("eth{port}_ext"), bridge(port)]);
        wait(&self.switch, &external.collect::<Vec<_>>())?;
        wait(&self.host, &ports.map(|port| format!("eth{port}_int")).collect::<Vec<_>>())
    }
}

fn wait(ns: &NetNs, names: &[String]) -> Result<()> {
    wait_until(&format!("{names:?} to carry frames"), PATIENCE, || {
        let links = ns.ip("-details -oneline link show")?;
        Ok(names.iter().all(|name| carries_frames(&links, name)).then_some(()))
    })
}

/// Whether a link carries frames by this list of `ip`.
///
/// A carrier that comes up is dealt with by a worker (`linkwatch_do_dev`, Linux 6.18), which under the RTNL lock sets the operational
/// state, gives the link its queue and tells the bridge above, whose own carrier then takes another turn. Until then
/// frames vanish: in the `noop` queue of the port or of the bridge, or because the port does not forward. `IFF_RUNNING`, for which
/// no lock is needed, can be seen in the midst of it; this list is made under the lock.
fn carries_frames(links: &str, name: &str) -> bool {
    let named = |line: &&str| {
        let shown = line.split_whitespace().nth(1).unwrap_or_default().trim_end_matches(':');
        shown.split('@').next() == Some(name)
    };
    links.lines().find(named).is_some_and(|line| {
        let is_up = line.contains(" state UP ") || line.contains(" state UNKNOWN ");
        is_up && (!line.contains(" bridge_slave ") || line.contains(" bridge_slave state forwarding "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_carries_frames_when_it_is_up_and_its_bridge_forwards() {
        let links = "2: br0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue state UP mode DEFAULT\n\
                     3: br1: <NO-CARRIER,BROADCAST,MULTICAST,UP> mtu 1500 qdisc noqueue state DOWN mode DEFAULT\n\
                     4: eth0_ext@if10: <UP> master br0 state UP mode DEFAULT bridge_slave state forwarding priority 32\n\
                     5: eth1_ext@if11: <UP> master br0 state UP mode DEFAULT bridge_slave state disabled priority 32\n";
        let carrying: Vec<_> = ["br0", "br1", "eth0_ext", "eth1_ext", "eth2_ext"]
            .into_iter()
            .filter(|name| carries_frames(links, name))
            .collect();
        assert_eq!(carrying, ["br0", "eth0_ext"]);
    }
}
