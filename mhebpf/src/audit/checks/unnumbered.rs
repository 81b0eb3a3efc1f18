//! Interfaces that borrow an address of another one.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{list, objects};
use crate::audit::{
    finding::{Finding, Id, Kind, Severity},
    snapshot::View,
};

/// What is sent there carries an address that the interface does not own: mhebpf would send it elsewhere.
pub(super) fn borrowed(view: &View<'_>) -> Vec<Finding> {
    let mut by: BTreeMap<u32, (BTreeSet<IpAddr>, BTreeSet<IpNet>)> = BTreeMap::new();
    for borrowed in &view.snapshot.borrowed {
        if view.snapshot.interfaces.contains(&borrowed.ifindex) {
            let (addresses, destinations) = by.entry(borrowed.ifindex).or_default();
            addresses.insert(borrowed.address);
            destinations.insert(borrowed.destination);
        }
    }
    let finding = |(ifindex, (addresses, destinations)): (u32, (BTreeSet<IpAddr>, BTreeSet<IpNet>))| {
        let name = view.name(ifindex);
        let addresses: Vec<IpAddr> = addresses.into_iter().collect();
        let destinations: Vec<IpNet> = destinations.into_iter().collect();
        let owners: BTreeSet<String> = addresses
            .iter()
            .flat_map(|address| view.owners(view.domain_of(ifindex), *address))
            .map(|owner| view.name(*owner))
            .collect();
        let owners: Vec<String> = owners.into_iter().collect();
        let prefixes: Vec<String> =
            addresses.iter().map(|address| format!("\"{}\"", IpNet::from(*address))).collect();
        Finding {
            id: Id::BorrowedAddress,
            severity: Severity::Warning,
            objects: [objects(Kind::Interface, [&name]), objects(Kind::Address, &addresses)].concat(),
            summary: format!("{name} sends with an address of {}", list(&owners)),
            consequence: format!(
                "Routes lead to {} through {name}, and the source of what goes there is {}: mhebpf would send it through \
                 {}, and discard the answers on {name}.",
                list(&destinations),
                list(&addresses),
                list(&owners)
            ),
            remedy: format!(
                "Make {name} an owner as well, by the configuration file: allow = [{}] in an [[interface]] with name = \
                 \"{name}\"; or leave {name} out.",
                prefixes.join(", ")
            ),
        }
    };
    by.into_iter().map(finding).collect()
}
