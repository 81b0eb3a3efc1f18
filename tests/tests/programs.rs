//! The programs in the kernel against the pure decision and the oracle, without a packet on any wire.
//!
//! What they answer, what they make of the frame and what they count must be what the verdict asks for. See
//! [`kernel`] for what such a test cannot see.

mod actions;
mod explained;
mod filtered;
mod frames;
mod kernel;
mod long_run;
mod oracle;
mod random;
mod remembered;
mod reported;
mod sampled;
mod shapes;
mod subject;

use std::{
    cell::RefCell,
    net::{Ipv4Addr, Ipv6Addr},
};

use anyhow::Result;
use frames::{MACS, REPLY, REQUEST, TO_ALL, advertisement, arp, ethernet, ip, ipv4, solicitation};
use kernel::{Cb, Counts, Kernel, Trial, offset_of_content, with_kernel};
use mhebpf_tests::features::{self, Feature};
use oracle::{
    Address, Crossing, Direction, Host, Interface, Policy, Verdict,
    example::{
        ETH0, ETH1, LINK_LOCAL, NEIGHBOUR, NEIGHBOUR_6, OF_ETH0, OF_ETH0_6, OF_ETH1, OF_ETH1_6, OF_RED,
        OF_RED1_6, OF_STORAGE_6, RED1, REMOTE, REMOTE_6, ROUTED_TO_ETH1, ROUTED_TO_ETH1_6, ROUTED_TO_LO,
        ROUTED_TO_LO_6, STORAGE, example, mac,
    },
};
use proptest::{collection::vec, prelude::any, test_runner::TestCaseError};
use random::{Landmarks, check, hosts, hosts::INDICES, packets, packets::PacketRecipe};

/// A multicast address with the scope of a link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Packets of the example host, all violations where they are whole: of IPv4, IPv6, neighbour discovery and
/// ARP.
fn violations() -> [Crossing; 11] {
    [
        egress(ETH0, ethernet(&MACS, &[], &ipv4(OF_ETH1, REMOTE))),
        egress(STORAGE, ethernet(&TO_ALL, &[], &ipv4(OF_ETH1, Ipv4Addr::BROADCAST))),
        ingress(ETH0, ethernet(&MACS, &[], &ipv4(REMOTE, OF_ETH1))),
        egress(ETH0, ethernet(&MACS, &[], &ip(OF_ETH1_6, REMOTE_6))),
        egress(STORAGE, ethernet(&TO_ALL, &[], &ip(OF_ETH1_6, ALL_NODES))),
        ingress(ETH0, ethernet(&MACS, &[], &ip(REMOTE_6, OF_ETH1_6))),
        egress(ETH0, ethernet(&TO_ALL, &[], &advertisement(OF_ETH0_6, ALL_NODES, OF_ETH1_6))),
        ingress(ETH0, ethernet(&TO_ALL, &[], &solicitation(NEIGHBOUR_6, ALL_NODES, OF_ETH1_6))),
        egress(ETH0, ethernet(&TO_ALL, &[], &arp(REQUEST, OF_ETH1, NEIGHBOUR))),
        egress(ETH0, ethernet(&MACS, &[], &arp(REPLY, OF_ETH1, NEIGHBOUR))),
        ingress(STORAGE, ethernet(&TO_ALL, &[], &arp(REQUEST, NEIGHBOUR, OF_ETH0))),
    ]
}

/// How many of the violations are datagrams of IPv4, of IPv6, and discovery; the others are ARP.
const DATAGRAMS: usize = 3;

fn egress(interface: u32, mut frame: Vec<u8>) -> Crossing {
    // It comes from the hardware address of the interface.
    sign(&mut frame, mac(interface));
    let protocol = u16::from_be_bytes([frame[12], frame[13]]);
    Crossing {
        direction: Direction::Egress,
        interface,
        arrived: false,
        decapsulated: false,
        tag_beside: 0,
        protocol,
        frame,
    }
}

/// Puts a hardware address in as the source, of the frame and of ARP.
fn sign(frame: &mut [u8], mac: [u8; 6]) {
    frame[6..12].copy_from_slice(&mac);
    let arp = offset_of_content(frame);
    if frame[arp - 2..arp] == [0x08, 0x06] {
        frame[arp + 8..arp + 14].copy_from_slice(&mac);
    }
}

