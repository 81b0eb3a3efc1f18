//! What the programs do to a packet that is a violation.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;
use mhebpf_tests::stay_on_one_cpu;

use crate::{
    ALL_NODES, egress,
    frames::{MACS, PRIORITY_TAG, REQUEST, TO_ALL, arp, ethernet, icmp_error, ip},
    kernel::{DROP, Kernel, PASS, REDIRECT, Trial, with_kernel},
    oracle::{
        Direction, Policy, Verdict,
        example::{
            ADDRESSLESS, BEYOND_TUNNEL, ETH0, ETH1, NEIGHBOUR, NEIGHBOUR_6, OF_ETH0, OF_ETH1, OF_ETH1_6,
            OF_STORAGE, OF_STORAGE_6, OF_TUNNEL, OF_TUNNEL_6, REMOTE, REMOTE_6, STORAGE, example, mac,
        },
        frame::IGMP,
    },
    subject, violations,
};

/// The families with an address of ETH1 and one far away.
const FAMILIES: [(&str, IpAddr, IpAddr); 2] = [
    ("ipv4", IpAddr::V4(OF_ETH1), IpAddr::V4(REMOTE)),
    ("ipv6", IpAddr::V6(OF_ETH1_6), IpAddr::V6(REMOTE_6)),
];

