//! The decision: one pure function, run by the kernel programs, the daemon and the tests alike.

use crate::{
    Address, Announce, Arp, ArpOperation, Datagram, Direction, Discovery, DiscoveryKind, Family,
    FurtherOwnerKey, Iface, Ipv4, Ipv6, Mac, Neighbour, Network, Owners, OwnersKey, Packet, Reason, Receive,
    Send, Unknown,
    carrier::is_carried,
    filter::Bit,
    instead::{Towards, redirect, speak_as_itself},
    origin::{Metadata, Origin},
    packet::{NEXT_HEADER_ICMPV6, PROTOCOL_ICMP, PROTOCOL_IGMP},
};

/// What is known of the host: the BPF maps in the kernel, plain collections elsewhere.
pub trait Tables: AddressTables<Ipv4> + AddressTables<Ipv6> {
    /// The interface with this index.
    fn iface(&self, ifindex: u32) -> Option<&Iface>;
    /// Whether an address with this bit in the [`crate::Filter`] may be local. It is asked at a [`crate::glance`] only, and
    /// tables without a filter promise nothing.
    #[inline(always)]
    fn may_be_local(&self, _: Bit) -> bool {
        true
    }
    /// Whether an interface is in a set: of the owners for which [`Owners`] has no room, or of carriers.
    fn is_further_owner(&self, key: &FurtherOwnerKey) -> bool;
}

/// The tables of one address family.
pub trait AddressTables<A> {
    /// The owners of a single address.
    fn owners(&self, key: &OwnersKey<A>) -> Option<&Owners>;
    /// The owners of the longest prefix that holds an address.
    fn owners_by_prefix(&self, key: &OwnersKey<A>) -> Option<&Owners>;
    /// The next hop from `owner` to `destination`, by the longest prefix; of several the one for this
    /// [`flow`](crate::next_hop::flow).
    fn next_hop(&self, owner: u32, destination: A, flow: u32) -> Option<&Neighbour>;
}

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is none of our business.
    Pass,
    /// It is counted as `family` and `reason`; `action` is carried out when `enforced`, else the packet passes.
    Act {
        /// What carried the address.
        family: Family,
        /// Why.
        reason: Reason,
        /// What to do.
        action: Action,
        /// Whether to do it, or only to say that one would.
        enforced: bool,
    },
}

/// What is done to a packet that does not simply pass.
///
/// No enum with fields: the compiler leaves those of the other variants unset, and the kernel's verifier refuses to
/// have them copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Action {
    /// What.
    pub act: Act,
    /// For [`Act::Redirect`] and [`Act::RedirectGroup`] the interface that owns the source address, else 0.
    pub owner: u32,
    /// For [`Act::Redirect`] the next hop, on-link on the owner. For [`Act::RewriteSender`] and [`Act::RewriteSource`] the
    /// address: one of this interface, or [`Ipv4::UNSPECIFIED`], which claims nothing (RFC 5227 section 2.1.1, RFC 3376
    /// section 4.2.13). Else [`Neighbour::DESTINATION`].
    pub address: Neighbour,
}

/// The kinds of [`Action`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Act {
    /// The packet is discarded silently.
    Drop,
    /// It leaves through the owner, to a next hop.
    Redirect,
    /// It leaves through the owner, to the group address that it has, from the owner's hardware address.
    RedirectGroup,
    /// An ARP request leaves with another sender protocol address.
    RewriteSender,
    /// An IGMP message or ICMP error leaves with another source address.
    RewriteSource,
}

impl Action {
    /// The packet is discarded silently.
    pub const DROP: Self = Self { act: Act::Drop, owner: 0, address: Neighbour::DESTINATION };
}

/// Decides on a packet that crosses the interface `ifindex`, whose entry in the tables is `iface`.
///
/// Section 3.3.4.2 of RFC 1122: (A) on ingress by the destination, (B) on egress by the source; for ARP and NDP
/// by the addresses that they ask for or announce. What this host forwards is judged by its source too: that can be one of its
/// own, by address translation. What it bridges is not its own. `glanced` says that the address of a datagram was not found
/// among the inline ones ([`crate::glance`]), and saves looking for it there again.
#[inline(always)]
pub fn decide<T: Tables, M: Metadata>(
    tables: &T,
    direction: Direction,
    ifindex: u32,
    iface: &Iface,
    packet: &Packet,
    glanced: bool,
    metadata: &M,
) -> Verdict {
    let at = Place { tables, ifindex, iface, glanced, metadata };
    match (direction, packet.network) {
        (Direction::Egress, Network::Ipv4(datagram)) => at.send(Family::Ipv4, datagram, packet.group, || {
            at.is_error_about_others(&datagram, packet.offset)
        }),
        (Direction::Egress, Network::Ipv6(datagram, discovery)) => {
            if discovery.kind == DiscoveryKind::Advertisement
                && let verdict @ Verdict::Act { .. } = at.advertise(discovery)
            {
                return verdict;
            }
            at.send(Family::Ipv6, datagram, packet.group, || {
                at.is_error_about_others6(&datagram, packet.offset)
            })
        }
        (Direction::Egress, Network::Arp(arp)) => at.send_arp(arp),
        (Direction::Ingress, Network::Ipv4(datagram)) => at.receive(Family::Ipv4, datagram),
        (Direction::Ingress, Network::Ipv6(datagram, discovery)) => {
            match at.receive(Family::Ipv6, datagram) {
                Verdict::Pass if discovery.kind == DiscoveryKind::Solicitation => at.solicit(discovery),
                verdict => verdict,
            }
        }
        (Direction::Ingress, Network::Arp(arp)) => at.receive_arp(arp),
    }
}

