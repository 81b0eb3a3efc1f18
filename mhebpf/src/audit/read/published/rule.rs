//! One rule of nftables: what it asks of a packet that arrives, as far as that says which port is published, and what it
//! leads to.
//!
//! Conditions that are not understood, and those that exclude something, are left out: more may seem published than is, and
//! nothing that is published is missed.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::{
    audit::published::Published,
    netlink::raw::{attribute, attributes, number, text},
};

/// `NFPROTO_IPV6`
const IPV6: u8 = 10;
/// `NFTA_LIST_ELEM`
pub(super) const ELEMENT: u16 = 1;
/// `NFTA_DATA_VALUE` and `NFTA_DATA_VERDICT`
pub(super) const VALUE: u16 = 1;
const VERDICT: u16 = 2;

/// A rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rule {
    /// The packet meets one of these.
    pub(super) conditions: Vec<Published>,
    /// And it is in all of these sets.
    pub(super) lookups: Vec<Lookup>,
    /// Its destination is translated.
    pub(super) translates: bool,
    /// The rules of this chain come next.
    pub(super) chain: Option<String>,
}

/// A set or map that is looked something up in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lookup {
    /// Its name.
    pub(super) set: String,
    /// What its keys are made of, by their place in units of 4 bytes.
    key: BTreeMap<u32, Field>,
    /// What is found is a verdict: a chain to go on with.
    pub(super) has_verdicts: bool,
}

/// Something in a packet, or about it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Field {
    Protocol,
    Port,
    Interface,
    /// The destination address with its length in bytes, of which these bits count.
    Address(usize, Vec<u8>),
}

impl Lookup {
    /// What a packet is like whose key lies between two of the set, both included.
    pub(super) fn condition(&self, first: &[u8], last: &[u8]) -> Option<Published> {
        self.key.iter().try_fold(Published::default(), |condition, (place, field)| {
            let start = *place as usize * 4;
            let part = |key: &[u8]| key.get(start..).map(<[u8]>::to_vec);
            match (part(first), part(last)) {
                (Some(first), Some(last)) => condition.and(&field.between(&first, &last)),
                _ => Some(condition),
            }
        })
    }
}

impl Field {
    /// What a packet is like with a value in this range.
    fn between(&self, first: &[u8], last: &[u8]) -> Published {
        let mut condition = Published::default();
        match self {
            Self::Protocol if first.first() == last.first() => condition.protocol = first.first().copied(),
            Self::Protocol => {}
            Self::Port => {
                let port = |bytes: &[u8]| number(bytes).map(u16::from_be_bytes);
                condition.ports = port(first).zip(port(last));
            }
            Self::Interface => {
                let name: Vec<u8> = first.iter().copied().take_while(|byte| *byte != 0).collect();
                condition.interface = String::from_utf8(name).ok();
            }
            Self::Address(length, mask) => {
                condition.addresses =
                    address(*length, first, mask, 0).zip(address(*length, last, mask, u8::MAX));
            }
        }
        condition
    }
}

/// An address of so many bytes, of which the first are known; the bits that do not count are those of `rest`.
fn address(length: usize, known: &[u8], mask: &[u8], rest: u8) -> Option<IpAddr> {
    let bytes = (0..length).map(|at| {
        let (known, mask) = (known.get(at).unwrap_or(&0), mask.get(at).unwrap_or(&0));
        (known & mask) | (rest & !mask)
    });
    let bytes: Vec<u8> = bytes.collect();
    match length {
        4 => Some(IpAddr::V4(Ipv4Addr::from(number::<4>(&bytes)?))),
        _ => Some(IpAddr::V6(Ipv6Addr::from(number::<16>(&bytes)?))),
    }
}

/// Reads the expressions (`NFTA_RULE_EXPRESSIONS`) of a rule of a family (`NFPROTO_*`).
pub(super) fn read(family: u8, expressions: &[u8]) -> Rule {
    let mut reader = Reader {
        family,
        registers: BTreeMap::new(),
        rule: Rule { conditions: vec![Published::default()], ..Rule::default() },
    };
    for (_, expression) in attributes(expressions).filter(|(kind, _)| *kind == ELEMENT) {
        // `NFTA_EXPR_NAME` and `NFTA_EXPR_DATA`
        let Some(name) = attribute(expression, 1).map(text) else { continue };
        reader.expression(&name, attribute(expression, 2).unwrap_or_default());
    }
    reader.rule
}

/// The chain that a verdict leads to (`NFTA_VERDICT_CHAIN` of `NFTA_DATA_VERDICT`).
pub(super) fn chain_of(data: &[u8]) -> Option<String> {
    attribute(attribute(data, VERDICT)?, 2).map(text)
}

/// A number that is sent in network byte order.
fn be32(bytes: &[u8], kind: u16) -> Option<u32> {
    attribute(bytes, kind).and_then(number).map(u32::from_be_bytes)
}

