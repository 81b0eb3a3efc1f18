//! Which owner a packet leaves by.

use std::net::IpAddr;

use super::{
    host::{Host, Interface},
    verdict::Action,
};

/// How many owners of its source a packet is offered to, in their order.
const TRIED_OWNERS: usize = 4;

/// Where a packet goes whose source is of these interfaces: the reason to count it under, and what is done.
pub(super) fn redirect(
    host: &Host,
    owners: &[u32],
    (source, destination): (IpAddr, IpAddr),
    to_group: bool,
) -> (&'static str, Action) {
    let tried = owners.iter().take(TRIED_OWNERS).filter_map(|owner| host.interface(*owner));
    // Nothing leaves the host by a VRF device: it has no link.
    let up: Vec<&Interface> = tried.filter(|owner| owner.up && !owner.kind.is_vrf()).collect();
    let Some(first) = up.first() else { return ("owner_down", Action::Drop) };
    if to_group {
        // A group is on the link: no route is asked.
        return ("redirected", Action::SendToGroupBy { owner: first.index, source: first.mac });
    }
    for owner in up {
        if let Some(neighbour) = host.next_hop(owner.index, source, destination) {
            return ("redirected", Action::SendBy { owner: owner.index, neighbour });
        }
    }
    ("no_route", Action::Drop)
}
