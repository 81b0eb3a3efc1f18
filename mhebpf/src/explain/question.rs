//! From the command line to a packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mhebpf_ebpf::{Arp, ArpOperation, Datagram, Direction, Discovery, DiscoveryKind, Mac, Network, Packet};

use super::explanation::Question;
use crate::{
    cli::{ArpKind, ExplainOptions, NdpKind},
    model::Host,
    usage::UsageError,
};

/// All nodes of a link (RFC 4291 section 2.7.1).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Reads the question.
///
/// # Errors
///
/// When there is no such interface, or the addresses don't go together.
pub fn read(options: &ExplainOptions, host: &Host) -> Result<Question, UsageError> {
    let (direction, name) = match (&options.egress, &options.ingress) {
        (Some(name), _) => (Direction::Egress, name),
        (None, Some(name)) => (Direction::Ingress, name),
        (None, None) => {
            return Err(UsageError::new(
                "say which interface the packet crosses: --egress INTERFACE where it leaves, --ingress INTERFACE where it arrives",
            ));
        }
    };
    let Some(link) = host.links.values().find(|link| link.name == *name) else {
        let names: Vec<&str> = host.links.values().map(|link| link.name.as_str()).collect();
        return Err(UsageError::new(format!(
            "this host has no interface {name}; it has {}",
            names.join(", ")
        )));
    };
    let (network, destination) = network(options)?;
    let group = is_group(host, link.index, destination);
    let packet = Packet { group, offset: 0, network };
    let forwarded = options.forwarded;
    if forwarded && direction == Direction::Ingress {
        return Err(UsageError::new(
            "--forwarded is for a packet that leaves: where it arrives it is judged like any other",
        ));
    }
    Ok(Question { direction, ifindex: link.index, packet, forwarded, decapsulated: false })
}

/// What the packet is, and the address that it goes to.
fn network(options: &ExplainOptions) -> Result<(Network, IpAddr), UsageError> {
    match (options.arp, options.ndp) {
        (Some(kind), _) => arp(kind, options),
        (None, Some(kind)) => discovery(kind, options),
        (None, None) => datagram(options),
    }
}

fn datagram(options: &ExplainOptions) -> Result<(Network, IpAddr), UsageError> {
    if options.target.is_some() {
        return Err(UsageError::new("--target is for --arp and --ndp: say which, or --src and --dst"));
    }
    let (Some(source), Some(destination)) = (options.src, options.dst) else {
        return Err(UsageError::new(
            "say which datagram, by --src ADDRESS and --dst ADDRESS; or --arp or --ndp for another packet",
        ));
    };
    let network = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            Network::Ipv4(Datagram { source: source.into(), destination: destination.into(), protocol: 0 })
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let datagram = Datagram { source: source.into(), destination: destination.into(), protocol: 0 };
            Network::Ipv6(datagram, Discovery::NONE)
        }
        _ => return Err(mixed("--src", source, "--dst", destination)),
    };
    Ok((network, destination))
}

fn mixed(one: &str, first: IpAddr, other: &str, second: IpAddr) -> UsageError {
    UsageError::new(format!(
        "{one} {first} and {other} {second} are of different families: give both as IPv4 or both as IPv6 addresses"
    ))
}

fn arp(kind: ArpKind, options: &ExplainOptions) -> Result<(Network, IpAddr), UsageError> {
    let (Some(sender), Some(target)) = (options.sender, options.target) else {
        return Err(UsageError::new("an ARP packet has --sender ADDRESS and --target ADDRESS: say both"));
    };
    let (IpAddr::V4(sender), IpAddr::V4(target)) = (sender, target) else {
        return Err(UsageError::new(
            "ARP is for IPv4: give IPv4 addresses, or ask about neighbour discovery with --ndp",
        ));
    };
    let operation = match kind {
        ArpKind::Request => ArpOperation::Request,
        ArpKind::Reply => ArpOperation::Reply,
    };
    // The hardware address is that of the interface: `AsUsual::on`.
    let (hardware, sender) = (Mac::ZERO, sender.into());
    Ok((Network::Arp(Arp { operation, hardware, sender, target: target.into() }), target.into()))
}

fn discovery(kind: NdpKind, options: &ExplainOptions) -> Result<(Network, IpAddr), UsageError> {
    let Some(target) = options.target else {
        return Err(UsageError::new(
            "a message of neighbour discovery is about a target: say --target ADDRESS",
        ));
    };
    let ipv6 = |address: Option<IpAddr>, usual: Ipv6Addr| match address {
        None => Ok(usual),
        Some(IpAddr::V6(address)) => Ok(address),
        Some(IpAddr::V4(address)) => Err(UsageError::new(format!(
            "neighbour discovery is for IPv6, and {address} is an IPv4 address: give an IPv6 address, or ask about ARP \
             with --arp"
        ))),
    };
    let target = ipv6(Some(target), ALL_NODES)?;
    let (kind, source, destination) = match kind {
        NdpKind::Solicitation => (DiscoveryKind::Solicitation, Ipv6Addr::UNSPECIFIED, solicited_node(target)),
        NdpKind::Advertisement => (DiscoveryKind::Advertisement, target, ALL_NODES),
    };
    let (source, destination) = (ipv6(options.src, source)?, ipv6(options.dst, destination)?);
    let datagram = Datagram { source: source.into(), destination: destination.into(), protocol: 0 };
    let discovery = Discovery { kind, target: target.into() };
    Ok((Network::Ipv6(datagram, discovery), destination.into()))
}

/// The group that those listen to who have the address (RFC 4291 section 2.7.1).
fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = target.octets();
    Ipv6Addr::from([0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// Whether a packet to the address has a group's MAC address: multicast, or a broadcast of a subnet of the interface.
fn is_group(host: &Host, ifindex: u32, destination: IpAddr) -> bool {
    let is_broadcast = |address: Ipv4Addr| {
        let mut subnets =
            host.addresses.iter().filter(|own| own.ifindex == ifindex).map(|address| address.subnet);
        let of_subnet = |subnet: ipnet::IpNet| {
            subnet.prefix_len() < 31 && subnet.broadcast() == address && subnet.addr().is_ipv4()
        };
        address.is_broadcast() || subnets.any(of_subnet)
    };
    destination.is_multicast() || matches!(destination, IpAddr::V4(address) if is_broadcast(address))
}