/// A register as the number of the first of its 4 bytes' parts: `NFT_REG_1` to `NFT_REG_4` have four, `NFT_REG32_00` and
/// following one.
fn register(bytes: &[u8], kind: u16) -> Option<u32> {
    match be32(bytes, kind)? {
        0 => None,
        wide @ 1..=7 => Some((wide - 1) * 4),
        narrow => Some(narrow - 8),
    }
}

struct Reader {
    family: u8,
    registers: BTreeMap<u32, Field>,
    rule: Rule,
}

impl Reader {
    /// One expression; its attributes are those of linux/netfilter/nf_tables.h, by number.
    fn expression(&mut self, name: &str, data: &[u8]) {
        match name {
            "meta" | "payload" => {
                if let Some(to) = register(data, 1) {
                    let field = if name == "meta" { about(data) } else { self.destination(data) };
                    match field {
                        Some(field) => self.registers.insert(to, field),
                        None => self.registers.remove(&to),
                    };
                }
            }
            "bitwise" => self.masked(data),
            "cmp" => self.compared(data),
            "range" => self.in_range(data),
            "lookup" => self.looked_up(data),
            "match" => self.matched(data),
            "immediate" => {
                self.rule.chain = attribute(data, 2).and_then(chain_of).or(self.rule.chain.take());
            }
            // `NFT_NAT_DNAT`
            "nat" => self.rule.translates |= be32(data, 1) == Some(1),
            "redir" => self.rule.translates = true,
            "target" => {
                let name = attribute(data, 1).map(text).unwrap_or_default();
                self.rule.translates |= matches!(name.as_str(), "DNAT" | "REDIRECT" | "NETMAP");
            }
            _ => {}
        }
    }

    /// The destination address or port, if that is what is loaded.
    fn destination(&self, data: &[u8]) -> Option<Field> {
        /// `NFT_PAYLOAD_NETWORK_HEADER` and `NFT_PAYLOAD_TRANSPORT_HEADER`
        const NETWORK: u32 = 1;
        const TRANSPORT: u32 = 2;
        let length = be32(data, 4)? as usize;
        match (be32(data, 2)?, be32(data, 3)?) {
            (TRANSPORT, 2) if length == 2 => Some(Field::Port),
            (NETWORK, 16) if self.family != IPV6 && length <= 4 => {
                Some(Field::Address(4, vec![u8::MAX; length]))
            }
            (NETWORK, 24) if length <= 16 => Some(Field::Address(16, vec![u8::MAX; length])),
            _ => None,
        }
    }

    /// A mask for an address; what else is done to a field makes it another.
    fn masked(&mut self, data: &[u8]) {
        let (Some(from), Some(to)) = (register(data, 1), register(data, 2)) else { return };
        let mask = attribute(data, 4).and_then(|mask| attribute(mask, VALUE));
        match (self.registers.remove(&from), mask) {
            (Some(Field::Address(length, _)), Some(mask)) => {
                self.registers.insert(to, Field::Address(length, mask.to_vec()));
            }
            _ => {
                self.registers.remove(&to);
            }
        }
    }

    fn compared(&mut self, data: &[u8]) {
        let field = register(data, 1).and_then(|from| self.registers.get(&from));
        let value = attribute(data, 3).and_then(|value| attribute(value, VALUE));
        let (Some(field), Some(value)) = (field, value) else { return };
        // `enum nft_cmp_ops`
        let condition = match (be32(data, 2), field) {
            (Some(0), _) => field.between(value, value),
            (Some(3), Field::Port) => field.between(&[0; 2], value),
            (Some(5), Field::Port) => field.between(value, &[u8::MAX; 2]),
            _ => return,
        };
        self.require(&[condition]);
    }

    fn in_range(&mut self, data: &[u8]) {
        let value = |kind| attribute(data, kind).and_then(|value| attribute(value, VALUE));
        let field = register(data, 1).and_then(|from| self.registers.get(&from));
        if let (Some(field), Some(0), Some(first), Some(last)) = (field, be32(data, 2), value(3), value(4)) {
            let condition = field.between(first, last);
            self.require(&[condition]);
        }
    }

    fn looked_up(&mut self, data: &[u8]) {
        /// `NFT_LOOKUP_F_INV`
        const INVERTED: u32 = 1;
        let (Some(set), Some(from)) = (attribute(data, 1).map(text), register(data, 2)) else { return };
        if be32(data, 5).unwrap_or_default() & INVERTED != 0 {
            return;
        }
        let key: BTreeMap<_, _> =
            self.registers.range(from..).map(|(at, field)| (at - from, field.clone())).collect();
        // The register for verdicts has the number 0.
        let has_verdicts = be32(data, 3) == Some(0);
        if has_verdicts || !key.is_empty() {
            self.rule.lookups.push(Lookup { set, key, has_verdicts });
        }
    }

