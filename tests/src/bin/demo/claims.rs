//! The claims, and whether what was seen bears them out.

use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use mhebpf_tests::Lab;

use crate::look::{Observations, Ways};

/// What a claim says of one half: what was seen, and whether that is what was claimed.
pub(crate) struct Cell {
    pub(crate) seen: String,
    pub(crate) holds: bool,
}

/// One line of the table.
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) without: Cell,
    pub(crate) with: Cell,
}

impl Row {
    pub(crate) const fn holds(&self) -> bool {
        self.without.holds && self.with.holds
    }
}

/// The figure that mhebpf is held to: a lost first packet or request would cost a second or more.
pub(crate) const SLOWEST_CONNECT: Duration = Duration::from_millis(50);

/// All claims. Without mhebpf the first route decides for every address; with it each address has its own interface.
pub(crate) fn rows(without: &Observations, with: &Observations) -> Vec<Row> {
    let mut rows = Vec::new();
    for (port, address) in without.ways.keys().enumerate() {
        rows.push(Row {
            what: format!("{address} leaves by"),
            without: by(&without.ways, *address, 0),
            with: by(&with.ways, *address, port),
        });
    }
    for (port, address) in without.ways.keys().enumerate() {
        rows.push(Row {
            what: format!("eth0_int down/up, then {address} by"),
            without: by(&without.ways_after, *address, 1),
            with: by(&with.ways_after, *address, port),
        });
    }
    rows.push(Row {
        what: "MACs that the peer has for the 4 addresses".to_owned(),
        without: macs(without, |_| 0),
        with: macs(with, |port| port),
    });
    rows.push(Row {
        what: "interfaces that answer a broadcast who-has".to_owned(),
        without: answers(without, |_| BTreeSet::from([0, 1, 2, 3])),
        with: answers(with, |port| BTreeSet::from([port])),
    });
    rows.push(Row {
        what: "who-has answered by another than the owner".to_owned(),
        without: stray(without, without.stray_requests),
        with: stray(with, 0),
    });
    rows.push(Row {
        what: "TCP sessions that carried data both ways".to_owned(),
        without: sessions(without),
        with: sessions(with),
    });
    rows.push(Row {
        what: "slowest TCP connect".to_owned(),
        without: Cell { seen: milliseconds(without), holds: true },
        with: Cell { seen: milliseconds(with), holds: with.slowest < SLOWEST_CONNECT },
    });
    rows
}

fn by(ways: &Ways, address: Ipv4Addr, expected: usize) -> Cell {
    let ports = ways.get(&address).cloned().unwrap_or_default();
    let names: Vec<_> = ports.iter().map(|port| format!("eth{port}_int")).collect();
    Cell { seen: names.join(" "), holds: ports == BTreeSet::from([expected]) }
}

/// How many hardware addresses the peer knows for the addresses; each is to be that of the interface `expected`.
fn macs(seen: &Observations, expected: impl Fn(usize) -> usize) -> Cell {
    let different: BTreeSet<_> = seen.neighbours.values().collect();
    let as_expected =
        seen.neighbours.values().enumerate().all(|(port, mac)| *mac == Lab::host_mac(expected(port)));
    Cell { seen: different.len().to_string(), holds: as_expected && seen.neighbours.len() == seen.ways.len() }
}

/// How many interfaces answer a request for an address; they are to be `expected`, each with its own hardware address.
fn answers(seen: &Observations, expected: impl Fn(usize) -> BTreeSet<usize>) -> Cell {
    let counts: BTreeSet<_> =
        seen.broadcast_answers.values().map(|answers| answers.len().to_string()).collect();
    let holds = seen.broadcast_answers.values().enumerate().all(|(port, answers)| {
        let from: BTreeSet<_> = answers.iter().map(|(port, _)| *port).collect();
        let own = answers.iter().all(|(port, mac)| *mac == Lab::host_mac(*port));
        own && answers.len() == from.len() && from == expected(port)
    });
    Cell { seen: counts.into_iter().collect::<Vec<_>>().join(" or "), holds }
}

fn stray(seen: &Observations, expected: usize) -> Cell {
    Cell {
        seen: format!("{} of {}", seen.stray_answers, seen.stray_requests),
        holds: seen.stray_answers == expected,
    }
}

fn sessions(seen: &Observations) -> Cell {
    let all = seen.ways.len() + seen.ways_after.len();
    Cell { seen: format!("{} of {all}", seen.sessions), holds: seen.sessions == all }
}

fn milliseconds(seen: &Observations) -> String {
    format!("{:.1} ms", seen.slowest.as_secs_f64() * 1e3)
}
