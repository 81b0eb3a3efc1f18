//! The pure decision against the oracle: what `mhebpf` computes from a host, reads in a frame and decides
//! must be what the oracle says, on random hosts and random packets.
//!
//! `PROPTEST_CASES` sets the number of hosts; each is asked about [`PACKETS`] packets on average.

mod frames;
mod oracle;
mod random;
mod subject;

use std::{collections::BTreeSet, net::Ipv4Addr};

use anyhow::Result;
use frames::{MACS, PRIORITY_TAG, REPLY, REQUEST, TO_ALL, arp, ethernet, ipv4};
use mhebpf_ebpf::{ArpOperation, FurtherOwnerKey, Network, OwnersKey, Tables as _, packet::parse};
use oracle::{
    Action, Crossing, Direction, Mode, Policy, Receive, Unknown, Verdict,
    example::{
        ADDRESSLESS, ETH0, ETH1, GATEWAY, NEIGHBOUR, OF_ETH0, OF_ETH1, OF_STORAGE, OF_UNPLUGGED, REMOTE,
        STORAGE, VIP, example, mac,
    },
    frame::{Content, Operation, read},
    host::Owners,
    judge,
};
use proptest::{
    collection::vec,
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, TestRng, TestRunner},
};
use random::{GENERATOR, check, hosts, packets};

/// How many packets a host is asked about, on average.
const PACKETS: usize = 48;

#[test]
fn the_decision_is_the_oracles_on_random_hosts_and_packets() -> Result<()> {
    check(1500, &(hosts(), vec(packets(), 1..2 * PACKETS)), |(host, recipes)| {
        let tables = subject::tables(&host);
        for crossing in recipes.iter().map(|recipe| recipe.build(&host)) {
            let expected = judge(&host, &crossing);
            prop_assert_eq!(subject::verdict(&tables, &crossing), expected, "{:?}", crossing);
        }
        Ok(())
    })
}

#[test]
fn the_next_hops_are_the_oracles_on_random_hosts() -> Result<()> {
    check(300, &(hosts(), vec(any::<u32>(), 8)), |(host, remote)| {
        let tables = subject::tables(&host);
        let near = host.interfaces.iter().flat_map(|interface| &interface.addresses).map(|a| a.local);
        let behind = host.routes.iter().map(|route| route.destination);
        let remote = remote.into_iter().map(Ipv4Addr::from_bits);
        let destinations: Vec<Ipv4Addr> = near.chain(behind).chain(remote).collect();
        for owner in host.interfaces.iter().filter(|interface| owns_something(&tables, interface.index)) {
            for destination in &destinations {
                let found = tables
                    .next_hop(owner.index, (*destination).into())
                    .map(|hop| hop.neighbour((*destination).into()));
                let expected = host.next_hop(owner.index, *destination);
                prop_assert_eq!(found.map(Ipv4Addr::from), expected, "{} to {}", owner.index, destination);
            }
        }
        Ok(())
    })
}

#[test]
fn the_owners_are_the_oracles_on_random_hosts() -> Result<()> {
    check(4000, &hosts(), |host| {
        let tables = subject::tables(&host);
        for address in host.interfaces.iter().flat_map(|interface| &interface.addresses) {
            let (domain, local) = (0, address.local.into());
            let found = tables.owners(&OwnersKey { domain, address: local }).copied();
            let found = found.ok_or_else(|| TestCaseError::fail(format!("{} is foreign", address.local)))?;
            let Some(Owners::These(expected)) = host.owners(address.local) else {
                prop_assert!(found.is_host_wide(), "{}", address.local);
                continue;
            };
            prop_assert!(!found.is_host_wide(), "{}", address.local);
            let mut first = expected.clone();
            first.resize(found.inline.len(), 0);
            prop_assert_eq!(found.inline.to_vec(), first, "{}", address.local);
            prop_assert_eq!(found.has_further(), expected.len() > found.inline.len());
            for interface in &host.interfaces {
                let key = FurtherOwnerKey { ifindex: interface.index, domain, address: local };
                let is_further = expected.iter().skip(found.inline.len()).any(|i| *i == interface.index);
                prop_assert_eq!(tables.is_further_owner(&key), is_further, "{}", address.local);
            }
        }
        Ok(())
    })
}

