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
    /// Addresses that the interface may use besides its own.
    pub(crate) allow: Vec<Prefix>,
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

impl Policy {
    /// The strong end system: all is enforced, and what is foreign passes.
    pub(crate) const STRONG: Self = Self {
        send: Send::Redirect,
        receive: Receive::Drop,
        announce: Announce::Enforce,
        unknown: Unknown::Pass,
        allow: Vec::new(),
    };

    /// The same, but nothing is sent by another interface.
    pub(crate) const DROPPING: Self = Self {
        send: Send::Drop,
        receive: Receive::Drop,
        announce: Announce::Enforce,
        unknown: Unknown::Pass,
        allow: Vec::new(),
    };

    /// All is looked at, and nothing is changed.
    pub(crate) const OBSERVING: Self = Self {
        send: Send::Observe,
        receive: Receive::Observe,
        announce: Announce::Observe,
        unknown: Unknown::Pass,
        allow: Vec::new(),
    };
}