#[test]
fn a_packet_is_redirected_only_once() -> Result<()> {
    with_kernel(|kernel| {
        kernel.write(&subject::tables(&example(&Policy::STRONG)))?;
        let [to_neighbour, to_group, _, to_neighbour6, to_group6, ..] = violations();
        for (crossing, family) in
            [(to_neighbour, "ipv4"), (to_group, "ipv4"), (to_neighbour6, "ipv6"), (to_group6, "ipv6")]
        {
            let first = kernel.run(&crossing, [0; 20])??;
            assert_eq!(first.code, REDIRECT);
            // The same packet comes by again, as if the address had moved in the meantime.
            let second = kernel.run(&crossing, first.cb)??;
            assert_eq!((second.code, &second.frame), (DROP, &crossing.frame));
            let key = |reason| (crossing.interface, Direction::Egress, family, reason, false);
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
        for (family, source, destination) in FAMILIES {
            let mut trial = Trial::new(kernel, example(&Policy::STRONG))?;
            let before = trial.counts.clone();
            let mut run = |from, tags: &[_], length| {
                let mut frame = ethernet(&MACS, tags, &ip(source, destination));
                frame.resize(14 + 4 * tags.len() + length, 0x5a);
                trial.run(&egress(from, frame), [0; 20])
            };
            // The owner's MTU is 1500 bytes. A sender keeps to the MTU of the interface that its packet is
            // routed to, so one of 1500 bytes there needs no look at the packet.
            for tags in [&[][..], &[PRIORITY_TAG]] {
                for (from, length) in [(ETH0, 1500), (ETH0, 1501), (ETH0, 3000), (ADDRESSLESS, 1501)] {
                    run(from, tags, length)?;
                }
            }
            let counts = trial.counts.clone();
            trial.finish()?;
            let counted = |from, reason| {
                let key = (from, Direction::Egress, family, reason, false);
                counts[&key] - before.get(&key).unwrap_or(&0)
            };
            assert_eq!(counted(ETH0, "too_big"), 4);
            assert_eq!(counted(ETH0, "redirected"), 2);
            assert_eq!(counted(ADDRESSLESS, "redirected"), 2);
        }
        Ok(())
    })
}

/// The kernel takes the Ethernet header off where the owner has none.
#[test]
fn a_packet_for_an_owner_without_ethernet_headers_has_no_tags() -> Result<()> {
    with_kernel(|kernel| {
        let mut trial = Trial::new(kernel, example(&Policy::STRONG))?;
        for (source, destination, group) in [
            (IpAddr::V4(OF_TUNNEL), IpAddr::V4(OF_TUNNEL), IpAddr::V4(Ipv4Addr::BROADCAST)),
            (IpAddr::V6(OF_TUNNEL_6), IpAddr::V6(OF_TUNNEL_6), IpAddr::V6(ALL_NODES)),
        ] {
            for tags in 0..=4 {
                let tags = vec![PRIORITY_TAG; tags];
                let mut frame = ethernet(&MACS, &tags, &ip(source, destination));
                trial.run(&egress(ETH0, frame.clone()), [0; 20])?;
                frame.resize(2000, 0x5a);
                trial.run(&egress(ETH0, frame), [0; 20])?;
                trial.run(&egress(ETH0, ethernet(&TO_ALL, &tags, &ip(source, group))), [0; 20])?;
            }
        }
        // By a gateway of IPv6.
        let verdict =
            trial.run(&egress(ETH0, ethernet(&MACS, &[], &ip(OF_TUNNEL, BEYOND_TUNNEL))), [0; 20])?;
        assert!(matches!(verdict, Verdict::Violation { reason: "redirected", .. }));
        assert_eq!(trial.finish()?, 31);
        Ok(())
    })
}

#[test]
fn a_packet_to_be_segmented_is_as_large_as_its_segments() -> Result<()> {
    with_kernel(|kernel| {
        kernel.write(&subject::tables(&example(&Policy::STRONG)))?;
        for (protocol, transport_length) in [(6, 32), (17, 8)] {
            for options in [0, 4, 40] {
                let mut frame = ethernet(&MACS, &[], &ip(OF_ETH1, REMOTE));
                frame.resize(3000, 0);
                frame[14] += options / 4;
                frame[14 + 9] = protocol;
                // The length of a TCP header; in UDP's place there is payload.
                frame[14 + 20 + usize::from(options) + 12] = 0x80;
                let fits = 1500 - 20 - u32::from(options) - transport_length;
                expect_segments_to_fit(kernel, frame, fits)?;
            }
            let mut frame = ethernet(&MACS, &[], &ip(OF_ETH1_6, REMOTE_6));
            frame.resize(3000, 0);
            frame[14 + 6] = protocol;
            frame[14 + 40 + 12] = 0x80;
            expect_segments_to_fit(kernel, frame, 1500 - 40 - transport_length)?;
        }
        Ok(())
    })
}

/// Segments of so many bytes are sent, and with one more they are not.
fn expect_segments_to_fit(kernel: &mut Kernel, frame: Vec<u8>, fits: u32) -> Result<()> {
    let crossing = egress(ETH0, frame);
    let small = kernel.run_segmented(&crossing, [0; 20], fits)??;
    assert_eq!((small.code, small.frame), (REDIRECT, crossing.frame.clone()));
    let large = kernel.run_segmented(&crossing, [0; 20], fits + 1)??;
    let protocol = if crossing.protocol == 0x0800 { large.frame[14 + 9] } else { large.frame[14 + 6] };
    assert_eq!(large.code, REDIRECT);
    assert!([1, 58].contains(&protocol), "this should be an ICMP message: {:?}", large.frame);
    Ok(())
}

#[test]
fn priority_tags_are_taken_off_for_a_neighbour_and_kept_for_a_group() -> Result<()> {
    with_kernel(|kernel| {
        kernel.write(&subject::tables(&example(&Policy::STRONG)))?;
        let own_mac = [&MACS[..6], &mac(STORAGE)].concat();
        for datagram in [ip(OF_STORAGE, OF_STORAGE), ip(OF_STORAGE_6, OF_STORAGE_6)] {
            for tags in 0..=4 {
                let tags = vec![PRIORITY_TAG; tags];
                let to_neighbour =
                    kernel.run(&egress(ETH0, ethernet(&MACS, &tags, &datagram)), [0; 20])??;
                assert_eq!(to_neighbour.code, REDIRECT);
                assert_eq!(to_neighbour.frame, egress(ETH0, ethernet(&MACS, &[], &datagram)).frame);
                let to_group = kernel.run(&egress(ETH0, ethernet(&TO_ALL, &tags, &datagram)), [0; 20])??;
                assert_eq!(to_group.code, REDIRECT);
                assert_eq!(to_group.frame[6..12], own_mac[6..]);
                assert_eq!(to_group.frame[12..], ethernet(&TO_ALL, &tags, &datagram)[12..]);
            }
        }
        Ok(())
    })
}

#[test]
fn an_arp_request_for_another_interface_asks_as_the_interface_itself() -> Result<()> {
    with_kernel(|kernel| {
        kernel.write(&subject::tables(&example(&Policy::STRONG)))?;
        for (interface, sender) in
            [(ETH0, OF_ETH0), (STORAGE, OF_STORAGE), (ADDRESSLESS, Ipv4Addr::UNSPECIFIED)]
        {
            for tags in [&[][..], &[PRIORITY_TAG]] {
                let request = |sender| ethernet(&TO_ALL, tags, &arp(REQUEST, sender, NEIGHBOUR));
                let ran = kernel.run(&egress(interface, request(OF_ETH1)), [0; 20])??;
                assert_eq!((ran.code, ran.frame), (PASS, egress(interface, request(sender)).frame));
            }
        }
        Ok(())
    })
}

/// Be it known as a flow that is redirected or not.
#[test]
fn an_icmp_error_about_others_leaves_with_an_own_address() -> Result<()> {
    with_kernel(|kernel| {
        stay_on_one_cpu()?;
        let mut trial = Trial::new(kernel, example(&Policy::STRONG))?;
        for (source, destination, other) in [
            (IpAddr::from(OF_ETH1), IpAddr::from(REMOTE), IpAddr::from(NEIGHBOUR)),
            (OF_ETH1_6.into(), REMOTE_6.into(), NEIGHBOUR_6.into()),
        ] {
            for tags in [&[][..], &[PRIORITY_TAG]] {
                trial.run(&egress(ETH0, ethernet(&MACS, tags, &ip(source, destination))), [0; 20])?;
                for (invoking, reason) in [(other, "icmp_rewritten"), (source, "redirected")] {
                    let error = icmp_error(source, destination, invoking);
                    let verdict = trial.run(&egress(ETH0, ethernet(&MACS, tags, &error)), [0; 20])?;
                    assert!(matches!(verdict, Verdict::Violation { reason: r, .. } if r == reason));
                }
            }
        }
        assert_eq!(trial.finish()?, 12);
        Ok(())
    })
}

/// Be it known as a flow that is redirected, or for one station.
#[test]
fn an_igmp_message_of_another_interface_leaves_with_an_own_address() -> Result<()> {
    with_kernel(|kernel| {
        stay_on_one_cpu()?;
        let mut trial = Trial::new(kernel, example(&Policy::STRONG))?;
        let datagram = ip(OF_ETH1, Ipv4Addr::new(224, 0, 0, 22));
        let mut report = datagram.clone();
        report[2 + 9] = IGMP;
        for macs in [&TO_ALL, &MACS] {
            for tags in [&[][..], &[PRIORITY_TAG]] {
                trial.run(&egress(ETH0, ethernet(macs, tags, &datagram)), [0; 20])?;
                for interface in [ETH0, ADDRESSLESS] {
                    let verdict = trial.run(&egress(interface, ethernet(macs, tags, &report)), [0; 20])?;
                    assert!(matches!(verdict, Verdict::Violation { reason: "igmp_rewritten", .. }));
                }
            }
        }
        assert_eq!(trial.finish()?, 12);
        Ok(())
    })
}
