//! How the devices of a host lie on one another.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::host::{Host, Link, LinkKind};

/// The ports of every device and the devices below it, worked out once for all addresses.
pub struct Stacking<'a> {
    /// The host.
    pub host: &'a Host,
    ports: BTreeMap<u32, Vec<u32>>,
    below: BTreeMap<u32, Vec<u32>>,
}

/// An interface that the frames of a macvlan or macvtap cross.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carrier {
    /// The interface.
    pub carrier: u32,
    /// The hardware address that the frames have there.
    pub mac: [u8; 6],
    /// The macvlan or macvtap.
    pub of: u32,
}

impl<'a> Stacking<'a> {
    /// Works it out for all links of a host.
    pub fn of(host: &'a Host) -> Self {
        let mut stacking = Self { host, ports: BTreeMap::new(), below: BTreeMap::new() };
        for link in host.links.values() {
            if let Some(master) = link.master {
                stacking.ports.entry(master).or_default().push(link.index);
            }
        }
        for ifindex in host.links.keys() {
            let below = stacking.find_below(*ifindex);
            if !below.is_empty() {
                stacking.below.insert(*ifindex, below);
            }
        }
        stacking
    }

    /// The interfaces that the packets of `ifindex` cross on their way to the wire as they are, itself left out, in order of
    /// their distance.
    pub fn below(&self, ifindex: u32) -> &[u32] {
        self.below.get(&ifindex).map_or(&[], Vec::as_slice)
    }

    /// The ports of a device.
    pub fn ports(&self, ifindex: u32) -> &[u32] {
        self.ports.get(&ifindex).map_or(&[], Vec::as_slice)
    }

    /// The interfaces that the frames of macvlans and macvtaps cross.
    pub fn carriers(&self) -> Vec<Carrier> {
        let mut carriers = Vec::new();
        for link in self.host.links.values().filter(|link| link.kind == LinkKind::Macvlan) {
            let (Some(lower), Some(mac)) = (link.link, link.mac) else { continue };
            let crossed = [lower].into_iter().chain(self.below(lower).iter().copied());
            carriers.extend(crossed.map(|carrier| Carrier { carrier, mac, of: link.index }));
        }
        carriers
    }

    fn find_below(&self, ifindex: u32) -> Vec<u32> {
        let mut found = Vec::new();
        let mut seen = BTreeSet::from([ifindex]);
        let mut next = VecDeque::from([ifindex]);
        while let Some(current) = next.pop_front() {
            let lower = self.host.links.get(&current).and_then(|link| self.crossed(link));
            let untagged = self.without_tag(current).iter().copied();
            for below in self.ports(current).iter().copied().chain(lower).chain(untagged) {
                if seen.insert(below) {
                    found.push(below);
                    next.push_back(below);
                }
            }
        }
        found
    }

    /// The ports of the bridge that a VLAN lies on: the bridge takes the tag off where a port is an untagged member of the VLAN.
    fn without_tag(&self, ifindex: u32) -> &[u32] {
        let Some(Link { kind: LinkKind::Vlan { .. }, link: Some(lower), .. }) = self.host.links.get(&ifindex)
        else {
            return &[];
        };
        let is_bridge = self.host.links.get(lower).is_some_and(|lower| lower.kind == LinkKind::Bridge);
        if is_bridge { self.ports(*lower) } else { &[] }
    }

