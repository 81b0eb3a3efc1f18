//! Who owns which address.

use std::net::{IpAddr, Ipv4Addr};

use super::host::{Address, Host, Interface, Kind, LOCAL, LocalRoute, MAIN};

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

    fn master(&self, index: u32) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.kind.ports().contains(&index))
    }

    /// The owners of an address in a domain, none of which is of another; `None` when it is foreign there.
    ///
    /// They are the interfaces that it is configured on and those that a local route leads it to, then those
    /// that the packets of these cross, wherever these are, and then those that are allowed to use it. Where
    /// it is on an interface without a wire it is everyone's.
    pub(crate) fn owners(&self, domain: Domain, address: IpAddr) -> Option<Owners> {
        let configured = self.configured_with(address);
        let mut routed = self.locally_routed(address);
        let is_everyones = configured.iter().any(|i| !i.kind.has_wire() && self.domain(i.index) == domain)
            || routed.iter().any(|(i, of)| !i.kind.has_wire() && *of == domain);
        if is_everyones {
            return Some(Owners::All);
        }
        routed.retain(|(interface, _)| interface.kind.has_wire());
        routed.sort_by_key(|(interface, _)| interface.index);
        let routed = routed.into_iter().map(|(interface, _)| interface);
        let first: Vec<u32> = configured.into_iter().chain(routed).map(|interface| interface.index).collect();
        let crossed: Vec<u32> = first.iter().flat_map(|interface| self.crossed_by(*interface)).collect();

        let is_here = |interface: &u32| self.domain(*interface) == domain;
        let mut owners = without_repeats(first.into_iter().chain(crossed).filter(is_here));
        // To be allowed to use an address does not make it one of this host.
        if owners.is_empty() {
            return None;
        }
        let allowed = self.interfaces.iter().filter(|i| i.is_allowed(address)).map(|i| i.index);
        owners = without_repeats(owners.into_iter().chain(allowed.filter(is_here)));
        // Nothing leaves the host by a VRF device.
        owners.sort_by_key(|owner| self.interface(*owner).is_some_and(|owner| owner.kind.is_vrf()));
        Some(Owners::These(owners))
    }

    fn configured_with(&self, address: IpAddr) -> Vec<&Interface> {
        self.interfaces.iter().filter(|i| i.addresses.iter().any(|a| a.local == address)).collect()
    }

    /// Where local routes lead an address, and in which domain.
    fn locally_routed(&self, address: IpAddr) -> Vec<(&Interface, Domain)> {
        let leads_there = |route: &&LocalRoute| !route.by_kernel && route.destination.holds(address);
        let target =
            |route: &LocalRoute| Some((self.interface(route.interface)?, self.domain_of_table(route.table)?));
        self.local_routes.iter().filter(leads_there).filter_map(target).collect()
    }

    /// The domain that looks its addresses up in this table. Other tables are those of rules, which are for
    /// transparent proxies and the like.
    pub(crate) fn domain_of_table(&self, table: u32) -> Option<Domain> {
        let is_its_vrf = |i: &&Interface| matches!(i.kind, Kind::Vrf { table: its, .. } if its == table);
        match table {
            MAIN | LOCAL => Some(Domain::Main),
            _ => self.interfaces.iter().find(is_its_vrf).map(|vrf| Domain::Vrf(vrf.index)),
        }
    }

    /// What the packets of an interface cross, layer by layer.
    fn crossed_by(&self, index: u32) -> Vec<u32> {
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
        if let Kind::OnTopOf(lower) = interface.kind {
            return vec![lower];
        }
        let mut ports = interface.kind.ports().to_vec();
        ports.sort_unstable();
        ports
    }

    /// The address to ask for `target` with on an interface, by ARP: its own one in that subnet, else its
    /// first; `None` when it has none. Its own are those configured on it, and then those that it owns for
    /// interfaces above it; but one of each subnet goes before all others. Nobody is asked in the name of
    /// 127/8.
    pub(crate) fn address_to_ask_with(&self, interface: &Interface, target: Ipv4Addr) -> Option<Ipv4Addr> {
        let mut own = interface.addresses.clone();
        for above in &self.interfaces {
            if self.crossed_by(above.index).contains(&interface.index) {
                own.extend(&above.addresses);
            }
        }
        own.retain(|address| address.local.is_ipv4() && !address.local.is_loopback());
        let is_first = |position: &usize| {
            own[..*position].iter().all(|a| !a.subnet().is_same_as(&own[*position].subnet()))
        };
        let (first, others): (Vec<usize>, Vec<usize>) = (0..own.len()).partition(is_first);
        let own: Vec<Address> = first.into_iter().chain(others).map(|position| own[position]).collect();
        match own.iter().find(|a| a.shares_subnet_with(target.into())).or(own.first())?.local {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }
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