/// Decides on a frame with more priority tags than are looked through ([`crate::packet::MAX_TAGS`]).
///
/// The kernel looks through any number, so that whatever is behind them would be delivered; and no sender needs them.
#[inline(always)]
pub fn behind_tags(direction: Direction, iface: &Iface, metadata: &impl Metadata) -> Verdict {
    let (is_ours, enforced) = match direction {
        Direction::Egress => {
            let send = Origin::of(iface, metadata).send(iface);
            (send != Send::Off && metadata.source_mac() == iface.mac(), send.is_enforced())
        }
        Direction::Ingress => {
            let (receive, destination) = (iface.receive(), metadata.destination_mac());
            let is_ours = destination == iface.mac() || destination.is_group();
            (receive != Receive::Off && is_ours, receive.is_enforced())
        }
    };
    if is_ours { drop(Family::Ipv4, Reason::PriorityTags, enforced) } else { Verdict::Pass }
}

/// Whose an address is, seen from one interface.
enum Standing<'a> {
    /// Owned by the interface, or unspecified.
    Own,
    /// Of loopback, where that may not cross the wire.
    Loopback,
    /// Not an address of the host.
    Foreign,
    /// Owned by other interfaces only.
    Elsewhere(&'a Owners),
}

/// An interface, and what is known of the host.
struct Place<'a, T, M> {
    tables: &'a T,
    ifindex: u32,
    iface: &'a Iface,
    glanced: bool,
    metadata: &'a M,
}

impl<'a, T: Tables, M: Metadata> Place<'a, T, M> {
    #[inline(always)]
    fn standing<A: Address>(&self, address: A) -> Standing<'a>
    where
        T: AddressTables<A>,
    {
        // The inline addresses first: most end here, with no hash lookup.
        if address.is_inline(self.iface) { Standing::Own } else { self.standing_beyond_inline(address) }
    }

    #[inline(always)]
    fn standing_of_datagram<A: Address>(&self, address: A) -> Standing<'a>
    where
        T: AddressTables<A>,
    {
        if self.glanced { self.standing_beyond_inline(address) } else { self.standing(address) }
    }

    #[inline(always)]
    fn standing_beyond_inline<A: Address>(&self, address: A) -> Standing<'a>
    where
        T: AddressTables<A>,
    {
        if address.is_unspecified() {
            return Standing::Own;
        }
        if address.is_loopback() {
            return if self.iface.routes_localnet() { Standing::Own } else { Standing::Loopback };
        }
        let key = OwnersKey { domain: self.iface.domain, address };
        let owners = match self.tables.owners(&key) {
            Some(owners) => owners,
            None if self.iface.has_prefixes() => match self.tables.owners_by_prefix(&key) {
                Some(owners) => owners,
                None => return Standing::Foreign,
            },
            None => return Standing::Foreign,
        };
        if owners.is_host_wide()
            || owners.has_inline(self.ifindex)
            || (owners.has_further()
                && self.tables.is_further_owner(&FurtherOwnerKey::new(owners.set, self.ifindex)))
        {
            return Standing::Own;
        }
        if owners.is_allowed_only() { Standing::Foreign } else { Standing::Elsewhere(owners) }
    }

