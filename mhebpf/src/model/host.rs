//! A snapshot of the links, addresses and routes of a network namespace.

use std::{collections::BTreeMap, net::Ipv4Addr};

/// A network namespace at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Links by ifindex.
    pub links: BTreeMap<u32, Link>,
    /// IPv4 addresses in the order of the kernel's dump: primary before secondary ones.
    pub addresses: Vec<Address>,
    /// IPv4 unicast routes of the main table.
    pub routes: Vec<Route>,
}

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The interface index.
    pub index: u32,
    /// The name, which may change at any time.
    pub name: String,
    /// What the device is.
    pub kind: LinkKind,
    /// Whether frames on it have an Ethernet header (`ARPHRD_ETHER`).
    pub ethernet: bool,
    /// The hardware address, where it has six bytes.
    pub mac: Option<[u8; 6]>,
    /// In bytes, without the link layer's header.
    pub mtu: u32,
    /// `IFF_UP` and `IFF_LOWER_UP`: it is up and has carrier.
    pub up: bool,
    /// The bridge, bond, team or VRF that the device is a port of (`IFLA_MASTER`).
    pub master: Option<u32>,
    /// The device in this namespace that it is stacked on or paired with (`IFLA_LINK` without
    /// `IFLA_LINK_NETNSID`).
    pub link: Option<u32>,
    /// `IFLA_LINK` points into another namespace: a container's end of a veth pair, say.
    pub link_elsewhere: bool,
    /// `net.ipv4.conf.*.route_localnet` is on.
    pub route_localnet: bool,
    /// `net.ipv4.conf.*.rp_filter` is strict (1): a datagram is discarded unless the route to its source
    /// leads back here.
    pub strict_reverse_path: bool,
}

/// The kinds of device that ownership and selection tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// The loopback device.
    Loopback,
    /// A device that swallows packets; VIPs are configured on it.
    Dummy,
    /// One end of a pair.
    Veth,
    /// A device whose packets cross the one that it is stacked on: VLAN, macvlan, macvtap, ipvlan, ipvtap.
    Stacked,
    /// A device whose packets cross its ports: bridge, bond, team.
    Aggregate,
    /// A VRF.
    Vrf,
    /// Everything else, physical devices included.
    Other,
}

impl LinkKind {
    /// Reads an `IFLA_INFO_KIND`.
    pub fn from_info_kind(kind: &str) -> Self {
        match kind {
            "dummy" => Self::Dummy,
            "veth" => Self::Veth,
            "vlan" | "macvlan" | "macvtap" | "ipvlan" | "ipvtap" => Self::Stacked,
            "bridge" | "bond" | "team" => Self::Aggregate,
            "vrf" => Self::Vrf,
            _ => Self::Other,
        }
    }

    /// Whether packets never leave the host through such a device.
    pub const fn is_without_wire(self) -> bool {
        matches!(self, Self::Loopback | Self::Dummy)
    }
}

/// An IPv4 address on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// The interface that it is configured on.
    pub ifindex: u32,
    /// The local address (`IFA_LOCAL`), never a peer's.
    pub local: Ipv4Addr,
    /// The subnet: of the peer where there is one (`IFA_ADDRESS`).
    pub subnet: Prefix,
}

/// An IPv4 prefix; bits beyond the length are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    address: Ipv4Addr,
    length: u8,
}

impl Prefix {
    /// The prefix of `length` bits (32 at most) that holds `address`.
    pub fn new(address: Ipv4Addr, length: u8) -> Self {
        let length = length.min(32);
        Self { address: Ipv4Addr::from_bits(address.to_bits() & Self::mask(length)), length }
    }

    fn mask(length: u8) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)
    }

    /// The first address.
    pub fn address(self) -> Ipv4Addr {
        self.address
    }

    /// In bits, 0 to 32.
    pub fn length(self) -> u8 {
        self.length
    }

    /// Whether `address` is in the prefix.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & Self::mask(self.length) == self.address.to_bits()
    }
}

/// An IPv4 unicast route.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// The destination.
    pub destination: Prefix,
    /// Lower ones are preferred.
    pub metric: u32,
    /// One, or several for a multipath route.
    pub hops: Vec<Hop>,
}

/// A next hop of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hop {
    /// The interface.
    pub ifindex: u32,
    /// The gateway; `None` when the destination is on-link.
    pub gateway: Option<Ipv4Addr>,
}

impl Host {
    /// Names an interface for a message.
    pub fn name_of(&self, ifindex: u32) -> String {
        self.links.get(&ifindex).map_or_else(|| format!("if{ifindex}"), |link| link.name.clone())
    }

    /// The ports of a bridge, bond, team or VRF.
    pub fn ports_of(&self, master: u32) -> impl Iterator<Item = &Link> {
        self.links.values().filter(move |link| link.master == Some(master))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_forgets_the_host_bits() {
        let prefix = Prefix::new(Ipv4Addr::new(192, 168, 0, 100), 21);
        assert_eq!(prefix.address(), Ipv4Addr::new(192, 168, 0, 0));
        assert!(prefix.contains(Ipv4Addr::new(192, 168, 7, 255)));
        assert!(!prefix.contains(Ipv4Addr::new(192, 168, 8, 0)));
    }

    #[test]
    fn the_default_route_contains_everything() {
        let default = Prefix::new(Ipv4Addr::UNSPECIFIED, 0);
        assert!(default.contains(Ipv4Addr::BROADCAST));
        assert_eq!(default.length(), 0);
    }
}
