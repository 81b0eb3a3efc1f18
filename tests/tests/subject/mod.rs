//! The code under test, in the words of the oracle.

pub(crate) mod model;

use std::net::IpAddr;

use mhebpf_ebpf::{
    Action as Done, Direction as Way, Frame as _, Iface, Ipv4, Ipv6, Mac, Metadata, Tables as _,
    Verdict as Decided,
    decide::{Act, behind_tags, decide},
    glance, icmp,
    packet::{NEXT_HEADER_ICMPV6, locate, parse_at, parse_without_ethernet},
};

pub(crate) use self::model::tables;
use crate::oracle::{Action, Crossing, Direction, Verdict};

/// The tables that the daemon would write for a host.
pub(crate) type Tables = mhebpf::model::Tables;

/// The verdict of the pure decision, reached as the programs reach it.
pub(crate) fn verdict(tables: &Tables, crossing: &Crossing) -> Verdict {
    let direction = match crossing.direction {
        Direction::Egress => Way::Egress,
        Direction::Ingress => Way::Ingress,
    };
    let Some(iface) = tables.ifaces.get(&crossing.interface) else { return Verdict::Pass };
    let verdict = verdict_at_close_look(tables, crossing, direction, iface, false);
    let frame = crossing.frame.as_slice();
    let filter = tables.filter();
    if glance::passes(direction, iface, frame, |bit| bit.is_set(&filter)) {
        assert_eq!(verdict, Verdict::Pass, "passes at a glance: {crossing:?}");
    } else if iface.has_ethernet() && is_glanced_at(frame) {
        let glanced = verdict_at_close_look(tables, crossing, direction, iface, true);
        assert_eq!(glanced, verdict, "after a glance: {crossing:?}");
    }
    verdict
}

/// Whether the programs have looked for the judged address among the inline ones when they parse such a frame.
fn is_glanced_at(frame: &[u8]) -> bool {
    match frame.get(12..14) {
        Some([0x08, 0x00]) => frame.len() >= glance::IPV4_FRAME,
        Some([0x86, 0xdd]) => frame.len() >= glance::IPV6_FRAME && frame[20] != NEXT_HEADER_ICMPV6,
        _ => false,
    }
}

fn verdict_at_close_look(
    tables: &Tables,
    crossing: &Crossing,
    direction: Way,
    iface: &Iface,
    glanced: bool,
) -> Verdict {
    let frame = crossing.frame.as_slice();
    let packet = if iface.has_ethernet() {
        match locate(frame, crossing.tag_beside) {
            Some(location) if location.is_tagged() => {
                return in_words(tables, behind_tags(direction, iface, crossing));
            }
            location => location.and_then(|location| parse_at(frame, location)),
        }
    } else {
        parse_without_ethernet(frame, crossing.protocol)
    };
    let Some(packet) = packet else { return Verdict::Pass };
    in_words(tables, decide(tables, direction, crossing.interface, iface, &packet, glanced, crossing))
}

/// What the programs ask the kernel, or read in the frame.
impl Metadata for Crossing {
    fn has_arrived(&self) -> bool {
        self.arrived
    }

    fn is_decapsulated(&self) -> bool {
        self.decapsulated
    }

    fn source_mac(&self) -> Mac {
        mac(&self.frame, 6)
    }

    fn destination_mac(&self) -> Mac {
        mac(&self.frame, 0)
    }

    fn invoking_ipv4(&self, offset: usize) -> Option<Ipv4> {
        icmp::ipv4_destination(self.frame.as_slice(), offset)
    }

    fn invoking_ipv6(&self, offset: usize) -> Option<Ipv6> {
        icmp::ipv6_destination(self.frame.as_slice(), offset)
    }
}

fn mac(frame: &[u8], offset: usize) -> Mac {
    Mac::new(frame.read(offset).unwrap_or_default())
}

/// A verdict of the code under test in the words of the oracle.
pub(crate) fn in_words(tables: &Tables, decided: Decided) -> Verdict {
    match decided {
        Decided::Pass => Verdict::Pass,
        Decided::Act { family, reason, action, enforced } => Verdict::Violation {
            family: family.name(),
            reason: reason.name(),
            action: done(tables, action),
            enforced,
        },
    }
}

fn done(tables: &Tables, action: Done) -> Action {
    let Done { act, owner, address } = action;
    match (act, address.ip()) {
        (Act::Drop, None) if owner == 0 => Action::Drop,
        (Act::Redirect, Some(neighbour)) => Action::SendBy { owner, neighbour },
        (Act::RedirectGroup, None) => {
            Action::SendToGroupBy { owner, source: tables.iface(owner).map_or([0xff; 6], |owner| owner.mac) }
        }
        (Act::RewriteSender, Some(IpAddr::V4(sender))) if owner == 0 => Action::AskAs(sender),
        (Act::RewriteSource, Some(source)) if owner == 0 => Action::SpeakAs(source),
        _ => unreachable!("{action:?} lacks something, or has too much"),
    }
}
