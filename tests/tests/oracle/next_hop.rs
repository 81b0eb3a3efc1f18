//! Where an owner sends to.

use std::{cmp::Reverse, net::IpAddr};

use super::{
    host::{Hop, Host, Kind, MAIN, Route},
    owners::Domain,
    prefix::{Prefix, is_link_local},
};

impl Host {
    /// The next hop from an owner to a destination: RFC 1122's `route(src, dst, TOS) -> gateway`.
    ///
    /// The longest prefix for which there is a route through the owner (lowest metric first) or, failing
    /// that, a route through another interface by a gateway that is near the owner. Only routes of the
    /// owner's own table count.
    pub(crate) fn next_hop(&self, owner: u32, destination: IpAddr) -> Option<IpAddr> {
        let mut routes = self.table_of(owner);
        routes.retain(|route| route.destination.holds(destination));
        // The sort is stable: among equals the first of the table stays the first.
        routes.sort_by_key(|route| (Reverse(route.destination.length), route.metric));
        for of_one_prefix in routes.chunk_by(|a, b| a.destination.length == b.destination.length) {
            let hops: Vec<Hop> = of_one_prefix.iter().flat_map(|route| &route.hops).copied().collect();
            if let Some(hop) = hops.iter().find(|hop| hop.interface == owner) {
                return Some(hop.gateway.unwrap_or(destination));
            }
            let near =
                |hop: &&Hop| hop.gateway.is_some_and(|gateway| self.is_near(owner, hop.interface, gateway));
            if let Some(hop) = hops.iter().find(near) {
                return hop.gateway;
            }
        }
        None
    }

    /// The routes of the domain of an interface.
    fn table_of(&self, interface: u32) -> Vec<&Route> {
        let table = match self.domain(interface) {
            Domain::Main => MAIN,
            Domain::Vrf(vrf) => match self.interface(vrf).map(|vrf| &vrf.kind) {
                Some(Kind::Vrf { table, .. }) => *table,
                _ => return Vec::new(),
            },
        };
        self.routes.iter().filter(|route| route.table == table).collect()
    }

    /// Whether the gateway of a route through another interface can be reached from the owner without a hop.
    fn is_near(&self, owner: u32, other: u32, gateway: IpAddr) -> bool {
        let table = self.table_of(owner);
        let on_link_of_owner = on_link(&table, owner);
        match gateway {
            // It says nothing by itself: every link has such addresses. Two interfaces with a subnet in
            // common, of either family, are taken to be on one link.
            IpAddr::V6(address) if is_link_local(address) => {
                let on_link_of_other = on_link(&table, other);
                let is_shared = |prefix: &Prefix| on_link_of_other.iter().any(|its| its.is_same_as(prefix));
                on_link_of_owner.iter().any(|prefix| !prefix.is_link_local() && is_shared(prefix))
            }
            _ => on_link_of_owner.iter().any(|prefix| prefix.holds(gateway)),
        }
    }
}

/// The destinations that are on the link of an interface. A default route without a gateway makes nothing
/// near.
fn on_link(table: &[&Route], interface: u32) -> Vec<Prefix> {
    let is_on_link = |hop: &Hop| hop.interface == interface && hop.gateway.is_none();
    let on_link = table.iter().filter(|route| route.hops.iter().any(is_on_link));
    on_link.map(|route| route.destination).filter(|destination| destination.length > 0).collect()
}