    /// A match of iptables (linux/netfilter/xt_tcpudp.h, xt_multiport.h): numbers in the machine's byte order.
    fn matched(&mut self, data: &[u8]) {
        let (Some(name), Some(info)) = (attribute(data, 1).map(text), attribute(data, 3)) else { return };
        let port = |at: usize| info.get(at..).and_then(number).map(u16::from_ne_bytes);
        let byte = |at: usize| info.get(at).copied().unwrap_or_default();
        let ports = |range| Published { ports: Some(range), ..Published::default() };
        match name.as_str() {
            "tcp" | "udp" => {
                /// `XT_TCP_INV_DSTPT` and `XT_UDP_INV_DSTPT`
                const INVERTED: u8 = 2;
                let flags = byte(if name == "tcp" { 11 } else { 8 });
                if let (Some(first), Some(last), 0) = (port(4), port(6), flags & INVERTED) {
                    self.require(&[ports((first, last))]);
                }
            }
            // Destination ports (`XT_MULTIPORT_DESTINATION`), not inverted.
            "multiport" if byte(0) == 1 && byte(47) == 0 => {
                let mut ranges = Vec::new();
                let mut at = 0..usize::from(byte(1));
                while let Some(n) = at.next() {
                    let last = if byte(32 + n) == 0 { Some(n) } else { at.next() };
                    let range = port(2 + 2 * n).zip(last.and_then(|last| port(2 + 2 * last)));
                    ranges.extend(range.map(ports));
                }
                self.require(&ranges);
            }
            _ => {}
        }
    }

    /// The packet meets one of these as well.
    fn require(&mut self, further: &[Published]) {
        let conditions = &self.rule.conditions;
        self.rule.conditions =
            conditions.iter().flat_map(|one| further.iter().filter_map(|other| one.and(other))).collect();
    }
}

/// What is known of a packet besides its contents: the protocol above IP, and the interface that it came by.
fn about(data: &[u8]) -> Option<Field> {
    // `NFT_META_IIFNAME` and `NFT_META_L4PROTO`
    match be32(data, 2)? {
        6 => Some(Field::Interface),
        16 => Some(Field::Protocol),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::raw::encoded;

    fn expression(name: &str, fields: &[Vec<u8>]) -> Vec<u8> {
        let data = encoded(2, &fields.concat());
        encoded(ELEMENT, &[encoded(1, format!("{name}\0").as_bytes()), data].concat())
    }

    fn read_all(expressions: &[Vec<u8>]) -> Vec<String> {
        let rule = read(2, &expressions.concat());
        assert!(rule.lookups.is_empty() && rule.chain.is_none());
        rule.conditions.iter().filter(|_| rule.translates).map(ToString::to_string).collect()
    }

    fn matching(name: &str, info: &[u8]) -> Vec<u8> {
        expression("match", &[encoded(1, name.as_bytes()), encoded(3, info)])
    }

    #[test]
    fn matches_and_targets_of_iptables_are_read() {
        let ports = |ports: &[u16]| ports.iter().flat_map(|port| port.to_ne_bytes()).collect::<Vec<u8>>();
        let to = expression("target", &[encoded(1, b"DNAT\0")]);
        let tcp = |inverted| [ports(&[0, 65535, 80, 89]), vec![0, 0, 0, inverted]].concat();
        assert_eq!(read_all(&[matching("tcp\0", &tcp(0)), to.clone()]), ["80-89"]);
        assert_eq!(read_all(&[matching("tcp\0", &tcp(2)), to.clone()]), ["all"], "all but these");
        assert_eq!(read_all(&[matching("tcp\0", &tcp(0)[..5]), to.clone()]), ["all"], "cut short");
        assert_eq!(read_all(&[matching("tcp\0", &tcp(0))]), [""; 0], "nothing is translated");

        // Destination ports 80, 90 to 99.
        let mut several = [vec![1, 3], ports(&[80, 90, 99]), vec![0; 2 * 12 + 15 + 1]].concat();
        several[32 + 1] = 1;
        assert_eq!(read_all(&[matching("multiport\0", &several), to.clone()]), ["80", "90-99"]);
        several[1] = 200;
        assert!(read_all(&[matching("multiport\0", &several), to]).len() < 50, "more than there are");
    }

    #[test]
    fn what_is_masked_is_a_prefix() {
        let number = |kind, number: u32| encoded(kind, &number.to_be_bytes());
        let load = [number(1, 1), number(2, 1), number(3, 16), number(4, 4)];
        let mask = [number(1, 1), number(2, 1), encoded(4, &encoded(VALUE, &[255, 255, 255, 240]))];
        let compare = [number(1, 1), number(2, 0), encoded(3, &encoded(VALUE, &[192, 0, 2, 16]))];
        let to = expression("nat", &[number(1, 1)]);
        let rule = [
            expression("payload", &load),
            expression("bitwise", &mask),
            expression("cmp", &compare),
            to.clone(),
        ];
        assert_eq!(read_all(&rule), ["192.0.2.16-192.0.2.31"]);
        // The first bytes only are loaded.
        let load = [number(1, 1), number(2, 1), number(3, 16), number(4, 3)];
        let compare = [number(1, 1), number(2, 0), encoded(3, &encoded(VALUE, &[192, 0, 2]))];
        let rule = [expression("payload", &load), expression("cmp", &compare), to];
        assert_eq!(read_all(&rule), ["192.0.2.0-192.0.2.255"]);
    }
}
