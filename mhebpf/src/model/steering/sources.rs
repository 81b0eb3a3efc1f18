//! The sources of a host, and which of them a rule is for.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::{Object, Steering, Why};
use crate::model::{
    host::{Host, MAIN_DOMAIN, is_link_local},
    ownership::{Ownership, Ownerships},
    stacking::Stacking,
};

/// A local address or a prefix that is routed locally, with the interface that it is steered to; `None` where no rule may
/// hold it.
pub(super) type Source = (IpNet, Option<u32>);

/// All sources outside VRFs, in the order of their prefixes.
///
/// Link-local addresses are left out: they mean something on one link only, which the sender names. Only an interface
/// that has a table with a way for the family is steered to.
pub(super) fn of(stacking: &Stacking<'_>, ownerships: &Ownerships, steering: &mut Steering) -> Vec<Source> {
    let owners: Vec<Vec<u32>> =
        ownerships.distinct().iter().map(|ownership| direct_owners(stacking, ownership)).collect();
    let mut sources = Vec::new();
    for (domain, prefix, place) in ownerships.by_prefix() {
        let ownership = &ownerships.distinct()[place];
        if domain != MAIN_DOMAIN || ownership.allowed_only || is_link_local(prefix.addr()) {
            continue;
        }
        let owner = match owners[place].as_slice() {
            _ if ownership.host_wide => None,
            [owner] => Some(*owner).filter(|owner| steering.has_way(*owner, prefix.addr().is_ipv4())),
            several => {
                if several.iter().any(|owner| steering.has_way(*owner, prefix.addr().is_ipv4())) {
                    steering.leave_out(Object::Source(prefix), Why::SeveralOwners(several.to_vec()));
                }
                None
            }
        };
        sources.push((prefix, owner));
    }
    sources
}

/// The owners without those that are so only because the packets of another one cross them. Routes lead through the device
/// that an address is configured on: a VLAN device, say, and not the one that it is stacked on.
fn direct_owners(stacking: &Stacking<'_>, ownership: &Ownership) -> Vec<u32> {
    let below: BTreeSet<u32> =
        ownership.owners.iter().flat_map(|owner| stacking.below(*owner)).copied().collect();
    ownership.owners.iter().copied().filter(|owner| !below.contains(owner)).collect()
}

/// The prefixes that a rule for an interface may reach across: subnets of its addresses, and prefixes that are routed locally
/// to it.
pub(super) fn subnets(host: &Host) -> BTreeSet<(u32, IpNet)> {
    let on_link = host.addresses.iter().filter(|address| {
        // The prefix of a peer holds none of ours.
        address.subnet.contains(&address.local) && !is_link_local(address.local)
    });
    let on_link = on_link.map(|address| (address.ifindex, address.subnet));
    let routed = host.local_routes.iter().filter(|route| route.domain == MAIN_DOMAIN);
    let routed = routed.map(|route| (route.ifindex, route.prefix));
    on_link.chain(routed).filter(|(_, prefix)| prefix.prefix_len() > 0).collect()
}
