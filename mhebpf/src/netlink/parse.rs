//! From netlink messages to the model.

mod route;

use std::{fs, net::IpAddr};

use netlink_packet_core::{DecodeError, Parseable as _};
use netlink_packet_route::{
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope},
    link::{
        AfSpecInet, AfSpecInet6, AfSpecUnspec, InfoData, InfoVlan, InfoVrf, LinkAttribute, LinkFlags,
        LinkInfo, LinkLayerType, LinkMessage,
    },
    rule::RuleMessage,
};

pub(super) use self::route::{
    AnyRoute, Lifetime, Tables, hop, lifetime, route, route_matters, value_of, weighted_hop,
};
use crate::model::{
    Address, Framing, Link, LinkKind,
    host::{MAIN_TABLE, prefix},
};

/// The bits of a kind that say something else (`NLA_TYPE_MASK` of linux/netlink.h).
const KIND: u16 = 0x3fff;

/// Where a message has names of interfaces, which need not be UTF-8: the kernel takes any byte but blanks, colons and slashes
/// (`dev_valid_name`, Linux 6.18).
struct Names {
    /// Where the attributes begin, behind the header of the message.
    attributes: usize,
    /// Those that are names.
    kinds: &'static [u16],
    /// Those that have further names inside, which nobody asks for.
    further: Option<u16>,
}

/// `IFLA_IFNAME`, `IFLA_QDISC`, `IFLA_IFALIAS`, `IFLA_PHYS_PORT_NAME` and `IFLA_PROP_LIST` of linux/if_link.h.
const OF_LINKS: Names = Names { attributes: 16, kinds: &[3, 6, 20, 38], further: Some(52) };
/// `IFA_LABEL` of linux/if_addr.h.
const OF_ADDRESSES: Names = Names { attributes: 8, kinds: &[3], further: None };
/// `FRA_IIFNAME` and `FRA_OIFNAME` of linux/fib_rules.h.
const OF_RULES: Names = Names { attributes: 12, kinds: &[3, 17], further: None };

/// Reads a link; what is not UTF-8 in its names is replaced.
///
/// # Errors
///
/// When it can't be read for another reason.
pub(crate) fn link_message(payload: &[u8]) -> Result<LinkMessage, DecodeError> {
    or_with_readable_names(payload, &OF_LINKS, LinkMessage::parse)
}

/// The same of an address.
///
/// # Errors
///
/// When it can't be read for another reason.
pub(super) fn address_message(payload: &[u8]) -> Result<AddressMessage, DecodeError> {
    or_with_readable_names(payload, &OF_ADDRESSES, AddressMessage::parse)
}

/// The same of a rule.
///
/// # Errors
///
/// When it can't be read for another reason.
pub(crate) fn rule_message(payload: &[u8]) -> Result<RuleMessage, DecodeError> {
    or_with_readable_names(payload, &OF_RULES, RuleMessage::parse)
}

fn or_with_readable_names<T>(
    payload: &[u8],
    names: &Names,
    read: impl Fn(&[u8]) -> Result<T, DecodeError>,
) -> Result<T, DecodeError> {
    read(payload)
        .or_else(|error| with_readable_names(payload, names).map_or(Err(error), |readable| read(&readable)))
}

/// The same message with names that are UTF-8.
fn with_readable_names(payload: &[u8], names: &Names) -> Option<Vec<u8>> {
    let (header, mut rest) = payload.split_at_checked(names.attributes)?;
    let mut readable = header.to_vec();
    while let [a, b, c, d, ..] = *rest {
        let (length, kind) = (u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]) & KIND);
        let attribute = rest.get(..length.into())?;
        let value = attribute.get(4..)?;
        if names.kinds.contains(&kind) {
            let name = String::from_utf8_lossy(value);
            readable.extend(u16::try_from(4 + name.len()).ok()?.to_ne_bytes());
            readable.extend(kind.to_ne_bytes());
            readable.extend(name.as_bytes());
        } else if names.further != Some(kind) {
            readable.extend(attribute);
        }
        readable.resize(readable.len().next_multiple_of(4), 0);
        rest = rest.get(usize::from(length).next_multiple_of(4)..).unwrap_or_default();
    }
    Some(readable)
}

/// `everywhere` are the sysctls of `all`, which are combined with those of the link.
pub(super) fn link(message: &LinkMessage, everywhere: Everywhere) -> Link {
    let header = &message.header;
    let loopback = header.flags.contains(LinkFlags::Loopback);
    let mut link = Link {
        index: header.index,
        name: String::new(),
        kind: if loopback { LinkKind::Loopback } else { LinkKind::Wire },
        framing: framing(header.link_layer_type, header.flags),
        mac: None,
        mtu: 0,
        up: header.flags.contains(LinkFlags::Up) && header.flags.contains(LinkFlags::LowerUp),
        master: None,
        link: None,
        link_elsewhere: false,
        outer: None,
        route_localnet: everywhere.route_localnet > 0,
        forwards: false,
        router: false,
        arp_ignore: everywhere.arp_ignore,
        arp_filter: everywhere.arp_filter > 0,
        strict_reverse_path: everywhere.rp_filter == 1,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(bytes) => {
                link.mac = bytes.as_slice().try_into().ok();
                link.outer = outer(header.link_layer_type, bytes);
            }
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Controller(master) => link.master = Some(*master),
            LinkAttribute::Link(lower) => link.link = Some(*lower),
            LinkAttribute::LinkNetNsId(_) => link.link_elsewhere = true,
            LinkAttribute::LinkInfo(infos) if !loopback => {
                link.kind = kind(infos);
            }
            LinkAttribute::AfSpecUnspec(families) => sysctls(families, everywhere, &mut link),
            _ => {}
        }
    }
    if link.link_elsewhere {
        link.link = None;
    }
    link
}

