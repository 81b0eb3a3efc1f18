//! The host as an operator describes it.

use std::net::IpAddr;

use super::{policy::Policy, prefix::Prefix};

/// A host as `ip link`, `ip address` and `ip route show table all` show it.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    /// In the order of their indices.
    pub(crate) interfaces: Vec<Interface>,
    /// The unicast routes of all tables, in the kernel's order.
    pub(crate) routes: Vec<Route>,
    /// The routes of type local, of all tables.
    pub(crate) local_routes: Vec<LocalRoute>,
}

/// A network interface.
#[derive(Clone, Debug)]
pub(crate) struct Interface {
    pub(crate) index: u32,
    pub(crate) kind: Kind,
    pub(crate) mac: [u8; 6],
    /// In bytes, without the Ethernet header.
    pub(crate) mtu: u32,
    /// Up, with carrier.
    pub(crate) up: bool,
    /// The sysctl of that name.
    pub(crate) route_localnet: bool,
    /// In the order of their configuration.
    pub(crate) addresses: Vec<Address>,
    /// `None` where nothing is enforced.
    pub(crate) policy: Option<Policy>,
}

/// What an interface is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The loopback interface: it has no wire.
    Loopback,
    /// A dummy: it has no wire either.
    Dummy,
    /// A network card, or anything else that ends here.
    Wire,
    /// A tun, WireGuard or ppp link: its packets have no Ethernet header.
    Tunnel,
    /// A veth whose peer is this interface. Its packets come out there; they don't cross it on their way to a
    /// wire.
    VethTo(u32),
    /// A VLAN, macvlan or ipvlan on top of this interface.
    OnTopOf(u32),
    /// A bridge, bond or team with these ports.
    Over(Vec<u32>),
    /// A VRF with these ports.
    Vrf { table: u32, ports: Vec<u32> },
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) local: IpAddr,
    /// The other end, where the address was configured with a peer.
    pub(crate) peer: Option<IpAddr>,
    /// The length of the subnet's prefix.
    pub(crate) length: u8,
}

/// A unicast route.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) table: u32,
    pub(crate) destination: Prefix,
    pub(crate) metric: u32,
    /// More than one for a multipath route.
    pub(crate) hops: Vec<Hop>,
}

/// One way of a route.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hop {
    pub(crate) interface: u32,
    /// `None` where the destination is on the link. Of IPv6 for a route of IPv4, it may be (RFC 5549).
    pub(crate) gateway: Option<IpAddr>,
}

/// A route of type local.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalRoute {
    pub(crate) table: u32,
    pub(crate) destination: Prefix,
    pub(crate) interface: u32,
    /// The kernel has made it, for an address of an interface.
    pub(crate) by_kernel: bool,
}

/// The table of routes to others, where there is no VRF.
pub(crate) const MAIN: u32 = 254;
/// The table where the kernel keeps the host's own addresses.
pub(crate) const LOCAL: u32 = 255;

impl Kind {
    pub(crate) fn has_wire(&self) -> bool {
        !matches!(self, Self::Loopback | Self::Dummy)
    }

    /// Whether its frames start with an Ethernet header.
    pub(crate) fn is_ethernet(&self) -> bool {
        *self != Self::Tunnel
    }

    pub(crate) fn is_vrf(&self) -> bool {
        matches!(self, Self::Vrf { .. })
    }

    /// The interfaces whose master it is.
    pub(crate) fn ports(&self) -> &[u32] {
        match self {
            Self::Over(ports) | Self::Vrf { ports, .. } => ports,
            _ => &[],
        }
    }
}

impl Address {
    /// The subnet that it is configured with: the peer's, where there is one.
    pub(crate) fn subnet(&self) -> Prefix {
        Prefix::new(self.peer.unwrap_or(self.local), self.length)
    }

    /// Whether `other` is in the subnet that this is an address in. With a peer far away that is the address
    /// alone.
    pub(crate) fn shares_subnet_with(&self, other: IpAddr) -> bool {
        if self.subnet().holds(self.local) { self.subnet().holds(other) } else { other == self.local }
    }
}

impl Interface {
    /// Whether the operator lets it use an address, whosoever's it is.
    pub(crate) fn is_allowed(&self, address: IpAddr) -> bool {
        self.policy.as_ref().is_some_and(|policy| policy.allow.iter().any(|prefix| prefix.holds(address)))
    }
}

impl Host {
    /// The interface with this index.
    pub(crate) fn interface(&self, index: u32) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.index == index)
    }
}
