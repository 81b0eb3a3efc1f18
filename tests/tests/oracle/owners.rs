//! Who owns which address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    host::{Address, Host, Interface, Kind, LOCAL, Link, LocalRoute, MAIN},
    prefix::Prefix,
};

/// The interfaces among which addresses are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Domain {
    /// Those of no VRF.
    Main,
    /// A VRF device, and what is in that VRF.
    Vrf(u32),
}

/// Who may use a local address.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Owners {
    /// Every interface.
    All,
    /// These, the preferred ones first.
    These(Vec<u32>),
}

impl Host {
    /// The VRF of an interface: it is itself one, or its master is in one.
    pub(crate) fn domain(&self, index: u32) -> Domain {
        match self.interface(index) {
            Some(interface) if interface.kind.is_vrf() => Domain::Vrf(index),
            _ => self.master(index).map_or(Domain::Main, |master| self.domain(master.index)),
        }
    }

    pub(super) fn master(&self, index: u32) -> Option<&Interface> {
        self.interface(self.interface(index)?.master?)
    }

    /// Whether it is a part of something else, which a port of a VRF is not.
    pub(super) fn is_port(&self, interface: &Interface) -> bool {
        self.master(interface.index).is_some_and(|master| !master.kind.is_vrf())
    }

    /// The routing table of a VRF.
    pub(super) fn table_of_vrf(&self, index: u32) -> Option<u32> {
        match self.interface(index)?.kind {
            Kind::Vrf(table) => Some(table),
            _ => None,
        }
    }

    /// Whether the addresses of an interface, or prefixes that are local by it, are its own and not everyone's.
    ///
    /// Uplinks keep theirs, and so does what is enforced, unless the operator says that it leads to a network that this host is
    /// the router of. A VRF is no interface, but its ports are. Link-local addresses mean nothing elsewhere. The source of the
    /// packets that carry a tunnel's is not the tunnel's: they leave by something else.
    fn binds(&self, interface: &Interface, prefix: Prefix) -> bool {
        if interface.outer.is_some_and(|outer| prefix.is_same_as(&Prefix::exact(outer))) {
            return false;
        }
        let is_of_link = prefix.is_link_local() && interface.kind.has_wire();
        is_of_link || interface.kind.is_vrf() || self.is_bound(interface)
    }

    /// Whether the addresses of an interface are its own, leaving aside what addresses they are.
    pub(super) fn is_bound(&self, interface: &Interface) -> bool {
        if let Some(policy) = &interface.policy {
            return policy.binds;
        }
        // Who enforces on a port takes its bridge for a way out.
        let mut ports = self.ports(interface.index).filter_map(|port| port.policy.as_ref());
        self.uplinks().contains(&interface.index) || ports.any(|policy| policy.binds)
    }

    /// The bound interface on whose link an address of an unbound macvlan is: a virtual router's addresses are of that link, and
    /// of no other. In a container the link is elsewhere, and the macvlan beside it with that subnet stands for it.
    fn stand_in_for_macvlan(&self, interface: &Interface, address: IpAddr) -> Option<&Interface> {
        if interface.kind != Kind::Macvlan || self.is_bound(interface) {
            return None;
        }
        let has_subnet = |other: &Interface| other.addresses.iter().any(|a| a.subnet().holds(address));
        match interface.link {
            Link::Elsewhere => self.interfaces.iter().find(|other| {
                other.kind == Kind::Macvlan
                    && other.link == Link::Elsewhere
                    && has_subnet(other)
                    && self.is_bound(other)
            }),
            Link::None | Link::To(_) => self.linked(interface).filter(|link| self.is_bound(link)),
        }
    }

