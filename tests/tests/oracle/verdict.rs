//! What becomes of a frame.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    frame::{Content, Discovery, Operation, read, read_bare},
    host::{Host, Interface},
    owners::Owners,
    policy::{Announce, Policy, Receive, Send, Unknown},
    redirect::redirect,
};

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
    /// IPsec has unwrapped it: `bpf_skb_get_xfrm_state` finds a state.
    pub(crate) decapsulated: bool,
    /// The control information of the tag that the kernel holds beside the frame; 0 when there is none.
    pub(crate) tag_beside: u16,
    /// The protocol that the kernel knows it to be of: `skb->protocol`. It matters where the frame has no
    /// Ethernet header.
    pub(crate) protocol: u16,
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
        neighbour: IpAddr,
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
    /// Its own, everyone's, or none at all (0.0.0.0, ::).
    Fine,
    /// Of 127.0.0.0/8, or ::1, and not allowed on the wire.
    Loopback,
    /// No address of this host.
    Foreign,
    /// An address of these interfaces.
    Elsewhere(Vec<u32>),
}

/// Where a frame is judged.
#[derive(Clone, Copy)]
struct Place<'a> {
    host: &'a Host,
    interface: &'a Interface,
    policy: &'a Policy,
}

/// Judges a frame.
pub(crate) fn judge(host: &Host, crossing: &Crossing) -> Verdict {
    let Some(interface) = host.interface(crossing.interface) else { return Verdict::Pass };
    let Some(policy) = &interface.policy else { return Verdict::Pass };
    // What is forwarded or bridged is not this host's own.
    if crossing.direction == Direction::Egress && crossing.arrived {
        return Verdict::Pass;
    }
    let is_ethernet = interface.kind.is_ethernet();
    let content = if is_ethernet {
        read(&crossing.frame, crossing.tag_beside)
    } else {
        read_bare(&crossing.frame, crossing.protocol)
    };
    let place = Place { host, interface, policy };
    match (crossing.direction, content) {
        (_, None) => Verdict::Pass,
        (Direction::Egress, Some(Content::Ip { source, destination, discovery })) => {
            let to_group = if is_ethernet { crossing.frame[0] % 2 == 1 } else { is_group(destination) };
            let announced = match discovery {
                Some(Discovery::Advertisement { target }) => place.announced(target),
                Some(Discovery::Solicitation { .. }) | None => Verdict::Pass,
            };
            announced.or_else(|| place.sent_datagram(source, destination, to_group))
        }
        (Direction::Ingress, Some(Content::Ip { destination, discovery, .. })) => {
            let received = place.received_datagram(destination, crossing.decapsulated);
            received.or_else(|| match discovery {
                Some(Discovery::Solicitation { target }) => place.solicited(target),
                Some(Discovery::Advertisement { .. }) | None => Verdict::Pass,
            })
        }
        (Direction::Egress, Some(Content::Arp { operation, sender, target })) => {
            // An announcement, "gratuitous ARP", is of its sender's own address.
            let asks = operation == Operation::Request && sender != target;
            place.sent_arp(asks, sender, target)
        }
        (Direction::Ingress, Some(Content::Arp { target, .. })) => place.received_arp(target),
    }
}

impl Verdict {
    /// The first violation that is found is the one that counts, be it enforced or only observed.
    fn or_else(self, next: impl FnOnce() -> Self) -> Self {
        if self == Self::Pass { next() } else { self }
    }
}

