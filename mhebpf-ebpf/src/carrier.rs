//! Frames of macvlans and macvtaps, which have hardware addresses of their own, on the interfaces that they cross.

use crate::{FurtherOwnerKey, INLINE_OWNERS, Mac, Owners, Tables};

/// Whether a frame with a hardware address, and with an address of these owners, is a macvlan's or macvtap's on an interface: of
/// one whose frames go that way whatever their addresses are, or whose the address is. What is for a group all of them get.
///
/// A function of its own for the kernel too: it is rarely called, and from many places.
#[cfg_attr(target_arch = "bpf", inline(never))]
pub(crate) fn is_carried<T: Tables>(tables: &T, ifindex: u32, owners: &Owners, mac: Mac, any: u32) -> bool {
    let is_group = any == FurtherOwnerKey::ANY_INWARD && mac.is_group();
    if !is_group && tables.is_further_owner(&FurtherOwnerKey::carrier(mac, ifindex, any)) {
        return true;
    }
    let mac = if is_group { Mac::BROADCAST } else { mac };
    let is_of = |owner| owner != 0 && tables.is_further_owner(&FurtherOwnerKey::carrier(mac, ifindex, owner));
    const { assert!(INLINE_OWNERS == 4) };
    let o = &owners.inline;
    is_of(o[0]) || is_of(o[1]) || is_of(o[2]) || is_of(o[3])
}
