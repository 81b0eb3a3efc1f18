//! What a host is for: which of the end system's rules matter to it follows from that.

use std::{collections::BTreeSet, net::IpAddr};

use serde::Serialize;

use super::{checks::list, snapshot::Snapshot, sysctls::Sysctl};
use crate::model::{Link, LinkKind, uplinks::DOWNLINK};

/// Something that a host is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Role {
    /// What.
    pub role: Name,
    /// What shows it.
    pub why: String,
}

/// What a host can be. Several may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Name {
    /// It has a wire of its own.
    Host,
    /// It has none: a container or pod, whose links are the ends of pairs.
    Container,
    /// Containers reach the network through it.
    ContainerNode,
    /// It is the router of other networks.
    Router,
    /// It sends by a tunnel what has no other way.
    VpnClient,
    /// It answers for a load balancer's address, directly.
    DsrRealServer,
    /// Interfaces have no IPv4 address of their own, and send with that of another one.
    Unnumbered,
}

impl Name {
    /// All of them, in the order in which they are said.
    pub const ALL: [Self; 7] = [
        Self::Host,
        Self::Container,
        Self::ContainerNode,
        Self::Router,
        Self::VpnClient,
        Self::DsrRealServer,
        Self::Unnumbered,
    ];

    /// The name in a document.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Container => "container",
            Self::ContainerNode => "container-node",
            Self::Router => "router",
            Self::VpnClient => "vpn-client",
            Self::DsrRealServer => "dsr-real-server",
            Self::Unnumbered => "unnumbered",
        }
    }
}

/// The roles of a host, in the order of [`Name::ALL`].
pub fn of(snapshot: &Snapshot) -> Vec<Role> {
    let found = [
        Some(place(snapshot)),
        container_node(snapshot),
        router(snapshot),
        vpn_client(snapshot),
        dsr_real_server(snapshot),
        unnumbered(snapshot),
    ];
    let role = |(role, why)| Role { role, why };
    found.into_iter().flatten().map(role).collect()
}

type Found = (Name, String);

fn links(snapshot: &Snapshot) -> impl Iterator<Item = &Link> {
    snapshot.host.links.values()
}

fn names<'a>(links: impl Iterator<Item = &'a Link>) -> Vec<&'a str> {
    links.map(|link| link.name.as_str()).collect()
}

fn place(snapshot: &Snapshot) -> Found {
    let is_uplink = |link: &Link| snapshot.uplinks.uplinks.contains(&link.index);
    let has_wire = links(snapshot).any(|link| match link.kind {
        LinkKind::Wire => true,
        LinkKind::Bond | LinkKind::Bridge => is_uplink(link),
        _ => false,
    });
    if has_wire {
        (Name::Host, "it has a wire of its own".to_owned())
    } else if snapshot.uplinks.uplinks.is_empty() {
        (Name::Host, "no wire is here, and no way out that would show a container".to_owned())
    } else {
        let ways_out = names(links(snapshot).filter(|link| is_uplink(link)));
        (Name::Container, format!("no wire is here; the way out is {}", list(&ways_out)))
    }
}

fn container_node(snapshot: &Snapshot) -> Option<Found> {
    let uplinks = &snapshot.uplinks;
    let leads_to_containers = |link: &&Link| {
        let is_routers = uplinks.left_out.get(&link.index).is_some_and(|why| *why == DOWNLINK);
        match link.kind {
            _ if uplinks.uplinks.contains(&link.index) || is_routers => false,
            LinkKind::Other => link.link_elsewhere,
            LinkKind::Bridge => snapshot.host.addresses.iter().any(|address| address.ifindex == link.index),
            _ => false,
        }
    };
    let to_containers = names(links(snapshot).filter(leads_to_containers));
    if to_containers.is_empty() || !(snapshot.forwards() || snapshot.translation.arriving) {
        return None;
    }
    let translated = if snapshot.translation.arriving { ", and translates addresses" } else { "" };
    Some((
        Name::ContainerNode,
        format!(
            "behind {} are containers or virtual machines, for which it forwards{translated}",
            list(&to_containers)
        ),
    ))
}

fn router(snapshot: &Snapshot) -> Option<Found> {
    let left_out = snapshot.uplinks.left_out.iter().filter(|(_, why)| **why == DOWNLINK);
    let downlinks: Vec<String> = left_out.map(|(ifindex, _)| snapshot.host.name_of(*ifindex)).collect();
    (!downlinks.is_empty())
        .then(|| (Name::Router, format!("it forwards, and no gateway is known through {}", list(&downlinks))))
}

