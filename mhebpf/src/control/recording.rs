//! Tables that remember what was asked of them.

use std::{
    cell::RefCell,
    net::{Ipv4Addr, Ipv6Addr},
};

use mhebpf_ebpf::{
    AddressTables, Datagram, Direction, DiscoveryKind, FurtherOwnerKey, Iface, Ipv4, Ipv6, Neighbour,
    Network, Owners, OwnersKey, Tables, Verdict,
    decide::decide,
    glance::{is_foreign_that_passes, is_foreign_that_passes6},
};

use super::protocol::{Crossing, Read};
use crate::model::metadata::AsUsual;

/// Other tables, and what was asked of them.
struct Recording<'a, T> {
    tables: &'a T,
    read: RefCell<Vec<Read>>,
}

/// Judges a packet by tables as the programs do, glance and decision, and tells what was read of them; `None` where the words are no packet.
pub fn judge(tables: &impl Tables, crossing: &Crossing) -> Option<(Verdict, Vec<Read>)> {
    let packet = crossing.packet()?;
    let recording = Recording { tables, read: RefCell::default() };
    let verdict = recording.iface(crossing.ifindex).map_or(Verdict::Pass, |iface| {
        let metadata = AsUsual { forwarded: crossing.forwarded, ..AsUsual::new(iface, &packet) };
        let packet = metadata.on(&packet);
        let decided = decide(&recording, crossing.way(), crossing.ifindex, iface, &packet, false, &metadata);
        if passes_at_a_glance(tables, iface, crossing.way(), packet.network) {
            Verdict::Pass
        } else {
            decided
        }
    });
    Some((verdict, recording.read.into_inner()))
}

/// Whether a datagram passes by the block or the filter ([`mhebpf_ebpf::glance`]). That makes no difference, unless one of
/// them is behind the other tables.
fn passes_at_a_glance(tables: &impl Tables, iface: &Iface, direction: Direction, network: Network) -> bool {
    let is_sent = direction == Direction::Egress;
    let may_be_local = |bit| tables.may_be_local(bit);
    iface.has_ethernet()
        && match network {
            Network::Ipv4(Datagram { source, destination, .. }) => {
                let address = if is_sent { source } else { destination };
                let address = address.to_wire().into();
                iface.has_in_block(address) || is_foreign_that_passes(direction, iface, address, may_be_local)
            }
            Network::Ipv6(Datagram { source, destination, .. }, discovery)
                if discovery.kind == DiscoveryKind::None =>
            {
                let (high, low) = if is_sent { source } else { destination }.halves();
                iface.has_in_block6(high, low)
                    || is_foreign_that_passes6(direction, iface, high, low, may_be_local)
            }
            Network::Ipv6(..) | Network::Arp(_) => false,
        }
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

            fn next_hop(&self, owner: u32, destination: $address, flow: u32) -> Option<&Neighbour> {
                let address = <$standard>::from(destination).into();
                self.note(Read::next_hop(self.tables, owner, address, flow));
                self.tables.next_hop(owner, destination, flow)
            }
        }
    )+};
}

address_tables! {
    Ipv4, Ipv4Addr;
    Ipv6, Ipv6Addr;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mhebpf_ebpf::{Announce, Block, Packet, Receive, Send, Unknown};

    use super::*;
    use crate::model::{
        self, LinkKind, Policy,
        testing::{address, host, link},
    };

    #[test]
    fn a_block_that_is_behind_counts_as_it_does_in_the_kernel() {
        let host = host(
            [link(2, LinkKind::Wire), link(3, LinkKind::Wire)],
            [address(2, "10.0.0.2/24"), address(3, "10.0.1.3/24")],
        );
        let policy = Policy {
            send: Send::Drop,
            receive: Receive::Drop,
            announce: Announce::Enforce,
            unknown: Unknown::Pass,
            forwarded: Send::Drop,
            allow: Vec::new(),
            owns: Vec::new(),
            binds: true,
        };
        let mut tables = model::Tables::new(&host, &BTreeMap::from([(2, policy)]));
        let (source, destination) = (Ipv4::new([10, 0, 1, 3]), Ipv4::new([10, 0, 0, 1]));
        let datagram = Datagram { source, destination, protocol: 17 };
        let packet = Packet { group: false, offset: 0, network: Network::Ipv4(datagram) };
        let crossing = Crossing::new(Direction::Egress, 2, &packet, false);
        let verdict = |tables: &model::Tables| judge(tables, &crossing).map(|(verdict, _)| verdict);
        assert!(matches!(verdict(&tables), Some(Verdict::Act { .. })));
        let block = Block { last: Ipv4::new([10, 0, 1, 255]), behind: Ipv4::new([0, 0, 0, 255]) };
        tables.ifaces.entry(2).and_modify(|iface| iface.block = block);
        assert_eq!(verdict(&tables), Some(Verdict::Pass));
    }
}
