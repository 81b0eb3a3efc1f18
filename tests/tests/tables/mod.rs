//! What the tables say of addresses, for which the decision looks them up.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::Result;
use mhebpf::model::uplinks::Uplinks;
use mhebpf_ebpf::{
    AddressTables as _, FurtherOwnerKey, INLINE_OWNERS, Ipv4, Ipv6, Owners, OwnersKey, Tables as _,
    next_hop::flow,
};
use proptest::{collection::vec, prelude::*};

use crate::{
    oracle::{
        Host, Interface,
        owners::{Domain, Owners as Expected},
    },
    random::{check, hosts},
    subject::{self, Tables},
};

#[test]
fn the_next_hops_are_the_oracles_on_random_hosts() -> Result<()> {
    check(300, &(hosts(), vec(any::<[u8; 16]>(), 4)), |(host, random)| {
        let tables = subject::tables(&host);
        let near = host.interfaces.iter().flat_map(|interface| &interface.addresses).map(|a| a.local);
        let behind = host.routes.iter().map(|route| route.destination.address);
        let sources = random.clone();
        let random = random.iter().flat_map(|bytes| {
            let [a, b, c, d, ..] = *bytes;
            [IpAddr::from([a, b, c, d]), IpAddr::from(*bytes)]
        });
        let destinations: Vec<IpAddr> = near.chain(behind).chain(random).collect();
        for owner in owners_of_something(&host) {
            for destination in &destinations {
                // Which source it is matters only where a route has several hops.
                let [a, b, c, d, ..] = sources[0];
                let source = if destination.is_ipv4() { [a, b, c, d].into() } else { sources[0].into() };
                let found = next_hop(&tables, owner, source, *destination);
                let expected = host.next_hop(owner, source, *destination);
                prop_assert_eq!(found, expected, "{} from {} to {}", owner, source, destination);
            }
        }
        Ok(())
    })
}

#[test]
fn the_uplinks_are_the_oracles_on_random_hosts() -> Result<()> {
    check(2000, &hosts(), |host| {
        let found = Uplinks::of(&subject::model::model_of(&host));
        prop_assert_eq!(found.uplinks.into_iter().collect::<Vec<u32>>(), host.uplinks());
        let can_leave = |interface: &&Interface| interface.kind.has_wire() && !interface.kind.is_vrf();
        let expected =
            host.interfaces.iter().filter(can_leave).filter(|interface| host.is_downlink(interface));
        let expected: Vec<u32> = expected.map(|interface| interface.index).collect();
        prop_assert_eq!(found.downlinks.into_iter().collect::<Vec<u32>>(), expected);
        Ok(())
    })
}

#[test]
fn the_owners_are_the_oracles_on_random_hosts() -> Result<()> {
    check(1000, &hosts(), |host| {
        let tables = subject::tables(&host);
        let mut domains: Vec<Domain> = Vec::new();
        for interface in host.interfaces.iter().map(|interface| interface.index) {
            // One of each will do.
            if domains.contains(&host.domain(interface)) {
                continue;
            }
            domains.push(host.domain(interface));
            for address in addresses_of_interest(&host) {
                let expected = match host.owners(host.domain(interface), address) {
                    None => Found::Nobody,
                    Some(Expected::All) => Found::Everybody,
                    Some(Expected::These(mut owners)) => {
                        let first = owners.iter().copied().take(INLINE_OWNERS).collect();
                        owners.sort_unstable();
                        Found::These { first, all: owners }
                    }
                };
                let found = owners(&tables, interface, address);
                prop_assert_eq!(found, expected, "{} from {}", address, interface);
            }
        }
        Ok(())
    })
}

/// Addresses of the host, and those at the start of prefixes.
fn addresses_of_interest(host: &Host) -> BTreeSet<IpAddr> {
    let configured = host.interfaces.iter().flat_map(|interface| &interface.addresses).map(|a| a.local);
    let routed = host.local_routes.iter().map(|route| route.destination.address);
    let policies = host.interfaces.iter().filter_map(|interface| interface.policy.as_ref());
    let allowed = policies.flat_map(|policy| &policy.allow).map(|prefix| prefix.address);
    // Loopback is asked about before owners.
    configured.chain(routed).chain(allowed).filter(|address| !address.is_loopback()).collect()
}

/// Nothing is ever redirected to the others.
fn owners_of_something(host: &Host) -> BTreeSet<u32> {
    let mut owning = BTreeSet::new();
    for interface in &host.interfaces {
        for address in interface.addresses.iter().map(|address| address.local) {
            // An address that is everyone's is sent by no one else.
            if let Some(Expected::These(owners)) = host.owners(host.domain(interface.index), address) {
                owning.extend(owners);
            }
        }
    }
    owning
}

/// Who owns an address, as far as the tables say so.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nobody,
    Everybody,
    /// The first ones in order, and then all in order of their indices.
    These {
        first: Vec<u32>,
        all: Vec<u32>,
    },
}

/// Who owns an address in the domain of an interface.
fn owners(tables: &Tables, interface: u32, address: IpAddr) -> Found {
    let Some(iface) = tables.ifaces.get(&interface) else { return Found::Nobody };
    let domain = iface.domain;
    let found = match address {
        IpAddr::V4(address) => {
            let key = OwnersKey { domain, address: Ipv4::from(address) };
            tables.owners(&key).or_else(|| tables.owners_by_prefix(&key).filter(|_| iface.has_prefixes()))
        }
        IpAddr::V6(address) => {
            let key = OwnersKey { domain, address: Ipv6::from(address) };
            tables.owners(&key).or_else(|| tables.owners_by_prefix(&key).filter(|_| iface.has_prefixes()))
        }
    };
    match found {
        None => Found::Nobody,
        Some(owners) if owners.is_allowed_only() => Found::Nobody,
        Some(owners) if owners.is_host_wide() => Found::Everybody,
        Some(owners) => Found::These {
            first: owners.inline.into_iter().take_while(|owner| *owner != 0).collect(),
            all: tables
                .ifaces
                .keys()
                .copied()
                .filter(|interface| is_owner(tables, owners, *interface))
                .collect(),
        },
    }
}

fn is_owner(tables: &Tables, owners: &Owners, interface: u32) -> bool {
    let is_further = || tables.is_further_owner(&FurtherOwnerKey::new(owners.set, interface));
    owners.has_inline(interface) || owners.has_further() && is_further()
}

/// The next hop from an owner to a destination.
fn next_hop(tables: &Tables, owner: u32, source: IpAddr, destination: IpAddr) -> Option<IpAddr> {
    let flow = flow(&source.into(), &destination.into());
    let found = match destination {
        IpAddr::V4(destination) => tables.next_hop(owner, Ipv4::from(destination), flow)?,
        IpAddr::V6(destination) => tables.next_hop(owner, Ipv6::from(destination), flow)?,
    };
    if found.is_destination() { Some(destination) } else { found.ip() }
}
