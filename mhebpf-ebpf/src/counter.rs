//! What is counted, and under which names.

use core::fmt;

/// Which way a packet crosses an interface.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[repr(u8)]
pub enum Direction {
    /// It leaves.
    Egress = 0,
    /// It arrives.
    Ingress = 1,
}

/// The protocol that carried the judged address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[repr(u8)]
pub enum Family {
    /// An IPv4 datagram.
    Ipv4 = 0,
    /// An ARP packet.
    Arp = 1,
    /// An IPv6 datagram.
    Ipv6 = 2,
    /// The target of a neighbour solicitation or advertisement (RFC 4861).
    Ndp = 3,
}

/// Why a packet did not simply pass.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[repr(u8)]
pub enum Reason {
    /// It left through the owner of its source address instead.
    Redirected = 0,
    /// Its source address is owned elsewhere, and the mode is to drop.
    WrongSource = 1,
    /// The owner of its source address has no route to the destination.
    NoRoute = 2,
    /// The owner of its source address is down or has no carrier.
    OwnerDown = 3,
    /// It had been redirected before: the tables changed while it was on its way.
    Loop = 4,
    /// The kernel refused to redirect it.
    RedirectFailed = 5,
    /// Its source is not a local address, and the policy is to drop such packets.
    UnknownSource = 6,
    /// An address of loopback, 127.0.0.0/8 or ::1, on a wire.
    Loopback = 7,
    /// An ARP request spoke for an address owned elsewhere; it left with an own one.
    ArpRewritten = 8,
    /// An ARP reply or announcement for an address owned elsewhere.
    ArpSender = 9,
    /// Its destination is owned by another interface than the one that it arrived on.
    WrongDestination = 10,
    /// An ARP packet that asks for an address owned elsewhere.
    ArpTarget = 11,
    /// It is too large for the owner of its source address; its sender was told so by ICMP.
    TooBig = 12,
    /// A neighbour advertisement for an address owned elsewhere.
    NdpSender = 13,
    /// A neighbour solicitation that asks for an address owned elsewhere.
    NdpTarget = 14,
    /// An IGMP message had a source address owned elsewhere; it left with one of its own interface.
    IgmpRewritten = 15,
    /// It had more priority tags than are looked through. Counted as IPv4, whatever is behind them.
    PriorityTags = 16,
    /// An ICMP error about what this host forwards had a source address owned elsewhere; it left with one of its own interface.
    IcmpRewritten = 17,
}

impl Direction {
    /// Reads a [`CounterKey::direction`].
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::Egress),
            1 => Some(Self::Ingress),
            _ => None,
        }
    }

    /// The name that operators see.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Egress => "egress",
            Self::Ingress => "ingress",
        }
    }
}

impl Family {
    /// Reads a [`CounterKey::family`].
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::Ipv4),
            1 => Some(Self::Arp),
            2 => Some(Self::Ipv6),
            3 => Some(Self::Ndp),
            _ => None,
        }
    }

    /// The name that operators see.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Arp => "arp",
            Self::Ipv6 => "ipv6",
            Self::Ndp => "ndp",
        }
    }
}

impl Reason {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 18] = [
        Self::Redirected,
        Self::WrongSource,
        Self::NoRoute,
        Self::OwnerDown,
        Self::Loop,
        Self::RedirectFailed,
        Self::UnknownSource,
        Self::Loopback,
        Self::ArpRewritten,
        Self::ArpSender,
        Self::WrongDestination,
        Self::ArpTarget,
        Self::TooBig,
        Self::NdpSender,
        Self::NdpTarget,
        Self::IgmpRewritten,
        Self::PriorityTags,
        Self::IcmpRewritten,
    ];

    /// Reads a [`CounterKey::reason`].
    pub fn from_u8(value: u8) -> Option<Self> {
        Self::ALL.get(usize::from(value)).copied()
    }

    /// The name that operators see.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Redirected => "redirected",
            Self::WrongSource => "wrong_source",
            Self::NoRoute => "no_route",
            Self::OwnerDown => "owner_down",
            Self::Loop => "loop",
            Self::RedirectFailed => "redirect_failed",
            Self::UnknownSource => "unknown_source",
            Self::Loopback => "loopback",
            Self::ArpRewritten => "arp_rewritten",
            Self::ArpSender => "arp_sender",
            Self::WrongDestination => "wrong_destination",
            Self::ArpTarget => "arp_target",
            Self::TooBig => "too_big",
            Self::NdpSender => "ndp_sender",
            Self::NdpTarget => "ndp_target",
            Self::IgmpRewritten => "igmp_rewritten",
            Self::PriorityTags => "priority_tags",
            Self::IcmpRewritten => "icmp_rewritten",
        }
    }
}

