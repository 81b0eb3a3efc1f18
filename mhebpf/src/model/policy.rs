//! What is enforced on an interface.

use ipnet::IpNet;
use mhebpf_ebpf::{Announce, Receive, Send, Unknown};

/// What is enforced on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// For packets that leave.
    pub send: Send,
    /// For datagrams that arrive.
    pub receive: Receive,
    /// For ARP and NDP.
    pub announce: Announce,
    /// For packets of local origin with a foreign source.
    pub unknown: Unknown,
    /// For packets that the host forwards: never stricter than `send`.
    pub forwarded: Send,
    /// Prefixes in which the interface is an owner too.
    pub allow: Vec<IpNet>,
    /// Prefixes that no interface has, and that belong to this one.
    pub owns: Vec<IpNet>,
    /// Whether the addresses of the interface are its own, and not those of the whole host: those of a router's other networks
    /// are not ([`super::uplinks`]).
    pub binds: bool,
}

impl Policy {
    /// The same, with nothing enforced: what would be is counted.
    pub fn observing(self) -> Self {
        let observed = |send| if send == Send::Off { Send::Off } else { Send::Observe };
        Self {
            send: observed(self.send),
            forwarded: observed(self.forwarded),
            receive: if self.receive == Receive::Off { Receive::Off } else { Receive::Observe },
            announce: if self.announce == Announce::Off { Announce::Off } else { Announce::Observe },
            ..self
        }
    }
}
