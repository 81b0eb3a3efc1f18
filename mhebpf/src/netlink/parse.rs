//! From netlink messages to the model.

use std::{fs, net::IpAddr};

use netlink_packet_route::{
    address::{AddressAttribute, AddressMessage},
    link::{LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage},
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHopFlags, RouteType,
    },
};

use crate::model::{Address, Hop, Link, LinkKind, Prefix, Route};

/// `everywhere` are the sysctls of `all`, which are combined with those of the link.
pub(super) fn link(message: &LinkMessage, everywhere: Ipv4Sysctls) -> Link {
    let header = &message.header;
    let loopback = header.flags.contains(LinkFlags::Loopback);
    let mut link = Link {
        index: header.index,
        name: String::new(),
        kind: if loopback { LinkKind::Loopback } else { LinkKind::Other },
        ethernet: header.link_layer_type == LinkLayerType::Ether,
        mac: None,
        mtu: 0,
        up: header.flags.contains(LinkFlags::Up) && header.flags.contains(LinkFlags::LowerUp),
        master: None,
        link: None,
        link_elsewhere: false,
        route_localnet: false,
        strict_reverse_path: false,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(bytes) => link.mac = bytes.as_slice().try_into().ok(),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Controller(master) => link.master = Some(*master),
            LinkAttribute::Link(lower) => link.link = Some(*lower),
            LinkAttribute::LinkNetNsId(_) => link.link_elsewhere = true,
            LinkAttribute::LinkInfo(infos) if !loopback => {
                for info in infos {
                    if let LinkInfo::Kind(kind) = info {
                        link.kind = LinkKind::from_info_kind(&kind.to_string());
                    }
                }
            }
            _ => {}
        }
    }
    if link.link_elsewhere {
        link.link = None;
    }
    let own = Ipv4Sysctls::read(&link.name);
    // `IN_DEV_ORCONF` and `IN_DEV_MAXCONF` of linux/inetdevice.h.
    link.route_localnet = everywhere.route_localnet.max(own.route_localnet) > 0;
    link.strict_reverse_path = everywhere.rp_filter.max(own.rp_filter) == 1;
    link
}

/// Sysctls of `net.ipv4.conf` in the namespace of this process.
#[derive(Clone, Copy)]
pub(super) struct Ipv4Sysctls {
    route_localnet: u32,
    rp_filter: u32,
}

impl Ipv4Sysctls {
    /// Those of an interface, or of `all`. What can't be read counts as 0: an interface that is gone has
    /// none.
    pub(super) fn read(name: &str) -> Self {
        let read = |key| {
            fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{name}/{key}"))
                .ok()
                .and_then(|value| value.trim().parse().ok())
                .unwrap_or(0)
        };
        Self { route_localnet: read("route_localnet"), rp_filter: read("rp_filter") }
    }
}

pub(super) fn address(message: &AddressMessage) -> Option<Address> {
    let (mut local, mut prefix_address) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(IpAddr::V4(address)) => local = Some(*address),
            AddressAttribute::Address(IpAddr::V4(address)) => prefix_address = Some(*address),
            _ => {}
        }
    }
    // Without IFA_LOCAL there is no peer, and IFA_ADDRESS is the local address.
    let local = local.or(prefix_address)?;
    Some(Address {
        ifindex: message.header.index,
        local,
        subnet: Prefix::new(prefix_address.unwrap_or(local), message.header.prefix_len),
    })
}

/// A unicast route of the main table that any packet may take; `None` for all others.
pub(super) fn route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    let table = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    if header.kind != RouteType::Unicast
        || table.unwrap_or(u32::from(header.table)) != u32::from(RouteHeader::RT_TABLE_MAIN)
        || header.tos != 0
        || header.flags.contains(RouteFlags::Dead)
    {
        return None;
    }
    let mut destination = None;
    let mut metric = 0;
    let mut oif = None;
    let mut hops = Vec::new();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => destination = Some(*address),
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Oif(index) => oif = Some(*index),
            RouteAttribute::MultiPath(next_hops) => {
                hops.extend(
                    next_hops
                        .iter()
                        .filter(|next_hop| !next_hop.flags.contains(RouteNextHopFlags::Dead))
                        .filter_map(|next_hop| hop(next_hop.interface_index, &next_hop.attributes)),
                );
            }
            _ => {}
        }
    }
    if let Some(ifindex) = oif {
        hops.extend(hop(ifindex, &message.attributes));
    }
    let destination =
        Prefix::new(destination.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED), header.destination_prefix_length);
    (!hops.is_empty()).then_some(Route { destination, metric, hops })
}

/// `None` for next hops that a plain IPv4 neighbour does not describe: an IPv6 gateway, an encapsulation.
fn hop(ifindex: u32, attributes: &[RouteAttribute]) -> Option<Hop> {
    let mut gateway = None;
    for attribute in attributes {
        match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => gateway = Some(*address),
            RouteAttribute::Gateway(_)
            | RouteAttribute::Via(_)
            | RouteAttribute::Encap(_)
            | RouteAttribute::EncapType(_) => return None,
            _ => {}
        }
    }
    Some(Hop { ifindex, gateway })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use netlink_packet_route::{AddressFamily, route::RouteNextHop};

    use super::*;

    fn route_message(attributes: Vec<RouteAttribute>) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.kind = RouteType::Unicast;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.attributes = attributes;
        message
    }

    fn gateway(octets: [u8; 4]) -> RouteAttribute {
        RouteAttribute::Gateway(RouteAddress::Inet(Ipv4Addr::from(octets)))
    }

    #[test]
    fn a_default_route_has_no_destination_attribute() {
        let parsed = route(&route_message(vec![RouteAttribute::Oif(2), gateway([10, 0, 0, 1])]));
        assert_eq!(
            parsed,
            Some(Route {
                destination: Prefix::new(Ipv4Addr::UNSPECIFIED, 0),
                metric: 0,
                hops: vec![Hop { ifindex: 2, gateway: Some(Ipv4Addr::new(10, 0, 0, 1)) }],
            })
        );
    }

    #[test]
    fn the_table_attribute_counts_more_than_the_header() {
        assert_eq!(route(&route_message(vec![RouteAttribute::Oif(2), RouteAttribute::Table(1000)])), None);
    }

    #[test]
    fn a_dead_hop_of_a_multipath_route_is_left_out() {
        let mut alive = RouteNextHop::default();
        alive.interface_index = 2;
        let mut dead = RouteNextHop::default();
        dead.interface_index = 3;
        dead.flags = RouteNextHopFlags::Dead;
        let parsed =
            route(&route_message(vec![RouteAttribute::MultiPath(vec![alive, dead])])).expect("a route");
        assert_eq!(parsed.hops, [Hop { ifindex: 2, gateway: None }]);
    }

    #[test]
    fn the_local_address_is_never_the_peer() {
        let mut message = AddressMessage::default();
        message.header.index = 2;
        message.header.prefix_len = 32;
        message.attributes = vec![
            AddressAttribute::Address(IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1))),
            AddressAttribute::Local(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))),
        ];
        let parsed = address(&message).expect("an address");
        assert_eq!(parsed.local, Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(parsed.subnet, Prefix::new(Ipv4Addr::new(10, 9, 0, 1), 32));
    }
}
