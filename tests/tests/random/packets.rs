//! Random packets: addresses that mean something to the host, shapes that are nearly right.

use std::net::Ipv4Addr;

use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::{Index, select},
};

use crate::oracle::{Address, Crossing, Direction, Host, Interface};

/// A packet, but for the host whose addresses it carries.
#[derive(Clone, Debug)]
pub(crate) struct PacketRecipe {
    direction: Direction,
    /// Of all interfaces, or of the enforced ones only.
    interface: (bool, Index),
    arrived: bool,
    tag_beside: u16,
    group: bool,
    macs: [u8; 12],
    tags: Vec<(u16, u16)>,
    network: Network,
    trailer: Vec<u8>,
    cut: Option<Index>,
}

#[derive(Clone, Debug)]
enum Network {
    Ipv4 { first: u8, source: Pick, destination: Pick, rest: [u8; 11], after: Vec<u8> },
    Arp { fixed: ArpFixed, sender: Pick, target: Pick, macs: [u8; 12] },
    Gratuitous { fixed: ArpFixed, address: Pick, macs: [u8; 12] },
    Other { ethertype: u16, bytes: Vec<u8> },
}

/// The fields of ARP before the addresses.
#[derive(Clone, Copy, Debug)]
struct ArpFixed {
    hardware: u16,
    protocol: u16,
    lengths: [u8; 2],
    operation: u16,
}

/// An address, by what it is to the host.
#[derive(Clone, Debug)]
enum Pick {
    /// Of the interface that the packet crosses.
    Own(Index),
    /// Of other interfaces.
    Elsewhere(Index),
    /// Close to a local one: a neighbour, a gateway, or local after all.
    Near(Index, u8),
    /// The last one of a subnet.
    SubnetBroadcast(Index),
    /// Behind a route.
    Remote(u8),
    Literal(Ipv4Addr),
}

/// A random packet.
pub(crate) fn packets() -> impl Strategy<Value = PacketRecipe> {
    let direction = select(vec![Direction::Egress, Direction::Egress, Direction::Ingress]);
    let interface = (prop::bool::weighted(0.9), any::<Index>());
    let crossing = (direction, interface, prop::bool::weighted(0.05));
    let beside = prop_oneof![16 => Just(0), 2 => priority_tag(), 1 => any::<u16>()];
    let tags = prop_oneof![
        14 => vec(tag(), 0),
        3 => vec(tag(), 1),
        1 => vec(tag(), 2),
        1 => vec(tag(), 3..=6),
    ];
    let network = prop_oneof![10 => ipv4(), 8 => arp(), 4 => gratuitous(), 1 => other()];
    let frame = (any::<bool>(), any::<[u8; 12]>(), tags, network, vec(any::<u8>(), 0..20));
    (crossing, beside, frame, option::weighted(0.05, any::<Index>())).prop_map(
        |((direction, interface, arrived), tag_beside, (group, macs, tags, network, trailer), cut)| {
            PacketRecipe {
                direction,
                interface,
                arrived,
                tag_beside,
                group,
                macs,
                tags,
                network,
                trailer,
                cut,
            }
        },
    )
}

fn priority_tag() -> impl Strategy<Value = u16> {
    (0..16u16).prop_map(|priority| priority << 12)
}

fn tag() -> impl Strategy<Value = (u16, u16)> {
    (select(vec![0x8100, 0x88a8]), prop_oneof![9 => priority_tag(), 1 => any::<u16>()])
}

fn ipv4() -> impl Strategy<Value = Network> {
    let first = prop_oneof![14 => Just(0x45), 1 => 0x46..=0x4f_u8, 1 => any::<u8>()];
    (first, pick(), pick(), any::<[u8; 11]>(), vec(any::<u8>(), 0..40)).prop_map(
        |(first, source, destination, rest, after)| Network::Ipv4 { first, source, destination, rest, after },
    )
}

fn arp() -> impl Strategy<Value = Network> {
    (arp_fixed(), pick(), pick(), any::<[u8; 12]>()).prop_map(|(fixed, sender, target, macs)| Network::Arp {
        fixed,
        sender,
        target,
        macs,
    })
}

fn gratuitous() -> impl Strategy<Value = Network> {
    (arp_fixed(), pick(), any::<[u8; 12]>()).prop_map(|(fixed, address, macs)| Network::Gratuitous {
        fixed,
        address,
        macs,
    })
}

fn arp_fixed() -> impl Strategy<Value = ArpFixed> {
    let operation = prop_oneof![7 => Just(1), 5 => Just(2), 1 => 0..12u16];
    let right = (select(vec![1, 6]), Just(0x0800), Just([6, 4]), operation.boxed());
    let nearly = (0..8u16, select(vec![0x0800, 0x0806, 0x86dd]), [5..8u8, 3..6u8], (1..=2u16).boxed());
    let build =
        |(hardware, protocol, lengths, operation)| ArpFixed { hardware, protocol, lengths, operation };
    prop_oneof![9 => right.prop_map(build), 1 => nearly.prop_map(build)]
}