fn ingress(interface: u32, frame: Vec<u8>) -> Crossing {
    let protocol = u16::from_be_bytes([frame[12], frame[13]]);
    Crossing {
        direction: Direction::Ingress,
        interface,
        arrived: false,
        decapsulated: false,
        tag_beside: 0,
        protocol,
        frame,
    }
}

/// A packet as `BPF_PROG_TEST_RUN` can show it to a program.
fn testable(crossing: Crossing) -> Crossing {
    Crossing { tag_beside: 0, decapsulated: false, ..crossing }
}

#[test]
fn random_packets_on_random_hosts_fare_as_the_oracle_says() -> Result<()> {
    with_kernel(|kernel| {
        let kernel = RefCell::new(kernel);
        let packets = vec((packets(), any::<Cb>()), 1..200);
        check(300, &(hosts(), packets), |(host, recipes)| {
            try_random(&mut kernel.borrow_mut(), &host, &recipes)
                .map_err(|error| TestCaseError::fail(format!("{error:#}")))
        })
    })
}

fn try_random(kernel: &mut Kernel, host: &Host, recipes: &[(PacketRecipe, Cb)]) -> Result<()> {
    let landmarks = Landmarks::new(host);
    let mut trial = Trial::watching(kernel, host.clone())?;
    for (recipe, cb) in recipes {
        trial.run_unless_refused(&testable(recipe.build(&landmarks)), *cb)?;
    }
    trial.finish()?;
    Ok(())
}

/// What is forwarded is judged like what is sent; with another hardware address it is bridged.
#[test]
fn what_is_bridged_passes_and_what_is_forwarded_is_judged() -> Result<()> {
    if !features::require(Feature::TestRunIngressIfindex)? {
        return Ok(());
    }
    with_kernel(|kernel| {
        let mut trial = Trial::new(kernel, example(&Policy::STRONG))?;
        let mut judged = 0;
        for violation in violations().into_iter().filter(|v| v.direction == Direction::Egress) {
            let mut crossing = Crossing { arrived: true, ..violation };
            assert_ne!(trial.run(&crossing, [0; 20])?, Verdict::Pass);
            judged += 1;
            sign(&mut crossing.frame, [2, 0, 0, 0, 0, 1]);
            assert_eq!(trial.run(&crossing, [0; 20])?, Verdict::Pass);
        }
        assert_eq!(trial.finish()?, judged);
        Ok(())
    })
}

#[test]
fn what_passes_is_not_counted() -> Result<()> {
    with_kernel(|kernel| {
        let mut trial = Trial::new(kernel, example(&Policy::STRONG))?;
        for (interface, network) in [
            (ETH0, ipv4(OF_ETH0, REMOTE)),
            (ETH0, ipv4(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST)),
            (ETH0, ipv4(REMOTE, OF_ETH0)),
            (RED1, ipv4(OF_RED, REMOTE)),
            (ETH0, arp(REQUEST, OF_ETH0, NEIGHBOUR)),
            (ETH0, arp(REPLY, OF_ETH0, NEIGHBOUR)),
            (ETH0, arp(REQUEST, Ipv4Addr::UNSPECIFIED, OF_ETH0)),
            (ETH0, ip(OF_ETH0_6, REMOTE_6)),
            (ETH0, ip(ROUTED_TO_LO_6, REMOTE_6)),
            (ETH1, ip(ROUTED_TO_ETH1_6, REMOTE_6)),
            (RED1, ip(ROUTED_TO_ETH1_6, REMOTE_6)),
            (ETH0, ipv4(ROUTED_TO_LO, REMOTE)),
            (STORAGE, ip(LINK_LOCAL, ALL_NODES)),
            (RED1, ip(OF_RED1_6, REMOTE_6)),
            (ETH0, solicitation(OF_ETH0_6, ALL_NODES, OF_ETH1_6)),
            (ETH0, advertisement(LINK_LOCAL, ALL_NODES, OF_ETH0_6)),
            (ETH0, advertisement(OF_ETH0_6, ALL_NODES, REMOTE_6)),
        ] {
            let frame = ethernet(&MACS, &[], &network);
            assert_eq!(trial.run(&egress(interface, frame), [0; 20])?, Verdict::Pass);
        }
        for (interface, network) in [
            (ETH0, ipv4(REMOTE, OF_ETH0)),
            (ETH0, arp(REQUEST, NEIGHBOUR, OF_ETH0)),
            (ETH0, ipv4(REMOTE, NEIGHBOUR)),
            (ETH1, ipv4(REMOTE, ROUTED_TO_ETH1)),
            (RED1, ipv4(REMOTE, ROUTED_TO_ETH1)),
            (ETH0, ip(REMOTE_6, OF_ETH0_6)),
            (STORAGE, ip(NEIGHBOUR_6, LINK_LOCAL)),
            (STORAGE, ip(REMOTE_6, OF_STORAGE_6)),
            (ETH0, solicitation(NEIGHBOUR_6, ALL_NODES, LINK_LOCAL)),
            (ETH0, advertisement(NEIGHBOUR_6, ALL_NODES, OF_ETH1_6)),
        ] {
            let frame = ethernet(&MACS, &[], &network);
            assert_eq!(trial.run(&ingress(interface, frame), [0; 20])?, Verdict::Pass);
        }
        assert_eq!(trial.finish()?, 0);
        assert_eq!(kernel.counts()?, Counts::new());
        Ok(())
    })
}

