//! Policy routing.

use anyhow::Result;
use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage},
};

use super::Dumps;
use crate::{
    audit::snapshot::{Mark, Rule},
    netlink::rule_message,
};

/// The rules that every host has: all for the tables local, main and default.
const KERNELS_OWN: [(u32, u32); 3] = [(0, 255), (32766, 254), (32767, 253)];

/// Not to suppress any prefix length, or group, is dumped as -1.
const NOT_SUPPRESSED: u32 = u32::MAX;

pub(super) fn read(dumps: &mut Dumps) -> Result<Vec<Rule>> {
    let mut rules = Vec::new();
    for (family, number) in [(AddressFamily::Inet, 4), (AddressFamily::Inet6, 6)] {
        let mut request = RuleMessage::default();
        request.header.family = family;
        for message in dumps.dump(RouteNetlinkMessage::GetRule(request), rule_message)? {
            // A kernel without this family answers for all others.
            if message.header.family != family {
                continue;
            }
            let rule = rule(&message, number);
            let is_for_all = rule.source.is_none() && rule.mark.is_none() && !rule.not;
            if !is_for_all || !KERNELS_OWN.contains(&(rule.priority, rule.table)) {
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
    let not = header.flags.contains(RuleFlags::Invert);
    let table = u32::from(header.table);
    let mut rule = Rule { family, not, table, tos: header.tos, ..Rule::default() };
    let mut goto = 0;
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => rule.priority = *priority,
            RuleAttribute::Table(table) => rule.table = *table,
            RuleAttribute::Protocol(protocol) => rule.protocol = Some((*protocol).into()),
            RuleAttribute::Source(source) => rule.source = IpNet::new(*source, header.src_len).ok(),
            RuleAttribute::Destination(to) => rule.to = IpNet::new(*to, header.dst_len).ok(),
            RuleAttribute::FwMark(value) => mark(&mut rule).value = *value,
            RuleAttribute::FwMask(mask) => mark(&mut rule).mask = *mask,
            RuleAttribute::Iifname(name) => rule.iif = Some(name.clone()),
            RuleAttribute::Oifname(name) => rule.selects.push(format!("oif {name}")),
            RuleAttribute::UidRange(users) => {
                rule.selects.push(format!("uidrange {}-{}", users.start, users.end));
            }
            RuleAttribute::IpProtocol(protocol) => {
                rule.selects.push(format!("ipproto {}", format!("{protocol:?}").to_lowercase()));
            }
            RuleAttribute::SourcePortRange(ports) => {
                rule.selects.push(range("sport", ports.start, ports.end));
            }
            RuleAttribute::DestinationPortRange(ports) => {
                rule.selects.push(range("dport", ports.start, ports.end));
            }
            RuleAttribute::TunId(id) if *id != 0 => rule.selects.push(format!("tun_id {id}")),
            RuleAttribute::SuppressPrefixLen(length) if *length != NOT_SUPPRESSED => {
                rule.action = Some(format!("suppress_prefixlength {length}"));
            }
            RuleAttribute::SuppressIfGroup(group) if *group != NOT_SUPPRESSED => {
                rule.action = Some(format!("suppress_ifgroup {group}"));
            }
            RuleAttribute::Goto(priority) => goto = *priority,
            _ => {}
        }
    }
    if header.action != RuleAction::ToTable {
        rule.table = 0;
        rule.action = Some(match header.action {
            RuleAction::Goto => format!("goto {goto}"),
            RuleAction::Nop => "nop".to_owned(),
            RuleAction::Blackhole => "blackhole".to_owned(),
            RuleAction::Prohibit => "prohibit".to_owned(),
            _ => "unreachable".to_owned(),
        });
    }
    rule
}

/// A mark without a mask counts whole.
fn mark(rule: &mut Rule) -> &mut Mark {
    rule.mark.get_or_insert(Mark { value: 0, mask: u32::MAX })
}

fn range(name: &str, start: u16, end: u16) -> String {
    if start == end { format!("{name} {start}") } else { format!("{name} {start}-{end}") }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::route::RouteProtocol;

    use super::*;
    use crate::model::testing::{ip, net};

    #[test]
    fn a_rule_is_read_with_its_source_mark_and_table() {
        let mut message = RuleMessage::default();
        message.header.src_len = 24;
        message.header.action = RuleAction::ToTable;
        message.attributes = vec![
            RuleAttribute::Source(ip("10.1.0.0")),
            RuleAttribute::Table(1000),
            RuleAttribute::Priority(100),
            RuleAttribute::Protocol(RouteProtocol::Static),
            RuleAttribute::SuppressPrefixLen(NOT_SUPPRESSED),
        ];
        let source = Some(net("10.1.0.0/24"));
        let base =
            Rule { family: 4, priority: 100, source, table: 1000, protocol: Some(4), ..Rule::default() };
        assert_eq!(rule(&message, 4), base);
        message.attributes.extend([
            RuleAttribute::FwMark(1),
            RuleAttribute::FwMask(0xff),
            RuleAttribute::Iifname("lo".to_owned()),
        ]);
        let marked = Rule { mark: Some(Mark { value: 1, mask: 0xff }), iif: Some("lo".to_owned()), ..base };
        assert_eq!(rule(&message, 4), marked);
        message.header.action = RuleAction::Prohibit;
        assert_eq!(rule(&message, 4), Rule { table: 0, action: Some("prohibit".to_owned()), ..marked });
    }
}
