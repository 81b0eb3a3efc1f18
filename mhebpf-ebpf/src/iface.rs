//! What the programs know of an interface: its policy, state and first addresses.

use crate::{Ipv4, Ipv6, Mac};

/// How many addresses of each family an [`Iface`] carries inline.
pub const INLINE_ADDRESSES: usize = 8;

/// How many interfaces are found by their ifindex alone, those with the lowest ones.
pub const DIRECT_IFACES: u32 = 4096;

/// For how many interfaces with a higher ifindex there is room besides.
pub const HIGH_IFACES: u32 = 8192;

/// What happens to a packet that would leave with a source address owned elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Send {
    /// Nothing is judged.
    Off = 0,
    /// What [`Send::Redirect`] would do is counted; the packet is left alone.
    Observe = 1,
    /// It is dropped.
    Drop = 2,
    /// It leaves through the owner, to the owner's own next hop.
    Redirect = 3,
}

impl Send {
    /// Reads an [`Iface::send`] or [`Iface::forwarded`].
    #[inline(always)]
    const fn from_u8(value: u8) -> Self {
        match value {
            1 => Self::Observe,
            2 => Self::Drop,
            3 => Self::Redirect,
            _ => Self::Off,
        }
    }
}

/// What happens to a datagram that arrives for an address owned elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Receive {
    /// Nothing is judged.
    Off = 0,
    /// It is counted and delivered.
    Observe = 1,
    /// It is silently discarded (RFC 1122 section 3.3.4.2 (A)).
    Drop = 2,
}

/// Whether ARP and NDP are held to the interface's own addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Announce {
    /// Nothing is judged.
    Off = 0,
    /// Counted and left alone.
    Observe = 1,
    /// Requests for other interfaces' addresses go unanswered, and their addresses are not announced.
    Enforce = 2,
}

/// What happens to a packet of local origin whose source is not a local address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Unknown {
    /// It passes.
    Pass = 0,
    /// It is dropped.
    Drop = 1,
}

macro_rules! is_enforced {
    ($($policy:ty),+) => {$(
        impl $policy {
            /// Whether what is decided is done, and not only counted.
            ///
            /// One bit of the number says it, for all policies alike: the verifier would follow a branch both ways up to
            /// the end.
            #[inline(always)]
            pub const fn is_enforced(self) -> bool {
                self as u8 & 2 != 0
            }
        }
    )+};
}

is_enforced!(Send, Receive, Announce);

/// An interface as the programs see it: one cache line for IPv4, two more for IPv6, and one for what is rarely looked at,
/// found by its ifindex.
///
/// The inline addresses are a positive cache of [`crate::Owners`], which is authoritative: a hit
/// says "owned here" without a hash lookup, a miss says nothing. Slots may therefore be rewritten
/// while packets are judged. The blocks are the same for interfaces with more addresses than slots: a hit says "passes".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C, align(64))]
pub struct Iface {
    /// A [`Send`].
    pub send: u8,
    /// A [`Receive`].
    pub receive: u8,
    /// An [`Announce`].
    pub announce: u8,
    /// An [`Unknown`].
    pub unknown: u8,
    /// A union of [`Iface::UP`], [`Iface::ROUTE_LOCALNET`], [`Iface::NO_ETHERNET`], [`Iface::PREFIXES`] and
    /// [`Iface::CARRIES`].
    pub flags: u32,
    /// The set of addresses that this interface's are compared with: the index of its VRF, 0 outside one.
    pub domain: u32,
    /// In bytes, without the link layer's header.
    pub mtu: u32,
    /// The hardware address.
    pub mac: [u8; 6],
    /// A [`Send`], for packets that were forwarded.
    pub forwarded: u8,
    /// Zero.
    pub reserved: u8,
    /// Owned IPv4 addresses, one of each subnet first; [`Ipv4::UNSPECIFIED`] marks an empty slot.
    pub addresses: [Ipv4; INLINE_ADDRESSES],
    /// A block of IPv4 addresses of which each is owned or foreign, and passes either way.
    pub block: Block<Ipv4>,
    /// Owned IPv6 addresses; [`Ipv6::UNSPECIFIED`] marks an empty slot.
    pub addresses6: [Slot6; INLINE_ADDRESSES],
    /// A block of IPv6 addresses.
    pub block6: Block<Slot6>,
    /// The prefix length of the IPv4 address in the same slot, 0 to 32.
    pub prefix_lengths: [u8; INLINE_ADDRESSES],
    /// Zero.
    pub reserved_too: [u8; 24],
}

