//! Which ports are published: a walk through the chains of nftables that translate what arrives, those that `iptables`
//! makes by it included.

mod rule;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    rc::Rc,
};

use self::rule::{ELEMENT, Rule, VALUE, chain_of};
use crate::{
    audit::published::Published,
    netlink::raw::{NETFILTER, ask, attribute, attributes, encoded, number, text},
};

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETRULE`, and with `NFT_MSG_GETSETELEM`
const GET_RULES: u16 = 10 << 8 | 7;
const GET_ELEMENTS: u16 = 10 << 8 | 13;
/// `struct nfgenmsg` for all families.
pub(super) const ALL_FAMILIES: [u8; 4] = [0; 4];
/// Chains call each other at most so deep (`NFT_JUMP_STACK_SIZE`).
const DEPTH: usize = 16;
/// No walk looks at more rules than this, however often they are led to.
const RULES: usize = 500_000;

/// A chain: its family, table and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Chain {
    pub(super) family: u8,
    pub(super) table: String,
    pub(super) name: String,
}

/// An element of a set: its first and last key, and where a verdict leads to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Element {
    first: Vec<u8>,
    last: Vec<u8>,
    chain: Option<String>,
}

/// What is published by the rules that these chains begin.
///
/// # Errors
///
/// When the kernel does not show the rules.
pub(super) fn read(beginnings: &[Chain]) -> io::Result<BTreeSet<Published>> {
    if beginnings.is_empty() {
        return Ok(BTreeSet::new());
    }
    let mut rules: BTreeMap<Chain, Vec<Rule>> = BTreeMap::new();
    for message in ask(NETFILTER, GET_RULES, true, &ALL_FAMILIES)? {
        let Some((chain, rule)) = rule_of(&message) else { continue };
        if beginnings.iter().any(|b| (b.family, &b.table) == (chain.family, &chain.table)) {
            rules.entry(chain).or_default().push(rule);
        }
    }
    let mut walk = Walk { rules: &rules, sets: Sets::default(), left: RULES, found: BTreeSet::new() };
    for chain in beginnings {
        walk.through(chain, &Published::default(), DEPTH);
    }
    Ok(walk.found)
}

/// The chain and the contents of a rule's message.
fn rule_of(message: &[u8]) -> Option<(Chain, Rule)> {
    let (family, fields) = (*message.first()?, message.get(ALL_FAMILIES.len()..)?);
    // `NFTA_RULE_TABLE`, `NFTA_RULE_CHAIN` and `NFTA_RULE_EXPRESSIONS`
    let chain = Chain { family, table: text(attribute(fields, 1)?), name: text(attribute(fields, 2)?) };
    Some((chain, rule::read(family, attribute(fields, 4).unwrap_or_default())))
}

struct Walk<'a> {
    rules: &'a BTreeMap<Chain, Vec<Rule>>,
    sets: Sets,
    left: usize,
    found: BTreeSet<Published>,
}

impl Walk<'_> {
    /// Goes through the rules of a chain that packets like `given` come to.
    fn through(&mut self, chain: &Chain, given: &Published, depth: usize) {
        let rules = self.rules;
        for rule in rules.get(chain).into_iter().flatten() {
            self.left = self.left.saturating_sub(1);
            if depth == 0 || self.left == 0 {
                return;
            }
            let mut matching: Vec<Published> = rule.conditions.iter().filter_map(|c| given.and(c)).collect();
            for lookup in &rule.lookups {
                let elements = self.sets.elements(chain, &lookup.set);
                let mut narrowed = Vec::new();
                for element in elements.iter() {
                    let Some(condition) = lookup.condition(&element.first, &element.last) else { continue };
                    for packet in matching.iter().filter_map(|packet| packet.and(&condition)) {
                        match &element.chain {
                            Some(next) if lookup.has_verdicts => {
                                self.through(&chain.beside(next), &packet, depth - 1);
                            }
                            _ => narrowed.push(packet),
                        }
                    }
                }
                matching = narrowed;
            }
            for packet in matching {
                if let Some(next) = &rule.chain {
                    self.through(&chain.beside(next), &packet, depth - 1);
                }
                if rule.translates {
                    self.found.insert(packet);
                }
            }
        }
    }
}

impl Chain {
    /// Another one of its table.
    fn beside(&self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self.clone() }
    }
}

/// The sets that were asked for so far.
#[derive(Default)]
struct Sets(BTreeMap<Chain, Rc<Vec<Element>>>);

impl Sets {
    /// The elements of a set of a chain's table; none where they can't be had.
    fn elements(&mut self, chain: &Chain, set: &str) -> Rc<Vec<Element>> {
        let set = self.0.entry(chain.beside(set));
        set.or_insert_with_key(|set| Rc::new(dump(set).unwrap_or_default())).clone()
    }
}

fn dump(set: &Chain) -> io::Result<Vec<Element>> {
    // `NFTA_SET_ELEM_LIST_TABLE` and `NFTA_SET_ELEM_LIST_SET`
    let name = |kind, text: &str| encoded(kind, format!("{text}\0").as_bytes());
    let body = [vec![set.family, 0, 0, 0], name(1, &set.table), name(2, &set.name)].concat();
    Ok(elements(&ask(NETFILTER, GET_ELEMENTS, true, &body)?))
}

/// The elements that messages carry. In sets of intervals an element is the start of one, and another, marked so, the value
/// behind its end.
fn elements(messages: &[Vec<u8>]) -> Vec<Element> {
    /// `NFT_SET_ELEM_INTERVAL_END`
    const INTERVAL_END: u32 = 1;
    let (mut starts, mut ends) = (Vec::new(), BTreeSet::new());
    for message in messages {
        // `NFTA_SET_ELEM_LIST_ELEMENTS`
        let list = message.get(ALL_FAMILIES.len()..).and_then(|fields| attribute(fields, 3));
        for (_, element) in attributes(list.unwrap_or_default()).filter(|(kind, _)| *kind == ELEMENT) {
            // `NFTA_SET_ELEM_KEY`, `_DATA`, `_FLAGS` and `_KEY_END`
            let value = |kind| Some(attribute(attribute(element, kind)?, VALUE)?.to_vec());
            let Some(key) = value(1) else { continue };
            let flags = attribute(element, 3).and_then(number).map_or(0, u32::from_be_bytes);
            if flags & INTERVAL_END != 0 {
                ends.insert(key);
            } else {
                let chain = attribute(element, 2).and_then(chain_of);
                starts.push((key, value(10), chain));
            }
        }
    }
    let element = |(first, last, chain): (Vec<u8>, Option<Vec<u8>>, Option<String>)| {
        let end =
            || ends.iter().find(|end| **end > first).map_or(vec![u8::MAX; first.len()], |end| before(end));
        let last = last.unwrap_or_else(|| if ends.is_empty() { first.clone() } else { end() });
        Element { first, last, chain }
    };
    starts.into_iter().map(element).collect()
}

/// The number before, of one in network byte order.
fn before(number: &[u8]) -> Vec<u8> {
    let mut before = number.to_vec();
    for byte in before.iter_mut().rev() {
        let borrowed;
        (*byte, borrowed) = byte.overflowing_sub(1);
        if !borrowed {
            break;
        }
    }
    before
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_end_before_the_next_value() {
        let key = |kind, port: u16| encoded(kind, &encoded(VALUE, &port.to_be_bytes()));
        let flags = |end: u32| encoded(3, &end.to_be_bytes());
        let element = |port, end| encoded(ELEMENT, &[key(1, port), flags(end)].concat());
        let list = |elements: &[Vec<u8>]| [ALL_FAMILIES.to_vec(), encoded(3, &elements.concat())].concat();
        let ranges = |elements: &[Vec<u8>]| -> Vec<[u16; 2]> {
            let port = |key: &[u8]| number(key).map(u16::from_be_bytes).unwrap_or_default();
            super::elements(&[list(elements)]).iter().map(|e| [port(&e.first), port(&e.last)]).collect()
        };
        assert_eq!(ranges(&[element(80, 0), element(90, 0)]), [[80, 80], [90, 90]]);
        let intervals =
            [element(512, 1), element(500, 0), element(256, 1), element(100, 0), element(65000, 0)];
        assert_eq!(ranges(&intervals), [[500, 511], [100, 255], [65000, 65535]]);
        let with_end = encoded(ELEMENT, &[key(1, 80), key(10, 89)].concat());
        assert_eq!(ranges(&[with_end]), [[80, 89]], "of a set with several fields");
    }
}
