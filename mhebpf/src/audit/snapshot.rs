//! All that an audit is made from, as plain data.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;
use serde::Serialize;

pub use super::rule::{Mark, Rule};
use super::{published::Published, sysctls::Sysctls};
use crate::{
    model::{
        Address, Host, Policy,
        host::is_link_local,
        ownership::{self, Bindings, Ownership, Ownerships},
        stacking::Stacking,
        uplinks::Uplinks,
    },
    netlink::{KernelRoute, LocalLate},
};

/// A host at one moment, as far as it could be read.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Links, addresses and routes.
    pub host: Host,
    /// The ifindices of the interfaces that are looked at.
    pub interfaces: BTreeSet<u32>,
    /// Those that they are seen together with: these and all uplinks.
    pub company: BTreeSet<u32>,
    /// The uplinks and downlinks of the host, and why the rest is neither.
    pub uplinks: Uplinks,
    /// What the configuration would have enforced on the interfaces that are looked at, by ifindex.
    pub policies: BTreeMap<u32, Policy>,
    /// The configuration has policy routing steer (`--steer rules`).
    pub steers: bool,
    /// The sysctls.
    pub sysctls: Sysctls,
    /// Where the kernel sends packets with the host's own sources.
    pub ways: Vec<Way>,
    /// The rules of policy routing that are not the kernel's own three.
    pub rules: Vec<Rule>,
    /// Families in which the table local is not looked up before the rules of `--steer rules`.
    pub local_late: Vec<LocalLate>,
    /// Programs and filters of others on the interfaces that are looked at.
    pub programs: Vec<Program>,
    /// What mhebpf itself has put on interfaces.
    pub own: Own,
    /// Sockets that are bound to an address of an interface that is looked at.
    pub sockets: Vec<Socket>,
    /// Addresses of other interfaces that packets get as their source on an interface.
    pub borrowed: BTreeSet<Borrowed>,
    /// Where addresses are translated.
    pub translation: Translation,
    /// The endpoints of Multipath TCP, where it is on.
    pub mptcp: Vec<Endpoint>,
    /// A daemon runs in this network namespace.
    pub daemon: bool,
    /// systemd-networkd, where it runs.
    pub networkd: Option<Networkd>,
    /// What could not be read.
    pub unread: Vec<Unread>,
}

impl Snapshot {
    /// Whether packets of others are sent on anywhere.
    pub fn forwards(&self) -> bool {
        self.host.links.values().any(|link| link.forwards || link.router)
    }
}

/// Where the kernel sends packets from an address of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// The source address.
    pub source: IpAddr,
    /// The interface that it is configured on.
    pub configured: u32,
    /// The set of addresses that it belongs to: [`Host::domain_of`].
    pub domain: u32,
    /// The destination that stands for all of its kind.
    pub destination: IpAddr,
    /// Its kind.
    pub to: To,
    /// The kernel's answer; `None` when there is no route.
    pub route: Option<KernelRoute>,
}

/// What a destination stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum To {
    /// A neighbour in the subnet of the source.
    Subnet(IpNet),
    /// What the default route leads to.
    Beyond,
}

/// What systemd-networkd does to what it has not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Networkd {
    /// It removes rules of policy routing (`ManageForeignRoutingPolicyRules=`).
    pub removes_rules: bool,
    /// It removes routes (`ManageForeignRoutes=`).
    pub removes_routes: bool,
}

/// A program or filter that sees packets of an interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Program {
    /// The ifindex.
    #[serde(skip)]
    pub ifindex: u32,
    /// Where it is.
    pub hook: Hook,
    /// What it is called, or what kind of filter it is.
    pub name: String,
    /// The id of its BPF program, where it is one.
    pub id: Option<u32>,
    /// It sees packets before a program of mhebpf that is there does, and can end their way.
    pub before_mhebpf: bool,
}

/// What mhebpf has put on interfaces, whether it is running or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// The names of interfaces with its filters of clsact.
    pub filters: BTreeSet<String>,
    /// How many egress programs are on an interface by TCX, by the interface's name.
    pub links: BTreeMap<String, usize>,
}

/// Where a program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hook {
    /// XDP: before anything else.
    Xdp,
    /// TCX, in a chain with mhebpf's.
    TcxIngress,
    /// TCX, in a chain with mhebpf's.
    TcxEgress,
    /// A filter of a clsact or ingress qdisc.
    TcIngress,
    /// A filter of a clsact qdisc.
    TcEgress,
}

impl Hook {
    /// The hook in a sentence.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xdp => "XDP",
            Self::TcxIngress => "TCX ingress",
            Self::TcxEgress => "TCX egress",
            Self::TcIngress => "tc ingress",
            Self::TcEgress => "tc egress",
        }
    }
}

/// A socket that is bound to an address of this host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Socket {
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// Where it is bound.
    pub local: SocketAddr,
    /// To whom it is connected.
    pub peer: Option<SocketAddr>,
    /// The interface by which packets to the peer leave, as the kernel routes them.
    pub leaves_by: Option<u32>,
}