    /// The device that the packets of a link cross as they are. In a VLAN they are tagged, those of a macvlan have a hardware
    /// address of their own, unless it is a port and they have those of what is bridged, and in a tunnel they are inside others.
    /// What nobody knows is taken for one that they cross.
    fn crossed(&self, link: &Link) -> Option<u32> {
        let is_crossed = match link.kind {
            LinkKind::Vlan { id } => id == 0,
            LinkKind::Ipvlan => true,
            LinkKind::Macvlan => self.host.is_port(link),
            LinkKind::Other => !self.host.is_pair(link),
            _ => false,
        };
        link.link.filter(|_| is_crossed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing::{host, link, port, stacked};

    #[test]
    fn what_is_below_comes_in_the_order_of_distance() {
        let links = [port(2, 9), port(3, 9), link(9, LinkKind::Bond), stacked(10, 9)];
        let host = host(links, []);
        assert_eq!(Stacking::of(&host).below(10), [9, 2, 3]);
    }

    #[test]
    fn devices_in_a_circle_end() {
        let host = host([stacked(2, 3), stacked(3, 4), stacked(4, 2)], []);
        assert_eq!(Stacking::of(&host).below(2), [3, 4]);
    }

    #[test]
    fn what_is_tagged_or_has_its_own_hardware_address_crosses_nothing_as_it_is() {
        let on_2 = |index, kind| Link { link: Some(2), ..link(index, kind) };
        let links = [
            link(2, LinkKind::Wire),
            on_2(3, LinkKind::Vlan { id: 5 }),
            on_2(4, LinkKind::Vlan { id: 0 }),
            on_2(5, LinkKind::Macvlan),
            on_2(6, LinkKind::Tunnel),
            on_2(7, LinkKind::Other),
        ];
        let host = host(links, []);
        let stacking = Stacking::of(&host);
        let crossing: Vec<u32> = (3..8).filter(|ifindex| stacking.below(*ifindex) == [2]).collect();
        assert_eq!(crossing, [4, 7]);
        assert_eq!(stacking.carriers(), [Carrier { carrier: 2, mac: [2, 0, 0, 0, 0, 5], of: 5 }]);
    }

    #[test]
    fn a_bridge_may_take_the_tag_of_a_vlan_off_and_a_bond_may_not() {
        let vlan = Link { link: Some(9), ..link(5, LinkKind::Vlan { id: 5 }) };
        for (kind, below) in [(LinkKind::Bridge, &[2][..]), (LinkKind::Bond, &[])] {
            let host = host([port(2, 9), link(9, kind), vlan.clone()], []);
            assert_eq!(Stacking::of(&host).below(5), below);
        }
    }

    #[test]
    fn what_is_bridged_through_a_macvlan_crosses_its_lower_device_as_it_is() {
        let port = Link { master: Some(9), link: Some(2), ..link(5, LinkKind::Macvlan) };
        let on_top = Link { link: Some(9), ..link(6, LinkKind::Macvlan) };
        let links = |master| [link(2, LinkKind::Wire), port.clone(), link(9, master), on_top.clone()];
        let with_bridge = host(links(LinkKind::Bridge), []);
        let stacking = Stacking::of(&with_bridge);
        assert_eq!((stacking.below(9), stacking.below(5)), (&[5, 2][..], &[2][..]));
        let crossed = stacking.carriers().into_iter().filter(|each| each.of == 6);
        assert_eq!(crossed.map(|each| each.carrier).collect::<Vec<_>>(), [9, 5, 2]);
        let with_vrf = host(links(LinkKind::Vrf { table: 10 }), []);
        assert_eq!(Stacking::of(&with_vrf).below(9), [5]);
    }

    #[test]
    fn the_ends_of_a_pair_do_not_lie_on_one_another() {
        let end = |index, peer| Link { link: Some(peer), ..link(index, LinkKind::Other) };
        let host = host([end(2, 3), end(3, 2)], []);
        assert!(Stacking::of(&host).below(2).is_empty());
    }

    #[test]
    fn the_frames_of_a_macvlan_on_a_bond_cross_its_ports() {
        let on_top = Link { link: Some(9), ..link(10, LinkKind::Macvlan) };
        let host = host([port(2, 9), port(3, 9), link(9, LinkKind::Bond), on_top], []);
        let carriers: Vec<u32> = Stacking::of(&host).carriers().iter().map(|each| each.carrier).collect();
        assert_eq!(carriers, [9, 2, 3]);
    }
}