    /// The owners of an address in a domain, none of which is of another; `None` when it is foreign there.
    ///
    /// They are the interfaces that it is configured on, those that a local route leads it to or that the operator has given it
    /// to, then those that the packets of these cross, wherever these are. Next come those that have it and don't bind it, and
    /// then those that are allowed to use it. Where it is on an interface without a wire, or only on such as don't bind it, it is
    /// everyone's.
    pub(crate) fn owners(&self, domain: Domain, address: IpAddr) -> Option<Owners> {
        let is_here = |interface: &u32| self.domain(*interface) == domain;
        let mut configured = Vec::new();
        let mut others = Vec::new();
        let mut unbound = Vec::new();
        for interface in self.configured_with(address) {
            let is_of_domain = is_here(&interface.index);
            if !interface.kind.has_wire() {
                if is_of_domain {
                    return Some(Owners::All);
                }
            } else if self.binds(interface, Prefix::exact(address)) {
                configured.push(interface.index);
            } else if let Some(link) = self.stand_in_for_macvlan(interface, address) {
                configured.extend([interface.index, link.index]);
            } else if is_of_domain {
                unbound.push(interface.index);
            }
        }
        for (interface, route) in self.locally_routed(address) {
            let is_of_domain = self.domain_of_table(route.table) == Some(domain);
            if !interface.kind.has_wire() {
                if is_of_domain {
                    return Some(Owners::All);
                }
            } else if self.binds(interface, route.destination) {
                others.push(interface.index);
            } else if is_of_domain {
                unbound.push(interface.index);
            }
        }
        others
            .extend(self.interfaces.iter().filter(|interface| interface.is_given(address)).map(|i| i.index));
        [&mut configured, &mut others, &mut unbound]
            .into_iter()
            .for_each(|interfaces| interfaces.sort_unstable());
        let first = without_repeats(configured.into_iter().chain(others));
        let crossed: Vec<u32> = first.iter().flat_map(|interface| self.crossed_by(*interface)).collect();

        let owners = without_repeats(first.into_iter().chain(crossed).filter(is_here));
        if owners.is_empty() {
            // To be allowed to use an address does not make it one of this host.
            return if unbound.is_empty() { None } else { Some(Owners::All) };
        }
        let allowed = self.interfaces.iter().filter(|i| i.is_allowed(address)).map(|i| i.index);
        let more = unbound.into_iter().chain(allowed).filter(is_here);
        let mut owners = without_repeats(owners.into_iter().chain(more));
        // Nothing leaves the host by a VRF device.
        owners.sort_by_key(|owner| self.interface(*owner).is_some_and(|owner| owner.kind.is_vrf()));
        Some(Owners::These(owners))
    }

    fn configured_with(&self, address: IpAddr) -> Vec<&Interface> {
        self.interfaces.iter().filter(|i| i.addresses.iter().any(|a| a.local == address)).collect()
    }

    /// Where local routes lead an address.
    fn locally_routed(&self, address: IpAddr) -> Vec<(&Interface, &LocalRoute)> {
        let leads_there = |route: &&LocalRoute| {
            let is_looked_up = self.domain_of_table(route.table).is_some();
            !route.by_kernel && route.destination.holds(address) && is_looked_up
        };
        let routes = self.local_routes.iter().filter(leads_there);
        routes.filter_map(|route| Some((self.interface(route.interface)?, route))).collect()
    }

    /// The domain that looks its addresses up in this table. Other tables are those of rules, which are for
    /// transparent proxies and the like.
    pub(crate) fn domain_of_table(&self, table: u32) -> Option<Domain> {
        let is_its_vrf = |i: &&Interface| i.kind == Kind::Vrf(table);
        match table {
            MAIN | LOCAL => Some(Domain::Main),
            _ => self.interfaces.iter().find(is_its_vrf).map(|vrf| Domain::Vrf(vrf.index)),
        }
    }

    /// What the packets of an interface cross as they are, layer by layer.
    pub(super) fn crossed_by(&self, index: u32) -> Vec<u32> {
        let mut crossed = Vec::new();
        let mut layer = self.directly_below(index);
        while !layer.is_empty() {
            let mut next_layer = Vec::new();
            for below in layer {
                if !crossed.contains(&below) {
                    crossed.push(below);
                    next_layer.extend(self.directly_below(below));
                }
            }
            layer = next_layer;
        }
        crossed
    }

