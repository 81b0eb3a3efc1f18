//! The host, who owns which address, and where an owner sends to.

use std::net::Ipv4Addr;

/// A host as `ip link`, `ip address` and `ip route` show it.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    /// In the order of their indices.
    pub(crate) interfaces: Vec<Interface>,
    /// The main routing table, in the kernel's order.
    pub(crate) routes: Vec<Route>,
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
    /// A veth whose peer is this interface. Its packets come out there; they don't cross it on their way to a
    /// wire.
    VethTo(u32),
    /// A VLAN, macvlan or ipvlan on top of this interface.
    OnTopOf(u32),
    /// A bridge, bond or team with these ports.
    Over(Vec<u32>),
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) local: Ipv4Addr,
    /// The other end, where the address was configured with a peer.
    pub(crate) peer: Option<Ipv4Addr>,
    /// The length of the subnet's prefix.
    pub(crate) length: u8,
}

/// What the operator wants of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) mode: Mode,
    pub(crate) receive: Receive,
    pub(crate) unknown: Unknown,
}

/// `--mode`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Redirect,
    Drop,
    Observe,
}

/// `--receive`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Receive {
    Drop,
    Observe,
    Off,
}

/// `--unknown`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unknown {
    Pass,
    Drop,
}

/// A unicast route.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) destination: Ipv4Addr,
    pub(crate) length: u8,
    pub(crate) metric: u32,
    /// More than one for a multipath route.
    pub(crate) hops: Vec<Hop>,
}

/// One way of a route.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hop {
    pub(crate) interface: u32,
    /// `None` where the destination is on the link.
    pub(crate) gateway: Option<Ipv4Addr>,
}

/// Who may use a local address.
pub(crate) enum Owners {
    /// Every interface.
    All,
    /// These, the preferred ones first.
    These(Vec<u32>),
}

impl Kind {
    fn has_wire(&self) -> bool {
        !matches!(self, Self::Loopback | Self::Dummy)
    }
}

impl Address {
    /// Whether `other` is in the subnet that this is an address in. With a peer far away that is the address
    /// alone.
    fn shares_subnet_with(&self, other: Ipv4Addr) -> bool {
        match self.peer {
            Some(peer) if !same_prefix(self.local, peer, self.length) => other == self.local,
            _ => same_prefix(self.local, other, self.length),
        }
    }

    /// Whether both are configured for the same subnet: the peer's, where there is one.
    fn has_subnet_of(&self, other: &Self) -> bool {
        let (one, another) = (self.peer.unwrap_or(self.local), other.peer.unwrap_or(other.local));
        self.length == other.length && same_prefix(one, another, self.length)
    }
}

impl Host {
    /// The interface with this index.
    pub(crate) fn interface(&self, index: u32) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.index == index)
    }

    /// The owners of an address; `None` when it is foreign.
    ///
    /// They are the interfaces that it is configured on, and then those that their packets cross. Configured
    /// on an interface without a wire it is everyone's.
    pub(crate) fn owners(&self, address: Ipv4Addr) -> Option<Owners> {
        let configured = self.configured_with(address);
        if configured.is_empty() {
            return None;
        }
        if configured.iter().any(|interface| !interface.kind.has_wire()) {
            return Some(Owners::All);
        }
        let mut owners: Vec<u32> = configured.iter().map(|interface| interface.index).collect();
        for interface in configured {
            for crossed in self.crossed_by(interface.index) {
                if !owners.contains(&crossed) {
                    owners.push(crossed);
                }
            }
        }
        Some(Owners::These(owners))
    }

    fn configured_with(&self, address: Ipv4Addr) -> Vec<&Interface> {
        self.interfaces.iter().filter(|i| i.addresses.iter().any(|a| a.local == address)).collect()
    }

    /// What the packets of an interface cross, layer by layer.
    fn crossed_by(&self, index: u32) -> Vec<u32> {
        let mut crossed = Vec::new();
        let mut layer = self.directly_below(index);
        while !layer.is_empty() {
            let mut next_layer = Vec::new();
            for below in layer {
                if !crossed.contains(&below) {
                    crossed.push(below);
                    next_layer.extend(self.directly_below(below));
                }
            }
            layer = next_layer;
        }
        crossed
    }

    fn directly_below(&self, index: u32) -> Vec<u32> {
        match self.interface(index).map(|interface| &interface.kind) {
            Some(Kind::OnTopOf(lower)) => vec![*lower],
            Some(Kind::Over(ports)) => ports.clone(),
            _ => Vec::new(),
        }
    }

    /// The address to ask for `target` with on an interface: its own one in that subnet, else its first;
    /// `None` when it has none. Its own are those configured on it, and then those that it owns for
    /// interfaces above it; but one of each subnet goes before all others.
    pub(crate) fn address_to_ask_with(&self, interface: &Interface, target: Ipv4Addr) -> Option<Ipv4Addr> {
        let mut own = interface.addresses.clone();
        for other in self.interfaces.iter().filter(|other| other.index != interface.index) {
            for address in &other.addresses {
                let mut configured = self.configured_with(address.local).into_iter();
                if configured.any(|above| self.crossed_by(above.index).contains(&interface.index)) {
                    own.push(*address);
                }
            }
        }
        let is_first = |position: &usize| own[..*position].iter().all(|a| !a.has_subnet_of(&own[*position]));
        let (first, others): (Vec<usize>, Vec<usize>) = (0..own.len()).partition(is_first);
        let own: Vec<Address> = first.into_iter().chain(others).map(|position| own[position]).collect();
        own.iter().find(|a| a.shares_subnet_with(target)).or(own.first()).map(|a| a.local)
    }

    /// The next hop from an owner to a destination: RFC 1122's `route(src, dst, TOS) -> gateway`.
    ///
    /// The longest prefix for which there is a route through the owner (lowest metric first) or, failing
    /// that, a route through another interface by a gateway that is near the owner.
    pub(crate) fn next_hop(&self, owner: u32, destination: Ipv4Addr) -> Option<Ipv4Addr> {
        for length in (0..=32).rev() {
            let mut routes: Vec<&Route> = self.routes.iter().filter(|route| route.length == length).collect();
            routes.retain(|route| same_prefix(route.destination, destination, length));
            // The sort is stable: among equal metrics the first of the table stays the first.
            routes.sort_by_key(|route| route.metric);
            let hops: Vec<Hop> = routes.iter().flat_map(|route| &route.hops).copied().collect();
            if let Some(hop) = hops.iter().find(|hop| hop.interface == owner) {
                return Some(hop.gateway.unwrap_or(destination));
            }
            let near = |gateway: &Ipv4Addr| self.is_near(owner, *gateway);
            if let Some(gateway) = hops.iter().filter_map(|hop| hop.gateway).find(near) {
                return Some(gateway);
            }
        }
        None
    }

    /// Whether a gateway is in a subnet that is on the link of this interface. A default route without a
    /// gateway makes nothing near.
    fn is_near(&self, interface: u32, gateway: Ipv4Addr) -> bool {
        self.routes.iter().any(|route| {
            route.length > 0
                && same_prefix(route.destination, gateway, route.length)
                && route.hops.iter().any(|hop| hop.interface == interface && hop.gateway.is_none())
        })
    }
}

/// Whether two addresses agree in their first `length` bits, compared one by one.
fn same_prefix(a: Ipv4Addr, b: Ipv4Addr, length: u8) -> bool {
    let bit =
        |address: Ipv4Addr, number: u8| address.octets()[usize::from(number / 8)] >> (7 - number % 8) & 1;
    (0..length).all(|number| bit(a, number) == bit(b, number))
}