/// The addresses that have a prefix in common. Zeroes make the block of the unspecified address, which passes anyway.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Block<A> {
    /// The last address: the prefix, and ones behind it.
    pub last: A,
    /// Ones for the bits behind the prefix.
    pub behind: A,
}

/// An IPv6 address where its halves can be read with one load each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C, align(8))]
pub struct Slot6(pub Ipv6);

const _: () = assert!(size_of::<Iface>() == 256);

/// The bits in which an IPv4 address is another than that in a slot.
#[inline(always)]
fn beside(slot: Ipv4, address: u64) -> u64 {
    u64::from(slot.to_wire()) ^ address
}

/// Below zero for zero, not for any other number with nothing in its upper half.
#[inline(always)]
const fn below_zero_if_zero(number: u64) -> i64 {
    number.wrapping_sub(1).cast_signed()
}

/// Below zero for any number but zero.
#[inline(always)]
const fn below_zero_unless_zero(number: u64) -> i64 {
    (number | number.wrapping_neg()).cast_signed()
}

impl Iface {
    /// The interface is up and has carrier: a packet redirected to it gets out. Never set for a VRF device, whose
    /// packets leave through its ports.
    pub const UP: u32 = 1 << 0;
    /// `net.ipv4.conf.*.route_localnet` is on: addresses of loopback may cross the wire.
    pub const ROUTE_LOCALNET: u32 = 1 << 1;
    /// Packets have no Ethernet header: they start with the network layer's (tun, WireGuard, PPP).
    pub const NO_ETHERNET: u32 = 1 << 2;
    /// In the interface's domain some addresses are owned by prefix.
    pub const PREFIXES: u32 = 1 << 3;
    /// Frames of macvlans or macvtaps of this host cross the interface, each with a hardware address of its own: see
    /// [`crate::FurtherOwnerKey::carrier`].
    pub const CARRIES: u32 = 1 << 4;

    /// An interface that is down, has no address and no policy.
    pub const EMPTY: Self = Self {
        send: Send::Off as u8,
        receive: Receive::Off as u8,
        announce: Announce::Off as u8,
        unknown: Unknown::Pass as u8,
        flags: 0,
        domain: 0,
        mtu: 0,
        mac: [0; 6],
        forwarded: Send::Off as u8,
        reserved: 0,
        addresses: [Ipv4::UNSPECIFIED; INLINE_ADDRESSES],
        block: Block { last: Ipv4::UNSPECIFIED, behind: Ipv4::UNSPECIFIED },
        addresses6: [Slot6(Ipv6::UNSPECIFIED); INLINE_ADDRESSES],
        block6: Block { last: Slot6(Ipv6::UNSPECIFIED), behind: Slot6(Ipv6::UNSPECIFIED) },
        prefix_lengths: [0; INLINE_ADDRESSES],
        reserved_too: [0; 24],
    };

    /// The policy for packets of local origin that leave. An unknown number counts as [`Send::Off`].
    #[inline(always)]
    pub const fn send(&self) -> Send {
        Send::from_u8(self.send)
    }

    /// The policy for packets that this host forwards. An unknown number counts as [`Send::Off`].
    #[inline(always)]
    pub const fn forwarded(&self) -> Send {
        Send::from_u8(self.forwarded)
    }

    /// The hardware address.
    #[inline(always)]
    pub const fn mac(&self) -> Mac {
        Mac::new(self.mac)
    }

    /// Whether frames of other devices of this host, with hardware addresses of their own, cross the interface.
    #[inline(always)]
    pub const fn carries(&self) -> bool {
        self.flags & Self::CARRIES != 0
    }

    /// The policy for datagrams that arrive. An unknown number counts as [`Receive::Off`].
    #[inline(always)]
    pub const fn receive(&self) -> Receive {
        match self.receive {
            1 => Receive::Observe,
            2 => Receive::Drop,
            _ => Receive::Off,
        }
    }

