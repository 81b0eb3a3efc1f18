//! The programs in the kernel against the pure decision and the oracle, without a packet on any wire.
//!
//! What they answer, what they make of the frame and what they count must be what the verdict asks for. See
//! [`kernel`] for what such a test cannot see.

mod frames;
mod kernel;
mod oracle;
mod random;
mod subject;

use std::{cell::RefCell, net::Ipv4Addr};

use anyhow::Result;
use frames::{MACS, PRIORITY_TAG, REPLY, REQUEST, TO_ALL, arp, ethernet, ipv4};
use kernel::{Cb, Counts, DROP, Kernel, PASS, REDIRECT, Trial, with_kernel};
use oracle::{
    Address, Crossing, Direction, Host, Interface, Mode, Policy, Receive, Unknown, Verdict,
    example::{
        ADDRESSLESS, ETH0, ETH1, NEIGHBOUR, OF_ETH0, OF_ETH1, OF_STORAGE, REMOTE, STORAGE, example, mac,
    },
};
use proptest::{collection::vec, prelude::any, test_runner::TestCaseError};
use random::{check, hosts, hosts::INDICES, packets, packets::PacketRecipe};

const REDIRECTING: Policy = Policy { mode: Mode::Redirect, receive: Receive::Drop, unknown: Unknown::Pass };
const DROPPING: Policy = Policy { mode: Mode::Drop, ..REDIRECTING };
const OBSERVING: Policy = Policy { mode: Mode::Observe, ..REDIRECTING };

/// Packets of the example host, all violations where they are whole.
fn violations() -> [Crossing; 6] {
    [
        egress(ETH0, ethernet(&MACS, &[], &ipv4(OF_ETH1, REMOTE))),
        egress(STORAGE, ethernet(&TO_ALL, &[], &ipv4(OF_ETH1, Ipv4Addr::BROADCAST))),
        ingress(ETH0, ethernet(&MACS, &[], &ipv4(REMOTE, OF_ETH1))),
        egress(ETH0, ethernet(&TO_ALL, &[], &arp(REQUEST, OF_ETH1, NEIGHBOUR))),
        egress(ETH0, ethernet(&MACS, &[], &arp(REPLY, OF_ETH1, NEIGHBOUR))),
        ingress(STORAGE, ethernet(&TO_ALL, &[], &arp(REQUEST, NEIGHBOUR, OF_ETH0))),
    ]
}

fn egress(interface: u32, frame: Vec<u8>) -> Crossing {
    Crossing { direction: Direction::Egress, interface, arrived: false, tag_beside: 0, frame }
}

fn ingress(interface: u32, frame: Vec<u8>) -> Crossing {
    Crossing { direction: Direction::Ingress, ..egress(interface, frame) }
}

#[test]
fn random_packets_on_random_hosts_fare_as_the_oracle_says() -> Result<()> {
    with_kernel(|kernel| {
        let kernel = RefCell::new(kernel);
        let packets = vec((packets(), any::<Cb>()), 1..200);
        check(300, &(hosts(), packets), |(host, recipes)| {
            try_random(&mut kernel.borrow_mut(), host, &recipes)
                .map_err(|error| TestCaseError::fail(format!("{error:#}")))
        })
    })
}

fn try_random(kernel: &mut Kernel, host: Host, recipes: &[(PacketRecipe, Cb)]) -> Result<()> {
    let mut trial = Trial::new(kernel, host)?;
    for (recipe, cb) in recipes {
        let crossing = Crossing { tag_beside: 0, ..recipe.build(&trial.host) };
        trial.run_unless_refused(&crossing, *cb)?;
    }
    trial.finish()?;
    Ok(())
}

#[test]
fn frames_of_every_length_are_judged_when_their_headers_are_whole() -> Result<()> {
    with_kernel(|kernel| {
        for policy in [REDIRECTING, DROPPING, OBSERVING] {
            for tags in 0..=5 {
                for violation in violations() {
                    let mut trial = Trial::new(kernel, example(policy))?;
                    let header = if violation.frame[13] == 0 { 20 } else { 28 };
                    let mut judged = 0;
                    for length in 0..=60 {
                        let crossing = with_tags(&violation, tags, length);
                        let Some(verdict) = trial.run_unless_refused(&crossing, [0; 20])? else { continue };
                        let is_whole = tags <= 4 && length >= 14 + 4 * tags + header;
                        assert_eq!(verdict != Verdict::Pass, is_whole, "{crossing:?}");
                        judged += u64::from(is_whole);
                    }
                    assert_eq!(trial.finish()?, judged);
                }
            }
        }
        Ok(())
    })
}