    #[inline(always)]
    fn send<A: Address>(
        &self,
        family: Family,
        datagram: Datagram<A>,
        group: bool,
        is_error_about_others: impl FnOnce() -> bool,
    ) -> Verdict
    where
        T: AddressTables<A>,
    {
        let standing = self.standing_of_datagram(datagram.source);
        if let Standing::Own = standing {
            return Verdict::Pass;
        }
        let origin = Origin::of(self.iface, self.metadata);
        let send = origin.send(self.iface);
        if send == Send::Off {
            return Verdict::Pass;
        }
        let enforced = send.is_enforced();
        let owners = match standing {
            Standing::Own => return Verdict::Pass,
            Standing::Loopback => return drop(family, Reason::Loopback, enforced),
            // Hosts behind this one send from addresses of their own.
            Standing::Foreign if origin == Origin::Forwarded => return Verdict::Pass,
            Standing::Foreign => return self.foreign(family, enforced),
            Standing::Elsewhere(owners) => owners,
        };
        if self.is_carried(owners, || self.metadata.source_mac()) {
            return Verdict::Pass;
        }
        if family == Family::Ipv4 && datagram.protocol == PROTOCOL_IGMP {
            return self.join(datagram.destination, enforced);
        }
        let mut action = Action::DROP;
        if origin == Origin::Local
            && is_error_about_others()
            && speak_as_itself(self.iface, &datagram.destination, &mut action)
        {
            return Verdict::Act { family, reason: Reason::IcmpRewritten, action, enforced };
        }
        if send == Send::Drop {
            return drop(family, Reason::WrongSource, enforced);
        }
        let reason =
            redirect(self.tables, owners, &datagram.destination, Towards::of(&datagram, group), &mut action);
        Verdict::Act { family, reason, action, enforced }
    }

    /// An IGMP message with another interface's source. A membership is one of this link, so it stays here, with an own
    /// address, or with none (RFC 3376 section 4.2.13, which snooping switches accept: RFC 4541 section 2.1.1).
    #[inline(always)]
    fn join<A: Address>(&self, group: A, enforced: bool) -> Verdict {
        let neighbour: Neighbour = group.into();
        let address = self.iface.address_towards(Ipv4::from_wire(neighbour.address[0]));
        let action = Action {
            act: Act::RewriteSource,
            owner: 0,
            address: address.unwrap_or(Ipv4::UNSPECIFIED).into(),
        };
        Verdict::Act { family: Family::Ipv4, reason: Reason::IgmpRewritten, action, enforced }
    }

    /// Whether a datagram is an ICMP error about a packet that was not for this host.
    #[inline(always)]
    fn is_error_about_others(&self, datagram: &Datagram<Ipv4>, offset: usize) -> bool {
        datagram.protocol == PROTOCOL_ICMP
            && match self.metadata.invoking_ipv4(offset) {
                Some(invoking) => invoking.to_wire() != datagram.source.to_wire(),
                None => false,
            }
    }

    /// The same for ICMPv6.
    #[inline(always)]
    fn is_error_about_others6(&self, datagram: &Datagram<Ipv6>, offset: usize) -> bool {
        datagram.protocol == NEXT_HEADER_ICMPV6
            && match self.metadata.invoking_ipv6(offset) {
                Some(invoking) => invoking.halves() != datagram.source.halves(),
                None => false,
            }
    }

    /// Whether a frame that leaves, with an address of these owners, is of a macvlan or macvtap of this host, by its hardware address.
    #[inline(always)]
    fn is_carried(&self, owners: &Owners, mac: impl Fn() -> Mac) -> bool {
        let (tables, ifindex) = (self.tables, self.ifindex);
        self.iface.carries() && is_carried(tables, ifindex, owners, mac(), FurtherOwnerKey::ANY_OUTWARD)
    }

    /// Whether a frame that arrives, with an address of these owners, is for one.
    #[inline(always)]
    fn is_for_carried(&self, owners: &Owners) -> bool {
        let (tables, ifindex) = (self.tables, self.ifindex);
        let destination = || self.metadata.destination_mac();
        self.iface.carries()
            && is_carried(tables, ifindex, owners, destination(), FurtherOwnerKey::ANY_INWARD)
    }

    #[inline(always)]
    fn receive<A: Address>(&self, family: Family, datagram: Datagram<A>) -> Verdict
    where
        T: AddressTables<A>,
    {
        let receive = self.iface.receive();
        if receive == Receive::Off {
            return Verdict::Pass;
        }
        let enforced = receive.is_enforced();
        match self.standing_of_datagram(datagram.destination) {
            Standing::Own | Standing::Foreign => Verdict::Pass,
            Standing::Loopback => drop(family, Reason::Loopback, enforced),
            // What carried it here was for this interface, and what is inside the security policies judge.
            Standing::Elsewhere(_) if self.metadata.is_decapsulated() => Verdict::Pass,
            // Only a local route can make a group look like an address of the host.
            Standing::Elsewhere(_) if datagram.destination.is_group() => Verdict::Pass,
            Standing::Elsewhere(owners) if self.is_for_carried(owners) => Verdict::Pass,
            Standing::Elsewhere(_) => drop(family, Reason::WrongDestination, enforced),
        }
    }

