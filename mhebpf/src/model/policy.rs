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
    /// Prefixes in which the interface is an owner too.
    pub allow: Vec<IpNet>,
}

impl Policy {
    /// The same, with nothing enforced: what would be is counted.
    pub fn observing(self) -> Self {
        Self {
            send: if self.send == Send::Off { Send::Off } else { Send::Observe },
            receive: if self.receive == Receive::Off { Receive::Off } else { Receive::Observe },
            announce: if self.announce == Announce::Off { Announce::Off } else { Announce::Observe },
            ..self
        }
    }
}