impl Place<'_> {
    fn sent_datagram(self, source: IpAddr, destination: IpAddr, to_group: bool) -> Verdict {
        let enforced = match self.policy.send {
            Send::Redirect | Send::Drop => true,
            Send::Observe => false,
            Send::Off => return Verdict::Pass,
        };
        let (reason, action) = match self.relation(source) {
            Relation::Fine => return Verdict::Pass,
            Relation::Foreign if self.policy.unknown == Unknown::Pass => return Verdict::Pass,
            Relation::Foreign => ("unknown_source", Action::Drop),
            Relation::Loopback => ("loopback", Action::Drop),
            Relation::Elsewhere(_) if self.policy.send == Send::Drop => ("wrong_source", Action::Drop),
            Relation::Elsewhere(owners) => redirect(self.host, &owners, destination, to_group),
        };
        Verdict::Violation { family: family(source), reason, action, enforced }
    }

    fn received_datagram(self, destination: IpAddr, decapsulated: bool) -> Verdict {
        let enforced = match self.policy.receive {
            Receive::Drop => true,
            Receive::Observe => false,
            Receive::Off => return Verdict::Pass,
        };
        let reason = match self.relation(destination) {
            _ if is_group(destination) => return Verdict::Pass,
            Relation::Fine | Relation::Foreign => return Verdict::Pass,
            // A tunnel's end is an address like others; what comes out of the tunnel has crossed no wire.
            Relation::Elsewhere(_) if decapsulated => return Verdict::Pass,
            Relation::Elsewhere(_) => "wrong_destination",
            Relation::Loopback => "loopback",
        };
        Verdict::Violation { family: family(destination), reason, action: Action::Drop, enforced }
    }

    /// Whether ARP and NDP violations are prevented; `None` where nobody looks for them.
    fn announces_strictly(self) -> Option<bool> {
        match self.policy.announce {
            Announce::Enforce => Some(true),
            Announce::Observe => Some(false),
            Announce::Off => None,
        }
    }

    fn announced(self, target: Ipv6Addr) -> Verdict {
        self.dropped_for(target.into(), "ndp", "ndp_sender")
    }

    fn solicited(self, target: Ipv6Addr) -> Verdict {
        self.dropped_for(target.into(), "ndp", "ndp_target")
    }

    fn received_arp(self, target: Ipv4Addr) -> Verdict {
        self.dropped_for(target.into(), "arp", "arp_target")
    }

    /// An address that this interface must not speak of, or be asked for.
    fn dropped_for(self, address: IpAddr, family: &'static str, reason: &'static str) -> Verdict {
        let Some(enforced) = self.announces_strictly() else { return Verdict::Pass };
        let drop = |reason| Verdict::Violation { family, reason, action: Action::Drop, enforced };
        match self.relation(address) {
            Relation::Fine | Relation::Foreign => Verdict::Pass,
            Relation::Loopback => drop("loopback"),
            Relation::Elsewhere(_) => drop(reason),
        }
    }

    fn sent_arp(self, asks: bool, sender: Ipv4Addr, target: Ipv4Addr) -> Verdict {
        let Some(enforced) = self.announces_strictly() else { return Verdict::Pass };
        let (reason, action) = match self.relation(sender.into()) {
            Relation::Fine => return Verdict::Pass,
            Relation::Foreign if self.policy.unknown == Unknown::Pass => return Verdict::Pass,
            Relation::Foreign => ("unknown_source", Action::Drop),
            Relation::Loopback => ("loopback", Action::Drop),
            Relation::Elsewhere(_) if !asks => ("arp_sender", Action::Drop),
            // A datagram on the wrong interface must find a neighbour there, or it never comes to where it
            // can be redirected.
            Relation::Elsewhere(_) => match self.host.address_to_ask_with(self.interface, target) {
                Some(own) => ("arp_rewritten", Action::AskAs(own)),
                None if self.policy.send == Send::Drop => ("arp_sender", Action::Drop),
                // An RFC 5227 probe claims nothing.
                None => ("arp_rewritten", Action::AskAs(Ipv4Addr::UNSPECIFIED)),
            },
        };
        Verdict::Violation { family: "arp", reason, action, enforced }
    }

    fn relation(self, address: IpAddr) -> Relation {
        let Self { host, interface, .. } = self;
        if address.is_unspecified() {
            return Relation::Fine;
        }
        if address.is_loopback() {
            return if interface.route_localnet { Relation::Fine } else { Relation::Loopback };
        }
        if interface.is_allowed(address) {
            return Relation::Fine;
        }
        match host.owners(host.domain(interface.index), address) {
            None => Relation::Foreign,
            Some(Owners::All) => Relation::Fine,
            Some(Owners::These(owners)) if owners.contains(&interface.index) => Relation::Fine,
            Some(Owners::These(owners)) => Relation::Elsewhere(owners),
        }
    }
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ipv4" } else { "ipv6" }
}

/// Whether a datagram is for more than one host.
fn is_group(destination: IpAddr) -> bool {
    destination.is_multicast() || destination == IpAddr::V4(Ipv4Addr::BROADCAST)
}