fn other() -> impl Strategy<Value = Network> {
    let ethertype = prop_oneof![select(vec![0x86dd, 0x9100, 0x8035, 0x88cc, 0x0060]), any::<u16>()];
    (ethertype, vec(any::<u8>(), 0..48)).prop_map(|(ethertype, bytes)| Network::Other { ethertype, bytes })
}

fn pick() -> impl Strategy<Value = Pick> {
    let literal = |a, b, c, d| Just(Pick::Literal(Ipv4Addr::new(a, b, c, d)));
    prop_oneof![
        4 => any::<Index>().prop_map(Pick::Own),
        16 => any::<Index>().prop_map(Pick::Elsewhere),
        4 => (any::<Index>(), 0..10u8).prop_map(|(index, number)| Pick::Near(index, number)),
        1 => any::<Index>().prop_map(Pick::SubnetBroadcast),
        3 => (0..10u8).prop_map(Pick::Remote),
        1 => literal(0, 0, 0, 0),
        1 => literal(127, 0, 0, 1),
        1 => (1..=255u8).prop_map(|last| Pick::Literal(Ipv4Addr::new(127, 3, 0, last))),
        1 => (0..=255u8).prop_map(|last| Pick::Literal(Ipv4Addr::new(224, 0, 0, last))),
        1 => literal(255, 255, 255, 255),
        1 => any::<u32>().prop_map(|bits| Pick::Literal(Ipv4Addr::from_bits(bits))),
    ]
}

impl Pick {
    fn resolve(&self, host: &Host, interface: &Interface) -> Ipv4Addr {
        match self {
            Self::Own(index) => choose(index, &interface.addresses.iter().collect::<Vec<_>>()).local,
            Self::Elsewhere(index) => {
                let mut others = all_addresses(host);
                others
                    .retain(|address| !interface.addresses.contains(address) && !address.local.is_loopback());
                choose(index, &others).local
            }
            Self::Near(index, number) => {
                let near = choose(index, &all_addresses(host)).local.to_bits();
                Ipv4Addr::from_bits(near & !0xf | u32::from(*number))
            }
            Self::SubnetBroadcast(index) => {
                let address = choose(index, &all_addresses(host));
                let suffix = u32::MAX.checked_shr(u32::from(address.length)).unwrap_or(0);
                Ipv4Addr::from_bits(address.local.to_bits() | suffix)
            }
            Self::Remote(number) => Ipv4Addr::new(203, 0, 113, *number),
            Self::Literal(address) => *address,
        }
    }
}

fn all_addresses(host: &Host) -> Vec<&Address> {
    host.interfaces.iter().flat_map(|interface| &interface.addresses).collect()
}

/// One of these; where there are none, one that is foreign to nearly all hosts.
fn choose(index: &Index, addresses: &[&Address]) -> Address {
    let foreign = Address { local: Ipv4Addr::new(10, 0, 0, 250), peer: None, length: 24 };
    if addresses.is_empty() { foreign } else { **index.get(addresses) }
}

impl PacketRecipe {
    /// The packet with the addresses of `host`, across one of its interfaces.
    pub(crate) fn build(&self, host: &Host) -> Crossing {
        let enforced: Vec<&Interface> = host.interfaces.iter().filter(|i| i.policy.is_some()).collect();
        let interface = match self.interface {
            (true, index) if !enforced.is_empty() => *index.get(&enforced),
            (_, index) => index.get(&host.interfaces),
        };
        let mut frame = self.macs.to_vec();
        frame[0] = frame[0] & !1 | u8::from(self.group);
        for (protocol, tag) in &self.tags {
            frame.extend(protocol.to_be_bytes());
            frame.extend(tag.to_be_bytes());
        }
        let (ethertype, bytes) = self.network.build(|pick| pick.resolve(host, interface).octets());
        frame.extend(ethertype.to_be_bytes());
        frame.extend(bytes);
        frame.extend(&self.trailer);
        if let Some(cut) = self.cut {
            frame.truncate(cut.index(frame.len()));
        }
        Crossing {
            direction: self.direction,
            interface: interface.index,
            arrived: self.arrived,
            tag_beside: self.tag_beside,
            frame,
        }
    }
}

impl Network {
    /// The EtherType, and what follows it.
    fn build(&self, address: impl Fn(&Pick) -> [u8; 4]) -> (u16, Vec<u8>) {
        match self {
            Self::Ipv4 { first, source, destination, rest, after } => {
                let addresses = [address(source), address(destination)].concat();
                (0x0800, [&[*first][..], rest, &addresses, after].concat())
            }
            Self::Arp { fixed, sender, target, macs } => {
                (0x0806, fixed.with(macs, address(sender), address(target)))
            }
            Self::Gratuitous { fixed, address: own, macs } => {
                (0x0806, fixed.with(macs, address(own), address(own)))
            }
            Self::Other { ethertype, bytes } => (*ethertype, bytes.clone()),
        }
    }
}

impl ArpFixed {
    fn with(self, macs: &[u8; 12], sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
        let Self { hardware, protocol, lengths, operation } = self;
        [
            &hardware.to_be_bytes()[..],
            &protocol.to_be_bytes(),
            &lengths,
            &operation.to_be_bytes(),
            &macs[..6],
            &sender,
            &macs[6..],
            &target,
        ]
        .concat()
    }
}