/// A frame with priority tags before its EtherType, cut or padded to `length`.
fn with_tags(crossing: &Crossing, tags: usize, length: usize) -> Crossing {
    let (macs, network) = crossing.frame.split_at(12);
    let mut frame = [macs, &PRIORITY_TAG.repeat(tags), network].concat();
    frame.resize(length, 0);
    Crossing { frame, ..crossing.clone() }
}

#[test]
fn ipv4_of_every_version_and_header_length_is_judged_when_both_are_right() -> Result<()> {
    with_kernel(|kernel| {
        for violation in violations().into_iter().filter(|violation| violation.frame[13] == 0) {
            let mut trial = Trial::new(kernel, example(REDIRECTING))?;
            for first in 0..=u8::MAX {
                let mut crossing = violation.clone();
                crossing.frame[14] = first;
                let verdict = trial.run(&crossing, [0; 20])?;
                assert_eq!(verdict != Verdict::Pass, (0x45..=0x4f).contains(&first), "{first:#x}");
            }
            assert_eq!(trial.finish()?, 11);
        }
        Ok(())
    })
}

#[test]
fn arp_is_judged_when_it_is_for_ipv4_over_ethernet_and_asks_or_answers() -> Result<()> {
    with_kernel(|kernel| {
        for violation in violations().into_iter().filter(|violation| violation.frame[13] == 6) {
            let mut trial = Trial::new(kernel, example(REDIRECTING))?;
            // Hardware type, protocol type, both lengths, operation.
            for (offset, right) in [(14, &[1, 6][..]), (16, &[0x0800]), (18, &[0x0604]), (20, &[1, 2])] {
                for value in (0..0x1000).chain((0..=0xff).map(|high| high << 8)) {
                    let mut crossing = violation.clone();
                    crossing.frame[offset..offset + 2].copy_from_slice(&u16::to_be_bytes(value));
                    let verdict = trial.run(&crossing, [0; 20])?;
                    assert_eq!(verdict != Verdict::Pass, right.contains(&value), "{offset}: {value:#x}");
                }
            }
            trial.finish()?;
        }
        Ok(())
    })
}

#[test]
fn every_ethertype_but_ipv4_and_arp_passes() -> Result<()> {
    with_kernel(|kernel| {
        let [datagram, .., question] = violations();
        let mut trial = Trial::new(kernel, example(REDIRECTING))?;
        for (violation, judged) in [(datagram, 0x0800), (question, 0x0806)] {
            for ethertype in 0..=u16::MAX {
                let mut crossing = violation.clone();
                crossing.frame.resize(54, 0);
                crossing.frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
                // Read as a tag, the first bytes of either are one of a VLAN.
                let verdict = trial.run(&crossing, [0; 20])?;
                assert_eq!(verdict != Verdict::Pass, ethertype == judged, "{ethertype:#x}");
            }
        }
        assert_eq!(trial.finish()?, 2);
        Ok(())
    })
}

#[test]
fn what_is_forwarded_passes_and_is_not_counted() -> Result<()> {
    with_kernel(|kernel| {
        let mut trial = Trial::new(kernel, example(REDIRECTING))?;
        for violation in violations().into_iter().filter(|v| v.direction == Direction::Egress) {
            assert_eq!(trial.run(&Crossing { arrived: true, ..violation }, [0; 20])?, Verdict::Pass);
        }
        assert_eq!(trial.finish()?, 0);
        Ok(())
    })
}

