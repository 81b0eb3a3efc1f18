//! Tables that remember what was asked of them.

use std::{
    cell::RefCell,
    net::{Ipv4Addr, Ipv6Addr},
};

use mhebpf_ebpf::{
    AddressTables, FurtherOwnerKey, Iface, Ipv4, Ipv6, Neighbour, Owners, OwnersKey, Tables, Verdict,
    decide::decide,
};

use super::protocol::{Crossing, Read};

/// Other tables, and what was asked of them.
struct Recording<'a, T> {
    tables: &'a T,
    read: RefCell<Vec<Read>>,
}

/// Judges a packet by tables, and tells what was read of them; `None` where the words are no packet.
pub(crate) fn judge(tables: &impl Tables, crossing: &Crossing) -> Option<(Verdict, Vec<Read>)> {
    let packet = crossing.packet()?;
    let recording = Recording { tables, read: RefCell::default() };
    let verdict = recording.iface(crossing.ifindex).map_or(Verdict::Pass, |iface| {
        decide(&recording, crossing.way(), crossing.ifindex, iface, &packet, false, || false)
    });
    Some((verdict, recording.read.into_inner()))
}

impl<T> Recording<'_, T> {
    fn note(&self, read: Read) {
        self.read.borrow_mut().push(read);
    }
}

impl<T: Tables> Tables for Recording<'_, T> {
    fn iface(&self, ifindex: u32) -> Option<&Iface> {
        self.note(Read::interface(self.tables, ifindex));
        self.tables.iface(ifindex)
    }

    fn is_further_owner(&self, key: &FurtherOwnerKey) -> bool {
        self.note(Read::further_owner(self.tables, key));
        self.tables.is_further_owner(key)
    }
}

macro_rules! address_tables {
    ($($address:ty, $standard:ty;)+) => {$(
        impl<T: Tables> AddressTables<$address> for Recording<'_, T> {
            fn owners(&self, key: &OwnersKey<$address>) -> Option<&Owners> {
                self.note(Read::owners(self.tables, key.domain, <$standard>::from(key.address).into()));
                self.tables.owners(key)
            }

            fn owners_by_prefix(&self, key: &OwnersKey<$address>) -> Option<&Owners> {
                self.note(Read::prefix(self.tables, key.domain, <$standard>::from(key.address).into()));
                self.tables.owners_by_prefix(key)
            }

            fn next_hop(&self, owner: u32, destination: $address) -> Option<&Neighbour> {
                self.note(Read::next_hop(self.tables, owner, <$standard>::from(destination).into()));
                self.tables.next_hop(owner, destination)
            }
        }
    )+};
}

address_tables! {
    Ipv4, Ipv4Addr;
    Ipv6, Ipv6Addr;
}
