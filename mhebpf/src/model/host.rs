//! A snapshot of the links, addresses and routes of a network namespace.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
};

use ipnet::IpNet;

use super::steering::PROTOCOL;

/// The set of addresses outside VRFs; that of a VRF has the index of its device.
pub const MAIN_DOMAIN: u32 = 0;

/// The routing table outside VRFs (`RT_TABLE_MAIN`).
pub const MAIN_TABLE: u32 = 254;

/// A network namespace at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Links by ifindex.
    pub links: BTreeMap<u32, Link>,
    /// Addresses in the order of the kernel's dump: primary before secondary ones.
    pub addresses: Vec<Address>,
    /// Unicast routes of the main table, those of VRFs and those that rules lead to.
    pub routes: Vec<Route>,
    /// What the routes that are in [`super::Leaves`] instead lead through: the table, the interface, and whether they are of IPv4.
    pub leaves: BTreeSet<(u32, u32, bool)>,
    /// Routes of the main table that lead elsewhere than to a next hop.
    pub other_routes: Vec<OtherRoute>,
    /// Prefixes that are local though no address says so.
    pub local_routes: Vec<LocalRoute>,
    /// Rules of policy routing that lead to a table, in the order in which they are asked.
    pub rules: Vec<Rule>,
    /// Default routes that only tables of rules had, and that are gone: see [`super::remembered`].
    pub remembered: Vec<Route>,
    /// Gateways that do not answer on an interface, among those that the kernel chooses by that: see
    /// [`super::next_hops::choices`].
    pub unreachable: BTreeSet<(u32, IpAddr)>,
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
    /// What a frame on it starts with.
    pub framing: Framing,
    /// The hardware address, where it has six bytes.
    pub mac: Option<[u8; 6]>,
    /// In bytes, without the link layer's header.
    pub mtu: u32,
    /// `IFF_UP` and `IFF_LOWER_UP`: it is up and has carrier.
    pub up: bool,
    /// The bridge, bond, team or VRF that the device is a port of (`IFLA_MASTER`).
    pub master: Option<u32>,
    /// The device in this namespace that it lies on or is paired with (`IFLA_LINK` without `IFLA_LINK_NETNSID`).
    pub link: Option<u32>,
    /// `IFLA_LINK` points into another namespace: a container's end of a veth pair, say.
    pub link_elsewhere: bool,
    /// What a tunnel's packets have as their outer source, where that is its hardware address, as it is of one without Ethernet
    /// frames (`ipip_tunnel_init` and `ip6_tnl_link_config`, Linux 6.12).
    pub outer: Option<IpAddr>,
    /// `net.ipv4.conf.*.route_localnet` is on.
    pub route_localnet: bool,
    /// `net.ipv4.conf.*.forwarding` is on: what arrives here for others is sent on.
    pub forwards: bool,
    /// `net.ipv6.conf.*.forwarding` is on: the host is a router there, and says so in its advertisements.
    pub router: bool,
    /// `net.ipv4.conf.*.arp_ignore`: which requests the kernel answers.
    pub arp_ignore: u8,
    /// `net.ipv4.conf.*.arp_filter` is on: only requests are answered whose answer the kernel would route through the link.
    pub arp_filter: bool,
    /// `net.ipv4.conf.*.rp_filter` is strict (1): a datagram is discarded unless the route to its source
    /// leads back here.
    pub strict_reverse_path: bool,
}

/// What a frame starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// An Ethernet header (`ARPHRD_ETHER`).
    Ethernet,
    /// The header of the network layer: tun, WireGuard, IP tunnels, PPP.
    Bare,
    /// Something else, which the programs can't read.
    Unknown,
}