#[test]
fn what_passes_is_not_counted() -> Result<()> {
    with_kernel(|kernel| {
        let mut trial = Trial::new(kernel, example(REDIRECTING))?;
        for network in [
            ipv4(OF_ETH0, REMOTE),
            ipv4(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST),
            ipv4(REMOTE, OF_ETH0),
            arp(REQUEST, OF_ETH0, NEIGHBOUR),
            arp(REPLY, OF_ETH0, NEIGHBOUR),
            arp(REQUEST, Ipv4Addr::UNSPECIFIED, OF_ETH0),
        ] {
            let frame = ethernet(&MACS, &[], &network);
            assert_eq!(trial.run(&egress(ETH0, frame.clone()), [0; 20])?, Verdict::Pass);
        }
        for network in [ipv4(REMOTE, OF_ETH0), arp(REQUEST, NEIGHBOUR, OF_ETH0), ipv4(REMOTE, NEIGHBOUR)] {
            assert_eq!(trial.run(&ingress(ETH0, ethernet(&MACS, &[], &network)), [0; 20])?, Verdict::Pass);
        }
        assert_eq!(trial.finish()?, 0);
        assert_eq!(kernel.counts()?, Counts::new());
        Ok(())
    })
}

#[test]
fn interfaces_without_an_entry_pass_everything() -> Result<()> {
    with_kernel(|kernel| {
        let mut host = example(REDIRECTING);
        host.interfaces.retain(|interface| ![ETH0, STORAGE].contains(&interface.index));
        let mut trial = Trial::new(kernel, host)?;
        for violation in violations() {
            assert_eq!(trial.run(&violation, [0; 20])?, Verdict::Pass);
        }
        assert_eq!(trial.finish()?, 0);
        Ok(())
    })
}

/// The programs keep eight addresses with an interface and four owners with an address. This one is the ninth
/// of seven interfaces, which have it in the same subnet as their others.
#[test]
fn an_address_of_many_on_many_interfaces_is_owned_by_each() -> Result<()> {
    with_kernel(|kernel| {
        let shared = Ipv4Addr::new(10, 0, 0, 200);
        let mut host = example(REDIRECTING);
        host.interfaces.truncate(2);
        let template = host.interfaces[1].clone();
        for index in INDICES.into_iter().filter(|index| *index != ETH0).take(7) {
            let first = 8 * host.interfaces.len() as u8;
            let own = (first..first + 8).map(|number| Ipv4Addr::new(10, 0, 0, number));
            let addresses = own.chain([shared]).map(|local| Address { local, peer: None, length: 24 });
            host.interfaces.push(Interface { index, addresses: addresses.collect(), ..template.clone() });
        }
        let owners: Vec<u32> = host.interfaces[2..].iter().map(|interface| interface.index).collect();
        let mut trial = Trial::new(kernel, host)?;
        let to_all = ethernet(&TO_ALL, &[], &ipv4(shared, Ipv4Addr::BROADCAST));
        let request = ethernet(&TO_ALL, &[], &arp(REQUEST, NEIGHBOUR, shared));
        for owner in owners {
            assert_eq!(trial.run(&egress(owner, to_all.clone()), [0; 20])?, Verdict::Pass);
            assert_eq!(trial.run(&ingress(owner, request.clone()), [0; 20])?, Verdict::Pass);
        }
        assert_ne!(trial.run(&egress(ETH0, to_all), [0; 20])?, Verdict::Pass);
        assert_ne!(trial.run(&ingress(ETH0, request), [0; 20])?, Verdict::Pass);
        assert_eq!(trial.finish()?, 2);
        Ok(())
    })
}

#[test]
fn a_packet_is_redirected_only_once() -> Result<()> {
    with_kernel(|kernel| {
        kernel.write(&subject::tables(&example(REDIRECTING)))?;
        let [to_neighbour, to_group, ..] = violations();
        for crossing in [to_neighbour, to_group] {
            let first = kernel.run(&crossing, [0; 20])??;
            assert_eq!(first.code, REDIRECT);
            // The same packet comes by again, as if the address had moved in the meantime.
            let second = kernel.run(&crossing, first.cb)??;
            assert_eq!((second.code, &second.frame), (DROP, &crossing.frame));
            let key = |reason| (crossing.interface, Direction::Egress, "ipv4", reason, false);
            let counts = kernel.counts()?;
            assert_eq!((counts[&key("redirected")], counts[&key("loop")]), (1, 1), "{counts:?}");
            // It is a redirect that does not happen twice; where its source is right, it passes.
            let own = egress(ETH1, crossing.frame);
            assert_eq!(kernel.run(&own, first.cb)??.code, PASS);
        }
        Ok(())
    })
}

