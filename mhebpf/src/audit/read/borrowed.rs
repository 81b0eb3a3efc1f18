//! Addresses that unnumbered interfaces borrow: what the kernel chooses as the source where nobody has.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use crate::{
    audit::snapshot::{Borrowed, View},
    model::{Host, host::is_link_local},
    netlink::RouteLookup,
};

/// How many routes of an interface are looked at.
const MOST: usize = 256;

/// What is to be asked: destinations of the routes through each interface, and whether there are several ways to them.
fn questions(view: &View<'_>) -> BTreeMap<u32, BTreeMap<IpNet, bool>> {
    let snapshot = view.snapshot;
    let looked_at = &snapshot.interfaces | &snapshot.company;
    let mut questions: BTreeMap<u32, BTreeMap<IpNet, bool>> = BTreeMap::new();
    for route in &snapshot.host.routes {
        let destination = route.destination;
        for hop in &route.hops {
            let is_own = || own_subnets(&snapshot.host, hop.ifindex).any(|subnet| subnet == destination);
            let matters = !is_link_local(destination.addr()) && !destination.addr().is_multicast();
            if looked_at.contains(&hop.ifindex) && matters && !is_own() {
                let of_interface = questions.entry(hop.ifindex).or_default();
                if of_interface.len() < MOST {
                    of_interface.insert(destination, route.hops.len() > 1);
                }
            }
        }
    }
    questions
}

fn own_subnets(host: &Host, ifindex: u32) -> impl Iterator<Item = IpNet> {
    host.addresses.iter().filter(move |address| address.ifindex == ifindex).map(|address| address.subnet)
}

/// Asks the kernel, bound to each interface in turn. What it reaches by another interface while nobody insists on this one
/// borrows nothing.
pub(super) fn read(view: &View<'_>, lookup: &mut RouteLookup) -> BTreeSet<Borrowed> {
    let mut found = BTreeSet::new();
    for (ifindex, destinations) in questions(view) {
        for (destination, has_several_ways) in destinations {
            let example = example(destination);
            let leads_here = lookup.route(None, example, None).is_ok_and(|route| route.ifindex == ifindex);
            if !leads_here && !has_several_ways {
                continue;
            }
            let source = lookup.source(example, ifindex);
            let Ok(Some(address)) = source else { continue };
            let owners = view.owners(view.domain_of(ifindex), address);
            if !owners.is_empty() && !owners.contains(&ifindex) {
                found.insert(Borrowed { ifindex, address, destination });
            }
        }
    }
    found
}

/// A destination in a prefix: its first host, for a default route one that is far.
fn example(prefix: IpNet) -> IpAddr {
    match prefix {
        IpNet::V4(_) if prefix.prefix_len() == 0 => IpAddr::from([198, 51, 100, 1]),
        IpNet::V6(_) if prefix.prefix_len() == 0 => IpAddr::from([0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1]),
        _ => prefix.hosts().next().unwrap_or_else(|| prefix.addr()),
    }
}
