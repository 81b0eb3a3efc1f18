//! What is asked and answered.

mod judgement;
mod policy;
mod read;
mod status;

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

pub(crate) use self::status::counters_by_interface;
pub use self::{
    judgement::{Crossing, Direction, Enforced, Judgement, Kind, Ruling},
    read::{Hop, Known, Owned as OwnedBy, Read},
    status::{
        Chain, Counter, Earlier, FollowedRoutes, Former, Interface, InterfaceSteering, LeftOut, NoRoom,
        Owned, Policy, Resynchronisations, Status, Steering,
    },
};

/// What a client asks, once for each connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// How the daemon is: one [`Answer::Status`].
    Status,
    /// What does not simply pass, as it happens: [`Answer::Watching`], then [`Answer::Seen`] and
    /// [`Answer::Suppressed`] for as long as the connection lasts.
    Monitor,
    /// What becomes of a packet, by the maps as they are: one [`Answer::Judged`].
    Judge(Crossing),
}

/// A line of the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// How the daemon is.
    Status(Box<Status>),
    /// What becomes of a packet.
    Judged(Box<Judgement>),
    /// From now on, what does not simply pass is shown.
    Watching,
    /// A packet that did not simply pass.
    Seen(Box<Seen>),
    /// Packets that are not shown, because there were too many or they were not read quickly enough.
    Suppressed {
        /// How many since the connection began.
        packets: u64,
    },
    /// It can't be answered.
    Error {
        /// Why.
        message: String,
    },
}

/// A packet that did not simply pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// When it was judged: microseconds since 1970, in UTC.
    pub time: u64,
    /// The interface that it crossed.
    pub interface: String,
    /// `egress` or `ingress`.
    pub direction: String,
    /// `ipv4`, `ipv6`, `arp` or `ndp`.
    pub family: String,
    /// As what it was counted.
    pub reason: String,
    /// `drop`, `redirect` or `rewrite`.
    pub act: Act,
    /// It was left alone and only counted.
    pub observed: bool,
    /// The interface that it was redirected to.
    pub redirected_to: Option<String>,
    /// The address that was judged; `None` where the packet can't be read.
    pub judged: Option<IpAddr>,
    /// The interfaces that own it, at most four of them, in order of preference.
    pub owners: Vec<String>,
    /// The cookie of the local socket that sent it; 0 where there is none.
    pub socket: u64,
    /// This host forwarded it.
    #[serde(default)]
    pub forwarded: bool,
    /// Where the socket has sent it, if this host has translated the destination since.
    #[serde(default)]
    pub original_destination: Option<SocketAddr>,
    /// The length of the packet in bytes, from the network layer's header on.
    pub length: u32,
    /// The first bytes of the packet, from the network layer's header on, in hexadecimal.
    pub bytes: String,
}

/// What is done with a packet that does not simply pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// It is dropped.
    Drop,
    /// It leaves through the owner of its source address.
    Redirect,
    /// It leaves with another sender address.
    Rewrite,
}

/// The bytes in hexadecimal.
pub fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The bytes that [`to_hex`] was given; `None` where it was not.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_look_like_this_on_the_wire() {
        let wire = |request| serde_json::to_string(&request).unwrap_or_default();
        assert_eq!(wire(Request::Status), r#"{"request":"status"}"#);
        assert_eq!(wire(Request::Monitor), r#"{"request":"monitor"}"#);
        let wire = |answer| serde_json::to_string(&answer).unwrap_or_default();
        assert_eq!(wire(Answer::Watching), r#"{"answer":"watching"}"#);
        assert_eq!(wire(Answer::Suppressed { packets: 7 }), r#"{"answer":"suppressed","packets":7}"#);
        let error = Answer::Error { message: "no".to_owned() };
        assert_eq!(wire(error), r#"{"answer":"error","message":"no"}"#);
    }

    #[test]
    fn what_a_later_version_adds_is_read_over() {
        let read = serde_json::from_str::<Answer>(r#"{"answer":"suppressed","packets":7,"why":"rate"}"#);
        assert_eq!(read.ok(), Some(Answer::Suppressed { packets: 7 }));
        let request = serde_json::from_str::<Request>(r#"{"request":"status","since":3}"#);
        assert_eq!(request.ok(), Some(Request::Status));
        assert!(serde_json::from_str::<Request>(r#"{"request":"reboot"}"#).is_err());
    }

    #[test]
    fn bytes_are_read_back() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(from_hex(&to_hex(&bytes)), Some(bytes));
        for wrong in ["0", "0g", "é"] {
            assert_eq!(from_hex(wrong), None, "{wrong}");
        }
    }
}
