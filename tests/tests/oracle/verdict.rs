//! What becomes of a frame.

use std::net::Ipv4Addr;

use super::{
    frame::{Content, Operation, read},
    host::{Host, Interface, Mode, Owners, Policy, Receive, Unknown},
};

/// How many owners of its source a packet is offered to, in their order.
const TRIED_OWNERS: usize = 4;

/// Which way a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Direction {
    Egress,
    Ingress,
}

/// A frame that crosses an interface.
#[derive(Clone, Debug)]
pub(crate) struct Crossing {
    pub(crate) direction: Direction,
    pub(crate) interface: u32,
    /// It came in by some interface: `skb->ingress_ifindex` is set.
    pub(crate) arrived: bool,
    /// The control information of the tag that the kernel holds beside the frame; 0 when there is none.
    pub(crate) tag_beside: u16,
    pub(crate) frame: Vec<u8>,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It goes its way, unseen.
    Pass,
    /// It is counted, and the action is carried out when it is enforced.
    Violation { family: &'static str, reason: &'static str, action: Action, enforced: bool },
}

/// What is done to a violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Drop,
    /// It leaves by its owner to the hardware address of this neighbour.
    SendBy {
        owner: u32,
        neighbour: Ipv4Addr,
    },
    /// It leaves by its owner to its group, from the owner's hardware address.
    SendToGroupBy {
        owner: u32,
        source: [u8; 6],
    },
    /// An ARP request goes on with this sender.
    AskAs(Ipv4Addr),
}

/// What an address is to an interface.
enum Relation {
    /// Its own, everyone's, or none at all (0.0.0.0).
    Fine,
    /// Of 127.0.0.0/8, and not allowed on the wire.
    Loopback,
    /// No address of this host.
    Foreign,
    /// An address of these interfaces.
    Elsewhere(Vec<u32>),
}

/// Judges a frame.
pub(crate) fn judge(host: &Host, crossing: &Crossing) -> Verdict {
    let Some(interface) = host.interface(crossing.interface) else { return Verdict::Pass };
    let Some(policy) = interface.policy else { return Verdict::Pass };
    // What is forwarded or bridged is not this host's own.
    if crossing.direction == Direction::Egress && crossing.arrived {
        return Verdict::Pass;
    }
    match (crossing.direction, read(&crossing.frame, crossing.tag_beside)) {
        (_, None) => Verdict::Pass,
        (Direction::Egress, Some(Content::Ipv4 { source, destination })) => {
            let to_group = crossing.frame[0] % 2 == 1;
            sent_datagram(host, interface, policy, source, destination, to_group)
        }
        (Direction::Ingress, Some(Content::Ipv4 { destination, .. })) => {
            received_datagram(host, interface, policy, destination)
        }
        (Direction::Egress, Some(Content::Arp { operation, sender, target })) => {
            // An announcement, "gratuitous ARP", is of its sender's own address.
            let asks = operation == Operation::Request && sender != target;
            sent_arp(host, interface, policy, asks, sender, target)
        }
        (Direction::Ingress, Some(Content::Arp { target, .. })) => {
            received_arp(host, interface, policy, target)
        }
    }
}

fn sent_datagram(
    host: &Host,
    interface: &Interface,
    policy: Policy,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    to_group: bool,
) -> Verdict {
    let violation = |reason, action| Verdict::Violation {
        family: "ipv4",
        reason,
        action,
        enforced: policy.mode != Mode::Observe,
    };
    let owners = match relation(host, interface, source) {
        Relation::Fine => return Verdict::Pass,
        Relation::Loopback => return violation("loopback", Action::Drop),
        Relation::Foreign if policy.unknown == Unknown::Pass => return Verdict::Pass,
        Relation::Foreign => return violation("unknown_source", Action::Drop),
        Relation::Elsewhere(_) if policy.mode == Mode::Drop => {
            return violation("wrong_source", Action::Drop);
        }
        Relation::Elsewhere(owners) => owners,
    };
    let tried = owners.iter().take(TRIED_OWNERS).filter_map(|owner| host.interface(*owner));
    let up: Vec<&Interface> = tried.filter(|owner| owner.up).collect();
    if up.is_empty() {
        return violation("owner_down", Action::Drop);
    }
    if to_group {
        return violation("redirected", Action::SendToGroupBy { owner: up[0].index, source: up[0].mac });
    }
    for owner in up {
        if let Some(neighbour) = host.next_hop(owner.index, destination) {
            return violation("redirected", Action::SendBy { owner: owner.index, neighbour });
        }
    }
    violation("no_route", Action::Drop)
}

fn received_datagram(host: &Host, interface: &Interface, policy: Policy, destination: Ipv4Addr) -> Verdict {
    if policy.receive == Receive::Off {
        return Verdict::Pass;
    }
    let enforced = policy.receive == Receive::Drop && policy.mode != Mode::Observe;
    let drop = |reason| Verdict::Violation { family: "ipv4", reason, action: Action::Drop, enforced };
    match relation(host, interface, destination) {
        Relation::Fine | Relation::Foreign => Verdict::Pass,
        Relation::Loopback => drop("loopback"),
        Relation::Elsewhere(_) => drop("wrong_destination"),
    }
}

fn sent_arp(
    host: &Host,
    interface: &Interface,
    policy: Policy,
    asks: bool,
    sender: Ipv4Addr,
    target: Ipv4Addr,
) -> Verdict {
    let violation = |reason, action| Verdict::Violation {
        family: "arp",
        reason,
        action,
        enforced: policy.mode != Mode::Observe,
    };
    match relation(host, interface, sender) {
        Relation::Fine => Verdict::Pass,
        Relation::Loopback => violation("loopback", Action::Drop),
        Relation::Foreign if policy.unknown == Unknown::Pass => Verdict::Pass,
        Relation::Foreign => violation("unknown_source", Action::Drop),
        Relation::Elsewhere(_) if !asks => violation("arp_sender", Action::Drop),
        // A datagram on the wrong interface must find a neighbour there, or it never comes to where it can be
        // redirected.
        Relation::Elsewhere(_) => match host.address_to_ask_with(interface, target) {
            Some(own) => violation("arp_rewritten", Action::AskAs(own)),
            None if policy.mode == Mode::Drop => violation("arp_sender", Action::Drop),
            // An RFC 5227 probe claims nothing.
            None => violation("arp_rewritten", Action::AskAs(Ipv4Addr::UNSPECIFIED)),
        },
    }
}

fn received_arp(host: &Host, interface: &Interface, policy: Policy, target: Ipv4Addr) -> Verdict {
    let enforced = policy.mode != Mode::Observe;
    let drop = |reason| Verdict::Violation { family: "arp", reason, action: Action::Drop, enforced };
    match relation(host, interface, target) {
        Relation::Fine | Relation::Foreign => Verdict::Pass,
        Relation::Loopback => drop("loopback"),
        Relation::Elsewhere(_) => drop("arp_target"),
    }
}

fn relation(host: &Host, interface: &Interface, address: Ipv4Addr) -> Relation {
    if address == Ipv4Addr::UNSPECIFIED {
        return Relation::Fine;
    }
    if address.octets()[0] == 127 {
        return if interface.route_localnet { Relation::Fine } else { Relation::Loopback };
    }
    match host.owners(address) {
        None => Relation::Foreign,
        Some(Owners::All) => Relation::Fine,
        Some(Owners::These(owners)) if owners.contains(&interface.index) => Relation::Fine,
        Some(Owners::These(owners)) => Relation::Elsewhere(owners),
    }
}