/// Nothing is ever redirected to the others.
fn owns_something(tables: &mhebpf::model::Tables, interface: u32) -> bool {
    tables.owners.values().any(|owners| owners.has_inline(interface))
}

#[test]
fn random_bytes_are_read_as_the_oracle_reads_them() -> Result<()> {
    let tag = prop_oneof![Just(0), any::<u16>()];
    check(4000, &(vec(any::<u8>(), 0..80), tag), |(bytes, tag)| {
        prop_assert_eq!(parsed(&bytes, tag), read(&bytes, tag));
        Ok(())
    })
}

#[test]
fn frames_cut_anywhere_are_read_as_the_oracle_reads_them() -> Result<()> {
    check(300, &(hosts(), packets()), |(host, recipe)| {
        let Crossing { frame, tag_beside, .. } = recipe.build(&host);
        for length in 0..=frame.len() {
            prop_assert_eq!(parsed(&frame[..length], tag_beside), read(&frame[..length], tag_beside));
        }
        Ok(())
    })
}

#[test]
fn every_ethertype_but_ipv4_arp_and_tags_passes() {
    let ipv4 = [&[0x45][..], &[0; 19]].concat();
    let arp = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &[0; 20]].concat();
    for tags in [&[][..], &[0x81, 0, 0, 0]] {
        let judged: Vec<u16> = (0..=u16::MAX)
            .filter(|ethertype| {
                let frame = |network: &[u8]| [&[2; 12], tags, &ethertype.to_be_bytes(), network].concat();
                // A tag in front of an IPv4 header's first bytes is one of VLAN 0x500 or of no known
                // protocol.
                parse(frame(&ipv4).as_slice(), 0).is_some() || parse(frame(&arp).as_slice(), 0).is_some()
            })
            .collect();
        assert_eq!(judged, [0x0800, 0x0806]);
    }
}

#[test]
fn every_vlan_but_number_0_passes() {
    let ipv4 = [&[8, 0, 0x45][..], &[0; 19]].concat();
    for tag in 0..=u16::MAX {
        let untagged = [&[2; 12][..], &ipv4].concat();
        let tagged = [&[2; 12][..], &[0x81, 0], &tag.to_be_bytes(), &ipv4].concat();
        let twice = [&[2; 12][..], &[0x88, 0xa8, 0, 0, 0x81, 0], &tag.to_be_bytes(), &ipv4].concat();
        let judged = tag & 0x0fff == 0;
        assert_eq!(parse(untagged.as_slice(), tag).is_some(), judged, "{tag:#x} beside the frame");
        assert_eq!(parse(tagged.as_slice(), 0).is_some(), judged, "{tag:#x}");
        assert_eq!(parse(twice.as_slice(), 0).is_some(), judged, "{tag:#x} in a priority tag");
    }
}

/// What is parsed, in the words of the oracle.
fn parsed(frame: &[u8], tag_beside: u16) -> Option<Content> {
    let packet = parse(frame, tag_beside)?;
    assert_eq!(packet.group, frame[0] & 1 == 1);
    Some(match packet.network {
        Network::Ipv4(datagram) => {
            Content::Ipv4 { source: datagram.source.into(), destination: datagram.destination.into() }
        }
        Network::Arp(arp) => Content::Arp {
            operation: match arp.operation {
                ArpOperation::Request => Operation::Request,
                ArpOperation::Reply => Operation::Reply,
            },
            sender: arp.sender.into(),
            target: arp.target.into(),
        },
    })
}

