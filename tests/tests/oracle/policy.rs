//! What the operator wants of an interface.

use super::prefix::Prefix;

/// The switches of an interface, each by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    /// What is done with a datagram that another interface should send.
    pub(crate) send: Send,
    /// What is done with a datagram that another interface should receive.
    pub(crate) receive: Receive,
    /// What is done with ARP and NDP about addresses of other interfaces.
    pub(crate) announce: Announce,
    /// What is done with a source that is no address of this host.
    pub(crate) unknown: Unknown,
    /// What is done with a datagram that the host forwards, and that another interface should send.
    pub(crate) forwarded: Forwarded,
    /// Addresses that the interface may use besides its own.
    pub(crate) allow: Vec<Prefix>,
    /// Addresses that no interface has, and that belong to this one.
    pub(crate) owns: Vec<Prefix>,
    /// Whether the addresses of the interface are its own where it is no uplink.
    pub(crate) binds: bool,
}

/// `send`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Send {
    Redirect,
    Drop,
    Observe,
    Off,
}

/// `receive`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Receive {
    Drop,
    Observe,
    Off,
}

/// `announce`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Announce {
    Enforce,
    Observe,
    Off,
}

/// `unknown`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unknown {
    Pass,
    Drop,
}

/// `forwarded`: whether the interface sends what is forwarded as it sends what is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forwarded {
    Enforce,
    Observe,
    Off,
}

impl Policy {
    /// The strong end system: all is enforced, and what is foreign passes.
    pub(crate) const STRONG: Self = Self {
        send: Send::Redirect,
        receive: Receive::Drop,
        announce: Announce::Enforce,
        unknown: Unknown::Pass,
        forwarded: Forwarded::Enforce,
        allow: Vec::new(),
        owns: Vec::new(),
        binds: true,
    };

    /// The same, but nothing is sent by another interface.
    pub(crate) const DROPPING: Self = Self {
        send: Send::Drop,
        receive: Receive::Drop,
        announce: Announce::Enforce,
        unknown: Unknown::Pass,
        forwarded: Forwarded::Enforce,
        allow: Vec::new(),
        owns: Vec::new(),
        binds: true,
    };

    /// All is looked at, and nothing is changed.
    pub(crate) const OBSERVING: Self = Self {
        send: Send::Observe,
        receive: Receive::Observe,
        announce: Announce::Observe,
        unknown: Unknown::Pass,
        forwarded: Forwarded::Enforce,
        allow: Vec::new(),
        owns: Vec::new(),
        binds: true,
    };

    /// What is done with a datagram that the host forwards: never more than with its own.
    pub(crate) fn send_forwarded(&self) -> Send {
        match (self.send, self.forwarded) {
            (Send::Off, _) | (_, Forwarded::Off) => Send::Off,
            (_, Forwarded::Observe) => Send::Observe,
            (send, Forwarded::Enforce) => send,
        }
    }
}