/// The kinds of device that ownership and selection tell apart. How devices lie on one another, they read from the links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// The loopback device.
    Loopback,
    /// A device that swallows packets; VIPs are configured on it.
    Dummy,
    /// A device with a wire of its own: of no kind that rtnetlink names, or a port of a switch.
    Wire,
    /// A VLAN, whose frames are tagged on the device that it lies on.
    Vlan {
        /// The VLAN identifier; 0 stands for priority tags, which are no VLAN.
        id: u16,
    },
    /// A macvlan or macvtap, whose frames have its own hardware address on the device that it lies on.
    Macvlan,
    /// An ipvlan or ipvtap, whose frames look as if they were of the device that it lies on.
    Ipvlan,
    /// A bridge, of network cards, containers or virtual machines.
    Bridge,
    /// A bond, a team, or another one thing of several cards.
    Bond,
    /// A VRF.
    Vrf {
        /// Its routing table.
        table: u32,
    },
    /// A device whose packets leave the host inside others, or go to a process or virtual machine: tun, tap,
    /// WireGuard, VXLAN, GRE and the like.
    Tunnel,
    /// Everything else: ends of pairs (veth, netkit), ppp, and what nobody knew when this was written.
    Other,
}

impl LinkKind {
    /// Reads an `IFLA_INFO_KIND`. The identifier of a VLAN and the table of a VRF are not in it.
    pub fn from_info_kind(kind: &str) -> Self {
        match kind {
            "dummy" | "ifb" | "nlmon" | "vcan" => Self::Dummy,
            "dsa" | "openvswitch" => Self::Wire,
            "vlan" => Self::Vlan { id: 1 },
            "macvlan" | "macvtap" => Self::Macvlan,
            "ipvlan" | "ipvtap" => Self::Ipvlan,
            "bridge" => Self::Bridge,
            "bond" | "team" | "hsr" => Self::Bond,
            "vrf" => Self::Vrf { table: MAIN_TABLE },
            "tun" | "wireguard" | "vxlan" | "geneve" | "bareudp" | "gre" | "gretap" | "erspan" | "ip6gre"
            | "ip6gretap" | "ip6erspan" | "ipip" | "sit" | "ip6tnl" | "vti" | "vti6" | "xfrm" | "gtp"
            | "l2tpeth" | "ovpn" | "amt" => Self::Tunnel,
            _ => Self::Other,
        }
    }

    /// Whether packets never leave the host through such a device.
    pub const fn is_without_wire(self) -> bool {
        matches!(self, Self::Loopback | Self::Dummy)
    }
}

/// An address on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// The interface that it is configured on.
    pub ifindex: u32,
    /// The local address (`IFA_LOCAL`), never a peer's.
    pub local: IpAddr,
    /// The subnet: of the peer where there is one (`IFA_ADDRESS`).
    pub subnet: IpNet,
    /// Duplicate address detection has not ended, or found a duplicate: it may not be announced.
    pub tentative: bool,
    /// It is valid inside this host only (`scope host`).
    pub host_scope: bool,
}

/// The prefix of `length` bits, or of the whole address if that is less, that holds `address`.
pub fn prefix(address: IpAddr, length: u8) -> IpNet {
    IpNet::new(address, length).map_or_else(|_| IpNet::from(address), |prefix| prefix.trunc())
}

/// A unicast route.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// The routing table.
    pub table: u32,
    /// The destination.
    pub destination: IpNet,
    /// Lower ones are preferred.
    pub metric: u32,
    /// What a router says of itself (RFC 4191 section 2.1): 1 for high, 0 for medium, -1 for low. Of routes with the same metric
    /// the kernel prefers the higher one. Always 0 for IPv4.
    pub preference: i8,
    /// One, or several for a multipath route. None of them is dead.
    pub hops: Vec<Hop>,
    /// What connections through it are told.
    pub metrics: Metrics,
}

/// The metrics of a route (`RTA_METRICS`): MTU, window, congestion control and the like, as the kernel has them.
///
/// Each is a number (`RTAX_MTU` and others of `linux/rtnetlink.h`) and a value, a 32-bit integer in native byte order or a
/// string that ends with a zero byte. They are in the order of their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Metrics(Box<[(u16, Box<[u8]>)]>);

impl Metrics {
    /// `RTAX_LOCK`: a bit for each of the others that the kernel may not change.
    pub const LOCK: u16 = 1;
    /// `RTAX_MTU`
    pub const MTU: u16 = 2;
    /// `RTAX_ADVMSS`: the maximum segment size that is announced to peers.
    pub const ADVMSS: u16 = 8;