/// A verdict that no random packet reaches is not tested.
#[test]
fn random_packets_reach_every_verdict() {
    let mut reached = BTreeSet::new();
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(GENERATOR));
    let strategy = (hosts(), vec(packets(), PACKETS));
    for _ in 0..300 {
        let (host, recipes) = strategy.new_tree(&mut runner).unwrap().current();
        for crossing in recipes.iter().map(|recipe| recipe.build(&host)) {
            reached.insert(kind_of(judge(&host, &crossing)));
        }
    }
    let mut expected = BTreeSet::from([None]);
    for enforced in [true, false] {
        expected.extend(
            [
                ("ipv4", "redirected", "send"),
                ("ipv4", "redirected", "send to group"),
                ("ipv4", "no_route", "drop"),
                ("ipv4", "owner_down", "drop"),
                ("ipv4", "unknown_source", "drop"),
                ("ipv4", "loopback", "drop"),
                ("ipv4", "wrong_destination", "drop"),
                ("arp", "arp_rewritten", "ask as itself"),
                ("arp", "arp_rewritten", "ask as nobody"),
                ("arp", "arp_sender", "drop"),
                ("arp", "arp_target", "drop"),
                ("arp", "unknown_source", "drop"),
                ("arp", "loopback", "drop"),
            ]
            .map(|(family, reason, action)| Some((family, reason, action, enforced))),
        );
    }
    expected.insert(Some(("ipv4", "wrong_source", "drop", true)));
    assert_eq!(reached, expected);
}

/// A verdict without its addresses; `None` for passing.
fn kind_of(verdict: Verdict) -> Option<(&'static str, &'static str, &'static str, bool)> {
    let Verdict::Violation { family, reason, action, enforced } = verdict else { return None };
    let action = match action {
        Action::Drop => "drop",
        Action::SendBy { .. } => "send",
        Action::SendToGroupBy { .. } => "send to group",
        Action::AskAs(Ipv4Addr::UNSPECIFIED) => "ask as nobody",
        Action::AskAs(_) => "ask as itself",
    };
    Some((family, reason, action, enforced))
}

/// A tag of VLAN 7.
const OF_VLAN_7: [u8; 4] = [0x81, 0x00, 0x00, 0x07];

/// The actions of redirect and drop mode, which say "pass" by `None`.
type Row = (u32, Vec<u8>, Option<(&'static str, Action)>, Option<(&'static str, Action)>);

