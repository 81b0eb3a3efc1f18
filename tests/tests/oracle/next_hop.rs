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
    /// that is near the owner. In each table the lowest metric comes first. Among the hops of a route the addresses choose.
    pub(crate) fn next_hop(&self, owner: u32, source: IpAddr, destination: IpAddr) -> Option<IpAddr> {
        let all = self.next_hops(owner, destination)?;
        Some(all[usize::try_from((u64::from(flow(source, destination)) * all.len() as u64) >> 32).ok()?])
    }

    /// The next hops of the route that is used, each as often as its share says.
    fn next_hops(&self, owner: u32, destination: IpAddr) -> Option<Vec<IpAddr>> {
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
            // The first route that has such hops, and all of those that it has.
            let first = |routes: &mut dyn Iterator<Item = &&Route>, is_usable: &dyn Fn(&&Hop) -> bool| {
                let of_length = routes.filter(|route| route.destination.length == length);
                let usable = of_length.map(|route| -> Vec<IpAddr> {
                    let hops = route.hops.iter().filter(is_usable);
                    hops.map(|hop| hop.gateway.unwrap_or(destination)).collect()
                });
                { usable }.find(|usable| !usable.is_empty())
            };
            let through = |hop: &&Hop| hop.interface == owner;
            if let Some(hops) = first(&mut by_rules.iter().chain(&own), &through) {
                return Some(shares(&hops));
            }
            let near =
                |hop: &&Hop| hop.gateway.is_some_and(|gateway| self.is_near(owner, hop.interface, gateway));
            let hops = first(&mut own.iter(), &near)?;
            Some(distinct(&hops))
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

/// The same hops one after the other, as few of them as have the same shares.
fn shares(hops: &[IpAddr]) -> Vec<IpAddr> {
    let count = |hop: &IpAddr| hops.iter().filter(|other| *other == hop).count();
    let is_common = |divisor: &usize| hops.iter().all(|hop| count(hop) % divisor == 0);
    let divisor = (1..=hops.len()).rev().find(is_common).unwrap_or(1);
    distinct(hops).into_iter().flat_map(|hop| std::iter::repeat_n(hop, count(&hop) / divisor)).collect()
}

/// Each of them once, in their order.
fn distinct(hops: &[IpAddr]) -> Vec<IpAddr> {
    let is_first = |(place, hop): &(usize, &IpAddr)| !hops[..*place].contains(hop);
    hops.iter().enumerate().filter(is_first).map(|(_, hop)| *hop).collect()
}

/// The number of a flow: its addresses, in native byte order, folded and multiplied by the golden ratio.
fn flow(source: IpAddr, destination: IpAddr) -> u32 {
    let folded = |address: IpAddr| match address {
        IpAddr::V4(address) => u32::from_ne_bytes(address.octets()),
        IpAddr::V6(address) => {
            let words = address.octets();
            let words =
                words.chunks_exact(4).map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
            words.fold(0, |folded, word| folded ^ word)
        }
    };
    let number = folded(source).rotate_left(16) ^ folded(destination);
    (u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
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
