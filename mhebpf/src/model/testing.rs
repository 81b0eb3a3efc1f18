//! Hosts for unit tests.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    Address, Bindings, Framing, Hop, Host, Link, LinkKind, Metrics, Route,
    host::{MAIN_TABLE, prefix},
};

pub(crate) fn link(index: u32, kind: LinkKind) -> Link {
    Link {
        index,
        name: format!("eth{index}"),
        kind,
        framing: if kind == LinkKind::Loopback { Framing::Unknown } else { Framing::Ethernet },
        mac: Some([2, 0, 0, 0, 0, index as u8]),
        mtu: 1500,
        up: true,
        master: None,
        link: None,
        link_elsewhere: false,
        outer: None,
        route_localnet: false,
        forwards: false,
        router: false,
        arp_ignore: 0,
        arp_filter: false,
        strict_reverse_path: false,
    }
}

/// A device on top of another, whose packets cross that one as they are.
pub(crate) fn stacked(index: u32, lower: u32) -> Link {
    Link { link: Some(lower), ..link(index, LinkKind::Ipvlan) }
}

/// A port of a bridge, bond, team or VRF.
pub(crate) fn port(index: u32, master: u32) -> Link {
    Link { master: Some(master), ..link(index, LinkKind::Wire) }
}

/// An address as it is written for `ip address add`.
pub(crate) fn address(ifindex: u32, text: &str) -> Address {
    let with_length: IpNet = text.parse().expect("an address with a prefix length");
    let local = with_length.addr();
    Address {
        ifindex,
        local,
        subnet: prefix(local, with_length.prefix_len()),
        tentative: false,
        host_scope: false,
    }
}

/// A route of the table main by one hop.
pub(crate) fn route(destination: &str, metric: u32, ifindex: u32, gateway: Option<&str>) -> Route {
    Route {
        table: MAIN_TABLE,
        destination: net(destination),
        metric,
        preference: 0,
        hops: vec![Hop::new(ifindex, gateway.map(ip))],
        metrics: Metrics::default(),
    }
}

/// Every interface keeps its addresses, but those without a wire.
pub(crate) fn all_bound(host: &Host) -> Bindings {
    let with_wire = host.links.values().filter(|link| !link.kind.is_without_wire());
    Bindings { bound: with_wire.map(|link| link.index).collect(), ..Bindings::default() }
}

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(crate) fn host(
    links: impl IntoIterator<Item = Link>,
    addresses: impl IntoIterator<Item = Address>,
) -> Host {
    Host {
        links: links.into_iter().map(|link| (link.index, link)).collect(),
        addresses: addresses.into_iter().collect(),
        ..Host::default()
    }
}
