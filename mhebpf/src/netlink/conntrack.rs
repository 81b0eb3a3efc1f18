//! Connections that this host tracks: where one of its own went before its destination was translated.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

use tracing::debug;

use super::raw::{NETFILTER, ask, attribute, encoded, number};

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET`
const GET: u16 = 1 << 8 | 1;
/// `struct nfgenmsg`
const FAMILY: usize = 4;
/// `CTA_TUPLE_ORIG` and `CTA_TUPLE_REPLY` of linux/netfilter/nfnetlink_conntrack.h, and what is in them: `CTA_TUPLE_IP`,
/// `CTA_TUPLE_PROTO`.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const IP: u16 = 1;
const PROTOCOL: u16 = 2;
/// `CTA_PROTO_NUM`, `CTA_PROTO_SRC_PORT` and `CTA_PROTO_DST_PORT`.
const NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;
const DESTINATION_PORT: u16 = 3;
/// `NLA_F_NESTED`
const NESTED: u16 = 0x8000;
/// It is there once connections are tracked in the network namespace.
const TRACKED: &str = "/proc/self/net/stat/nf_conntrack";

/// What is asked of the kernel; where it has no answers, it is not asked again.
#[derive(Debug, Default)]
pub(crate) struct Conntrack {
    refuses: bool,
}

/// A packet of a connection, as it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    /// The number of the protocol above IP.
    pub(crate) protocol: u8,
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
}

impl Conntrack {
    /// Where a packet of the connection's first direction went before this host translated its destination; `None` where it
    /// did not, or where nothing is known of it.
    pub(crate) fn original_destination(&mut self, packet: &Packet) -> Option<SocketAddr> {
        // Asking would load modules that nobody else needs.
        if self.refuses || !Path::new(TRACKED).exists() {
            return None;
        }
        match ask(NETFILTER, GET, false, &question(packet)) {
            Ok(answers) => {
                let answer = answers.first()?;
                // The kernel finds a connection by either direction, and this may be an answer.
                let is_first_direction = destination(answer, REPLY) == Some(packet.source);
                let original = destination(answer, ORIGINAL).filter(|_| is_first_direction)?;
                (original != packet.destination).then_some(original)
            }
            // It tracks no such connection.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                debug!("asking for tracked connections: {error}");
                self.refuses = true;
                None
            }
        }
    }
}

/// The answers to the packet are what is known of it: they come from where it went, to where it came from.
fn question(packet: &Packet) -> Vec<u8> {
    let (from, to) = (packet.destination, packet.source);
    // `AF_INET` and `AF_INET6`
    let family = if from.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 } as u8;
    let address = |number, ip| match ip {
        IpAddr::V4(ip) => encoded(number, &ip.octets()),
        // `CTA_IP_V6_SRC` and `CTA_IP_V6_DST` come behind those of IPv4.
        IpAddr::V6(ip) => encoded(number + 2, &ip.octets()),
    };
    let ip = [address(1, from.ip()), address(2, to.ip())].concat();
    let protocol = [
        encoded(NUMBER, &[packet.protocol]),
        encoded(SOURCE_PORT, &from.port().to_be_bytes()),
        encoded(DESTINATION_PORT, &to.port().to_be_bytes()),
    ];
    let tuple = [encoded(IP | NESTED, &ip), encoded(PROTOCOL | NESTED, &protocol.concat())].concat();
    [vec![family, 0, 0, 0], encoded(REPLY | NESTED, &tuple)].concat()
}

/// The destination of one direction of a connection.
fn destination(answer: &[u8], direction: u16) -> Option<SocketAddr> {
    let tuple = attribute(answer.get(FAMILY..)?, direction)?;
    let ip = attribute(tuple, IP)?;
    let v4 = || attribute(ip, 2).and_then(number::<4>).map(|octets| Ipv4Addr::from(octets).into());
    let v6 = || attribute(ip, 4).and_then(number::<16>).map(|octets| Ipv6Addr::from(octets).into());
    let port = attribute(attribute(tuple, PROTOCOL)?, DESTINATION_PORT).and_then(number)?;
    Some(SocketAddr::new(v4().or_else(v6)?, u16::from_be_bytes(port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_the_answers_direction() {
        for (source, destination) in
            [("10.0.0.2:4000", "10.244.0.2:8080"), ("[fd00::2]:4000", "[fd00:244::2]:8080")]
        {
            let parse = |text: &str| text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            let packet = Packet { protocol: 6, source: parse(source), destination: parse(destination) };
            let question = question(&packet);
            assert_eq!(super::destination(&question, REPLY), Some(packet.source));
            assert_eq!(super::destination(&question, ORIGINAL), None);
            assert_eq!(super::destination(&question[..30], REPLY), None, "cut short");
        }
    }
}
