//! What to say where no interface was named.

use std::collections::BTreeSet;

use crate::model::{Host, uplinks};

/// Which interfaces share a subnet, and the command line that would enforce on them.
pub(super) fn no_selection(host: &Host) -> String {
    let shared = uplinks::shared_subnets(host);
    if shared.is_empty() {
        return "say which interfaces: --interface GLOB (may be repeated), or --all for every uplink"
            .to_owned();
    }
    let mut text = "say which interfaces. These share a subnet:\n".to_owned();
    let mut named = BTreeSet::new();
    for (subnet, interfaces) in &shared {
        let names: Vec<String> = interfaces.iter().map(|ifindex| host.name_of(*ifindex)).collect();
        text += &format!("  {subnet}: {}\n", names.join(", "));
        named.extend(names);
    }
    let flags: Vec<String> = named.iter().map(|name| format!("--interface {name}")).collect();
    text + &format!("Use\n  mhebpf run {}\nor, for every uplink,\n  mhebpf run --all", flags.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        LinkKind,
        testing::{address, host, link},
    };

    #[test]
    fn a_missing_selection_names_the_interfaces_that_share_a_subnet() {
        let host = host(
            [link(2, LinkKind::Wire), link(3, LinkKind::Wire), link(4, LinkKind::Wire)],
            [address(2, "10.0.0.1/24"), address(3, "10.0.0.2/24"), address(4, "10.1.0.2/24")],
        );
        let text = no_selection(&host);
        assert!(text.contains("10.0.0.0/24: eth2, eth3"), "{text}");
        assert!(text.contains("mhebpf run --interface eth2 --interface eth3\n"), "{text}");
    }
}