fn vpn_client(snapshot: &Snapshot) -> Option<Found> {
    let is_way_out =
        |link: &&Link| link.kind == LinkKind::Tunnel && snapshot.uplinks.uplinks.contains(&link.index);
    let tunnels = names(links(snapshot).filter(is_way_out));
    (!tunnels.is_empty())
        .then(|| (Name::VpnClient, format!("a default route leads through {}", list(&tunnels))))
}

fn dsr_real_server(snapshot: &Snapshot) -> Option<Found> {
    // kube-proxy with IPVS has the addresses of all services on a dummy of this name, and sets the same sysctls.
    let is_for_vips = |link: &Link| link.kind.is_without_wire() && link.name != "kube-ipvs0";
    let vips: Vec<IpAddr> = snapshot
        .host
        .addresses
        .iter()
        .filter(|address| address.local.is_ipv4() && !address.local.is_loopback())
        .filter(|address| snapshot.host.links.get(&address.ifindex).is_some_and(is_for_vips))
        .map(|address| address.local)
        .collect();
    let silent: Vec<String> = snapshot
        .uplinks
        .uplinks
        .iter()
        .filter(|ifindex| [1, 2, 3, 8].contains(&snapshot.sysctls.effective(**ifindex, Sysctl::ArpIgnore)))
        .map(|ifindex| snapshot.host.name_of(*ifindex))
        .collect();
    (!vips.is_empty() && !silent.is_empty()).then(|| {
        let why =
            format!("{} is on no wire, and arp_ignore keeps {} silent about it", list(&vips), list(&silent));
        (Name::DsrRealServer, why)
    })
}

