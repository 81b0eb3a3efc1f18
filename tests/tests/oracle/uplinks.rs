//! Which interfaces are the host's ways out, and behind which there are networks that it is the router of.

use std::net::IpAddr;

use super::{
    host::{Address, Forwarding, Hop, Host, Interface, Kind, Link, MAIN, Route},
    owners::Domain,
    prefix::{Prefix, is_link_local},
};

/// The hardware addresses of virtual routers (RFC 9568 section 7.3), but for the last octet: of IPv4 and IPv6.
const VIRTUAL_ROUTERS: [[u8; 5]; 2] = [[0, 0, 0x5e, 0, 1], [0, 0, 0x5e, 0, 2]];

impl Host {
    /// The uplinks: this host is an end system of the networks there.
    pub(crate) fn uplinks(&self) -> Vec<u32> {
        let candidates = self.candidates();
        let uplinks = candidates.iter().filter(|candidate| !self.is_downlink_among(candidate, &candidates));
        uplinks.map(|uplink| uplink.index).collect()
    }

    /// Whether this host is the router of the network there (RFC 1812 section 5.2.3).
    pub(crate) fn is_downlink(&self, interface: &Interface) -> bool {
        self.is_downlink_among(interface, &self.candidates())
    }

    /// What would be uplinks if this host were no router.
    fn candidates(&self) -> Vec<&Interface> {
        let ways_out: Vec<&Interface> = self.interfaces.iter().filter(|i| self.is_way_out(i)).collect();
        // Where there is none, what else there is must do.
        let whole = self.interfaces.iter().filter(|i| !self.is_part_of_another(i));
        let is_end = |i: &&Interface| i.kind == Kind::Other && i.link == Link::Elsewhere;
        let ends: Vec<&Interface> = whole.clone().filter(is_end).collect();
        let bridges = whole.filter(|i| i.kind == Kind::Bridge).collect();
        [ways_out, ends, bridges].into_iter().find(|found| !found.is_empty()).unwrap_or_default()
    }

    /// A port is a part of its master, but for those of a VRF.
    fn is_part_of_another(&self, interface: &Interface) -> bool {
        self.master(interface.index).is_some_and(|master| !master.kind.is_vrf())
    }

    fn is_way_out(&self, interface: &Interface) -> bool {
        if self.is_part_of_another(interface) {
            return false;
        }
        let has_default = self.has_default_route(interface);
        match interface.kind {
            Kind::Loopback | Kind::Dummy | Kind::Vrf(_) => false,
            Kind::Wire | Kind::Bond => true,
            Kind::Bridge => has_default || self.faces_outward(interface, !self.has_wire()),
            // The address of a virtual router is that of whichever router is the master now.
            Kind::Macvlan if VIRTUAL_ROUTERS.iter().any(|prefix| interface.mac.starts_with(prefix)) => false,
            Kind::Vlan(_) | Kind::Macvlan | Kind::Ipvlan => {
                let is_of_use = has_subnet(interface) || self.has_gateway(interface);
                has_default || self.faces_outward(interface, !self.has_wire()) && is_of_use
            }
            // Those of VPN clients are mostly in a table for all but the VPN's own packets.
            Kind::Tunnel => self.has_any_default_route(interface),
            Kind::Other if self.is_paired_here(interface) => has_default,
            // On a node these are of containers; in a container they are all there is.
            Kind::Other => {
                has_default
                    || interface.link != Link::Elsewhere && self.has_any_default_route(interface)
                    || !self.has_wire() && (has_subnet(interface) || self.has_gateway(interface))
            }
        }
    }

    /// Whether what leaves by an interface can leave the host with it. `in_container` says that ends of pairs lead out.
    fn faces_outward(&self, interface: &Interface, in_container: bool) -> bool {
        match interface.kind {
            Kind::Wire | Kind::Bond => true,
            Kind::Bridge => self.ports(interface.index).any(|port| self.faces_outward(port, in_container)),
            Kind::Vlan(_) | Kind::Macvlan | Kind::Ipvlan => {
                interface.link == Link::Elsewhere
                    || self.linked(interface).is_some_and(|lower| self.faces_outward(lower, in_container))
            }
            Kind::Other if self.is_part_of_another(interface) || self.is_paired_here(interface) => false,
            Kind::Other => in_container || self.has_default_route(interface),
            Kind::Loopback | Kind::Dummy | Kind::Vrf(_) | Kind::Tunnel => false,
        }
    }