    /// Iterates over numbers and values.
    pub fn iter(&self) -> impl Iterator<Item = (u16, &[u8])> {
        self.0.iter().map(|(number, value)| (*number, value.as_ref()))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a metric that is an integer.
    pub fn get(&self, number: u16) -> Option<u32> {
        let (_, value) = self.iter().find(|(each, _)| *each == number)?;
        value.try_into().ok().map(u32::from_ne_bytes)
    }
}

impl FromIterator<(u16, Box<[u8]>)> for Metrics {
    fn from_iter<T: IntoIterator<Item = (u16, Box<[u8]>)>>(metrics: T) -> Self {
        let mut metrics: Vec<_> = metrics.into_iter().collect();
        metrics.sort();
        Self(metrics.into_boxed_slice())
    }
}

/// A next hop of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hop {
    /// The interface.
    pub ifindex: u32,
    /// The gateway; `None` when the destination is on-link. That of an IPv4 route may be an IPv6 address.
    pub gateway: Option<IpAddr>,
    /// Its share of the flows of a multipath route, beside the weights of the others; at least 1.
    pub weight: u16,
}

impl Hop {
    /// One with the weight that hops have by default.
    pub const fn new(ifindex: u32, gateway: Option<IpAddr>) -> Self {
        Self { ifindex, gateway, weight: 1 }
    }
}

/// A route of the main table that no next hop describes: one of type blackhole, unreachable, prohibit or throw, one for
/// some packets to the destination only (by TOS or source), or with an encapsulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OtherRoute {
    /// The destination.
    pub destination: IpNet,
    /// Lower ones are preferred. 0 for a route that comes before all others for the packets that it is for.
    pub metric: u32,
}

/// A rule of policy routing (`ip rule`) that leads to a table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// For IPv4, and not IPv6.
    pub ipv4: bool,
    /// Rules with lower numbers are asked first.
    pub priority: u32,
    /// The sources that it is for; `None` when it does not look at the source.
    pub source: Option<IpNet>,
    /// The routing table that it leads to.
    pub table: u32,
    /// Who made it (`FRA_PROTOCOL`), 0 where that is not said.
    pub protocol: u8,
    /// The marks that it is for, with a mask; `None` when it does not look at marks.
    pub mark: Option<(u32, u32)>,
    /// It looks at something else too (destination, incoming interface, protocol, ports, user), or is for all packets but these.
    pub selects: bool,
}

/// A table that a rule leads packets of its family to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableOfRule {
    /// For IPv4, and not IPv6.
    pub ipv4: bool,
    /// The table.
    pub table: u32,
}

impl TableOfRule {
    /// Whether a route is in the table, and of the family.
    pub fn has(self, route: &Route) -> bool {
        route.table == self.table && route.destination.addr().is_ipv4() == self.ipv4
    }
}

impl Rule {
    /// Whether it is for all packets of some sources that nobody has marked.
    pub fn is_for_sources(&self) -> bool {
        let unmarked = self.mark.is_none_or(|(mark, _)| mark == 0);
        self.source.is_some() && unmarked && !self.selects
    }
}

/// A route of type local: its destinations are the host's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LocalRoute {
    /// The domain of the routing table: [`MAIN_DOMAIN`] for the tables local and main.
    pub domain: u32,
    /// The destinations.
    pub prefix: IpNet,
    /// The interface.
    pub ifindex: u32,
}

impl Host {
    /// Whether two devices are the ends of one pair (veth, netkit) in this namespace: each is the link of the other.
    pub fn is_pair(&self, link: &Link) -> bool {
        let peer = link.link.and_then(|peer| self.links.get(&peer));
        peer.is_some_and(|peer| peer.link == Some(link.index))
    }

    /// Whether a device is part of a bridge, bond or team, rather than an interface by itself, perhaps in a VRF.
    pub fn is_port(&self, link: &Link) -> bool {
        let master = link.master.and_then(|master| self.links.get(&master));
        master.is_some_and(|master| !matches!(master.kind, LinkKind::Vrf { .. }))
    }

