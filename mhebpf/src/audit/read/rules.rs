//! Policy routing.

use anyhow::Result;
use ipnet::IpNet;
use netlink_packet_core::Parseable as _;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    rule::{RuleAction, RuleAttribute, RuleMessage},
};

use super::Dumps;
use crate::audit::snapshot::Rule;

/// The rules that every host has: all for the tables local, main and default.
const KERNELS_OWN: [(u32, u32); 3] = [(0, 255), (32766, 254), (32767, 253)];

pub(super) fn read(dumps: &mut Dumps) -> Result<Vec<Rule>> {
    let mut rules = Vec::new();
    for (family, number) in [(AddressFamily::Inet, 4), (AddressFamily::Inet6, 6)] {
        let mut request = RuleMessage::default();
        request.header.family = family;
        for message in dumps.dump(RouteNetlinkMessage::GetRule(request), RuleMessage::parse)? {
            // A kernel without this family answers for all others.
            if message.header.family != family {
                continue;
            }
            let rule = rule(&message, number);
            if rule.source.is_some() || !KERNELS_OWN.contains(&(rule.priority, rule.table)) {
                rules.push(rule);
            }
        }
    }
    rules.sort();
    rules.dedup();
    Ok(rules)
}

fn rule(message: &RuleMessage, family: u8) -> Rule {
    let header = &message.header;
    let mut rule = Rule { family, priority: 0, source: None, table: u32::from(header.table), protocol: None };
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => rule.priority = *priority,
            RuleAttribute::Table(table) => rule.table = *table,
            RuleAttribute::Protocol(protocol) => rule.protocol = Some((*protocol).into()),
            RuleAttribute::Source(source) => rule.source = IpNet::new(*source, header.src_len).ok(),
            _ => {}
        }
    }
    if header.action != RuleAction::ToTable {
        rule.table = 0;
    }
    rule
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::route::RouteProtocol;

    use super::*;
    use crate::model::testing::{ip, net};

    #[test]
    fn a_rule_is_read_with_its_source_and_table() {
        let mut message = RuleMessage::default();
        message.header.src_len = 24;
        message.header.action = RuleAction::ToTable;
        message.attributes = vec![
            RuleAttribute::Source(ip("10.1.0.0")),
            RuleAttribute::Table(1000),
            RuleAttribute::Priority(100),
            RuleAttribute::Protocol(RouteProtocol::Static),
        ];
        let source = Some(net("10.1.0.0/24"));
        let expected = Rule { family: 4, priority: 100, source, table: 1000, protocol: Some(4) };
        assert_eq!(rule(&message, 4), expected);
        message.header.action = RuleAction::Prohibit;
        assert_eq!(rule(&message, 4).table, 0);
    }
}
