//! Which interfaces own an address.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::Ipv4Addr,
};

use super::host::{Host, LinkKind};

/// The owners of one address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ownership {
    /// Every interface owns it.
    pub host_wide: bool,
    /// Owners in order of preference for a redirect: those that it is configured on, then those below them.
    pub owners: Vec<u32>,
}

/// The owners of every local address of a host.
///
/// An address is owned by the interface that it is configured on and by those that the interface's packets
/// cross: the device that a VLAN or macvlan is stacked on, the ports of a bridge, bond or team. An address on
/// an interface without a wire is host-wide.
pub fn of_addresses(host: &Host) -> BTreeMap<Ipv4Addr, Ownership> {
    let mut table: BTreeMap<Ipv4Addr, Ownership> = BTreeMap::new();
    let mut configured: BTreeMap<Ipv4Addr, BTreeSet<u32>> = BTreeMap::new();
    for address in &host.addresses {
        let ownership = table.entry(address.local).or_default();
        let Some(link) = host.links.get(&address.ifindex) else { continue };
        if link.kind.is_without_wire() {
            ownership.host_wide = true;
        } else {
            configured.entry(address.local).or_default().insert(link.index);
        }
    }
    let mut closures: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (address, interfaces) in configured {
        let mut owners: Vec<u32> = interfaces.iter().copied().collect();
        for ifindex in interfaces {
            let below = closures.entry(ifindex).or_insert_with(|| below(host, ifindex));
            for owner in below {
                if !owners.contains(owner) {
                    owners.push(*owner);
                }
            }
        }
        table.entry(address).or_default().owners = owners;
    }
    table
}

/// The interfaces that the packets of `ifindex` cross on their way to the wire, itself left out, in order of
/// their distance.
pub fn below(host: &Host, ifindex: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::from([ifindex]);
    let mut next = VecDeque::from([ifindex]);
    while let Some(current) = next.pop_front() {
        let Some(link) = host.links.get(&current) else { continue };
        let direct: Vec<u32> = match link.kind {
            LinkKind::Stacked => link.link.into_iter().collect(),
            LinkKind::Aggregate | LinkKind::Vrf => host.ports_of(current).map(|port| port.index).collect(),
            LinkKind::Loopback | LinkKind::Dummy | LinkKind::Veth | LinkKind::Other => Vec::new(),
        };
        for lower in direct {
            if seen.insert(lower) {
                found.push(lower);
                next.push_back(lower);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing::{address, host, link};

    fn owners(host: &Host, address: [u8; 4]) -> Ownership {
        of_addresses(host).remove(&Ipv4Addr::from(address)).expect("a local address")
    }

    #[test]
    fn the_same_address_on_two_interfaces_has_two_owners() {
        let host = host(
            [link(2, LinkKind::Veth), link(3, LinkKind::Veth)],
            [address(3, [10, 0, 0, 1], 24), address(2, [10, 0, 0, 1], 24)],
        );
        assert_eq!(owners(&host, [10, 0, 0, 1]), Ownership { host_wide: false, owners: vec![2, 3] });
    }

    #[test]
    fn addresses_without_a_wire_are_host_wide() {
        for kind in [LinkKind::Loopback, LinkKind::Dummy] {
            let host = host([link(1, kind)], [address(1, [10, 9, 9, 9], 32)]);
            assert!(owners(&host, [10, 9, 9, 9]).host_wide, "{kind:?}");
        }
    }

    #[test]
    fn a_vlan_on_a_bond_is_owned_down_to_the_ports() {
        let mut vlan = link(10, LinkKind::Stacked);
        vlan.link = Some(9);
        let mut port = link(2, LinkKind::Other);
        port.master = Some(9);
        let host = host([vlan, link(9, LinkKind::Aggregate), port], [address(10, [10, 0, 0, 1], 24)]);
        assert_eq!(owners(&host, [10, 0, 0, 1]).owners, vec![10, 9, 2]);
    }

    #[test]
    fn the_peer_of_a_veth_is_not_below_it() {
        let mut veth = link(2, LinkKind::Veth);
        veth.link = Some(3);
        let host = host([veth, link(3, LinkKind::Veth)], [address(2, [10, 0, 0, 1], 24)]);
        assert_eq!(owners(&host, [10, 0, 0, 1]).owners, vec![2]);
    }

    #[test]
    fn a_circle_of_devices_ends() {
        let mut one = link(2, LinkKind::Stacked);
        one.link = Some(3);
        let mut other = link(3, LinkKind::Stacked);
        other.link = Some(2);
        let host = host([one, other], [address(2, [10, 0, 0, 1], 24)]);
        assert_eq!(owners(&host, [10, 0, 0, 1]).owners, vec![2, 3]);
    }
}
