//! Rules of policy routing: ours, and those that are in their place.

use std::io;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::RouteProtocol,
    rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage},
};

use super::{parse, request::Requests};
use crate::model::{
    Rule,
    steering::{ALL_MARKS, PRIORITY, PROTOCOL, SteeringRule},
};

/// A rule with our priority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedRule {
    /// The rule, if it says nothing else than ours do.
    pub rule: Option<SteeringRule>,
    /// Who added it (`FRA_PROTOCOL`).
    pub protocol: u8,
    message: RuleMessage,
}

/// What there is of rules that matters to ours.
#[derive(Debug)]
pub(crate) struct Rules {
    /// Those with our priority.
    pub(crate) placed: Vec<PlacedRule>,
    /// Families in which the table local is not looked up before our rules.
    pub(crate) local_late: Vec<LocalLate>,
    /// Whether that is the whole truth: `false` if they changed meanwhile.
    pub(crate) exact: bool,
}

/// A family in which no rule for all packets leads to the table local before our priority: packets between the host's own
/// addresses would be looked up in our tables, and go onto the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalLate {
    /// IPv4, and not IPv6.
    pub ipv4: bool,
    /// The first such rule's priority, where there is one.
    pub priority: Option<u32>,
}

/// `RT_TABLE_LOCAL`
const LOCAL_TABLE: u32 = 255;

/// Dumps the rules of both families. One that the kernel does not have (`ipv6.disable=1`) has no rules.
///
/// # Errors
///
/// When the kernel refuses.
pub(crate) fn placed(requests: &mut Requests) -> io::Result<Rules> {
    let mut rules = Rules { placed: Vec::new(), local_late: Vec::new(), exact: true };
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RuleMessage::default();
        request.header.family = family;
        let mut local: Option<u32> = None;
        let dumped = requests.send(RouteNetlinkMessage::GetRule(request), NLM_F_DUMP, |payload| {
            // A kernel without this family answers for all others.
            let message = parse::rule_message(payload).ok().filter(|m| m.header.family == family);
            let found = message.as_ref().and_then(priority_of_local);
            local = local.into_iter().chain(found).min();
            rules.placed.extend(message.and_then(read));
        });
        let ipv4 = family == AddressFamily::Inet;
        let exact = match dumped {
            Err(error) if !ipv4 && error.raw_os_error() == Some(libc::EAFNOSUPPORT) => continue,
            dumped => dumped?,
        };
        rules.exact &= exact;
        // What an interrupted dump misses may be there.
        if exact && local.is_none_or(|priority| priority >= PRIORITY) {
            rules.local_late.push(LocalLate { ipv4, priority: local });
        }
    }
    Ok(rules)
}

/// A rule that leads to a table; `None` for others.
pub(super) fn leading(message: &RuleMessage) -> Option<Rule> {
    let header = &message.header;
    if header.action != RuleAction::ToTable {
        return None;
    }
    let mut rule = Rule {
        ipv4: header.family == AddressFamily::Inet,
        priority: 0,
        source: source(message),
        table: table(message),
        protocol: 0,
        mark: None,
        selects: header.dst_len > 0 || header.tos != 0 || header.flags.contains(RuleFlags::Invert),
    };
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => rule.priority = *priority,
            RuleAttribute::Protocol(protocol) => rule.protocol = u8::from(*protocol),
            RuleAttribute::FwMark(mark) => rule.mark.get_or_insert((0, u32::MAX)).0 = *mark,
            RuleAttribute::FwMask(mask) => rule.mark.get_or_insert((0, u32::MAX)).1 = *mask,
            // Packets of local origin have come in by the device of loopback.
            RuleAttribute::Iifname(name) if name == "lo" => {}
            RuleAttribute::Table(_)
            | RuleAttribute::Source(_)
            | RuleAttribute::SuppressPrefixLen(_)
            | RuleAttribute::SuppressIfGroup(_) => {}
            _ => rule.selects = true,
        }
    }
    Some(rule)
}

/// The priority of a rule that leads all packets to the table local.
fn priority_of_local(message: &RuleMessage) -> Option<u32> {
    let header = &message.header;
    let mut priority = 0;
    for attribute in &message.attributes {
        match attribute {
            // That of 0 is not dumped.
            RuleAttribute::Priority(number) => priority = *number,
            RuleAttribute::Table(_) | RuleAttribute::Protocol(_) => {}
            // Not to suppress any prefix length is dumped as -1.
            RuleAttribute::SuppressPrefixLen(u32::MAX) => {}
            _ => return None,
        }
    }
    let is_for_all = (header.src_len, header.dst_len, header.tos) == (0, 0, 0) && header.flags.is_empty();
    let is_plain = is_for_all && header.action == RuleAction::ToTable && table(message) == LOCAL_TABLE;
    is_plain.then_some(priority)
}

