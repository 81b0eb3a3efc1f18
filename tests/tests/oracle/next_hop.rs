//! Where an owner sends to.

use std::net::IpAddr;

use super::{
    host::{Hop, Host, MAIN, OWN_PROTOCOL, Route, Rule},
    owners::Domain,
    prefix::{Prefix, is_link_local},
};

impl Host {
    /// The next hop from an owner to a destination: RFC 1122's `route(src, dst, TOS) -> gateway`.
    ///
    /// The longest prefix for which there is a route through the owner, in a table that a rule from an address of the owner
    /// leads to or in the owner's own table, or, failing that, a route of the latter through another interface by a gateway
    /// that is near the owner. In each table the lowest metric comes first.
    pub(crate) fn next_hop(&self, owner: u32, destination: IpAddr) -> Option<IpAddr> {
        let tables = self.tables_by_rules(owner).into_iter();
        let tables = tables.filter(|(ipv4, _)| *ipv4 == destination.is_ipv4()).map(|(_, table)| table);
        let by_rules: Vec<&Route> = tables
            .flat_map(|table| to(self.routes.iter().filter(|r| r.table == table).collect(), destination))
            .collect();
        let own = to(self.table_of(owner), destination);
        let mut lengths: Vec<u8> =
            by_rules.iter().chain(&own).map(|route| route.destination.length).collect();
        lengths.sort_unstable();
        lengths.dedup();
        lengths.into_iter().rev().find_map(|length| {
            let hops = |routes: &[&Route]| -> Vec<Hop> {
                let of_length = routes.iter().filter(|route| route.destination.length == length);
                of_length.flat_map(|route| &route.hops).copied().collect()
            };
            let through = [hops(&by_rules), hops(&own)].concat();
            if let Some(hop) = through.iter().find(|hop| hop.interface == owner) {
                return Some(hop.gateway.unwrap_or(destination));
            }
            let near =
                |hop: &Hop| hop.gateway.is_some_and(|gateway| self.is_near(owner, hop.interface, gateway));
            hops(&own).into_iter().find(near)?.gateway
        })
    }

    /// The tables that rules from an address of an interface lead to, in the order of these rules, and whether they do so for
    /// IPv4. A rule that looks at anything else says nothing of the packets that one asks about.
    pub(super) fn tables_by_rules(&self, interface: u32) -> Vec<(bool, u32)> {
        let addresses = self.interface(interface).map_or(&[][..], |interface| &interface.addresses);
        let leads_to = |rule: &Rule| {
            let is_plain = !rule.is_choosy && rule.mark.is_none_or(|(mark, _)| mark == 0);
            let is_ours = rule.protocol == OWN_PROTOCOL;
            let source = rule.source.filter(|_| is_plain && !is_ours && rule.table != MAIN)?;
            let is_from_here = addresses.iter().any(|address| source.holds(address.local));
            is_from_here.then_some((rule.ipv4, rule.table))
        };
        self.rules.iter().filter_map(leads_to).collect()
    }

    /// The routes of the domain of an interface.
    fn table_of(&self, interface: u32) -> Vec<&Route> {
        let table = match self.domain(interface) {
            Domain::Main => MAIN,
            Domain::Vrf(vrf) => match self.table_of_vrf(vrf) {
                Some(table) => table,
                None => return Vec::new(),
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

/// The routes of a table to a destination, those with the lowest metric first.
fn to(mut table: Vec<&Route>, destination: IpAddr) -> Vec<&Route> {
    table.retain(|route| route.destination.holds(destination));
    // The sort is stable: among equals the first of the table stays the first.
    table.sort_by_key(|route| route.metric);
    table
}

/// The destinations that are on the link of an interface. A default route without a gateway makes nothing
/// near.
fn on_link(table: &[&Route], interface: u32) -> Vec<Prefix> {
    let is_on_link = |hop: &Hop| hop.interface == interface && hop.gateway.is_none();
    let on_link = table.iter().filter(|route| route.hops.iter().any(is_on_link));
    on_link.map(|route| route.destination).filter(|destination| destination.length > 0).collect()
}
