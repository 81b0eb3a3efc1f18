//! What is enforced, in the words of the configuration file.

use std::fmt;

use mhebpf_ebpf::{Announce, Iface, Receive, Send, Unknown};

use super::Policy;
use crate::model;

impl Policy {
    fn new(send: Send, receive: Receive, announce: Announce, unknown: Unknown, forwarded: Send) -> Self {
        let [send, forwarded] = [send, forwarded].map(|send| match send {
            Send::Off => "off",
            Send::Observe => "observe",
            Send::Drop => "drop",
            Send::Redirect => "redirect",
        });
        let receive = match receive {
            Receive::Off => "off",
            Receive::Observe => "observe",
            Receive::Drop => "drop",
        };
        let announce = match announce {
            Announce::Off => "off",
            Announce::Observe => "observe",
            Announce::Enforce => "enforce",
        };
        let unknown = match unknown {
            Unknown::Pass => "pass",
            Unknown::Drop => "drop",
        };
        let [send, receive, announce, unknown, forwarded] =
            [send, receive, announce, unknown, forwarded].map(str::to_owned);
        Self { send, receive, announce, unknown, forwarded }
    }
}

impl fmt::Display for Policy {
    /// What is forwarded is named where it is not judged as what is sent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { send, receive, announce, unknown, forwarded } = self;
        write!(f, "send {send}, receive {receive}, announce {announce}, unknown {unknown}")?;
        if forwarded == send { Ok(()) } else { write!(f, ", forwarded {forwarded}") }
    }
}

impl From<&model::Policy> for Policy {
    fn from(policy: &model::Policy) -> Self {
        Self::new(policy.send, policy.receive, policy.announce, policy.unknown, policy.forwarded)
    }
}

impl From<&Iface> for Policy {
    fn from(iface: &Iface) -> Self {
        Self::new(iface.send(), iface.receive(), iface.announce(), iface.unknown(), iface.forwarded())
    }
}

/// Without the prefixes that are allowed; the error is the word that is not known.
impl TryFrom<&Policy> for model::Policy {
    type Error = String;

    fn try_from(words: &Policy) -> Result<Self, String> {
        let send = |word: &str| match word {
            "off" => Ok(Send::Off),
            "observe" => Ok(Send::Observe),
            "drop" => Ok(Send::Drop),
            "redirect" => Ok(Send::Redirect),
            other => Err(other.to_owned()),
        };
        Ok(Self {
            send: send(&words.send)?,
            forwarded: send(&words.forwarded)?,
            receive: match words.receive.as_str() {
                "off" => Receive::Off,
                "observe" => Receive::Observe,
                "drop" => Receive::Drop,
                other => return Err(other.to_owned()),
            },
            announce: match words.announce.as_str() {
                "off" => Announce::Off,
                "observe" => Announce::Observe,
                "enforce" => Announce::Enforce,
                other => return Err(other.to_owned()),
            },
            unknown: match words.unknown.as_str() {
                "pass" => Unknown::Pass,
                "drop" => Unknown::Drop,
                other => return Err(other.to_owned()),
            },
            allow: Vec::new(),
            owns: Vec::new(),
            binds: true,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_read_back_from_its_words() {
        let sends = [Send::Off, Send::Observe, Send::Drop, Send::Redirect];
        let receives = [Receive::Off, Receive::Observe, Receive::Drop, Receive::Drop];
        let announces = [Announce::Off, Announce::Observe, Announce::Enforce, Announce::Enforce];
        let unknowns = [Unknown::Pass, Unknown::Drop, Unknown::Pass, Unknown::Drop];
        for n in 0..4 {
            let (send, receive) = (sends[n], receives[n]);
            let (announce, unknown, forwarded) = (announces[n], unknowns[n], sends[3 - n]);
            let (allow, owns, binds) = (Vec::new(), Vec::new(), true);
            let policy = model::Policy { send, receive, announce, unknown, forwarded, allow, owns, binds };
            assert_eq!(model::Policy::try_from(&Policy::from(&policy)), Ok(policy));
        }
    }
}