#[test]
fn interfaces_without_an_entry_pass_everything() -> Result<()> {
    with_kernel(|kernel| {
        let mut host = example(&Policy::STRONG);
        host.interfaces.retain(|interface| ![ETH0, STORAGE].contains(&interface.index));
        let mut trial = Trial::new(kernel, host)?;
        for violation in violations() {
            assert_eq!(trial.run(&violation, [0; 20])?, Verdict::Pass);
        }
        assert_eq!(trial.finish()?, 0);
        Ok(())
    })
}

/// The programs keep eight addresses of each family with an interface and four owners with an address. This
/// one is the ninth of seven interfaces, which have it in the same subnet as their others.
#[test]
fn an_address_of_many_on_many_interfaces_is_owned_by_each() -> Result<()> {
    with_kernel(|kernel| {
        let shared = Ipv4Addr::new(10, 0, 0, 200);
        let shared6 = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 200);
        let mut host = example(&Policy::STRONG);
        host.interfaces.truncate(2);
        let template = host.interfaces[1].clone();
        for index in INDICES.into_iter().filter(|index| *index != ETH0).take(7) {
            let first = 8 * host.interfaces.len() as u8;
            let numbers = (first..first + 8).chain([200]);
            let addresses = numbers.flat_map(|number| {
                let (ipv4, ipv6) = (Ipv4Addr::new(10, 0, 0, number), Ipv6Addr::from(shared6.to_bits() - 200));
                let ipv6 = Ipv6Addr::from(ipv6.to_bits() + u128::from(number));
                [
                    Address { local: ipv4.into(), peer: None, length: 24 },
                    Address { local: ipv6.into(), peer: None, length: 64 },
                ]
            });
            host.interfaces.push(Interface { index, addresses: addresses.collect(), ..template.clone() });
        }
        let owners: Vec<u32> = host.interfaces[2..].iter().map(|interface| interface.index).collect();
        let mut trial = Trial::new(kernel, host)?;
        let sent = [
            ethernet(&TO_ALL, &[], &ipv4(shared, Ipv4Addr::BROADCAST)),
            ethernet(&TO_ALL, &[], &ip(shared6, ALL_NODES)),
            ethernet(&TO_ALL, &[], &advertisement(shared6, ALL_NODES, shared6)),
        ];
        let received = [
            ethernet(&TO_ALL, &[], &arp(REQUEST, NEIGHBOUR, shared)),
            ethernet(&MACS, &[], &ip(NEIGHBOUR_6, shared6)),
            ethernet(&TO_ALL, &[], &solicitation(NEIGHBOUR_6, ALL_NODES, shared6)),
        ];
        for owner in owners {
            for (sent, received) in sent.iter().zip(&received) {
                assert_eq!(trial.run(&egress(owner, sent.clone()), [0; 20])?, Verdict::Pass);
                assert_eq!(trial.run(&ingress(owner, received.clone()), [0; 20])?, Verdict::Pass);
            }
        }
        for (sent, received) in sent.iter().zip(&received) {
            assert_ne!(trial.run(&egress(ETH0, sent.clone()), [0; 20])?, Verdict::Pass);
            assert_ne!(trial.run(&ingress(ETH0, received.clone()), [0; 20])?, Verdict::Pass);
        }
        assert_eq!(trial.finish()?, 6);
        Ok(())
    })
}
