//! The addresses that mean something to a host, found once for all its packets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{addresses::nth, entropy::Entropy};
use crate::oracle::{Host, Interface, Kind, LocalRoute, Prefix, owners::Domain};

/// A host, and for each interface what its packets can be about.
pub(crate) struct Landmarks<'a> {
    pub(super) all: Vec<Landmark<'a>>,
    /// Those where something is enforced.
    pub(super) enforced: Vec<usize>,
    addresses: OfBoth,
    prefixes: OfBoth,
    macs: Vec<[u8; 6]>,
}

/// An interface, and the addresses that are its own, those of its domain, and those of elsewhere.
pub(super) struct Landmark<'a> {
    pub(super) interface: &'a Interface,
    own: OfBoth,
    of_others: OfBoth,
    allowed: OfBoth,
    /// The hardware addresses of macvlans that lie on it or on something else.
    above: Vec<[u8; 6]>,
}

/// Addresses with their prefixes, of IPv4 and IPv6.
#[derive(Default)]
struct OfBoth([Vec<Prefix>; 2]);

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Ipv4,
    Ipv6,
}

impl OfBoth {
    fn extend(&mut self, prefixes: impl IntoIterator<Item = Prefix>) {
        let Self([ipv4, ipv6]) = self;
        for prefix in prefixes {
            if prefix.address.is_ipv4() { ipv4.push(prefix) } else { ipv6.push(prefix) }
        }
    }

    fn pick(&self, family: Family, entropy: &mut Entropy) -> Option<Prefix> {
        let Self([ipv4, ipv6]) = self;
        entropy.one_of(if family == Family::Ipv4 { ipv4 } else { ipv6 }).copied()
    }
}

impl<'a> Landmarks<'a> {
    pub(crate) fn new(host: &'a Host) -> Self {
        let mut addresses = OfBoth::default();
        host.interfaces.iter().for_each(|interface| addresses.extend(addresses_of(interface)));
        let mut prefixes = OfBoth::default();
        prefixes.extend(host.local_routes.iter().map(|route| route.destination));
        prefixes.extend(host.routes.iter().map(|route| route.destination));
        let domains: Vec<Domain> = host.interfaces.iter().map(|i| host.domain(i.index)).collect();
        let all = host.interfaces.iter().zip(&domains).map(|(interface, domain)| {
            let mut own = OfBoth::default();
            own.extend(addresses_of(interface));
            let mut of_others = OfBoth::default();
            for (other, its_domain) in host.interfaces.iter().zip(&domains) {
                let shared = |prefix: &Prefix| interface.addresses.iter().any(|a| a.local == prefix.address);
                if its_domain == domain {
                    of_others.extend(addresses_of(other).filter(|prefix| !shared(prefix)));
                }
            }
            let of_domain = |route: &&LocalRoute| host.domain_of_table(route.table) == Some(*domain);
            of_others.extend(host.local_routes.iter().filter(of_domain).map(|route| route.destination));
            let mut allowed = OfBoth::default();
            let policies = host.interfaces.iter().filter_map(|other| other.policy.as_ref());
            of_others.extend(policies.flat_map(|policy| policy.owns.clone()));
            allowed.extend(interface.policy.iter().flat_map(|policy| policy.allow.clone()));
            let above = host.interfaces.iter().filter(|above| above.kind == Kind::Macvlan);
            let is_on_it = |above: &&Interface| {
                let lower = host.linked(above).map(|lower| lower.index);
                lower == Some(interface.index) || lower.is_some() && lower == interface.master
            };
            let above = above.filter(is_on_it).map(|above| above.mac).collect();
            Landmark { interface, own, of_others, allowed, above }
        });
        let all: Vec<Landmark> = all.collect();
        let is_enforced = |position: &usize| all[*position].interface.policy.is_some();
        let enforced = (0..all.len()).filter(is_enforced).collect();
        let macs = host.interfaces.iter().filter(|i| i.is_ethernet).map(|interface| interface.mac).collect();
        Self { all, enforced, addresses, prefixes, macs }
    }

