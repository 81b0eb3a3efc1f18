//! Hosts for unit tests.

use std::net::Ipv4Addr;

use super::{Address, Host, Link, LinkKind, Prefix};

pub(crate) fn link(index: u32, kind: LinkKind) -> Link {
    Link {
        index,
        name: format!("eth{index}"),
        kind,
        ethernet: kind != LinkKind::Loopback,
        mac: Some([2, 0, 0, 0, 0, index as u8]),
        mtu: 1500,
        up: true,
        master: None,
        link: None,
        link_elsewhere: false,
        route_localnet: false,
        strict_reverse_path: false,
    }
}

pub(crate) fn address(ifindex: u32, local: [u8; 4], length: u8) -> Address {
    let local = Ipv4Addr::from(local);
    Address { ifindex, local, subnet: Prefix::new(local, length) }
}

pub(crate) fn host(
    links: impl IntoIterator<Item = Link>,
    addresses: impl IntoIterator<Item = Address>,
) -> Host {
    Host {
        links: links.into_iter().map(|link| (link.index, link)).collect(),
        addresses: addresses.into_iter().collect(),
        routes: Vec::new(),
    }
}
