//! The host as an operator describes it.

use std::net::IpAddr;

use super::{policy::Policy, prefix::Prefix};

/// A host as `ip link`, `ip address`, `ip route show table all` and `ip rule` show it.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    /// In the order of their indices.
    pub(crate) interfaces: Vec<Interface>,
    /// The unicast routes of all tables, in the kernel's order.
    pub(crate) routes: Vec<Route>,
    /// The routes of type local, of all tables.
    pub(crate) local_routes: Vec<LocalRoute>,
    /// The rules that lead to a table, in the order in which they are asked.
    pub(crate) rules: Vec<Rule>,
}

/// A network interface.
#[derive(Clone, Debug)]
pub(crate) struct Interface {
    pub(crate) index: u32,
    pub(crate) kind: Kind,
    /// The interface that it is a port of.
    pub(crate) master: Option<u32>,
    /// What stands behind the @ of its name.
    pub(crate) link: Link,
    /// The local address of a tunnel, where `ip link` shows it behind `link/`.
    pub(crate) outer: Option<IpAddr>,
    /// Whether its frames start with an Ethernet header. Those of a tun, WireGuard or ppp device do not.
    pub(crate) is_ethernet: bool,
    pub(crate) mac: [u8; 6],
    /// In bytes, without the Ethernet header.
    pub(crate) mtu: u32,
    /// Up, with carrier.
    pub(crate) up: bool,
    /// The sysctl of that name.
    pub(crate) route_localnet: bool,
    /// The sysctls of that name, for IPv4 and IPv6.
    pub(crate) forwarding: Forwarding,
    /// In the order of their configuration.
    pub(crate) addresses: Vec<Address>,
    /// `None` where nothing is enforced.
    pub(crate) policy: Option<Policy>,
}

/// What an interface is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The loopback interface: it has no wire.
    Loopback,
    /// A dummy: it has no wire either.
    Dummy,
    /// A network card.
    Wire,
    /// A VLAN with this number on its link.
    Vlan(u16),
    /// A macvlan or macvtap on its link.
    Macvlan,
    /// An ipvlan or ipvtap on its link.
    Ipvlan,
    Bridge,
    /// A bond or team.
    Bond,
    /// A VRF with this routing table.
    Vrf(u32),
    /// A tunnel, or a device of a process or virtual machine: tun and tap, WireGuard, VXLAN, GRE.
    Tunnel,
    /// An end of a pair (veth, netkit), ppp, or what nobody knows.
    Other,
}

/// The interface that another one lies on, or is paired with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    None,
    /// This one of this host.
    To(u32),
    /// One in another network namespace.
    Elsewhere,
}

/// Whether an interface sends on what arrives for others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Forwarding {
    pub(crate) ipv4: bool,
    pub(crate) ipv6: bool,
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

/// A rule of policy routing, which leads to a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    /// For packets of IPv4, and not of IPv6.
    pub(crate) ipv4: bool,
    /// The sources that it is for; `None` where these make no difference.
    pub(crate) source: Option<Prefix>,
    pub(crate) table: u32,
    /// Who made it.
    pub(crate) protocol: u8,
    /// The mark that packets must have, and which bits of it count.
    pub(crate) mark: Option<(u32, u32)>,
    /// It is for some of these packets only: by destination, protocol, ports, interface.
    pub(crate) is_choosy: bool,
}

/// The table of routes to others, where there is no VRF.
pub(crate) const MAIN: u32 = 254;
/// The table where the kernel keeps the host's own addresses.
pub(crate) const LOCAL: u32 = 255;
/// The maker of the rules that are made of all others: mhebpf itself.
pub(crate) const OWN_PROTOCOL: u8 = 208;

impl Kind {
    /// Whether packets can leave the host by it.
    pub(crate) fn has_wire(self) -> bool {
        !matches!(self, Self::Loopback | Self::Dummy)
    }

    pub(crate) fn is_vrf(self) -> bool {
        matches!(self, Self::Vrf(_))
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

    /// Whether an address that no interface has belongs to it.
    pub(crate) fn is_given(&self, address: IpAddr) -> bool {
        self.policy.as_ref().is_some_and(|policy| policy.owns.iter().any(|prefix| prefix.holds(address)))
    }
}

impl Host {
    /// The interface with this index.
    pub(crate) fn interface(&self, index: u32) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.index == index)
    }

    /// The interfaces whose master it is.
    pub(crate) fn ports(&self, index: u32) -> impl Iterator<Item = &Interface> {
        self.interfaces.iter().filter(move |interface| interface.master == Some(index))
    }

    /// The interface of this host that another one lies on or is paired with.
    pub(crate) fn linked(&self, interface: &Interface) -> Option<&Interface> {
        match interface.link {
            Link::To(index) => self.interface(index),
            Link::None | Link::Elsewhere => None,
        }
    }

    /// Whether it is one end of a pair whose other end is here too: each names the other.
    pub(crate) fn is_paired_here(&self, interface: &Interface) -> bool {
        self.linked(interface).is_some_and(|other| other.link == Link::To(interface.index))
    }
}