#[test]
fn a_packet_too_large_for_its_owner_is_answered_instead() -> Result<()> {
    with_kernel(|kernel| {
        let mut trial = Trial::new(kernel, example(REDIRECTING))?;
        let mut run = |from, tags: &[_], length| {
            let mut frame = ethernet(&MACS, tags, &ipv4(OF_ETH1, REMOTE));
            frame.resize(14 + 4 * tags.len() + length, 0x5a);
            trial.run(&egress(from, frame), [0; 20])
        };
        // The owner's MTU is 1500 bytes. A sender keeps to the MTU of the interface that its packet is routed
        // to, so one of 1500 bytes there needs no look at the packet.
        for tags in [&[][..], &[PRIORITY_TAG]] {
            for (from, length) in [(ETH0, 1500), (ETH0, 1501), (ETH0, 3000), (ADDRESSLESS, 1501)] {
                run(from, tags, length)?;
            }
        }
        let counts = trial.counts.clone();
        trial.finish()?;
        let key = |from, reason| (from, Direction::Egress, "ipv4", reason, false);
        assert_eq!(counts[&key(ETH0, "too_big")], 4);
        assert_eq!(counts[&key(ETH0, "redirected")], 2);
        assert_eq!(counts[&key(ADDRESSLESS, "redirected")], 2);
        Ok(())
    })
}

#[test]
fn a_packet_to_be_segmented_is_as_large_as_its_segments() -> Result<()> {
    with_kernel(|kernel| {
        kernel.write(&subject::tables(&example(REDIRECTING)))?;
        for (protocol, transport_length) in [(6, 32), (17, 8)] {
            for options in [0, 4, 40] {
                let mut frame = ethernet(&MACS, &[], &ipv4(OF_ETH1, REMOTE));
                frame.resize(3000, 0);
                frame[14] += options / 4;
                frame[14 + 9] = protocol;
                // The length of a TCP header; in UDP's place there is payload.
                frame[14 + 20 + usize::from(options) + 12] = 0x80;
                let fits = 1500 - 20 - u32::from(options) - transport_length;
                let crossing = egress(ETH0, frame);
                let small = kernel.run_segmented(&crossing, [0; 20], fits)??;
                assert_eq!((small.code, small.frame), (REDIRECT, crossing.frame.clone()));
                let large = kernel.run_segmented(&crossing, [0; 20], fits + 1)??;
                assert_eq!((large.code, large.frame[23]), (REDIRECT, 1), "this should be an ICMP message");
            }
        }
        Ok(())
    })
}

#[test]
fn priority_tags_are_taken_off_for_a_neighbour_and_kept_for_a_group() -> Result<()> {
    with_kernel(|kernel| {
        kernel.write(&subject::tables(&example(REDIRECTING)))?;
        let datagram = ipv4(OF_STORAGE, OF_STORAGE);
        let own_mac = [&MACS[..6], &mac(STORAGE)].concat();
        for tags in 0..=4 {
            let tags = vec![PRIORITY_TAG; tags];
            let to_neighbour = kernel.run(&egress(ETH0, ethernet(&MACS, &tags, &datagram)), [0; 20])??;
            assert_eq!(to_neighbour.code, REDIRECT);
            assert_eq!(to_neighbour.frame, ethernet(&MACS, &[], &datagram));
            let to_group = kernel.run(&egress(ETH0, ethernet(&TO_ALL, &tags, &datagram)), [0; 20])??;
            assert_eq!(to_group.code, REDIRECT);
            assert_eq!(to_group.frame[6..12], own_mac[6..]);
            assert_eq!(to_group.frame[12..], ethernet(&TO_ALL, &tags, &datagram)[12..]);
        }
        Ok(())
    })
}

#[test]
fn an_arp_request_for_another_interface_asks_as_the_interface_itself() -> Result<()> {
    with_kernel(|kernel| {
        kernel.write(&subject::tables(&example(REDIRECTING)))?;
        for (interface, sender) in
            [(ETH0, OF_ETH0), (STORAGE, OF_STORAGE), (ADDRESSLESS, Ipv4Addr::UNSPECIFIED)]
        {
            for tags in [&[][..], &[PRIORITY_TAG]] {
                let request = |sender| ethernet(&TO_ALL, tags, &arp(REQUEST, sender, NEIGHBOUR));
                let ran = kernel.run(&egress(interface, request(OF_ETH1)), [0; 20])??;
                assert_eq!((ran.code, ran.frame), (PASS, request(sender)));
            }
        }
        Ok(())
    })
}
