//! Random packets: addresses that mean something to the host, shapes that are nearly right.

use std::net::IpAddr;

use proptest::prelude::*;

use super::{
    entropy::{BYTES, Entropy, Generator},
    landmarks::{Family, Landmark, Landmarks},
};
use crate::oracle::{
    Crossing, Direction,
    frame::{ICMP, ICMPV6, IGMP},
};

/// A packet, but for the host whose addresses it carries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PacketRecipe([u8; BYTES]);

/// A random packet.
pub(crate) fn packets() -> impl Strategy<Value = PacketRecipe> {
    any::<[u8; BYTES]>().prop_map(PacketRecipe)
}

/// Ethernet's group bit, and the prefix of IPv6's groups.
const GROUP: [u8; 6] = [0x33, 0x33, 0xff, 0, 0, 1];
const STATION: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// What a network layer's header is most often followed by.
const UDP: u8 = 17;

impl PacketRecipe {
    /// The next one of a generator.
    pub(crate) fn next(generator: &mut Generator) -> Self {
        Self(generator.bytes())
    }

    /// The packet with the addresses of a host, across one of its interfaces.
    pub(crate) fn build(&self, host: &Landmarks) -> Crossing {
        let entropy = &mut Entropy::new(&self.0);
        let direction = if entropy.chance(85) { Direction::Ingress } else { Direction::Egress };
        let here = pick_interface(host, entropy);
        let arrived = entropy.chance(50);
        let decapsulated = direction == Direction::Ingress && entropy.chance(25);
        let is_ethernet = here.interface.is_ethernet;
        let (tag_beside, header) =
            if is_ethernet { ethernet(host, here, direction, entropy) } else { (0, Vec::new()) };
        let mut frame = header;
        let sender = frame.get(6..12).unwrap_or(&STATION).to_vec();
        let (protocol, network, destination) = network(host, here, &sender, is_ethernet, entropy);
        if is_ethernet {
            let is_group = destination.is_some_and(|destination| destination.is_multicast());
            if entropy.chance(if is_group { 230 } else { 70 }) {
                frame[..6].copy_from_slice(&GROUP);
            }
            frame.extend(protocol.to_be_bytes());
        }
        frame.extend(network);
        match entropy.choice(&[18, 6, 2, 2]) {
            // Padding.
            1 => frame.resize(frame.len() + usize::from(entropy.byte() % 20), 0),
            // About as long as an MTU of those that hosts have.
            2 => frame.resize(frame.len() + 1200 + usize::from(entropy.byte()), 0x5a),
            3 => frame.truncate(usize::from(entropy.byte()) % frame.len()),
            _ => {}
        }
        let interface = here.interface.index;
        Crossing { direction, interface, arrived, decapsulated, tag_beside, protocol, frame }
    }
}

/// Mostly one where something is enforced.
fn pick_interface<'a, 'b>(host: &'b Landmarks<'a>, entropy: &mut Entropy) -> &'b Landmark<'a> {
    let from_all = entropy.chance(20) || host.enforced.is_empty();
    let place = usize::from(entropy.byte());
    if from_all {
        &host.all[place % host.all.len()]
    } else {
        &host.all[host.enforced[place % host.enforced.len()]]
    }
}

/// A tag that the kernel holds beside the frame, and the start of the frame, up to the EtherType.
fn ethernet(
    host: &Landmarks,
    here: &Landmark,
    direction: Direction,
    entropy: &mut Entropy,
) -> (u16, Vec<u8>) {
    let beside = match entropy.choice(&[16, 2, 1]) {
        0 => 0,
        1 => priority_tag(entropy),
        _ => entropy.number(),
    };
    let mac = host.pick_mac(here, entropy);
    let mut header = match direction {
        Direction::Egress => [STATION, mac],
        Direction::Ingress => [mac, STATION],
    }
    .concat();
    let tags = match entropy.choice(&[140, 30, 10, 10, 5]) {
        3 => 3 + entropy.byte() % 4,
        // Around the most that are looked through.
        4 => {
            let most = 14 + usize::from(entropy.byte() % 5);
            header.extend([0x81, 0x00, 0xa0, 0x00].repeat(most));
            0
        }
        tags => tags as u8,
    };
    for _ in 0..tags {
        let protocol: u16 = if entropy.chance(128) { 0x88a8 } else { 0x8100 };
        let tag = if entropy.chance(25) { entropy.number() } else { priority_tag(entropy) };
        header.extend(protocol.to_be_bytes());
        header.extend(tag.to_be_bytes());
    }
    (beside, header)
}

