//! What is measured: packets that fare in one way or another.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mhebpf_ebpf::{Direction, Send, Unknown};

use super::{
    frame::{ARP_SENDER, Content, IPV4_DESTINATION, IPV4_SOURCE, IPV6_DESTINATION, IPV6_SOURCE, from, to},
    host::{
        ETH0, ETH1, FOREIGN, FOREIGN_6, NEIGHBOUR, NEIGHBOUR6, OF_ETH0, OF_ETH0_6, OF_ETH1, OF_ETH1_6, last,
        last6,
    },
    prelude::{Prelude, Written},
};

/// `TC_ACT_UNSPEC`, `TC_ACT_SHOT` and `TC_ACT_REDIRECT`.
const PASS: i32 = -1;
const DROP: i32 = 2;
const REDIRECT: i32 = 7;

/// How many addresses of each family ETH0 has in turn.
pub(crate) const COUNTS: [u32; 6] = [1, 4, 8, 64, 1_000, 100_000];
const FEW: u32 = 4;
const MOST: u32 = 100_000;
/// What [`frame`](super::frame) puts foreign addresses among.
const FOREIGN_COUNT: u32 = 1 << 16;

/// Which addresses packets carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// Always the same one: of ETH0 the last that it was given, which is the dearest to find.
    Hot,
    /// Any of them, at random.
    Random,
    /// The same, and the caches are cold.
    Cold,
}

impl Key {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Hot => "one",
            Self::Random => "any",
            Self::Cold => "any, caches cold",
        }
    }
}

/// A packet, the host that it crosses, and what must become of it.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// What kind of packet it is.
    pub(crate) what: &'static str,
    /// The protocol.
    pub(crate) protocol: &'static str,
    pub(crate) direction: Direction,
    /// The interface that the packet crosses.
    pub(crate) interface: u32,
    pub(crate) key: Key,
    pub(crate) content: Content,
    pub(crate) prelude: Prelude,
    /// The host forwards it.
    pub(crate) forwarded: bool,
    /// What the program must answer.
    pub(crate) answer: i32,
    pub(crate) host: Setting,
}

/// What is different from host to host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    /// How many addresses of each family it has.
    pub(crate) count: u32,
    /// What it does to violations that it sends.
    pub(crate) send: Send,
    /// What it does to foreign sources. Where they are dropped, no block of addresses passes without a lookup.
    pub(crate) unknown: Unknown,
}

impl Setting {
    /// A key to find the host by.
    pub(crate) const fn key(self) -> (u32, u8, u8) {
        (self.count, self.send as u8, self.unknown as u8)
    }
}

/// All of them.
pub(crate) fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for count in COUNTS {
        for key in [Key::Hot, Key::Random] {
            if key == Key::Hot || count > 1 {
                cases.extend(datagrams("own", Whose::Own, key, count, Send::Redirect));
            }
        }
    }
    for (what, key, count) in [
        ("own, no block", Key::Hot, 8),
        ("own, no block", Key::Random, 8),
        ("own, looked up", Key::Hot, 64),
        ("own, looked up", Key::Hot, 1_000),
        ("own, looked up", Key::Random, 1_000),
        ("own, looked up", Key::Hot, MOST),
        ("own, looked up", Key::Random, MOST),
    ] {
        cases.extend(datagrams(what, Whose::Own, key, count, Send::Redirect).into_iter().map(without_block));
    }
    for (key, count) in [(Key::Hot, FEW), (Key::Random, FEW), (Key::Hot, MOST), (Key::Random, MOST)] {
        cases.extend(datagrams("foreign", Whose::Foreign, key, count, Send::Redirect));
    }
    for (key, count) in [(Key::Hot, FEW), (Key::Random, MOST)] {
        cases.extend(datagrams("violation, redirect", Whose::Elsewhere, key, count, Send::Redirect));
    }
    cases.extend(datagrams("violation, drop", Whose::Elsewhere, Key::Hot, FEW, Send::Drop));
    for (what, whose, key, count) in [
        ("foreign, forwarded", Whose::Foreign, Key::Hot, FEW),
        ("foreign, forwarded", Whose::Foreign, Key::Random, FEW),
        ("translated, redirect", Whose::Elsewhere, Key::Hot, FEW),
    ] {
        let all = datagrams(what, whose, key, count, Send::Redirect).into_iter();
        let sent = all.filter(|case| case.direction == Direction::Egress);
        cases.extend(sent.map(|case| Case { forwarded: true, ..case }));
    }
    for (what, whose, count) in [
        ("own", Whose::Own, 8),
        ("own", Whose::Own, MOST),
        ("foreign", Whose::Foreign, MOST),
        ("violation, redirect", Whose::Elsewhere, MOST),
    ] {
        cases.extend(datagrams(what, whose, Key::Cold, count, Send::Redirect));
    }
    let cold = datagrams("own, looked up", Whose::Own, Key::Cold, MOST, Send::Redirect);
    cases.extend(cold.into_iter().map(without_block));
    cases.extend(discovery());
    cases
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Own,
    Foreign,
    Elsewhere,
}

