//! What is read of tables to judge a packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use mhebpf_ebpf::{FurtherOwnerKey, Iface, Ipv4, Ipv6, Neighbour, Owners, OwnersKey, Tables};
use serde::{Deserialize, Serialize};

use super::Policy;
use crate::model::host;

/// A lookup, and what was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "map", rename_all = "kebab-case")]
pub enum Read {
    /// An interface.
    Interface {
        /// Its index.
        ifindex: u32,
        /// What the programs know of it.
        found: Option<Box<Known>>,
    },
    /// The owners of a single address.
    Owners {
        /// The VRF of the interface; 0 outside one.
        domain: u32,
        /// The address.
        address: IpAddr,
        /// Its owners.
        found: Option<Owned>,
    },
    /// The owners of the longest prefix around an address.
    Prefix {
        /// The VRF of the interface; 0 outside one.
        domain: u32,
        /// The address.
        address: IpAddr,
        /// The owners of the prefix.
        found: Option<Owned>,
    },
    /// Whether an interface is among the owners for which an entry has no room.
    FurtherOwner {
        /// The name of the set of owners.
        set: u64,
        /// The interface.
        ifindex: u32,
        /// Whether it is.
        found: bool,
    },
    /// The next hop of an owner.
    NextHop {
        /// The owner.
        owner: u32,
        /// The destination.
        destination: IpAddr,
        /// The number of the flow, by which one of several is chosen.
        flow: u32,
        /// The next hop.
        found: Option<Hop>,
    },
}

/// What the programs know of an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// What is enforced on it.
    pub policy: Policy,
    /// A packet that is redirected to it gets out.
    pub up: bool,
    /// Packets on it start with an Ethernet header.
    pub ethernet: bool,
    /// Addresses of loopback may cross it.
    pub route_localnet: bool,
    /// Some addresses of its VRF are owned by prefix.
    pub prefixes: bool,
    /// Its VRF; 0 outside one.
    pub domain: u32,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// The first of its own addresses, with the prefix lengths of the IPv4 subnets.
    pub addresses: Vec<(IpAddr, Option<u8>)>,
    /// Blocks of addresses that pass whoever owns them: they are its own or foreign.
    pub blocks: Vec<IpNet>,
}

/// Owners of an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owned {
    /// The first of them, by ifindex, in order of preference for a redirect.
    pub by: Vec<u32>,
    /// There are more.
    pub further: bool,
    /// Every interface owns it.
    pub host_wide: bool,
    /// It is allowed on them by the configuration, and foreign to the others.
    pub allowed_only: bool,
}

/// A next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hop {
    /// The destination itself.
    OnLink,
    /// A gateway.
    Gateway(IpAddr),
}

impl Read {
    /// The same lookup in these tables.
    pub fn again(&self, tables: &impl Tables) -> Self {
        match *self {
            Self::Interface { ifindex, .. } => Self::interface(tables, ifindex),
            Self::Owners { domain, address, .. } => Self::owners(tables, domain, address),
            Self::Prefix { domain, address, .. } => Self::prefix(tables, domain, address),
            Self::FurtherOwner { set, ifindex, .. } => {
                Self::further_owner(tables, &FurtherOwnerKey::new(set, ifindex))
            }
            Self::NextHop { owner, destination, flow, .. } => {
                Self::next_hop(tables, owner, destination, flow)
            }
        }
    }

    pub(crate) fn interface(tables: &impl Tables, ifindex: u32) -> Self {
        // Nothing is known of an interface that nobody has written: that is how an array has it.
        let found = tables.iface(ifindex).filter(|iface| **iface != Iface::EMPTY);
        Self::Interface { ifindex, found: found.map(|iface| Box::new(Known::of(iface))) }
    }

    pub(crate) fn owners(tables: &impl Tables, domain: u32, address: IpAddr) -> Self {
        let found = match address {
            IpAddr::V4(v4) => tables.owners(&OwnersKey { domain, address: Ipv4::from(v4) }),
            IpAddr::V6(v6) => tables.owners(&OwnersKey { domain, address: Ipv6::from(v6) }),
        };
        Self::Owners { domain, address, found: found.map(Owned::of) }
    }

    pub(crate) fn prefix(tables: &impl Tables, domain: u32, address: IpAddr) -> Self {
        let found = match address {
            IpAddr::V4(v4) => tables.owners_by_prefix(&OwnersKey { domain, address: Ipv4::from(v4) }),
            IpAddr::V6(v6) => tables.owners_by_prefix(&OwnersKey { domain, address: Ipv6::from(v6) }),
        };
        Self::Prefix { domain, address, found: found.map(Owned::of) }
    }

    pub(crate) fn further_owner(tables: &impl Tables, key: &FurtherOwnerKey) -> Self {
        Self::FurtherOwner { set: key.set, ifindex: key.ifindex, found: tables.is_further_owner(key) }
    }

    pub(crate) fn next_hop(tables: &impl Tables, owner: u32, destination: IpAddr, flow: u32) -> Self {
        let found = match destination {
            IpAddr::V4(v4) => tables.next_hop(owner, Ipv4::from(v4), flow),
            IpAddr::V6(v6) => tables.next_hop(owner, Ipv6::from(v6), flow),
        };
        let hop = |neighbour: &Neighbour| neighbour.ip().map_or(Hop::OnLink, Hop::Gateway);
        Self::NextHop { owner, destination, flow, found: found.map(hop) }
    }
}

impl Known {
    fn of(iface: &Iface) -> Self {
        let slots = iface.addresses.iter().zip(iface.prefix_lengths);
        let slots = slots.map(|(address, length)| (Ipv4Addr::from(*address).into(), Some(length)));
        let slots6 = iface.addresses6.iter().map(|slot| (Ipv6Addr::from(slot.0).into(), None));
        let addresses = slots.chain(slots6).filter(|(address, _): &(IpAddr, _)| !address.is_unspecified());
        Self {
            policy: iface.into(),
            up: iface.is_up(),
            ethernet: iface.has_ethernet(),
            route_localnet: iface.routes_localnet(),
            prefixes: iface.has_prefixes(),
            domain: iface.domain,
            mtu: iface.mtu,
            addresses: addresses.collect(),
            blocks: blocks(iface),
        }
    }
}

/// Those of the unspecified address stand for none.
fn blocks(iface: &Iface) -> Vec<IpNet> {
    let [last, behind] = [iface.block.last, iface.block.behind].map(Ipv4Addr::from);
    let [last6, behind6] = [iface.block6.last.0, iface.block6.behind.0].map(Ipv6Addr::from);
    let block =
        (!last.is_unspecified()).then(|| host::prefix(last.into(), behind.to_bits().leading_zeros() as u8));
    let block6 = (!last6.is_unspecified())
        .then(|| host::prefix(last6.into(), behind6.to_bits().leading_zeros() as u8));
    block.into_iter().chain(block6).collect()
}

impl Owned {
    fn of(owners: &Owners) -> Self {
        Self {
            by: owners.inline.into_iter().filter(|owner| *owner != 0).collect(),
            further: owners.has_further(),
            host_wide: owners.is_host_wide(),
            allowed_only: owners.is_allowed_only(),
        }
    }
}