    /// Whether there is a wire here, or a bridge that leads to one. In a container there is none.
    fn has_wire(&self) -> bool {
        self.interfaces.iter().any(|interface| match interface.kind {
            Kind::Wire => true,
            Kind::Bridge => self.faces_outward(interface, false),
            _ => false,
        })
    }

    /// Whether it forwards there, and knows of no other router.
    fn is_downlink_among(&self, interface: &Interface, candidates: &[&Interface]) -> bool {
        let shares_a_subnet = candidates.iter().any(|other| {
            other.index != interface.index
                && self.domain(other.index) == self.domain(interface.index)
                && subnets(interface).any(|subnet| subnets(other).any(|its| its.is_same_as(&subnet)))
        });
        self.forwards(interface)
            && !self.has_gateway(interface)
            && !self.has_any_default_route(interface)
            && !shares_a_subnet
    }

    /// Whether it forwards what arrives there, in a family in which something is there.
    fn forwards(&self, interface: &Interface) -> bool {
        let has_hosts = |ipv4: bool| {
            let of_addresses = interface.addresses.iter().map(|address| Prefix::exact(address.local));
            let of_routes = self.known_routes(interface).map(|route| route.destination);
            of_addresses.chain(of_routes).any(|prefix| {
                prefix.address.is_ipv4() == ipv4 && !prefix.is_link_local() && !prefix.is_multicast()
            })
        };
        let Forwarding { ipv4, ipv6 } = interface.forwarding;
        ipv4 && has_hosts(true) || ipv6 && has_hosts(false)
    }

    /// Whether a route through an interface is by a gateway: one of main, of its VRF, or of a table that a rule from one of its
    /// addresses leads to.
    fn has_gateway(&self, interface: &Interface) -> bool {
        let by_rules = self.tables_by_rules(interface.index);
        self.known_routes(interface).any(|route| {
            let is_its = self.is_of_kernel(interface, route)
                || by_rules.contains(&(route.destination.address.is_ipv4(), route.table));
            let is_by_gateway = |hop: &Hop| hop.interface == interface.index && hop.gateway.is_some();
            is_its && route.hops.iter().any(is_by_gateway)
        })
    }

    fn has_default_route(&self, interface: &Interface) -> bool {
        self.known_routes(interface)
            .any(|route| route.destination.is_nearly_everything() && self.is_of_kernel(interface, route))
    }

    fn has_any_default_route(&self, interface: &Interface) -> bool {
        self.known_routes(interface).any(|route| route.destination.is_nearly_everything())
    }

    /// Whether a route is in the table that packets on an interface are looked up in where no rule says otherwise.
    fn is_of_kernel(&self, interface: &Interface, route: &Route) -> bool {
        route.table
            == match self.domain(interface.index) {
                Domain::Main => MAIN,
                Domain::Vrf(vrf) => self.table_of_vrf(vrf).unwrap_or(MAIN),
            }
    }

    /// The routes through an interface in tables that anything leads to.
    fn known_routes(&self, interface: &Interface) -> impl Iterator<Item = &Route> {
        self.routes.iter().filter(|route| {
            route.hops.iter().any(|hop| hop.interface == interface.index) && self.is_known(route)
        })
    }

    /// Whether a route is in main, in the table of a VRF, or in one that a rule for its family leads to.
    pub(crate) fn is_known(&self, route: &Route) -> bool {
        route.table == MAIN
            || self.interfaces.iter().any(|i| self.table_of_vrf(i.index) == Some(route.table))
            || self
                .rules
                .iter()
                .any(|rule| rule.table == route.table && rule.ipv4 == route.destination.address.is_ipv4())
    }
}

/// The subnets that an interface has an address in. An address alone is none, and link-local ones are everywhere.
fn subnets(interface: &Interface) -> impl Iterator<Item = Prefix> {
    let is_link_local = |address: IpAddr| matches!(address, IpAddr::V6(address) if is_link_local(address));
    let addresses = interface.addresses.iter().filter(move |address| !is_link_local(address.local));
    addresses.map(Address::subnet).filter(|subnet| subnet.length < Prefix::exact(subnet.address).length)
}

fn has_subnet(interface: &Interface) -> bool {
    subnets(interface).next().is_some()
}