/// An address that an unnumbered interface borrows: the kernel chooses it as the source of what leaves there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Borrowed {
    /// The interface that borrows.
    pub ifindex: u32,
    /// The address, which is another interface's.
    pub address: IpAddr,
    /// A destination for which it is chosen.
    pub destination: IpNet,
}

/// Where addresses of packets are translated (NAT), as far as rules are there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Translation {
    /// Before routing: published ports, port forwarding, services of a cluster, IPVS.
    pub arriving: bool,
    /// Of connections that this host itself opens.
    pub output: bool,
    /// Of sources, after routing.
    pub leaving: bool,
    /// What is published, as far as the rules are read.
    pub published: BTreeSet<Published>,
}

/// An endpoint of Multipath TCP (`ip mptcp endpoint`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub address: IpAddr,
    /// It is announced to the peers.
    pub signal: bool,
}

/// Something that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Unread {
    /// What.
    pub what: String,
    /// Why, and what to do about it.
    pub why: String,
}

/// A snapshot, and what follows from it for every check.
pub struct View<'a> {
    /// The snapshot.
    pub snapshot: &'a Snapshot,
    /// Who owns which address.
    pub ownerships: Ownerships,
    domains: BTreeMap<u32, u32>,
    configured: HashSet<(u32, IpAddr)>,
    ways_to_subnets: HashMap<(u32, IpAddr, IpNet), &'a Way>,
}

impl<'a> View<'a> {
    /// Computes what follows.
    pub fn new(snapshot: &'a Snapshot) -> Self {
        let host = &snapshot.host;
        let domains = host.links.keys().map(|ifindex| (*ifindex, host.domain_of(*ifindex))).collect();
        let configured = host.addresses.iter().map(|address| (address.ifindex, address.local)).collect();
        let to_subnet = |way: &'a Way| match way.to {
            To::Subnet(subnet) => Some(((way.domain, way.source, subnet), way)),
            To::Beyond => None,
        };
        let ways_to_subnets = snapshot.ways.iter().filter_map(to_subnet).collect();
        let mut bindings = Bindings::new(host, &snapshot.policies);
        let bound = &(&snapshot.company | &snapshot.interfaces) - &snapshot.uplinks.downlinks;
        bindings.bound.extend(bound);
        let is_bound =
            |ifindex: &u32| snapshot.policies.get(ifindex).is_none_or(|policy: &Policy| policy.binds);
        bindings.bound.retain(is_bound);
        let ownerships = ownership::of_addresses(&Stacking::of(host), &bindings);
        Self { snapshot, ownerships, domains, configured, ways_to_subnets }
    }

    /// [`Host::domain_of`]
    pub fn domain_of(&self, ifindex: u32) -> u32 {
        self.domains.get(&ifindex).copied().unwrap_or_default()
    }

    /// The ownership of an address that is configured on an interface.
    pub fn ownership(&self, address: &Address) -> Option<&Ownership> {
        let domain = self.domain_of(address.ifindex);
        self.ownerships.of_address(domain, address.local)
    }

    /// The owners of a local address, and none for one that every interface owns.
    pub fn owners(&self, domain: u32, address: IpAddr) -> &[u32] {
        let ownership = self.ownerships.of_address(domain, address);
        ownership.filter(|ownership| !ownership.host_wide).map_or(&[], |ownership| &ownership.owners)
    }

    /// The addresses that belong to some interfaces and not to others, of which one at least is in the company. Those
    /// that mean something on one link only are left out.
    pub fn judged_addresses(&self) -> impl Iterator<Item = &'a Address> {
        let host = &self.snapshot.host;
        host.addresses.iter().filter(|address| {
            let local = address.local;
            if is_link_local(local) || local.is_loopback() {
                return false;
            }
            self.ownership(address).is_some_and(|ownership| {
                !ownership.host_wide
                    && ownership.owners.iter().any(|owner| self.snapshot.company.contains(owner))
            })
        })
    }

    /// The ways of packets that leave by an interface that does not own their source.
    pub fn wrong_ways(&self) -> impl Iterator<Item = (&'a Way, KernelRoute)> {
        self.snapshot.ways.iter().filter_map(|way| {
            let route = way.route.filter(|route| !route.local)?;
            let owners = self.owners(way.domain, way.source);
            (!owners.is_empty() && !owners.contains(&route.ifindex)).then_some((way, route))
        })
    }

    /// Whether an address is configured on an interface.
    pub fn is_configured(&self, ifindex: u32, address: IpAddr) -> bool {
        self.configured.contains(&(ifindex, address))
    }

    /// The way of packets from an address to a neighbour in its subnet.
    pub fn way_to_subnet(&self, domain: u32, source: IpAddr, subnet: IpNet) -> Option<&'a Way> {
        self.ways_to_subnets.get(&(domain, source, subnet)).copied()
    }

    /// The name of an interface.
    pub fn name(&self, ifindex: u32) -> String {
        self.snapshot.host.name_of(ifindex)
    }
}