    fn directly_below(&self, index: u32) -> Vec<u32> {
        let Some(interface) = self.interface(index) else { return Vec::new() };
        let mut below: Vec<u32> = self.ports(index).map(|port| port.index).collect();
        let crosses_its_link = match interface.kind {
            // Its packets have a tag there, unless it is one that says nothing but a priority.
            Kind::Vlan(number) => number == 0,
            // They have a hardware address of their own there, but for what others send through it.
            Kind::Macvlan => self.is_port(interface),
            // They are inside others there.
            Kind::Tunnel => false,
            // What leaves one end of a pair arrives at the other.
            Kind::Other => !self.is_paired_here(interface),
            Kind::Ipvlan => true,
            Kind::Loopback | Kind::Dummy | Kind::Wire | Kind::Bridge | Kind::Bond | Kind::Vrf(_) => false,
        };
        let link = self.linked(interface);
        below.extend(link.filter(|_| crosses_its_link).map(|link| link.index));
        // What is an untagged member of the VLAN, only the bridge knows.
        if let (Kind::Vlan(_), Some(bridge @ Interface { kind: Kind::Bridge, .. })) = (interface.kind, link) {
            below.extend(self.ports(bridge.index).map(|port| port.index));
        }
        below
    }

    /// The macvlans and macvtaps of this host with this hardware address whose frames cross an interface: they lie on it, or on
    /// something whose packets cross it.
    pub(super) fn carried(&self, interface: &Interface, mac: [u8; 6]) -> impl Iterator<Item = &Interface> {
        let on_top =
            self.interfaces.iter().filter(move |above| above.kind == Kind::Macvlan && above.mac == mac);
        on_top.filter(move |above| {
            self.linked(above).is_some_and(|lower| {
                lower.index == interface.index || self.crossed_by(lower.index).contains(&interface.index)
            })
        })
    }

    /// The address to ask for `target` with on an interface, by ARP: its own one in that subnet, else its
    /// first; `None` when it has none.
    pub(crate) fn address_to_ask_with(&self, interface: &Interface, target: Ipv4Addr) -> Option<Ipv4Addr> {
        let own = self.own_addresses(interface, IpAddr::is_ipv4);
        match own.iter().find(|a| a.shares_subnet_with(target.into())).or(own.first())?.local {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }
    }

    /// The address that an interface has for those who are not on its link: its first that is no link-local one. The programs
    /// know eight.
    pub(crate) fn address_beyond_link(&self, interface: &Interface) -> Option<Ipv6Addr> {
        let own = self.own_addresses(interface, IpAddr::is_ipv6);
        own.iter().take(8).find_map(|address| match address.local {
            IpAddr::V6(address) if address.segments()[0] & 0xffc0 != 0xfe80 => Some(address),
            _ => None,
        })
    }

    /// An interface's own addresses of one family: those configured on it, and then those that it owns for
    /// interfaces above it, which excludes what is everyone's; but one of each subnet goes before all others. Nobody speaks in
    /// the name of loopback.
    fn own_addresses(&self, interface: &Interface, is_of_family: fn(&IpAddr) -> bool) -> Vec<Address> {
        let mut own = interface.addresses.clone();
        for above in &self.interfaces {
            if self.crossed_by(above.index).contains(&interface.index) {
                let is_own = |a: &&Address| self.binds(above, Prefix::exact(a.local));
                own.extend(above.addresses.iter().filter(is_own));
            }
        }
        own.retain(|address| is_of_family(&address.local) && !address.local.is_loopback());
        let is_first = |position: &usize| {
            own[..*position].iter().all(|a| !a.subnet().is_same_as(&own[*position].subnet()))
        };
        let (first, others): (Vec<usize>, Vec<usize>) = (0..own.len()).partition(is_first);
        first.into_iter().chain(others).map(|position| own[position]).collect()
    }
}

/// Each at its first place.
fn without_repeats(interfaces: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut once = Vec::new();
    for interface in interfaces {
        if !once.contains(&interface) {
            once.push(interface);
        }
    }
    once
}