    /// The tables that rules from an address of an interface lead to, in the order in which they are asked. Those of mhebpf are
    /// left out: they are made of the others.
    pub fn tables_by_source(&self) -> BTreeMap<u32, Vec<TableOfRule>> {
        let mut tables: BTreeMap<u32, Vec<TableOfRule>> = BTreeMap::new();
        for rule in self.rules.iter().filter(|rule| rule.is_for_sources() && rule.protocol != PROTOCOL) {
            let Some(source) = rule.source.filter(|_| rule.table != MAIN_TABLE) else { continue };
            for address in self.addresses.iter().filter(|address| source.contains(&address.local)) {
                let of_interface = tables.entry(address.ifindex).or_default();
                let table = TableOfRule { ipv4: rule.ipv4, table: rule.table };
                if !of_interface.contains(&table) {
                    of_interface.push(table);
                }
            }
        }
        tables
    }

    /// Names an interface for a message.
    pub fn name_of(&self, ifindex: u32) -> String {
        self.links.get(&ifindex).map_or_else(|| format!("if{ifindex}"), |link| link.name.clone())
    }

    /// The set of addresses that those of an interface are compared with: that of the VRF that it is a port of,
    /// perhaps as a port of a bond, or [`MAIN_DOMAIN`].
    pub fn domain_of(&self, ifindex: u32) -> u32 {
        let mut current = self.links.get(&ifindex);
        // No chain of masters is longer, unless a dump shows them in a circle.
        for _ in 0..self.links.len() {
            let Some(link) = current else { break };
            if matches!(link.kind, LinkKind::Vrf { .. }) {
                return link.index;
            }
            current = link.master.and_then(|master| self.links.get(&master));
        }
        MAIN_DOMAIN
    }

    /// The routing table of a domain.
    pub fn table_of(&self, domain: u32) -> u32 {
        match self.links.get(&domain).map(|link| link.kind) {
            Some(LinkKind::Vrf { table }) => table,
            _ => MAIN_TABLE,
        }
    }
}

/// Whether a prefix holds nearly all destinations: a default, a half of one as VPNs have it, or half of global unicast (2000::/3).
pub fn is_default(prefix: &IpNet) -> bool {
    let most = if prefix.addr().is_ipv4() { 1 } else { 4 };
    prefix.prefix_len() <= most
}

/// Whether an address is IPv6 link-local unicast (RFC 4291 section 2.5.6), and so means something on one link
/// only.
pub fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if Ipv6Addr::is_unicast_link_local(&address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing::{host, link};

    #[test]
    fn a_prefix_forgets_the_host_bits_and_is_never_longer_than_the_address() {
        let address = IpAddr::from([192, 168, 0, 100]);
        assert_eq!(prefix(address, 21).to_string(), "192.168.0.0/21");
        assert_eq!(prefix(address, 64).to_string(), "192.168.0.100/32");
        assert_eq!(prefix(address, 0).to_string(), "0.0.0.0/0");
    }

    #[test]
    fn a_port_of_a_bond_in_a_vrf_is_in_its_domain() {
        let mut port = link(2, LinkKind::Wire);
        port.master = Some(3);
        let mut bond = link(3, LinkKind::Bond);
        bond.master = Some(9);
        let host = host([port, bond, link(4, LinkKind::Wire), link(9, LinkKind::Vrf { table: 10 })], []);
        assert_eq!([2, 3, 4, 9].map(|ifindex| host.domain_of(ifindex)), [9, 9, MAIN_DOMAIN, 9]);
        assert_eq!((host.table_of(9), host.table_of(MAIN_DOMAIN)), (10, MAIN_TABLE));
    }

    #[test]
    fn masters_in_a_circle_end() {
        let mut one = link(2, LinkKind::Bond);
        one.master = Some(3);
        let mut other = link(3, LinkKind::Bond);
        other.master = Some(2);
        assert_eq!(host([one, other], []).domain_of(2), MAIN_DOMAIN);
    }
}