    /// A hardware address that is likely to matter on an interface: mostly its own.
    pub(super) fn pick_mac(&self, here: &Landmark, entropy: &mut Entropy) -> [u8; 6] {
        let picked = match entropy.choice(&[14, if here.above.is_empty() { 0 } else { 6 }, 2, 3]) {
            0 => Some(&here.interface.mac),
            1 => entropy.one_of(&here.above),
            2 => entropy.one_of(&self.macs),
            _ => None,
        };
        picked.copied().unwrap_or([2, 0, 0, 0, 0, 1])
    }

    /// An address that is likely to matter on an interface; where the host has none, one that is foreign.
    pub(super) fn pick(&self, here: &Landmark, family: Family, entropy: &mut Entropy) -> IpAddr {
        let picked = match entropy.choice(&[4, 16, 4, 4, 1, 3, 3, 6]) {
            0 => here.own.pick(family, entropy).map(|prefix| prefix.address),
            1 => here.of_others.pick(family, entropy).map(|prefix| prefix.address),
            2 => self.addresses.pick(family, entropy).map(|prefix| prefix.address),
            // Close to a local one: a neighbour, a gateway, or local after all.
            3 => self.addresses.pick(family, entropy).map(|prefix| near(prefix.address, entropy.byte() % 10)),
            4 => self.addresses.pick(family, entropy).map(last),
            5 => self.prefixes.pick(family, entropy).map(|prefix| nth(prefix.address, entropy.byte() % 10)),
            6 => here.allowed.pick(family, entropy).map(|prefix| nth(prefix.address, entropy.byte() % 4)),
            _ => Some(literal(family, entropy)),
        };
        picked.unwrap_or_else(|| literal(family, entropy))
    }
}

/// ::1 and 127.0.0.1 come often enough without being picked from loopback.
fn addresses_of(interface: &Interface) -> impl Iterator<Item = Prefix> {
    let addresses = interface.addresses.iter().filter(|address| !address.local.is_loopback());
    addresses.map(|address| Prefix { address: address.local, length: address.length })
}

/// An address of the sixteen around this one.
fn near(address: IpAddr, number: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() & !0xf | u32::from(number)).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !0xf | u128::from(number)).into(),
    }
}

/// The last address of a subnet.
fn last(prefix: Prefix) -> IpAddr {
    let length = u32::from(prefix.length);
    match prefix.address {
        IpAddr::V4(a) => Ipv4Addr::from_bits(a.to_bits() | u32::MAX.checked_shr(length).unwrap_or(0)).into(),
        IpAddr::V6(a) => Ipv6Addr::from_bits(a.to_bits() | u128::MAX.checked_shr(length).unwrap_or(0)).into(),
    }
}

/// An address with a meaning of its own, or with none.
fn literal(family: Family, entropy: &mut Entropy) -> IpAddr {
    let choice = entropy.choice(&[2, 2, 2, 2, 2, 1]);
    let byte = entropy.byte();
    match (family, choice) {
        (Family::Ipv4, 0) => Ipv4Addr::UNSPECIFIED.into(),
        (Family::Ipv4, 1) => Ipv4Addr::new(127, 0, 0, 1).into(),
        (Family::Ipv4, 2) => Ipv4Addr::new(127, byte / 64, 0, byte % 64).into(),
        (Family::Ipv4, 3) => Ipv4Addr::new(224 + byte % 16, 0, 0, byte).into(),
        (Family::Ipv4, 4) => Ipv4Addr::BROADCAST.into(),
        (Family::Ipv4, _) => Ipv4Addr::from_bits(bits(entropy) as u32).into(),
        (Family::Ipv6, 0) => Ipv6Addr::UNSPECIFIED.into(),
        (Family::Ipv6, 1) => Ipv6Addr::LOCALHOST.into(),
        (Family::Ipv6, 2) => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, byte.into()).into(),
        (Family::Ipv6, 3) => Ipv6Addr::new(0xff00 + u16::from(byte % 16), 0, 0, 0, 0, 0, 0, 1).into(),
        (Family::Ipv6, 4) => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, u16::from(byte % 6)).into(),
        (Family::Ipv6, _) => Ipv6Addr::from_bits(bits(entropy)).into(),
    }
}

fn bits(entropy: &mut Entropy) -> u128 {
    entropy.filler(16).fold(0, |bits, byte| bits << 8 | u128::from(byte))
}