macro_rules! display_as_name {
    ($($type:ty),+) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }
    )+};
}

display_as_name!(Direction, Family, Reason);

/// The key of the table of counters, whose values are 64-bit packet counts per CPU.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[repr(C)]
pub struct CounterKey {
    /// The interface on which the packet was judged.
    pub ifindex: u32,
    /// A [`Direction`].
    pub direction: u8,
    /// A [`Family`].
    pub family: u8,
    /// A [`Reason`].
    pub reason: u8,
    /// 1 where the packet was left alone and only counted (observe), else 0.
    pub observed: u8,
}

const _: () = assert!(size_of::<CounterKey>() == 8);

/// The interfaces below this index have places among the counts that are found without hashing.
const DIRECT_COUNTED: u32 = 512;

/// How many counts are found without hashing: redirected datagrams of both families that leave by interfaces with a low index.
///
/// A redirect happens to each packet of a flow where the others happen to some, and the table of counters then costs as
/// much as all other lookups together.
///
/// The last place is [`LOST`].
pub const DIRECT_COUNTS: u32 = LOST + 1;

/// The place of the packets that could not be counted, as there was no room for their counter. This one always has its own.
pub const LOST: u32 = 2 * DIRECT_COUNTED;

impl CounterKey {
    /// The place among the [`DIRECT_COUNTS`], for a key that has one.
    #[inline(always)]
    pub const fn direct(&self) -> Option<u32> {
        // IPv4 and IPv6 differ in one bit; what is left of the other numbers is 0 for both.
        const { assert!(Family::Ipv4 as u8 == 0 && Family::Ipv6 as u8 == 2) };
        let kind = self.direction | (self.family & !(Family::Ipv6 as u8)) | self.reason | self.observed;
        if kind == 0 && self.ifindex < DIRECT_COUNTED {
            Some(2 * self.ifindex + (self.family >> 1) as u32)
        } else {
            None
        }
    }

    /// The key of a place before [`LOST`] among the [`DIRECT_COUNTS`].
    pub const fn of_direct(place: u32) -> Self {
        Self {
            ifindex: place / 2,
            direction: Direction::Egress as u8,
            family: if place.is_multiple_of(2) { Family::Ipv4 } else { Family::Ipv6 } as u8,
            reason: Reason::Redirected as u8,
            observed: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_read_back_from_its_number() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_u8(reason as u8), Some(reason));
        }
        assert_eq!(Reason::from_u8(Reason::ALL.len() as u8), None);
    }

    #[test]
    fn each_direct_count_is_that_of_one_key() {
        for place in 0..LOST {
            assert_eq!(CounterKey::of_direct(place).direct(), Some(place));
        }
        let has_place = |ifindex, direction: Direction, family: Family, reason: Reason, observed| {
            let [direction, family, reason] = [direction as u8, family as u8, reason as u8];
            CounterKey { ifindex, direction, family, reason, observed }.direct().is_some()
        };
        let mut places = 0;
        for reason in Reason::ALL {
            for family in [Family::Ipv4, Family::Arp, Family::Ipv6, Family::Ndp] {
                for direction in [Direction::Egress, Direction::Ingress] {
                    for observed in [0, 1] {
                        places += usize::from(has_place(7, direction, family, reason, observed));
                        assert!(!has_place(DIRECT_COUNTED, direction, family, reason, observed));
                    }
                }
            }
        }
        assert_eq!(places, 2);
    }
}