/// The same where a block of addresses does not pass by itself: as with addresses of several interfaces mixed up.
fn without_block(mut case: Case) -> Case {
    case.host.unknown = Unknown::Drop;
    case
}

/// Datagrams of both families in both directions. What ETH0 owns crosses ETH1 where it is to be a violation.
fn datagrams(what: &'static str, whose: Whose, key: Key, count: u32, send: Send) -> Vec<Case> {
    let interface = if whose == Whose::Elsewhere { ETH1 } else { ETH0 };
    let (first, first6, count_there): (Ipv4Addr, Ipv6Addr, u32) = match whose {
        Whose::Foreign => (FOREIGN, FOREIGN_6, FOREIGN_COUNT),
        Whose::Own | Whose::Elsewhere => (OF_ETH0, OF_ETH0_6, count),
    };
    let families: [(&str, IpAddr, IpAddr); 2] = [
        ("IPv4", first.into(), last(first, count_there).into()),
        ("IPv6", first6.into(), last6(first6, count_there).into()),
    ];
    let mut cases = Vec::new();
    for (protocol, first, last) in families {
        for direction in [Direction::Egress, Direction::Ingress] {
            // What arrives is never redirected: it fares as it does where violations are dropped.
            if direction == Direction::Ingress && send == Send::Drop {
                continue;
            }
            let dropped = direction == Direction::Ingress || send == Send::Drop;
            let answer = match whose {
                Whose::Own | Whose::Foreign => PASS,
                Whose::Elsewhere if dropped => DROP,
                Whose::Elsewhere => REDIRECT,
            };
            let what = if whose == Whose::Elsewhere && dropped { "violation, drop" } else { what };
            let offset = match (direction, first.is_ipv4()) {
                (Direction::Egress, true) => IPV4_SOURCE,
                (Direction::Egress, false) => IPV6_SOURCE,
                (Direction::Ingress, true) => IPV4_DESTINATION,
                (Direction::Ingress, false) => IPV6_DESTINATION,
            };
            let written = Written { offset, first, count: count_there };
            cases.push(Case {
                what,
                protocol,
                direction,
                interface,
                key,
                content: if direction == Direction::Egress { from(last) } else { to(last) },
                prelude: Prelude {
                    forgets_redirect: answer == REDIRECT,
                    address: (key != Key::Hot).then_some(written),
                },
                forwarded: false,
                answer,
                host: Setting { count, send, unknown: Unknown::Pass },
            });
        }
    }
    cases
}

/// ARP, and NDP as it arrives.
fn discovery() -> Vec<Case> {
    let case = |what, protocol, direction, interface, content, answer| Case {
        what,
        protocol,
        direction,
        interface,
        key: Key::Hot,
        content,
        prelude: Prelude::default(),
        forwarded: false,
        answer,
        host: Setting { count: FEW, send: Send::Redirect, unknown: Unknown::Pass },
    };
    let (own, foreign) = (OF_ETH1, NEIGHBOUR);
    let elsewhere = last(OF_ETH0, FEW);
    let request = |sender, target| Content::ArpRequest { sender, target };
    let solicitation = |target| Content::Solicitation { source: NEIGHBOUR6, target };
    // The request that was rewritten the last time carries an own address.
    let as_before = Written { offset: ARP_SENDER, first: elsewhere.into(), count: 1 };
    let rewritten = Prelude { address: Some(as_before), ..Prelude::default() };
    vec![
        case("request, own", "ARP", Direction::Egress, ETH1, request(own, foreign), PASS),
        case("request, own", "ARP", Direction::Ingress, ETH1, request(foreign, own), PASS),
        Case {
            prelude: rewritten,
            ..case("request, of another", "ARP", Direction::Egress, ETH1, request(elsewhere, foreign), PASS)
        },
        case("request, of another", "ARP", Direction::Ingress, ETH1, request(foreign, elsewhere), DROP),
        case(
            "reply, of another",
            "ARP",
            Direction::Egress,
            ETH1,
            Content::ArpReply { sender: elsewhere, target: foreign },
            DROP,
        ),
        case("solicitation, own", "NDP", Direction::Ingress, ETH1, solicitation(OF_ETH1_6), PASS),
        case(
            "solicitation, of another",
            "NDP",
            Direction::Ingress,
            ETH1,
            solicitation(last6(OF_ETH0_6, FEW)),
            DROP,
        ),
    ]
}
