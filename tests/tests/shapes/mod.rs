//! Frames of every shape: what is nearly right is not judged.

use anyhow::Result;

use crate::{
    DATAGRAMS,
    frames::PRIORITY_TAG,
    kernel::{Trial, with_kernel},
    oracle::{Crossing, Policy, Verdict, example::example},
    violations,
};

/// Of IPv4, IPv6, and neighbour discovery.
const HEADERS: [usize; 3] = [20, 40, 64];
const ARP_HEADER: usize = 28;

/// The length of what must be there for a violation to be one.
fn header_of(place: usize) -> usize {
    match place {
        0..3 => HEADERS[0],
        3..6 => HEADERS[1],
        6..8 => HEADERS[2],
        _ => ARP_HEADER,
    }
}

#[test]
fn frames_of_every_length_are_judged_when_their_headers_are_whole() -> Result<()> {
    with_kernel(|kernel| {
        for policy in [Policy::STRONG, Policy::DROPPING, Policy::OBSERVING] {
            for tags in [0, 1, 2, 3, 4, 5, 16] {
                for (place, violation) in violations().into_iter().enumerate() {
                    let mut trial = Trial::new(kernel, example(&policy))?;
                    let mut judged = 0;
                    // What is beyond the longest headers makes no difference.
                    for length in 0..=100 + 4 * tags {
                        let crossing = with_tags(&violation, tags, length);
                        let Some(verdict) = trial.run_unless_refused(&crossing, [0; 20])? else { continue };
                        let is_whole = length >= 14 + 4 * tags + header_of(place);
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
fn ip_of_every_version_and_header_length_is_judged_when_both_are_right() -> Result<()> {
    with_kernel(|kernel| {
        for (place, violation) in violations()[..DATAGRAMS + 5].iter().enumerate() {
            let mut trial = Trial::new(kernel, example(&Policy::STRONG))?;
            // A header of IPv4 has at least five words. What is the length there is the traffic class of
            // IPv6.
            let right = if place < DATAGRAMS { 0x45..=0x4f } else { 0x60..=0x6f };
            for first in 0..=u8::MAX {
                let mut crossing = violation.clone();
                crossing.frame[14] = first;
                let verdict = trial.run(&crossing, [0; 20])?;
                assert_eq!(verdict != Verdict::Pass, right.contains(&first), "{first:#x}");
            }
            assert_eq!(trial.finish()?, right.count() as u64);
        }
        Ok(())
    })
}

#[test]
fn discovery_is_judged_when_it_is_icmpv6_of_one_of_two_types() -> Result<()> {
    with_kernel(|kernel| {
        for (violation, right) in violations()[6..8].iter().zip([136, 135]) {
            let mut trial = Trial::new(kernel, example(&Policy::STRONG))?;
            // The next header, and the type.
            for (offset, right) in [(14 + 6, 58), (14 + 40, right)] {
                for value in 0..=u8::MAX {
                    let mut crossing = violation.clone();
                    crossing.frame[offset] = value;
                    let verdict = trial.run(&crossing, [0; 20])?;
                    assert_eq!(verdict != Verdict::Pass, value == right, "{offset}: {value}");
                }
            }
            // The code, and the hop limit, are for the kernel to judge.
            for offset in [14 + 41, 14 + 7] {
                for value in 0..=u8::MAX {
                    let mut crossing = violation.clone();
                    crossing.frame[offset] = value;
                    assert_ne!(trial.run(&crossing, [0; 20])?, Verdict::Pass);
                }
            }
            assert_eq!(trial.finish()?, 2 + 512);
        }
        Ok(())
    })
}

#[test]
fn arp_is_judged_when_it_is_for_ipv4_over_ethernet_and_asks_or_answers() -> Result<()> {
    with_kernel(|kernel| {
        for violation in violations().into_iter().filter(|violation| violation.frame[13] == 6) {
            let mut trial = Trial::new(kernel, example(&Policy::STRONG))?;
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
fn every_ethertype_but_ip_and_arp_passes() -> Result<()> {
    with_kernel(|kernel| {
        let [datagram, _, _, datagram6, .., question] = violations();
        let mut trial = Trial::new(kernel, example(&Policy::STRONG))?;
        for (violation, judged) in [(datagram, 0x0800), (datagram6, 0x86dd), (question, 0x0806)] {
            for ethertype in 0..=u16::MAX {
                let mut crossing = violation.clone();
                crossing.frame.resize(64, 0);
                crossing.frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
                // Read as a tag, the first bytes of either are one of a VLAN, or of no known protocol.
                let verdict = trial.run(&crossing, [0; 20])?;
                assert_eq!(verdict != Verdict::Pass, ethertype == judged, "{ethertype:#x}");
            }
        }
        assert_eq!(trial.finish()?, 3);
        Ok(())
    })
}
