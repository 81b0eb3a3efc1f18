//! What a packet that is only asked about is taken to be.

use mhebpf_ebpf::{Arp, Iface, Ipv4, Ipv6, Mac, Metadata, Network, Packet};

/// A packet that crosses an interface with that interface's hardware address: as its source where it leaves, and as its
/// destination where it arrives and goes to no group. It is no ICMP error.
#[derive(Clone, Copy, Debug)]
pub struct AsUsual {
    /// This host forwards it.
    pub forwarded: bool,
    /// It came out of an IPsec tunnel or transport.
    pub decapsulated: bool,
    /// The hardware address of the interface.
    pub mac: Mac,
    /// It goes to a group of stations.
    pub group: bool,
}

impl AsUsual {
    /// What is usual for a packet on an interface.
    pub fn new(iface: &Iface, packet: &Packet) -> Self {
        Self { forwarded: false, decapsulated: false, mac: iface.mac(), group: packet.group }
    }

    /// The same packet with the sender hardware address that it has then.
    pub fn on(&self, packet: &Packet) -> Packet {
        let network = match packet.network {
            Network::Arp(arp) => Network::Arp(Arp { hardware: self.mac, ..arp }),
            other => other,
        };
        Packet { network, ..*packet }
    }
}

impl Metadata for AsUsual {
    fn has_arrived(&self) -> bool {
        self.forwarded
    }

    fn is_decapsulated(&self) -> bool {
        self.decapsulated
    }

    fn source_mac(&self) -> Mac {
        self.mac
    }

    fn destination_mac(&self) -> Mac {
        if self.group { Mac::new([0xff; 6]) } else { self.mac }
    }

    fn invoking_ipv4(&self, _: usize) -> Option<Ipv4> {
        None
    }

    fn invoking_ipv6(&self, _: usize) -> Option<Ipv6> {
        None
    }
}