impl LocalLate {
    /// Names it for a message.
    pub(crate) fn describe(&self) -> String {
        let family = if self.ipv4 { "IPv4" } else { "IPv6" };
        let found = match self.priority {
            Some(priority) => {
                format!("the rule `from all lookup local` of {family} has the priority {priority}")
            }
            None => format!("there is no rule `from all lookup local` of {family}"),
        };
        format!(
            "{found}, and mhebpf's rules, with the priority {PRIORITY}, would come first: packets between this host's own \
             addresses would leave it"
        )
    }
}

/// Adds a rule. One that is there already counts as added.
///
/// # Errors
///
/// When the kernel refuses.
pub(crate) fn add(requests: &mut Requests, rule: &SteeringRule) -> io::Result<()> {
    let message = RouteNetlinkMessage::NewRule(message(rule));
    let added = requests.send(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, |_| {});
    unless(added.map(drop), libc::EEXIST)
}

/// Removes a rule. One that is not there any more counts as removed.
///
/// # Errors
///
/// When the kernel refuses.
pub(crate) fn remove(requests: &mut Requests, rule: &PlacedRule) -> io::Result<()> {
    let removed = requests.send(RouteNetlinkMessage::DelRule(rule.message.clone()), NLM_F_ACK, |_| {});
    unless(removed.map(drop), libc::ENOENT)
}

/// Takes one error for success.
pub(super) fn unless(result: io::Result<()>, accepted: i32) -> io::Result<()> {
    result.or_else(|error| if error.raw_os_error() == Some(accepted) { Ok(()) } else { Err(error) })
}

impl PlacedRule {
    /// Whether it was added by mhebpf.
    pub fn is_ours(&self) -> bool {
        self.protocol == PROTOCOL
    }

    /// Names it for a message.
    pub fn describe(&self) -> String {
        let Self { protocol, message, rule } = self;
        let end = format!("priority {PRIORITY} protocol {protocol}");
        if let Some(rule) = rule {
            return format!("{rule} protocol {protocol}");
        }
        let source = source(message).map_or_else(|| "all".to_owned(), |source| source.to_string());
        match message.header.action {
            RuleAction::ToTable => format!("from {source} lookup {} {end}", table(message)),
            other => format!("from {source} {other:?} {end}"),
        }
    }
}

fn message(rule: &SteeringRule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = match rule.source {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    };
    message.header.src_len = rule.source.prefix_len();
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Source(rule.source.addr()),
        RuleAttribute::Iifname("lo".to_owned()),
        RuleAttribute::FwMark(0),
        RuleAttribute::FwMask(ALL_MARKS),
        RuleAttribute::Table(rule.table),
        RuleAttribute::Priority(PRIORITY),
        RuleAttribute::Protocol(RouteProtocol::from(PROTOCOL)),
    ];
    message
}

fn read(message: RuleMessage) -> Option<PlacedRule> {
    let has = |wanted: &RuleAttribute| message.attributes.contains(wanted);
    if !has(&RuleAttribute::Priority(PRIORITY)) {
        return None;
    }
    let protocol = message.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Protocol(protocol) => Some(u8::from(*protocol)),
        _ => None,
    });
    let rule = source(&message).map(|source| SteeringRule { source, table: table(&message) });
    let rule = rule.filter(|rule| is_plain(&message, rule));
    Some(PlacedRule { rule, protocol: protocol.unwrap_or_default(), message })
}

/// Whether a message says what a rule of ours does and no more.
fn is_plain(given: &RuleMessage, rule: &SteeringRule) -> bool {
    let ours = message(rule);
    let (header, expected) = (&given.header, &ours.header);
    let says_nothing = |attribute: &&RuleAttribute| {
        // Not to suppress any prefix length is dumped as -1, and a mark of 0 not at all, unlike its mask
        // (`fib_nl_fill_rule`, net/core/fib_rules.c).
        matches!(
            attribute,
            RuleAttribute::SuppressPrefixLen(u32::MAX)
                | RuleAttribute::Protocol(_)
                | RuleAttribute::FwMark(0)
        )
    };
    let given: Vec<&RuleAttribute> = given.attributes.iter().filter(|each| !says_nothing(each)).collect();
    let all = ours.attributes.iter().filter(|each| !says_nothing(each));
    header.src_len == expected.src_len
        && header.action == expected.action
        && (header.dst_len, header.tos) == (0, 0)
        && header.flags.is_empty()
        && given.len() == all.clone().count()
        && { all }.all(|attribute| given.contains(&attribute))
}