fn unnumbered(snapshot: &Snapshot) -> Option<Found> {
    let host = &snapshot.host;
    let has_address = |ifindex: u32| {
        host.addresses.iter().any(|address| address.ifindex == ifindex && address.local.is_ipv4())
    };
    let ipv4 = host.routes.iter().filter(|route| route.destination.addr().is_ipv4());
    let without = ipv4
        .flat_map(|route| &route.hops)
        .map(|hop| hop.ifindex)
        .filter(|ifindex| snapshot.company.contains(ifindex) && !has_address(*ifindex));
    let borrowing = snapshot.borrowed.iter().map(|borrowed| borrowed.ifindex);
    let found: BTreeSet<u32> = without.chain(borrowing).collect();
    let names: Vec<String> = found.into_iter().map(|ifindex| host.name_of(ifindex)).collect();
    (!names.is_empty()).then(|| {
        let why = format!(
            "routes lead through {}, and what is sent there has an address of another interface",
            list(&names)
        );
        (Name::Unnumbered, why)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audit::{snapshot::Borrowed, sysctls::Values},
        model::{
            Address, Host, Route,
            testing::{self, address, host, ip, link, net},
            uplinks::Uplinks,
        },
    };

    fn wire(index: u32) -> Link {
        link(index, LinkKind::Wire)
    }

    fn end(index: u32) -> Link {
        Link { link_elsewhere: true, ..link(index, LinkKind::Other) }
    }

    fn snapshot<const N: usize, const M: usize>(links: [Link; N], addresses: [Address; M]) -> Snapshot {
        of_host(host(links, addresses))
    }

    fn of_host(host: Host) -> Snapshot {
        let uplinks = Uplinks::of(&host);
        let company = uplinks.uplinks.clone();
        Snapshot { host, interfaces: company.clone(), company, uplinks, ..Snapshot::default() }
    }

    fn forwarding(mut snapshot: Snapshot) -> Snapshot {
        snapshot.host.links.values_mut().for_each(|link| link.forwards = true);
        of_host(snapshot.host)
    }

    fn route(destination: &str, ifindex: u32, gateway: Option<&str>) -> Route {
        testing::route(destination, 0, ifindex, gateway)
    }

    #[track_caller]
    fn assert_roles(snapshot: &Snapshot, expected: &[Name]) {
        let found = of(snapshot);
        assert_eq!(found.iter().map(|role| role.role).collect::<Vec<_>>(), expected, "{found:?}");
    }

    #[test]
    fn a_host_is_one_with_a_wire() {
        assert_roles(&snapshot([wire(2)], [address(2, "10.0.0.2/24")]), &[Name::Host]);
        assert_roles(&Snapshot::default(), &[Name::Host]);
    }

    #[test]
    fn what_has_no_links_is_not_said_to_have_a_wire() {
        let empty = snapshot([link(1, LinkKind::Loopback)], []);
        assert_roles(&empty, &[Name::Host]);
        assert!(!of(&empty)[0].why.contains("it has a wire"), "{}", of(&empty)[0].why);
    }

    #[test]
    fn a_container_has_ends_of_pairs() {
        assert_roles(&snapshot([end(2), end(3)], [address(2, "10.0.0.2/24")]), &[Name::Container]);
    }

    #[test]
    fn a_container_node_forwards_for_what_is_behind_its_bridge() {
        let port = Link { master: Some(9), ..end(5) };
        let links = [wire(2), port, link(9, LinkKind::Bridge)];
        let mut host = snapshot(links, [address(2, "10.0.0.2/24"), address(9, "172.17.0.1/16")]).host;
        host.routes = vec![route("0.0.0.0/0", 2, Some("10.0.0.1"))];
        assert_roles(&of_host(host.clone()), &[Name::Host]);
        let node = forwarding(of_host(host));
        assert_roles(&node, &[Name::Host, Name::ContainerNode]);
        assert!(of(&node)[1].why.starts_with("behind eth5, eth9 are containers"), "{:?}", of(&node));
    }

    #[test]
    fn a_router_has_a_downlink() {
        let mut host = host([wire(2), wire(3)], [address(2, "10.0.0.2/24"), address(3, "10.1.0.1/24")]);
        host.routes = vec![route("0.0.0.0/0", 2, Some("10.0.0.1"))];
        let router = forwarding(of_host(host));
        assert_roles(&router, &[Name::Host, Name::Router]);
        assert!(of(&router)[1].why.ends_with("through eth3"));
    }

    #[test]
    fn a_vpn_client_sends_by_a_tunnel() {
        let links = [wire(2), link(3, LinkKind::Tunnel)];
        let mut host = host(links, [address(2, "10.0.0.2/24"), address(3, "10.8.0.2/24")]);
        host.routes = vec![route("0.0.0.0/1", 3, None)];
        assert_roles(&of_host(host), &[Name::Host, Name::VpnClient]);
    }

    #[test]
    fn a_real_server_is_silent_about_the_address_of_its_balancer() {
        let links = [link(1, LinkKind::Loopback), wire(2)];
        let mut server = snapshot(
            links,
            [address(1, "127.0.0.1/8"), address(1, "10.0.0.9/32"), address(2, "10.0.0.2/24")],
        );
        assert_roles(&server, &[Name::Host]);
        server.sysctls.everywhere = Values::from([(Sysctl::ArpIgnore, 1)]);
        assert_roles(&server, &[Name::Host, Name::DsrRealServer]);
    }

    #[test]
    fn a_node_of_a_cluster_is_no_real_server() {
        for (name, expected) in
            [("kube-ipvs0", &[Name::Host][..]), ("vip0", &[Name::Host, Name::DsrRealServer])]
        {
            let dummy = Link { name: name.into(), ..link(9, LinkKind::Dummy) };
            let mut node =
                snapshot([wire(2), dummy], [address(2, "10.0.0.2/24"), address(9, "10.96.0.10/32")]);
            node.sysctls.everywhere = Values::from([(Sysctl::ArpIgnore, 1)]);
            assert_roles(&node, expected);
        }
    }

    #[test]
    fn an_unnumbered_interface_has_routes_without_an_address() {
        let mut host = host([wire(2), wire(3)], [address(2, "10.0.0.2/24")]);
        host.routes = vec![route("10.9.9.9/32", 3, None)];
        let unnumbered = of_host(host);
        assert_roles(&unnumbered, &[Name::Host, Name::Unnumbered]);
        let mut borrowing =
            snapshot([wire(2), wire(3)], [address(2, "10.0.0.2/24"), address(3, "10.1.0.3/24")]);
        assert_roles(&borrowing, &[Name::Host]);
        borrowing.borrowed =
            [Borrowed { ifindex: 3, address: ip("10.0.0.2"), destination: net("10.9.9.9/32") }].into();
        assert_roles(&borrowing, &[Name::Host, Name::Unnumbered]);
    }

    #[test]
    fn roles_are_written_by_their_names() {
        for name in Name::ALL {
            assert_eq!(serde_json::to_value(name).expect("JSON"), name.name());
        }
    }
}
