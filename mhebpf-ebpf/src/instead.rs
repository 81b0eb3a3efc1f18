//! What is done to a packet instead of letting it leave as it is.

use crate::{
    Act, Action, Address, AddressTables, Datagram, INLINE_OWNERS, Iface, Neighbour, Owners, Reason, Tables,
    next_hop::flow,
};

/// Which way a datagram goes beside its destination: to a group, or as its flow does. One number: a function of the kernel's takes
/// no more than five.
#[derive(Clone, Copy)]
pub(crate) struct Towards(u64);

impl Towards {
    #[inline(always)]
    pub(crate) fn of<A: Address>(datagram: &Datagram<A>, group: bool) -> Self {
        let flow = flow(&datagram.source.into(), &datagram.destination.into());
        Self(u64::from(flow) << 1 | u64::from(group))
    }

    #[inline(always)]
    const fn is_group(self) -> bool {
        self.0 & 1 != 0
    }

    #[inline(always)]
    const fn flow(self) -> u32 {
        (self.0 >> 1) as u32
    }
}

/// Has an ICMP error about a packet for others leave with an own address of the interface; `action` stays as it is, and `false`
/// comes back, where it has none.
///
/// The sender of that packet has no business with the address that the kernel has chosen. It is told by the interface that leads
/// to it, for which a router's errors speak (RFC 1812 section 4.3.2.4, RFC 4443 section 2.2). A function of its own for the
/// kernel too: see [`redirect`].
#[cfg_attr(target_arch = "bpf", inline(never))]
pub(crate) fn speak_as_itself<A: Address>(iface: &Iface, destination: &A, action: &mut Action) -> bool {
    let Some(address) = destination.own_towards(iface) else { return false };
    *action = Action { act: Act::RewriteSource, owner: 0, address };
    true
}

/// Chooses the first owner, in their fixed order, that is up and has a route; `action` stays as it is where there is
/// none.
///
/// A function of its own for the kernel too: what it needs on the stack is not there while the packet is sent.
#[cfg_attr(target_arch = "bpf", inline(never))]
pub(crate) fn redirect<A: Address, T: Tables + AddressTables<A>>(
    tables: &T,
    owners: &Owners,
    destination: &A,
    towards: Towards,
    action: &mut Action,
) -> Reason {
    let mut failure = Reason::OwnerDown;
    // Written out: the verifier allows no loop over a map's value to programs without CAP_PERFMON. It returns at
    // once, so that the verifier has few ways to follow.
    const { assert!(INLINE_OWNERS == 4) };
    macro_rules! consider {
        ($($place:literal),+) => {$(
            match redirect_to(tables, owners.inline[$place], destination, towards, action) {
                Reason::Redirected => return Reason::Redirected,
                Reason::NoRoute => failure = Reason::NoRoute,
                _ => {}
            }
        )+};
    }
    consider!(0, 1, 2, 3);
    failure
}

/// Redirects to this owner, if there is one and if that is possible.
#[inline(always)]
fn redirect_to<A: Address, T: Tables + AddressTables<A>>(
    tables: &T,
    owner: u32,
    destination: &A,
    towards: Towards,
    action: &mut Action,
) -> Reason {
    if owner == 0 || !tables.iface(owner).is_some_and(Iface::is_up) {
        return Reason::OwnerDown;
    }
    if towards.is_group() {
        // A group is on every link: there is no next hop to find.
        *action = Action { act: Act::RedirectGroup, owner, address: Neighbour::DESTINATION };
        return Reason::Redirected;
    }
    let Some(next_hop) = tables.next_hop(owner, *destination, towards.flow()) else { return Reason::NoRoute };
    let address = if next_hop.is_destination() { (*destination).into() } else { *next_hop };
    *action = Action { act: Act::Redirect, owner, address };
    Reason::Redirected
}
