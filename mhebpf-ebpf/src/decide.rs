//! The decision: one pure function, run by the kernel programs, the daemon and the tests alike.

use crate::{
    Announce, Arp, ArpOperation, Direction, FurtherOwnerKey, INLINE_OWNERS, Iface, Ipv4, Ipv4Datagram,
    Network, NextHop, Owners, OwnersKey, Packet, Reason, Receive, Send, Unknown,
};

/// What is known of the host: the BPF maps in the kernel, plain collections elsewhere.
pub trait Tables {
    /// The interface with this index.
    fn iface(&self, ifindex: u32) -> Option<&Iface>;
    /// The owners of a local address; `None` when the address is foreign.
    fn owners(&self, key: &OwnersKey) -> Option<&Owners>;
    /// Whether an interface is among the owners for which [`Owners`] has no room.
    fn is_further_owner(&self, key: &FurtherOwnerKey) -> bool;
    /// The next hop from `owner` to `destination`, by the longest prefix.
    fn next_hop(&self, owner: u32, destination: Ipv4) -> Option<NextHop>;
}

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is none of our business.
    Pass,
    /// It is counted as `reason`; `action` is carried out when `enforced`, else the packet passes.
    Act {
        /// Why.
        reason: Reason,
        /// What to do.
        action: Action,
        /// Whether to do it, or only to say that one would.
        enforced: bool,
    },
}

/// What is done to a packet that does not simply pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// It is discarded silently.
    Drop,
    /// It leaves through `owner`, to the hardware address of `neighbour`.
    Redirect {
        /// The interface that owns the source address.
        owner: u32,
        /// The next hop, on-link on the owner.
        neighbour: Ipv4,
    },
    /// It leaves through `owner`, to the group address that it has, from the owner's hardware address.
    RedirectGroup {
        /// The interface that owns the source address.
        owner: u32,
        /// The owner's hardware address.
        source: [u8; 6],
    },
    /// An ARP request leaves with another sender protocol address.
    RewriteSender {
        /// An address of this interface, or [`Ipv4::UNSPECIFIED`], which claims nothing (RFC 5227 section
        /// 2.1.1).
        address: Ipv4,
    },
}

/// Decides on a packet that crosses the interface `ifindex`, whose entry in the tables is `iface`.
///
/// Section 3.3.4.2 of RFC 1122: (A) on ingress by the destination, (B) on egress by the source; for ARP by
/// the target and the sender protocol address. Packets that are forwarded are not for this function: they are
/// nobody's violation.
#[inline(always)]
pub fn decide<T: Tables>(
    tables: &T,
    direction: Direction,
    ifindex: u32,
    iface: &Iface,
    packet: &Packet,
) -> Verdict {
    match (direction, packet.network) {
        (Direction::Egress, Network::Ipv4(datagram)) => {
            send_ipv4(tables, ifindex, iface, datagram, packet.group)
        }
        (Direction::Egress, Network::Arp(arp)) => send_arp(tables, ifindex, iface, arp),
        (Direction::Ingress, Network::Ipv4(datagram)) => receive_ipv4(tables, ifindex, iface, datagram),
        (Direction::Ingress, Network::Arp(arp)) => receive_arp(tables, ifindex, iface, arp),
    }
}

/// Whose an address is, seen from one interface.
enum Standing<'a> {
    /// Owned by the interface, or "this host" (0.0.0.0).
    Own,
    /// In 127.0.0.0/8, where that may not cross the wire.
    Loopback,
    /// Not an address of the host.
    Foreign,
    /// Owned by other interfaces only.
    Elsewhere(&'a Owners),
}

#[inline(always)]
fn standing<'a, T: Tables>(tables: &'a T, ifindex: u32, iface: &Iface, address: Ipv4) -> Standing<'a> {
    // The inline addresses first: nearly all packets end here, with no hash lookup.
    if iface.has_inline(address) || address.is_unspecified() {
        return Standing::Own;
    }
    if address.is_loopback() {
        return if iface.routes_localnet() { Standing::Own } else { Standing::Loopback };
    }
    let domain = iface.domain;
    let Some(owners) = tables.owners(&OwnersKey { domain, address }) else {
        return Standing::Foreign;
    };
    if owners.is_host_wide()
        || owners.has_inline(ifindex)
        || (owners.has_further() && tables.is_further_owner(&FurtherOwnerKey { ifindex, domain, address }))
    {
        return Standing::Own;
    }
    Standing::Elsewhere(owners)
}

#[inline(always)]
fn send_ipv4<T: Tables>(
    tables: &T,
    ifindex: u32,
    iface: &Iface,
    datagram: Ipv4Datagram,
    group: bool,
) -> Verdict {
    let send = iface.send();
    let enforced = match send {
        Send::Off => return Verdict::Pass,
        Send::Observe => false,
        Send::Drop | Send::Redirect => true,
    };
    let owners = match standing(tables, ifindex, iface, datagram.source) {
        Standing::Own => return Verdict::Pass,
        Standing::Loopback => return drop(Reason::Loopback, enforced),
        Standing::Foreign => return foreign(iface, enforced),
        Standing::Elsewhere(owners) => owners,
    };
    if send == Send::Drop {
        return drop(Reason::WrongSource, enforced);
    }
    redirect(tables, owners, datagram.destination, group, enforced)
}