    /// The policy for ARP and NDP. An unknown number counts as [`Announce::Off`].
    #[inline(always)]
    pub const fn announce(&self) -> Announce {
        match self.announce {
            1 => Announce::Observe,
            2 => Announce::Enforce,
            _ => Announce::Off,
        }
    }

    /// The policy for foreign sources. An unknown number counts as [`Unknown::Pass`].
    #[inline(always)]
    pub const fn unknown(&self) -> Unknown {
        match self.unknown {
            1 => Unknown::Drop,
            _ => Unknown::Pass,
        }
    }

    /// Whether a packet redirected to this interface gets out.
    #[inline(always)]
    pub const fn is_up(&self) -> bool {
        self.flags & Self::UP != 0
    }

    /// Whether addresses of loopback may cross this interface.
    #[inline(always)]
    pub const fn routes_localnet(&self) -> bool {
        self.flags & Self::ROUTE_LOCALNET != 0
    }

    /// Whether packets start with an Ethernet header.
    #[inline(always)]
    pub const fn has_ethernet(&self) -> bool {
        self.flags & Self::NO_ETHERNET == 0
    }

    /// Whether the table of prefixes is to be asked for an address that is not among the single ones.
    #[inline(always)]
    pub const fn has_prefixes(&self) -> bool {
        self.flags & Self::PREFIXES != 0
    }

    /// Whether an IPv4 address, given as [`Ipv4::to_wire`] has it in the lower half of `address`, is in the first slot or in
    /// the block.
    ///
    /// No compare has a branch of its own: where packets have now one address and now another, the processor can't foresee
    /// which branch is taken, and a wrong guess costs more than all compares.
    #[inline(always)]
    pub fn has_first_or_in_block(&self, address: u64) -> bool {
        below_zero_if_zero(beside(self.addresses[0], address))
            | below_zero_if_zero(self.beside_block(address))
            < 0
    }

    /// Whether an IPv4 address is in a slot that is not the first.
    #[inline(always)]
    pub fn has_behind_first(&self, address: u64) -> bool {
        let a = &self.addresses;
        let is = |slot| below_zero_if_zero(beside(slot, address));
        // Written out, so that there is no loop for the verifier to walk.
        is(a[1]) | is(a[2]) | is(a[3]) | is(a[4]) | is(a[5]) | is(a[6]) | is(a[7]) < 0
    }

    /// Whether an IPv4 address is in an inline slot.
    #[inline(always)]
    pub fn has_inline(&self, address: u64) -> bool {
        beside(self.addresses[0], address) == 0 || self.has_behind_first(address)
    }

    /// The same as [`Iface::has_first_or_in_block`] for an IPv6 address, given as [`Ipv6::halves`].
    #[inline(always)]
    pub fn has_first_or_in_block6(&self, high: u64, low: u64) -> bool {
        below_zero_unless_zero(self.addresses6[0].0.beside(high, low))
            & below_zero_unless_zero(self.beside_block6(high, low))
            >= 0
    }

    /// Whether an IPv6 address is in a slot that is not the first.
    #[inline(always)]
    pub fn has_behind_first6(&self, high: u64, low: u64) -> bool {
        let a = &self.addresses6;
        let is_not = |slot: Slot6| below_zero_unless_zero(slot.0.beside(high, low));
        let none = is_not(a[1]) & is_not(a[2]) & is_not(a[3]);
        none & is_not(a[4]) & is_not(a[5]) & is_not(a[6]) & is_not(a[7]) >= 0
    }

    /// Whether an IPv6 address is in an inline slot.
    #[inline(always)]
    pub fn has_inline6(&self, high: u64, low: u64) -> bool {
        self.addresses6[0].0.beside(high, low) == 0 || self.has_behind_first6(high, low)
    }

    /// Whether an IPv4 address, given as for [`Iface::has_first_or_in_block`], is in the block.
    #[inline(always)]
    pub fn has_in_block(&self, address: u64) -> bool {
        self.beside_block(address) == 0
    }

    /// Whether an IPv6 address, given as [`Ipv6::halves`], is in the block.
    #[inline(always)]
    pub fn has_in_block6(&self, high: u64, low: u64) -> bool {
        self.beside_block6(high, low) == 0
    }

    /// The bits of an IPv4 address that are not as in the block.
    #[inline(always)]
    fn beside_block(&self, address: u64) -> u64 {
        let Block { last, behind } = self.block;
        beside(last, address | u64::from(behind.to_wire()))
    }