    #[inline(always)]
    fn send_arp(&self, arp: Arp) -> Verdict {
        let announce = self.iface.announce();
        if announce == Announce::Off {
            return Verdict::Pass;
        }
        let enforced = announce.is_enforced();
        let standing = self.standing(arp.sender);
        if let Standing::Own = standing {
            return Verdict::Pass;
        }
        if Origin::of(self.iface, self.metadata) == Origin::Bridged {
            return Verdict::Pass;
        }
        match standing {
            Standing::Own => return Verdict::Pass,
            Standing::Loopback => return drop(Family::Arp, Reason::Loopback, enforced),
            Standing::Foreign => return self.foreign(Family::Arp, enforced),
            Standing::Elsewhere(owners) if self.is_carried(owners, || arp.hardware) => return Verdict::Pass,
            Standing::Elsewhere(_) => {}
        }
        if arp.operation == ArpOperation::Reply || arp.is_gratuitous() {
            return drop(Family::Arp, Reason::ArpSender, enforced);
        }
        // A datagram that was routed to the wrong interface resolves its next hop there before a program sees
        // it. Were its request dropped, the datagram would never come; so it asks with an own address.
        // With another hardware address, that of a device on top of this one, it claims nothing.
        let is_ours = arp.hardware == self.iface.mac();
        let address = match self.iface.address_towards(arp.target) {
            Some(_) if !is_ours => Ipv4::UNSPECIFIED,
            Some(address) => address,
            None if self.iface.send() == Send::Drop => {
                return drop(Family::Arp, Reason::ArpSender, enforced);
            }
            None => Ipv4::UNSPECIFIED,
        };
        let action = Action { act: Act::RewriteSender, owner: 0, address: address.into() };
        Verdict::Act { family: Family::Arp, reason: Reason::ArpRewritten, action, enforced }
    }

    #[inline(always)]
    fn receive_arp(&self, arp: Arp) -> Verdict {
        let announce = self.iface.announce();
        if announce == Announce::Off {
            return Verdict::Pass;
        }
        let enforced = announce.is_enforced();
        match self.standing(arp.target) {
            Standing::Own | Standing::Foreign => Verdict::Pass,
            Standing::Loopback => drop(Family::Arp, Reason::Loopback, enforced),
            Standing::Elsewhere(owners) if self.is_for_carried(owners) => Verdict::Pass,
            Standing::Elsewhere(_) => drop(Family::Arp, Reason::ArpTarget, enforced),
        }
    }

    /// An advertisement that leaves. The kernel solicits with an address of the interface itself (`ndisc_solicit`,
    /// Linux 6.18), so nothing needs rewriting as it does for ARP.
    #[inline(always)]
    fn advertise(&self, discovery: Discovery) -> Verdict {
        if Origin::of(self.iface, self.metadata) == Origin::Bridged {
            return Verdict::Pass;
        }
        self.discovered(discovery.target, Reason::NdpSender, |owners| {
            self.is_carried(owners, || self.metadata.source_mac())
        })
    }

    /// A solicitation that arrives.
    #[inline(always)]
    fn solicit(&self, discovery: Discovery) -> Verdict {
        self.discovered(discovery.target, Reason::NdpTarget, |owners| self.is_for_carried(owners))
    }

    #[inline(always)]
    fn discovered(
        &self,
        target: Ipv6,
        reason: Reason,
        is_others_business: impl FnOnce(&Owners) -> bool,
    ) -> Verdict {
        let announce = self.iface.announce();
        if announce == Announce::Off {
            return Verdict::Pass;
        }
        let enforced = announce.is_enforced();
        match self.standing(target) {
            Standing::Own | Standing::Foreign => Verdict::Pass,
            Standing::Loopback => drop(Family::Ndp, Reason::Loopback, enforced),
            Standing::Elsewhere(owners) if is_others_business(owners) => Verdict::Pass,
            Standing::Elsewhere(_) => drop(Family::Ndp, reason, enforced),
        }
    }

    #[inline(always)]
    fn foreign(&self, family: Family, enforced: bool) -> Verdict {
        match self.iface.unknown() {
            Unknown::Pass => Verdict::Pass,
            // A guest's, behind a macvlan or macvtap: it is another host.
            Unknown::Drop if self.iface.has_ethernet() && self.metadata.source_mac() != self.iface.mac() => {
                Verdict::Pass
            }
            Unknown::Drop => drop(family, Reason::UnknownSource, enforced),
        }
    }
}

#[inline(always)]
const fn drop(family: Family, reason: Reason, enforced: bool) -> Verdict {
    Verdict::Act { family, reason, action: Action::DROP, enforced }
}
