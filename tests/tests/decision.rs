//! The pure decision against the oracle: what `mhebpf` computes from a host, reads in a frame and decides
//! must be what the oracle says, on random hosts and random packets.
//!
//! `PROPTEST_CASES` sets the number of hosts; each is asked about [`PACKETS`] packets on average.

mod frames;
mod oracle;
mod random;
mod reading;
mod subject;
mod table;
mod tables;

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::Result;
use oracle::{Action, Verdict, judge};
use proptest::{
    collection::vec,
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, TestRng, TestRunner},
};
use random::{GENERATOR, Generator, Landmarks, check, hosts, packets, packets::PacketRecipe};

/// How many packets a host is asked about, on average.
const PACKETS: usize = 48;

#[test]
fn the_decision_is_the_oracles_on_random_hosts_and_packets() -> Result<()> {
    check(2000, &(hosts(), vec(packets(), 1..2 * PACKETS)), |(host, recipes)| {
        let tables = subject::tables(&host);
        let landmarks = Landmarks::new(&host);
        for crossing in recipes.iter().map(|recipe| recipe.build(&landmarks)) {
            let expected = judge(&host, &crossing);
            prop_assert_eq!(subject::verdict(&tables, &crossing), expected, "{:?}", crossing);
        }
        Ok(())
    })
}

/// A verdict that no random packet reaches is not tested.
#[test]
fn random_packets_reach_every_verdict() {
    let mut reached = BTreeSet::new();
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(GENERATOR));
    let mut generator = Generator::new(1);
    for _ in 0..400 {
        let host = hosts().new_tree(&mut runner).unwrap().current();
        let landmarks = Landmarks::new(&host);
        for _ in 0..500 {
            let crossing = PacketRecipe::next(&mut generator).build(&landmarks);
            reached.insert(kind_of(judge(&host, &crossing)));
        }
    }
    let mut expected = BTreeSet::from([None]);
    for enforced in [true, false] {
        for family in ["ipv4", "ipv6"] {
            expected.extend(
                [
                    ("redirected", "send to a neighbour of IPv6"),
                    ("redirected", "send to group"),
                    ("no_route", "drop"),
                    ("owner_down", "drop"),
                    ("unknown_source", "drop"),
                    ("loopback", "drop"),
                    ("wrong_destination", "drop"),
                ]
                .map(|(reason, action)| Some((family, reason, action, enforced))),
            );
        }
        expected.extend(
            [
                ("ipv4", "redirected", "send to a neighbour of IPv4"),
                ("ipv4", "priority_tags", "drop"),
                ("ipv4", "igmp_rewritten", "speak as itself"),
                ("ipv4", "igmp_rewritten", "speak as nobody"),
                ("ipv4", "icmp_rewritten", "speak as itself"),
                ("ipv6", "icmp_rewritten", "speak as itself"),
                ("arp", "arp_rewritten", "ask as itself"),
                ("arp", "arp_rewritten", "ask as nobody"),
                ("arp", "arp_sender", "drop"),
                ("arp", "arp_target", "drop"),
                ("arp", "unknown_source", "drop"),
                ("arp", "loopback", "drop"),
                ("ndp", "ndp_sender", "drop"),
                ("ndp", "ndp_target", "drop"),
                ("ndp", "loopback", "drop"),
            ]
            .map(|(family, reason, action)| Some((family, reason, action, enforced))),
        );
    }
    expected.extend(["ipv4", "ipv6"].map(|family| Some((family, "wrong_source", "drop", true))));
    assert_eq!(reached, expected);
}

/// A verdict without its addresses; `None` for passing.
fn kind_of(verdict: Verdict) -> Option<(&'static str, &'static str, &'static str, bool)> {
    let Verdict::Violation { family, reason, action, enforced } = verdict else { return None };
    let action = match action {
        Action::Drop => "drop",
        Action::SendBy { neighbour: IpAddr::V4(_), .. } => "send to a neighbour of IPv4",
        Action::SendBy { neighbour: IpAddr::V6(_), .. } => "send to a neighbour of IPv6",
        Action::SendToGroupBy { .. } => "send to group",
        Action::AskAs(sender) if sender.is_unspecified() => "ask as nobody",
        Action::AskAs(_) => "ask as itself",
        Action::SpeakAs(source) if source.is_unspecified() => "speak as nobody",
        Action::SpeakAs(_) => "speak as itself",
    };
    Some((family, reason, action, enforced))
}