fn priority_tag(entropy: &mut Entropy) -> u16 {
    u16::from(entropy.byte()) << 12
}

/// A protocol, what follows its number, and the address that this goes to, if it has one.
fn network(
    host: &Landmarks,
    here: &Landmark,
    sender: &[u8],
    is_ethernet: bool,
    entropy: &mut Entropy,
) -> (u16, Vec<u8>, Option<IpAddr>) {
    match entropy.choice(&[10, 8, 9, if is_ethernet { 10 } else { 0 }, 1]) {
        0 => ipv4(host, here, entropy),
        1 => ipv6(host, here, entropy),
        2 => discovery(host, here, entropy),
        3 => arp(host, here, sender, entropy),
        _ => other(entropy),
    }
}

fn ipv4(host: &Landmarks, here: &Landmark, entropy: &mut Entropy) -> (u16, Vec<u8>, Option<IpAddr>) {
    let first = match entropy.choice(&[14, 1, 1]) {
        0 => 0x45,
        1 => 0x45 + entropy.byte() % 11,
        _ => entropy.byte(),
    };
    let [source, destination] = [(); 2].map(|()| host.pick(here, Family::Ipv4, entropy));
    let mut packet = vec![first];
    packet.extend(entropy.filler(5));
    // Mostly not a fragment.
    let fragment = if entropy.chance(60) { entropy.number() } else { 0x4000 };
    packet.extend(fragment.to_be_bytes());
    packet.push(64);
    let protocol = match entropy.choice(&[12, 4, 4, 1]) {
        0 => UDP,
        1 => IGMP,
        2 => ICMP,
        _ => entropy.byte(),
    };
    packet.push(protocol);
    packet.extend(entropy.filler(2));
    push(&mut packet, source);
    push(&mut packet, destination);
    if protocol == ICMP {
        packet.extend(entropy.filler(usize::from(first % 16).saturating_sub(5) * 4));
        let kind = *entropy.one_of(&[3, 4, 5, 11, 12, 0, 8]).unwrap_or(&13);
        packet.extend(error(host, here, Family::Ipv4, kind, source, entropy));
    }
    let length = usize::from(entropy.byte() % 64);
    packet.extend(entropy.filler(length));
    (0x0800, packet, Some(destination))
}

fn ipv6(host: &Landmarks, here: &Landmark, entropy: &mut Entropy) -> (u16, Vec<u8>, Option<IpAddr>) {
    let [source, destination] = [(); 2].map(|()| host.pick(here, Family::Ipv6, entropy));
    let next_header = *entropy.one_of(&[17, 6, 58, 0, 44]).unwrap_or(&59);
    let mut packet = fixed_header(next_header, source, destination, entropy);
    if next_header == ICMPV6 {
        let kind = *entropy.one_of(&[1, 2, 3, 4, 128, 129]).unwrap_or(&127);
        packet.extend(error(host, here, Family::Ipv6, kind, source, entropy));
    }
    let length = usize::from(entropy.byte() % 64);
    packet.extend(entropy.filler(length));
    (0x86dd, packet, Some(destination))
}