/// `net.ipv4.conf` and `net.ipv6.conf` of a link, which come with it in its message, unless it does not have the family.
fn sysctls(families: &[AfSpecUnspec], everywhere: Everywhere, link: &mut Link) {
    for family in families {
        match family {
            AfSpecUnspec::Inet(attributes) => {
                for attribute in attributes {
                    let AfSpecInet::DevConf(own) = attribute else { continue };
                    // `IN_DEV_ORCONF` and `IN_DEV_MAXCONF` of linux/inetdevice.h.
                    link.route_localnet = everywhere.route_localnet.max(own.route_localnet) > 0;
                    link.forwards = own.forwarding > 0;
                    link.arp_ignore =
                        everywhere.arp_ignore.max(u8::try_from(own.arp_ignore).unwrap_or_default());
                    link.arp_filter = everywhere.arp_filter.max(own.arpfilter) > 0;
                    link.strict_reverse_path = everywhere.rp_filter.max(own.rp_filter) == 1;
                }
            }
            AfSpecUnspec::Inet6(attributes) => {
                for attribute in attributes {
                    let AfSpecInet6::DevConf(own) = attribute else { continue };
                    link.router = own.forwarding > 0;
                }
            }
            _ => {}
        }
    }
}

/// GRE devices that may send to several peers have an outer header in front of the packet (`ipgre_header`, Linux
/// 6.18); with a fixed peer they are point-to-point and have none.
fn framing(layer: LinkLayerType, flags: LinkFlags) -> Framing {
    match layer {
        LinkLayerType::Ether => Framing::Ethernet,
        LinkLayerType::None
        | LinkLayerType::Ppp
        | LinkLayerType::Rawip
        | LinkLayerType::Tunnel
        | LinkLayerType::Tunnel6
        | LinkLayerType::Sit => Framing::Bare,
        LinkLayerType::Ipgre | LinkLayerType::Ip6gre if flags.contains(LinkFlags::Pointopoint) => {
            Framing::Bare
        }
        _ => Framing::Unknown,
    }
}

/// The hardware address of a tunnel is the one that its packets have outside; unspecified where that is chosen for each.
fn outer(layer: LinkLayerType, bytes: &[u8]) -> Option<IpAddr> {
    let address = match layer {
        LinkLayerType::Tunnel | LinkLayerType::Sit | LinkLayerType::Ipgre => {
            IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)
        }
        LinkLayerType::Tunnel6 | LinkLayerType::Ip6gre => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
        _ => return None,
    };
    (!address.is_unspecified()).then_some(address)
}

fn kind(infos: &[LinkInfo]) -> LinkKind {
    let kind = infos.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(LinkKind::from_info_kind(&kind.to_string())),
        _ => None,
    });
    let data = infos.iter().find_map(|info| match info {
        LinkInfo::Data(data) => Some(data),
        _ => None,
    });
    match (kind, data) {
        (Some(LinkKind::Vrf { .. }), Some(InfoData::Vrf(attributes))) => {
            let table = attributes.iter().find_map(|attribute| match attribute {
                InfoVrf::TableId(table) => Some(*table),
                _ => None,
            });
            LinkKind::Vrf { table: table.unwrap_or(MAIN_TABLE) }
        }
        (Some(LinkKind::Vlan { id: unknown }), Some(InfoData::Vlan(attributes))) => {
            let id = attributes.iter().find_map(|attribute| match attribute {
                InfoVlan::Id(id) => Some(*id),
                _ => None,
            });
            LinkKind::Vlan { id: id.unwrap_or(unknown) }
        }
        (kind, _) => kind.unwrap_or(LinkKind::Wire),
    }
}

/// Sysctls of `net.ipv4.conf.all` in the namespace of this process.
#[derive(Clone, Copy, Default)]
pub(super) struct Everywhere {
    route_localnet: i32,
    rp_filter: i32,
    arp_ignore: u8,
    arp_filter: i32,
}

impl Everywhere {
    /// What can't be read counts as 0.
    pub(super) fn read() -> Self {
        let read = |key| {
            let text = fs::read_to_string(format!("/proc/sys/net/ipv4/conf/all/{key}"));
            text.ok().and_then(|value| value.trim().parse().ok()).unwrap_or(0)
        };
        let arp_ignore = u8::try_from(read("arp_ignore")).unwrap_or_default();
        Self {
            route_localnet: read("route_localnet"),
            rp_filter: read("rp_filter"),
            arp_ignore,
            arp_filter: read("arp_filter"),
        }
    }
}

pub(super) fn address(message: &AddressMessage) -> Option<Address> {
    let (mut local, mut prefix_address) = (None, None);
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => prefix_address = Some(*address),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    // Without IFA_LOCAL there is no peer, and IFA_ADDRESS is the local address.
    let local = local.or(prefix_address)?;
    Some(Address {
        ifindex: message.header.index,
        local,
        subnet: prefix(prefix_address.unwrap_or(local), message.header.prefix_len),
        tentative: flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed),
        host_scope: message.header.scope == AddressScope::Host,
    })
}

#[cfg(test)]
mod tests;
