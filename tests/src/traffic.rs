//! Ordinary traffic from sockets, in whichever namespace.

pub mod icmp;
pub mod packet_info;
pub mod tcp;
pub mod udp;

/// The port that the article's server listens on.
pub const ARTICLE_PORT: u16 = 9000;