    /// Not zero if an IPv6 address is not in the block.
    #[inline(always)]
    fn beside_block6(&self, high: u64, low: u64) -> u64 {
        let behind = self.block6.behind.0.halves();
        self.block6.last.0.beside(high | behind.0, low | behind.1)
    }

    /// The own address to speak to `target` with: the first in a subnet that holds `target`, else the first
    /// of all.
    #[inline(always)]
    pub fn address_towards(&self, target: Ipv4) -> Option<Ipv4> {
        let mut slot = 0;
        while slot < INLINE_ADDRESSES {
            let address = self.addresses[slot];
            if !address.is_unspecified() && address.in_prefix(target, self.prefix_lengths[slot]) {
                return Some(address);
            }
            slot += 1;
        }
        let first = self.addresses[0];
        if first.is_unspecified() { None } else { Some(first) }
    }

    /// The own IPv6 address to speak to those with who are not on this link: the first that means something elsewhere too.
    #[inline(always)]
    pub fn address_beyond_link(&self) -> Option<Ipv6> {
        let mut slot = 0;
        while slot < INLINE_ADDRESSES {
            let Slot6(address) = self.addresses6[slot];
            if address.is_beyond_link() {
                return Some(address);
            }
            slot += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address as _;

    fn with(addresses: &[([u8; 4], u8)]) -> Iface {
        let mut iface = Iface::EMPTY;
        for (slot, (address, length)) in addresses.iter().enumerate() {
            iface.addresses[slot] = Ipv4::new(*address);
            iface.prefix_lengths[slot] = *length;
        }
        iface
    }

    #[test]
    fn the_own_address_is_taken_from_the_subnet_of_the_target() {
        let iface = with(&[([10, 0, 0, 1], 24), ([192, 168, 0, 100], 21)]);
        assert_eq!(iface.address_towards(Ipv4::new([192, 168, 3, 9])), Some(Ipv4::new([192, 168, 0, 100])));
        assert_eq!(iface.address_towards(Ipv4::new([172, 16, 0, 1])), Some(Ipv4::new([10, 0, 0, 1])));
        assert_eq!(Iface::EMPTY.address_towards(Ipv4::new([172, 16, 0, 1])), None);
    }

    #[test]
    fn a_block_holds_what_has_its_prefix() {
        let mut iface = Iface::EMPTY;
        let has = |iface: &Iface, address| iface.has_in_block(Ipv4::new(address).to_wire().into());
        assert!(!has(&iface, [10, 0, 0, 1]) && has(&iface, [0; 4]));
        iface.block = Block { last: Ipv4::new([10, 0, 3, 255]), behind: Ipv4::new([0, 0, 3, 255]) };
        assert!(has(&iface, [10, 0, 0, 0]) && has(&iface, [10, 0, 3, 255]));
        assert!(!has(&iface, [10, 0, 4, 0]) && !has(&iface, [9, 255, 255, 255]) && !has(&iface, [0; 4]));

        let slot = |octets| Slot6(Ipv6::new(octets));
        let mut last = [0xff; 16];
        last[..9].copy_from_slice(&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0x0f]);
        let mut behind = [0; 16];
        behind[8..].fill(0xff);
        behind[8] = 0x0f;
        iface.block6 = Block { last: slot(last), behind: slot(behind) };
        for (byte, value, expected) in
            [(15, 7, true), (8, 0x0f, true), (8, 0x10, false), (7, 1, false), (0, 0x21, false)]
        {
            let mut address = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            address[byte] = value;
            let (high, low) = Ipv6::new(address).halves();
            assert_eq!(iface.has_in_block6(high, low), expected, "{address:?}");
        }
    }

    #[test]
    fn every_slot_is_looked_at() {
        let mut addresses = [([0; 4], 32); INLINE_ADDRESSES];
        for (i, (address, _)) in addresses.iter_mut().enumerate() {
            *address = [10, 0, 0, i as u8 + 1];
        }
        let iface = with(&addresses);
        assert!(addresses.iter().all(|(address, _)| Ipv4::new(*address).is_inline(&iface)));
        assert!(!Ipv4::new([10, 0, 0, 9]).is_inline(&iface));
    }
}