/// Chooses the first owner, in their fixed order, that is up and has a route.
#[inline(always)]
fn redirect<T: Tables>(
    tables: &T,
    owners: &Owners,
    destination: Ipv4,
    group: bool,
    enforced: bool,
) -> Verdict {
    // Plain numbers and no enum: the verifier takes no value that is set in part, as an `Option` is.
    let mut chosen = 0;
    let mut neighbour = Ipv4::UNSPECIFIED;
    let mut failure = Reason::OwnerDown;
    let mut consider = |owner: u32| {
        if owner == 0 || chosen != 0 || !tables.iface(owner).is_some_and(Iface::is_up) {
            return;
        }
        if group {
            // A group is on every link: there is no next hop to find.
            chosen = owner;
        } else if let Some(next_hop) = tables.next_hop(owner, destination) {
            chosen = owner;
            neighbour = next_hop.neighbour(destination);
        } else {
            failure = Reason::NoRoute;
        }
    };
    // Written out: the verifier allows no loop over a map's value to programs without CAP_PERFMON.
    const { assert!(INLINE_OWNERS == 4) };
    consider(owners.inline[0]);
    consider(owners.inline[1]);
    consider(owners.inline[2]);
    consider(owners.inline[3]);
    if chosen == 0 {
        return drop(failure, enforced);
    }
    let action = if group {
        let Some(iface) = tables.iface(chosen) else { return drop(Reason::OwnerDown, enforced) };
        Action::RedirectGroup { owner: chosen, source: iface.mac }
    } else {
        Action::Redirect { owner: chosen, neighbour }
    };
    Verdict::Act { reason: Reason::Redirected, action, enforced }
}

#[inline(always)]
fn send_arp<T: Tables>(tables: &T, ifindex: u32, iface: &Iface, arp: Arp) -> Verdict {
    let Some(enforced) = announce_enforced(iface) else { return Verdict::Pass };
    match standing(tables, ifindex, iface, arp.sender) {
        Standing::Own => return Verdict::Pass,
        Standing::Loopback => return drop(Reason::Loopback, enforced),
        Standing::Foreign => return foreign(iface, enforced),
        Standing::Elsewhere(_) => {}
    }
    if arp.operation == ArpOperation::Reply || arp.is_gratuitous() {
        return drop(Reason::ArpSender, enforced);
    }
    // A datagram that was routed to the wrong interface resolves its next hop there before a program sees it.
    // Were its request dropped, the datagram would never come; so it asks with an own address.
    let address = match iface.address_towards(arp.target) {
        Some(address) => address,
        None if iface.send() == Send::Drop => return drop(Reason::ArpSender, enforced),
        None => Ipv4::UNSPECIFIED,
    };
    Verdict::Act { reason: Reason::ArpRewritten, action: Action::RewriteSender { address }, enforced }
}

#[inline(always)]
fn receive_ipv4<T: Tables>(tables: &T, ifindex: u32, iface: &Iface, datagram: Ipv4Datagram) -> Verdict {
    let enforced = match iface.receive() {
        Receive::Off => return Verdict::Pass,
        Receive::Observe => false,
        Receive::Drop => true,
    };
    match standing(tables, ifindex, iface, datagram.destination) {
        Standing::Own | Standing::Foreign => Verdict::Pass,
        Standing::Loopback => drop(Reason::Loopback, enforced),
        Standing::Elsewhere(_) => drop(Reason::WrongDestination, enforced),
    }
}

#[inline(always)]
fn receive_arp<T: Tables>(tables: &T, ifindex: u32, iface: &Iface, arp: Arp) -> Verdict {
    let Some(enforced) = announce_enforced(iface) else { return Verdict::Pass };
    match standing(tables, ifindex, iface, arp.target) {
        Standing::Own | Standing::Foreign => Verdict::Pass,
        Standing::Loopback => drop(Reason::Loopback, enforced),
        Standing::Elsewhere(_) => drop(Reason::ArpTarget, enforced),
    }
}

/// Whether ARP is enforced or only observed; `None` where it is not judged.
#[inline(always)]
fn announce_enforced(iface: &Iface) -> Option<bool> {
    match iface.announce() {
        Announce::Off => None,
        Announce::Observe => Some(false),
        Announce::Enforce => Some(true),
    }
}

#[inline(always)]
fn foreign(iface: &Iface, enforced: bool) -> Verdict {
    match iface.unknown() {
        Unknown::Pass => Verdict::Pass,
        Unknown::Drop => drop(Reason::UnknownSource, enforced),
    }
}

#[inline(always)]
const fn drop(reason: Reason, enforced: bool) -> Verdict {
    Verdict::Act { reason, action: Action::Drop, enforced }
}
