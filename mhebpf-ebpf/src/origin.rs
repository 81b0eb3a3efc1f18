//! Where a packet comes from: a process of this host, or another host that it forwards or bridges for.

use crate::{Iface, Ipv4, Ipv6, Mac, Send};

/// What is known of a packet besides what was parsed. It is asked only where it matters, which is rarely.
pub trait Metadata {
    /// Whether it came in by an interface before, and so is forwarded or bridged (`skb->ingress_ifindex`).
    fn has_arrived(&self) -> bool;
    /// Whether it came out of an IPsec tunnel or transport.
    fn is_decapsulated(&self) -> bool;
    /// The source of its Ethernet header, where the interface has one.
    fn source_mac(&self) -> Mac;
    /// The destination of its Ethernet header, where the interface has one.
    fn destination_mac(&self) -> Mac;
    /// If it is an ICMP error, the destination of the invoking packet: see [`crate::icmp::ipv4_destination`].
    fn invoking_ipv4(&self, offset: usize) -> Option<Ipv4>;
    /// The same for ICMPv6: see [`crate::icmp::ipv6_destination`].
    fn invoking_ipv6(&self, offset: usize) -> Option<Ipv6>;
}

/// Where a packet that leaves comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A process of this host, or its kernel.
    Local,
    /// Another host: this one routed it.
    Forwarded,
    /// Another host, whose Ethernet header it still has.
    Bridged,
}

impl Origin {
    /// Whence a packet that leaves by an interface comes. What was routed has the interface's own hardware address as its source.
    #[inline(always)]
    pub fn of(iface: &Iface, metadata: &impl Metadata) -> Self {
        if !metadata.has_arrived() {
            Self::Local
        } else if !iface.has_ethernet() || metadata.source_mac() == iface.mac() {
            Self::Forwarded
        } else {
            Self::Bridged
        }
    }

    /// The policy for the datagrams of that origin.
    #[inline(always)]
    pub const fn send(self, iface: &Iface) -> Send {
        match self {
            Self::Local => iface.send(),
            Self::Forwarded => iface.forwarded(),
            Self::Bridged => Send::Off,
        }
    }
}