/// Both agree with what is written here: the oracle could be wrong where the decision is.
#[test]
fn the_oracle_and_the_decision_agree_with_the_documented_table() {
    let drop = |reason| Some((reason, Action::Drop));
    let rewritten = |sender| Some(("arp_rewritten", Action::AskAs(sender)));
    let sent = |owner, neighbour| Some(("redirected", Action::SendBy { owner, neighbour }));
    let to_group = |owner| Some(("redirected", Action::SendToGroupBy { owner, source: mac(owner) }));
    let group = Ipv4Addr::new(224, 0, 0, 251);
    let nobody = Ipv4Addr::UNSPECIFIED;
    let frame = |network: Vec<u8>| ethernet(&MACS, &[], &network);
    let frame_to_all = |network: Vec<u8>| ethernet(&TO_ALL, &[], &network);
    let wrong = drop("wrong_source");
    let sends: Vec<Row> = vec![
        (ETH0, frame(ipv4(OF_ETH0, REMOTE)), None, None),
        (ETH0, frame(ipv4(VIP, REMOTE)), None, None),
        (ETH0, frame_to_all(ipv4(nobody, Ipv4Addr::BROADCAST)), None, None),
        (ETH0, frame(ipv4(REMOTE, NEIGHBOUR)), None, None),
        (ETH0, frame(ipv4(OF_ETH1, NEIGHBOUR)), sent(ETH1, NEIGHBOUR), wrong),
        (ETH0, frame(ipv4(OF_ETH1, REMOTE)), sent(ETH1, GATEWAY), wrong),
        (ETH0, ethernet(&MACS, &[PRIORITY_TAG], &ipv4(OF_ETH1, REMOTE)), sent(ETH1, GATEWAY), wrong),
        (ETH0, ethernet(&MACS, &[OF_VLAN_7], &ipv4(OF_ETH1, REMOTE)), None, None),
        (ETH0, frame(ipv4(OF_STORAGE, REMOTE)), drop("no_route"), wrong),
        (ETH0, frame(ipv4(OF_UNPLUGGED, REMOTE)), drop("owner_down"), wrong),
        (ETH0, frame_to_all(ipv4(OF_STORAGE, group)), to_group(STORAGE), wrong),
        (ETH0, frame_to_all(ipv4(OF_ETH1, Ipv4Addr::BROADCAST)), to_group(ETH1), wrong),
        (ETH0, frame(ipv4(Ipv4Addr::LOCALHOST, REMOTE)), drop("loopback"), drop("loopback")),
        (ETH0, frame(arp(REQUEST, OF_ETH0, NEIGHBOUR)), None, None),
        (ETH0, frame(arp(REQUEST, nobody, OF_ETH1)), None, None),
        (ETH0, frame(arp(REQUEST, REMOTE, NEIGHBOUR)), None, None),
        (ETH0, frame(arp(REQUEST, OF_ETH1, NEIGHBOUR)), rewritten(OF_ETH0), rewritten(OF_ETH0)),
        (STORAGE, frame(arp(REQUEST, OF_ETH1, REMOTE)), rewritten(OF_STORAGE), rewritten(OF_STORAGE)),
        (ADDRESSLESS, frame(arp(REQUEST, OF_ETH1, NEIGHBOUR)), rewritten(nobody), drop("arp_sender")),
        (ETH0, frame(arp(REPLY, OF_ETH0, NEIGHBOUR)), None, None),
        (ETH0, frame(arp(REPLY, OF_ETH1, NEIGHBOUR)), drop("arp_sender"), drop("arp_sender")),
        (ETH0, frame(arp(REPLY, REMOTE, NEIGHBOUR)), None, None),
        (ETH0, frame_to_all(arp(REQUEST, OF_ETH1, OF_ETH1)), drop("arp_sender"), drop("arp_sender")),
        (ETH0, frame_to_all(arp(REQUEST, REMOTE, REMOTE)), None, None),
    ];
    for (interface, frame, redirecting, dropping) in sends {
        expect(Direction::Egress, interface, &frame, redirecting, dropping);
    }
    let receives = [
        (frame(ipv4(REMOTE, OF_ETH0)), None),
        (frame(ipv4(REMOTE, VIP)), None),
        (frame(ipv4(REMOTE, NEIGHBOUR)), None),
        (frame(ipv4(REMOTE, OF_ETH1)), drop("wrong_destination")),
        (frame(ipv4(REMOTE, Ipv4Addr::LOCALHOST)), drop("loopback")),
        (frame_to_all(ipv4(OF_ETH1, group)), None),
        (frame_to_all(ipv4(REMOTE, Ipv4Addr::BROADCAST)), None),
        (frame_to_all(arp(REQUEST, NEIGHBOUR, OF_ETH0)), None),
        (frame_to_all(arp(REQUEST, NEIGHBOUR, REMOTE)), None),
        (frame_to_all(arp(REQUEST, NEIGHBOUR, OF_ETH1)), drop("arp_target")),
        (frame(arp(REPLY, NEIGHBOUR, OF_ETH1)), drop("arp_target")),
    ];
    for (frame, expected) in receives {
        expect(Direction::Ingress, ETH0, &frame, expected, expected);
    }
}

/// Observe mode is redirect mode, but for doing it.
fn expect(
    direction: Direction,
    interface: u32,
    frame: &[u8],
    redirecting: Option<(&'static str, Action)>,
    dropping: Option<(&'static str, Action)>,
) {
    for (mode, expected) in
        [(Mode::Redirect, redirecting), (Mode::Drop, dropping), (Mode::Observe, redirecting)]
    {
        let host = example(Policy { mode, receive: Receive::Drop, unknown: Unknown::Pass });
        let crossing =
            Crossing { direction, interface, arrived: false, tag_beside: 0, frame: frame.to_vec() };
        let family = if frame[12..14] == [0x08, 0x06] { "arp" } else { "ipv4" };
        let expected = expected.map_or(Verdict::Pass, |(reason, action)| Verdict::Violation {
            family,
            reason,
            action,
            enforced: mode != Mode::Observe,
        });
        assert_eq!(judge(&host, &crossing), expected, "the oracle in {mode:?} mode on {crossing:?}");
        let decided = subject::verdict(&subject::tables(&host), &crossing);
        assert_eq!(decided, expected, "the decision in {mode:?} mode on {crossing:?}");
    }
}
