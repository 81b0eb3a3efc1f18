//! A rule of policy routing, in the words of `ip rule`.

use std::fmt;

use ipnet::IpNet;
use serde::Serialize;

use crate::model::steering::PROTOCOL;

/// A rule of policy routing (`ip rule`).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Rule {
    /// `4` or `6`.
    pub family: u8,
    /// Rules with lower numbers are asked first.
    pub priority: u32,
    /// It is for all packets but those that the rest describes.
    pub not: bool,
    /// The sources that it is for; `None` when it does not look at the source.
    pub source: Option<IpNet>,
    /// The destinations that it is for; `None` when it does not look at them.
    pub to: Option<IpNet>,
    /// The type of service that it is for, 0 for any.
    pub tos: u8,
    /// The marks that it is for; `None` when it does not look at them.
    pub mark: Option<Mark>,
    /// The interface that packets have come in by; `lo` for those of this host itself.
    pub iif: Option<String>,
    /// What else it looks at.
    pub selects: Vec<String>,
    /// The routing table that it leads to; 0 when it leads to none.
    pub table: u32,
    /// What it does where it leads to no table, and which routes of its table it does not take.
    pub action: Option<String>,
    /// Who made it (`FRA_PROTOCOL`); `None` where that is not said.
    pub protocol: Option<u8>,
}

/// Marks of packets (`SO_MARK`, nftables' `meta mark`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Mark {
    /// What the bits are.
    pub value: u32,
    /// Which bits count.
    pub mask: u32,
}

impl Rule {
    /// Whether it is one of mhebpf's, whatever its priority.
    pub fn is_ours(&self) -> bool {
        self.protocol == Some(PROTOCOL)
    }

    /// Whether packets of this host that nobody has marked can match. Others `--steer rules` leaves alone.
    pub fn is_for_unmarked(&self) -> bool {
        if self.iif.as_deref().is_some_and(|name| name != "lo") {
            return self.not;
        }
        let unmarked_match = self.mark.is_none_or(|mark| mark.value & mark.mask == 0);
        // A negated rule is for unmarked packets too where anything else in it can be false.
        let is_for_some =
            self.source.is_some() || self.to.is_some() || self.tos != 0 || !self.selects.is_empty();
        if self.not { !unmarked_match || is_for_some } else { unmarked_match }
    }

    /// Whether it is for all packets from some sources that nobody has marked.
    pub fn is_for_sources(&self) -> bool {
        self.source.is_some() && !self.not && self.is_for_unmarked()
    }

    /// Whether it looks at nothing but the source.
    pub fn is_for_sources_only(&self) -> bool {
        let looks_further = self.to.is_some() || self.tos != 0 || self.mark.is_some() || self.iif.is_some();
        self.is_for_sources() && !looks_further && self.selects.is_empty()
    }
}

/// As `ip rule` prints it (`print_rule` of iproute2), with tables as numbers.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.priority)?;
        if self.not {
            write!(f, " not")?;
        }
        match self.source {
            Some(source) => write!(f, " from {}", prefix(source))?,
            None => write!(f, " from all")?,
        }
        if let Some(to) = self.to {
            write!(f, " to {}", prefix(to))?;
        }
        if self.tos != 0 {
            write!(f, " tos {:#x}", self.tos)?;
        }
        match self.mark {
            Some(Mark { value, mask: u32::MAX }) if value != 0 => write!(f, " fwmark {value:#x}")?,
            Some(Mark { value: 0, mask }) => write!(f, " fwmark 0/{mask:#x}")?,
            Some(Mark { value, mask }) => write!(f, " fwmark {value:#x}/{mask:#x}")?,
            None => {}
        }
        if let Some(iif) = &self.iif {
            write!(f, " iif {iif}")?;
        }
        for selector in &self.selects {
            write!(f, " {selector}")?;
        }
        if self.table != 0 {
            write!(f, " lookup {}", self.table)?;
        }
        if let Some(action) = &self.action {
            write!(f, " {action}")?;
        }
        match self.protocol {
            // What `ip rule add` gives it, and what has none.
            None | Some(0 | 3) => Ok(()),
            Some(protocol) => write!(f, " proto {}", protocol_name(protocol)),
        }
    }
}

/// A single address has no length.
fn prefix(prefix: IpNet) -> String {
    if prefix.prefix_len() == prefix.max_prefix_len() {
        prefix.addr().to_string()
    } else {
        prefix.to_string()
    }
}

/// The name of a routing protocol (`linux/rtnetlink.h`), or its number.
fn protocol_name(protocol: u8) -> String {
    let name = match protocol {
        1 => "redirect",
        2 => "kernel",
        4 => "static",
        9 => "ra",
        16 => "dhcp",
        18 => "keepalived",
        186 => "bgp",
        188 => "ospf",
        PROTOCOL => "mhebpf",
        _ => return protocol.to_string(),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing::net;

    #[test]
    fn a_rule_reads_as_ip_rule_prints_it() {
        let base = Rule { family: 4, priority: 100, table: 1000, ..Rule::default() };
        let mark = |value, mask| Some(Mark { value, mask });
        let source = Some(net("10.1.0.5/32"));
        for (rule, expected) in [
            (base.clone(), "100: from all lookup 1000"),
            (
                Rule { source, protocol: Some(4), ..base.clone() },
                "100: from 10.1.0.5 lookup 1000 proto static",
            ),
            (Rule { mark: mark(1, u32::MAX), ..base.clone() }, "100: from all fwmark 0x1 lookup 1000"),
            (Rule { mark: mark(0x10, 0xf0), ..base.clone() }, "100: from all fwmark 0x10/0xf0 lookup 1000"),
            (
                // As wg-quick makes it.
                Rule { not: true, mark: mark(0xca6c, u32::MAX), ..base.clone() },
                "100: not from all fwmark 0xca6c lookup 1000",
            ),
            (
                Rule {
                    source,
                    iif: Some("lo".to_owned()),
                    mark: mark(0, u32::MAX),
                    protocol: Some(208),
                    ..base.clone()
                },
                "100: from 10.1.0.5 fwmark 0/0xffffffff iif lo lookup 1000 proto mhebpf",
            ),
            (
                Rule {
                    to: Some(net("10.0.0.0/8")),
                    tos: 16,
                    selects: vec!["ipproto tcp".to_owned()],
                    ..base.clone()
                },
                "100: from all to 10.0.0.0/8 tos 0x10 ipproto tcp lookup 1000",
            ),
            (
                Rule { action: Some("suppress_prefixlength 0".to_owned()), ..base.clone() },
                "100: from all lookup 1000 suppress_prefixlength 0",
            ),
            (Rule { table: 0, action: Some("unreachable".to_owned()), ..base }, "100: from all unreachable"),
        ] {
            assert_eq!(rule.to_string(), expected);
        }
    }

    #[test]
    fn marks_tell_which_packets_a_rule_is_for() {
        let marked = |value, mask, not| Rule { mark: Some(Mark { value, mask }), not, ..Rule::default() };
        assert!(!marked(1, u32::MAX, false).is_for_unmarked());
        assert!(marked(0, 0xff, false).is_for_unmarked());
        assert!(marked(0xca6c, u32::MAX, true).is_for_unmarked());
        assert!(!marked(0, 0xff, true).is_for_unmarked());
        assert!(!Rule { iif: Some("eth1".to_owned()), ..Rule::default() }.is_for_unmarked());
        assert!(Rule { iif: Some("lo".to_owned()), ..Rule::default() }.is_for_unmarked());
        assert!(!marked(1, u32::MAX, false).is_for_sources());
    }
}