/// An ICMP message of a type, which an error would be if it is one, about what the host or another was sent.
fn error(
    host: &Landmarks,
    here: &Landmark,
    family: Family,
    kind: u8,
    source: IpAddr,
    entropy: &mut Entropy,
) -> Vec<u8> {
    let destination = if entropy.chance(80) { source } else { host.pick(here, family, entropy) };
    let behind_header = match family {
        Family::Ipv4 => 16,
        Family::Ipv6 => 24,
    };
    let mut message = vec![kind];
    message.extend(entropy.filler(7 + behind_header));
    push(&mut message, destination);
    message
}

fn discovery(host: &Landmarks, here: &Landmark, entropy: &mut Entropy) -> (u16, Vec<u8>, Option<IpAddr>) {
    let [source, destination, target] = [(); 3].map(|()| host.pick(here, Family::Ipv6, entropy));
    let destination =
        if entropy.chance(100) { IpAddr::from([0xff02, 0, 0, 0, 0, 0, 0, 1_u16]) } else { destination };
    // The source is of the interface itself, as a rule: without that nobody would ask for the target.
    let source = if entropy.chance(100) { IpAddr::from([0_u16; 8]) } else { source };
    let kind = match entropy.choice(&[8, 8, 1]) {
        0 => 136,
        1 => 135,
        _ => 128 + entropy.byte() % 16,
    };
    let next_header = if entropy.chance(10) { 0 } else { 58 };
    let mut packet = fixed_header(next_header, source, destination, entropy);
    packet.push(kind);
    packet.extend(entropy.filler(7));
    push(&mut packet, target);
    // An option with a hardware address.
    let length = if entropy.chance(128) { 8 } else { 0 };
    packet.extend(entropy.filler(length));
    (0x86dd, packet, Some(destination))
}

fn fixed_header(next_header: u8, source: IpAddr, destination: IpAddr, entropy: &mut Entropy) -> Vec<u8> {
    let first = if entropy.chance(16) { entropy.byte() } else { 0x60 };
    let mut packet = vec![first];
    packet.extend(entropy.filler(5));
    packet.extend([next_header, 255]);
    push(&mut packet, source);
    push(&mut packet, destination);
    packet
}

fn arp(
    host: &Landmarks,
    here: &Landmark,
    hardware: &[u8],
    entropy: &mut Entropy,
) -> (u16, Vec<u8>, Option<IpAddr>) {
    let operation = match entropy.choice(&[7, 5, 1]) {
        0 => 1,
        1 => 2,
        _ => entropy.byte() % 12,
    };
    let mut packet = if entropy.chance(25) {
        let [hardware, protocol, lengths] = [entropy.byte() % 8, entropy.byte() % 2 * 6, entropy.byte() % 9];
        vec![0, hardware, 8, protocol, 5 + lengths % 3, 3 + lengths / 3, 0, operation]
    } else {
        vec![0, if entropy.chance(64) { 6 } else { 1 }, 8, 0, 6, 4, 0, operation]
    };
    let sender = host.pick(here, Family::Ipv4, entropy);
    let target = if entropy.chance(80) { sender } else { host.pick(here, Family::Ipv4, entropy) };
    // Mostly the same as in the Ethernet header.
    if entropy.chance(40) {
        packet.extend(host.pick_mac(here, entropy));
    } else {
        packet.extend(hardware);
    }
    push(&mut packet, sender);
    packet.extend(entropy.filler(6));
    push(&mut packet, target);
    (0x0806, packet, None)
}

fn other(entropy: &mut Entropy) -> (u16, Vec<u8>, Option<IpAddr>) {
    let protocol = match entropy.one_of(&[0x86dd, 0x0800, 0x9100, 0x8035, 0x88cc, 0x0060]) {
        Some(protocol) if entropy.chance(128) => *protocol,
        _ => entropy.number(),
    };
    let length = 1 + usize::from(entropy.byte() % 64);
    (protocol, entropy.filler(length).collect(), None)
}

fn push(packet: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => packet.extend(address.octets()),
        IpAddr::V6(address) => packet.extend(address.octets()),
    }
}
