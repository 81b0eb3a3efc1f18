//! What becomes of a frame.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    frame::{Content, Discovery, IGMP, Operation, destination_mac, read, read_bare, source_mac},
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
    /// An IGMP message or ICMP error goes on with this source.
    SpeakAs(IpAddr),
}

/// How many owners of an address are known to the programs each by itself.
const KNOWN_OWNERS: usize = 4;

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

/// Who has made a frame that leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Maker {
    /// This host.
    Host,
    /// Another one, for which this host is a router: it has put its own hardware address in.
    Routed,
    /// Another one, for which this host is a switch.
    Bridged,
}

/// Where a frame is judged.
#[derive(Clone, Copy)]
struct Place<'a> {
    host: &'a Host,
    interface: &'a Interface,
    policy: &'a Policy,
    crossing: &'a Crossing,
}

/// Judges a frame.
pub(crate) fn judge(host: &Host, crossing: &Crossing) -> Verdict {
    let Some(interface) = host.interface(crossing.interface) else { return Verdict::Pass };
    let Some(policy) = &interface.policy else { return Verdict::Pass };
    let content = if interface.is_ethernet {
        read(&crossing.frame, crossing.tag_beside)
    } else {
        read_bare(&crossing.frame, crossing.protocol)
    };
    let place = Place { host, interface, policy, crossing };
    if crossing.direction == Direction::Egress && place.maker() == Maker::Bridged {
        // It is not of this host, whatever it is.
        return Verdict::Pass;
    }
    match (crossing.direction, content) {
        (_, None) => Verdict::Pass,
        (Direction::Egress, Some(Content::TooManyTags)) => place.sent_too_many_tags(),
        (Direction::Ingress, Some(Content::TooManyTags)) => place.received_too_many_tags(),
        (Direction::Egress, Some(Content::Ip { source, destination, protocol, discovery, cause })) => {
            let announced = match discovery {
                Some(Discovery::Advertisement { target }) => place.announced(target),
                Some(Discovery::Solicitation { .. }) | None => Verdict::Pass,
            };
            announced.or_else(|| place.sent_datagram(source, destination, protocol, cause))
        }
        (Direction::Ingress, Some(Content::Ip { destination, discovery, .. })) => {
            let received = place.received_datagram(destination);
            received.or_else(|| match discovery {
                Some(Discovery::Solicitation { target }) => place.solicited(target),
                Some(Discovery::Advertisement { .. }) | None => Verdict::Pass,
            })
        }
        (Direction::Egress, Some(Content::Arp { operation, hardware, sender, target })) => {
            // An announcement, "gratuitous ARP", is of its sender's own address.
            let asks = operation == Operation::Request && sender != target;
            place.sent_arp(asks, hardware, sender, target)
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
    fn maker(self) -> Maker {
        if !self.crossing.arrived {
            Maker::Host
        } else if !self.interface.is_ethernet || self.has_own_source() {
            Maker::Routed
        } else {
            Maker::Bridged
        }
    }

    /// Whether a frame comes from the hardware address of the interface.
    fn has_own_source(self) -> bool {
        source_mac(&self.crossing.frame) == Some(self.interface.mac)
    }

    /// Whether a frame that leaves is of a macvlan of this host, by this hardware address: of one that judges it itself, or that
    /// is among the owners of its address.
    fn is_of_one_above(self, source: Option<[u8; 6]>, owners: &[u32]) -> bool {
        let Some(source) = source.filter(|_| self.interface.is_ethernet) else { return false };
        let known = &owners[..owners.len().min(KNOWN_OWNERS)];
        // A macvlan that passes everything through shares its address with the interface, which may have sent it.
        let is_ambiguous = source == self.interface.mac;
        let is_its =
            |above: &Interface| above.policy.is_some() && !is_ambiguous || known.contains(&above.index);
        self.host.carried(self.interface, source).any(is_its)
    }

    /// Whether a frame that arrives is for a macvlan of this host too: by its hardware address, or as one for a group about an
    /// address that is owned there.
    fn is_for_one_above(self, owners: &[u32]) -> bool {
        let Some(destination) = destination_mac(&self.crossing.frame).filter(|_| self.interface.is_ethernet)
        else {
            return false;
        };
        let known = &owners[..owners.len().min(KNOWN_OWNERS)];
        if destination[0].is_multiple_of(2) {
            // What is no uplink takes whatever is for it, unless it hands that to a bridge; and what is enforced judges it itself.
            let is_apart = |above: &Interface| !self.host.is_bound(above) && !self.host.is_port(above);
            let is_its =
                |above: &Interface| above.policy.is_some() || is_apart(above) || known.contains(&above.index);
            return self.host.carried(self.interface, destination).any(is_its);
        }
        let first = owners.iter().take(KNOWN_OWNERS).filter_map(|owner| self.host.interface(*owner));
        let is_above = |owner: &Interface| {
            self.host.carried(self.interface, owner.mac).any(|above| above.index == owner.index)
        };
        { first }.any(is_above)
    }

    /// Whether a foreign source is none of this host's: guests speak for themselves.
    fn passes_foreign(self) -> bool {
        self.policy.unknown == Unknown::Pass || self.interface.is_ethernet && !self.has_own_source()
    }

    /// The switch for datagrams that leave.
    fn send(self) -> Send {
        match self.maker() {
            Maker::Host => self.policy.send,
            Maker::Routed => self.policy.send_forwarded(),
            Maker::Bridged => Send::Off,
        }
    }

    /// Nobody needs them, and the kernel would deliver what is behind them, whatever it is.
    fn sent_too_many_tags(self) -> Verdict {
        match is_enforced(self.send()) {
            Some(enforced) if self.has_own_source() => too_many_tags(enforced),
            _ => Verdict::Pass,
        }
    }

    fn received_too_many_tags(self) -> Verdict {
        let enforced = match self.policy.receive {
            Receive::Drop => true,
            Receive::Observe => false,
            Receive::Off => return Verdict::Pass,
        };
        match destination_mac(&self.crossing.frame) {
            Some(mac) if mac == self.interface.mac || mac[0] % 2 == 1 => too_many_tags(enforced),
            _ => Verdict::Pass,
        }
    }

    fn sent_datagram(
        self,
        source: IpAddr,
        destination: IpAddr,
        protocol: u8,
        cause: Option<IpAddr>,
    ) -> Verdict {
        let is_routed = self.maker() == Maker::Routed;
        let send = self.send();
        let Some(enforced) = is_enforced(send) else { return Verdict::Pass };
        let (reason, action) = match self.relation(source) {
            Relation::Fine => return Verdict::Pass,
            Relation::Foreign if is_routed || self.passes_foreign() => return Verdict::Pass,
            Relation::Foreign => ("unknown_source", Action::Drop),
            Relation::Loopback => ("loopback", Action::Drop),
            Relation::Elsewhere(owners)
                if self.is_of_one_above(source_mac(&self.crossing.frame), &owners) =>
            {
                return Verdict::Pass;
            }
            // Whoever is a member of a group is so on one link: by another interface the message would say what is not so.
            Relation::Elsewhere(_) if source.is_ipv4() && protocol == IGMP => {
                ("igmp_rewritten", Action::SpeakAs(self.address_towards(destination).into()))
            }
            // Who has caused an error by what was for others is told by the interface that leads back, in its own name.
            Relation::Elsewhere(_)
                if !is_routed
                    && cause.is_some_and(|cause| cause != source)
                    && self.address_for_errors(destination).is_some() =>
            {
                let own = self.address_for_errors(destination).unwrap_or(source);
                ("icmp_rewritten", Action::SpeakAs(own))
            }
            Relation::Elsewhere(_) if send == Send::Drop => ("wrong_source", Action::Drop),
            Relation::Elsewhere(owners) => {
                let is_to_group = if self.interface.is_ethernet {
                    self.crossing.frame[0] % 2 == 1
                } else {
                    is_group(destination)
                };
                redirect(self.host, &owners, (source, destination), is_to_group)
            }
        };
        Verdict::Violation { family: family(source), reason, action, enforced }
    }

    /// An own address for an ICMP error; `None` where there is none.
    fn address_for_errors(self, destination: IpAddr) -> Option<IpAddr> {
        match destination {
            IpAddr::V4(destination) => {
                self.host.address_to_ask_with(self.interface, destination).map(IpAddr::from)
            }
            IpAddr::V6(_) => self.host.address_beyond_link(self.interface).map(IpAddr::from),
        }
    }

    /// An own address, or none.
    fn address_towards(self, destination: IpAddr) -> Ipv4Addr {
        match destination {
            IpAddr::V4(destination) => self.host.address_to_ask_with(self.interface, destination),
            IpAddr::V6(_) => None,
        }
        .unwrap_or(Ipv4Addr::UNSPECIFIED)
    }

    fn received_datagram(self, destination: IpAddr) -> Verdict {
        let enforced = match self.policy.receive {
            Receive::Drop => true,
            Receive::Observe => false,
            Receive::Off => return Verdict::Pass,
        };
        let reason = match self.relation(destination) {
            _ if is_group(destination) => return Verdict::Pass,
            Relation::Fine | Relation::Foreign => return Verdict::Pass,
            // A tunnel's end is an address like others; what comes out of the tunnel has crossed no wire.
            Relation::Elsewhere(_) if self.crossing.decapsulated => return Verdict::Pass,
            Relation::Elsewhere(owners) if self.is_for_one_above(&owners) => return Verdict::Pass,
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
        let is_of_one_above = |owners: &[u32]| self.is_of_one_above(source_mac(&self.crossing.frame), owners);
        self.dropped_for(target.into(), "ndp", "ndp_sender", is_of_one_above)
    }

    fn solicited(self, target: Ipv6Addr) -> Verdict {
        self.dropped_for(target.into(), "ndp", "ndp_target", |owners| self.is_for_one_above(owners))
    }

    fn received_arp(self, target: Ipv4Addr) -> Verdict {
        self.dropped_for(target.into(), "arp", "arp_target", |owners| self.is_for_one_above(owners))
    }

    /// An address that this interface must not speak of, or be asked for.
    fn dropped_for(
        self,
        address: IpAddr,
        family: &'static str,
        reason: &'static str,
        is_for_another: impl FnOnce(&[u32]) -> bool,
    ) -> Verdict {
        let Some(enforced) = self.announces_strictly() else { return Verdict::Pass };
        let drop = |reason| Verdict::Violation { family, reason, action: Action::Drop, enforced };
        match self.relation(address) {
            Relation::Fine | Relation::Foreign => Verdict::Pass,
            Relation::Loopback => drop("loopback"),
            Relation::Elsewhere(owners) if is_for_another(&owners) => Verdict::Pass,
            Relation::Elsewhere(_) => drop(reason),
        }
    }

    fn sent_arp(self, asks: bool, hardware: [u8; 6], sender: Ipv4Addr, target: Ipv4Addr) -> Verdict {
        let Some(enforced) = self.announces_strictly() else { return Verdict::Pass };
        let (reason, action) = match self.relation(sender.into()) {
            Relation::Fine => return Verdict::Pass,
            Relation::Foreign if self.passes_foreign() => return Verdict::Pass,
            Relation::Foreign => ("unknown_source", Action::Drop),
            Relation::Loopback => ("loopback", Action::Drop),
            Relation::Elsewhere(owners) if self.is_of_one_above(Some(hardware), &owners) => {
                return Verdict::Pass;
            }
            Relation::Elsewhere(_) if !asks => ("arp_sender", Action::Drop),
            // A datagram on the wrong interface must find a neighbour there, or it never comes to where it
            // can be redirected.
            Relation::Elsewhere(_) => match self.host.address_to_ask_with(self.interface, target) {
                Some(own) if hardware == self.interface.mac => ("arp_rewritten", Action::AskAs(own)),
                // Own addresses are not those of another hardware address.
                Some(_) => ("arp_rewritten", Action::AskAs(Ipv4Addr::UNSPECIFIED)),
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

/// Whether violations are prevented; `None` where nobody looks for them.
fn is_enforced(send: Send) -> Option<bool> {
    match send {
        Send::Redirect | Send::Drop => Some(true),
        Send::Observe => Some(false),
        Send::Off => None,
    }
}

fn too_many_tags(enforced: bool) -> Verdict {
    // Whatever family it is of.
    Verdict::Violation { family: "ipv4", reason: "priority_tags", action: Action::Drop, enforced }
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ipv4" } else { "ipv6" }
}

/// Whether a datagram is for more than one host.
fn is_group(destination: IpAddr) -> bool {
    destination.is_multicast() || destination == IpAddr::V4(Ipv4Addr::BROADCAST)
}