fn table(message: &RuleMessage) -> u32 {
    let table = message.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Table(table) => Some(*table),
        _ => None,
    });
    table.unwrap_or(u32::from(message.header.table))
}

fn source(message: &RuleMessage) -> Option<IpNet> {
    message.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Source(source) => IpNet::new(*source, message.header.src_len).ok(),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing::net;

    const RULE: SteeringRule = SteeringRule {
        source: IpNet::V4(ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::LOCALHOST, 32)),
        table: 7,
    };

    #[test]
    fn a_rule_is_read_back_as_the_kernel_dumps_it() {
        for source in ["192.168.0.101/32", "2001:db8::/64"] {
            let rule = SteeringRule { source: net(source), table: 280_080_003 };
            let mut dumped = message(&rule);
            dumped.header.table = 252;
            dumped.attributes.push(RuleAttribute::SuppressPrefixLen(u32::MAX));
            dumped.attributes.retain(|attribute| *attribute != RuleAttribute::FwMark(0));
            let placed = read(dumped).expect("our priority");
            assert_eq!((placed.rule, placed.is_ours()), (Some(rule), true));
            assert_eq!(placed.describe(), format!("{rule} protocol {PROTOCOL}"));
        }
    }

    #[test]
    fn a_rule_that_says_more_is_not_taken_for_ours() {
        let mut with_mark = message(&RULE);
        with_mark.attributes.push(RuleAttribute::FwMark(1));
        assert_eq!(read(with_mark).and_then(|placed| placed.rule), None);
        let mut elsewhere = message(&RULE);
        elsewhere.attributes.retain(|attribute| !matches!(attribute, RuleAttribute::Priority(_)));
        assert_eq!(read(elsewhere), None);
    }

    #[test]
    fn only_a_rule_for_all_packets_leads_to_the_table_local() {
        let mut local = RuleMessage::default();
        local.header.action = RuleAction::ToTable;
        local.header.table = 255;
        local.attributes = vec![RuleAttribute::Table(255), RuleAttribute::SuppressPrefixLen(u32::MAX)];
        assert_eq!(priority_of_local(&local), Some(0));
        local.attributes.push(RuleAttribute::Priority(32_765));
        assert_eq!(priority_of_local(&local), Some(32_765));
        let mut for_a_mark = local.clone();
        for_a_mark.attributes.push(RuleAttribute::FwMark(1));
        assert_eq!(priority_of_local(&for_a_mark), None);
        let mut of_a_source = local;
        of_a_source.header.src_len = 8;
        assert_eq!(priority_of_local(&of_a_source), None);
    }

    #[test]
    fn somebody_elses_rule_is_named() {
        let mut theirs = RuleMessage::default();
        theirs.header.action = RuleAction::ToTable;
        theirs.attributes = vec![RuleAttribute::Priority(PRIORITY), RuleAttribute::Table(100)];
        let placed = read(theirs).expect("our priority");
        assert!(!placed.is_ours());
        assert_eq!(placed.describe(), "from all lookup 100 priority 28008 protocol 0");
    }

    #[test]
    fn what_a_rule_selects_by_is_told_apart() {
        let read = |attributes: Vec<RuleAttribute>| {
            let mut message = RuleMessage::default();
            message.header.family = AddressFamily::Inet;
            message.header.action = RuleAction::ToTable;
            message.header.src_len = 32;
            message.attributes = attributes;
            message.attributes.extend([RuleAttribute::Table(101), RuleAttribute::Priority(7)]);
            leading(&message).expect("it leads to a table")
        };
        let from = || RuleAttribute::Source("10.2.0.5".parse().expect("an address"));
        let plain = read(vec![from(), RuleAttribute::Iifname("lo".to_owned())]);
        assert_eq!((plain.source, plain.table, plain.priority), (Some(net("10.2.0.5/32")), 101, 7));
        assert!(plain.is_for_sources());
        let unmarked = read(vec![from(), RuleAttribute::FwMark(0), RuleAttribute::FwMask(u32::MAX)]);
        assert!(unmarked.is_for_sources() && unmarked.mark == Some((0, u32::MAX)));
        assert!(!read(vec![from(), RuleAttribute::FwMark(1)]).is_for_sources());
        assert!(!read(vec![from(), RuleAttribute::Oifname("eth0".to_owned())]).is_for_sources());
        assert!(!read(vec![]).is_for_sources());
    }
}
