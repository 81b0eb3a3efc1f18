//! A host with two links to a peer.
//!
//! ```text
//!   host                              peer
//!   eth0 10.0.0.2, .3, ... /16 ------ p0 10.0.0.1/16
//!   eth1 10.1.0.2, .3, ... /16 ------ p1 10.1.0.1/16      lo 198.18.0.1
//! ```
//!
//! The host's route to 198.18.0.0/15 leads through eth0; that through eth1 has a higher metric.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket},
};

use anyhow::{Context as _, Result};
use mhebpf_tests::NetNs;

use super::variant::{Installed, Variant};

/// The numbers of addresses of a host.
pub(crate) const COUNTS: [u32; 3] = [FEW, 64, 1_000];
/// The first of them.
pub(crate) const FEW: u32 = 4;

/// The host's interfaces.
pub(crate) const INTERFACES: [&str; 2] = ["eth0", "eth1"];
/// The peer's interfaces.
const PEERS: [&str; 2] = ["p0", "p1"];
/// The addresses of the peer's interfaces.
pub(crate) const GATEWAYS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 1, 0, 1)];

/// The peer's address behind both gateways.
const SERVER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// Nobody's: the peer discards what is sent there as soon as it has looked for a route.
pub(crate) const NOBODY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, 9), 9);

/// Two namespaces, with a variant in force on the host.
pub(crate) struct Lab {
    pub(crate) variant: Variant,
    pub(crate) count: u32,
    pub(crate) host: NetNs,
    pub(crate) peer: NetNs,
    /// Sockets that send from the last address of each interface.
    pub(crate) senders: [UdpSocket; 2],
    /// What the peer serves TCP with.
    pub(crate) listener: TcpListener,
    pub(crate) server: SocketAddrV4,
    _installed: Installed,
}

/// The addresses of one of the host's interfaces, where it has `count` in all.
pub(crate) fn addresses_of(port: usize, count: u32) -> impl Iterator<Item = Ipv4Addr> {
    let first = GATEWAYS[port].to_bits() + 1;
    (0..count / 2).map(move |number| Ipv4Addr::from_bits(first + number))
}

impl Lab {
    /// Builds a lab.
    ///
    /// # Errors
    ///
    /// When the variant is not to be had on this machine.
    pub(crate) fn new(variant: Variant, count: u32) -> Result<Self> {
        let (host, peer) = (NetNs::new("host")?, NetNs::new("peer")?);
        for ns in [&host, &peer] {
            for scope in ["all", "default"] {
                ns.sysctl(&format!("net.ipv4.conf.{scope}.rp_filter"), "0")?;
                ns.sysctl(&format!("net.ipv4.conf.{scope}.arp_ignore"), "1")?;
            }
        }
        peer.ip_batch(&peer_script(&host.path()))?;
        host.ip_batch(&host_script(count))?;
        let installed = variant.install(&host, count)?;
        let sender =
            |port| host.run(|| UdpSocket::bind((source(port, count), 0)).context("binding a socket"));
        let senders = [sender(0)?, sender(1)?];
        let server = SocketAddrV4::new(SERVER, 9000);
        let listener = peer.run(|| TcpListener::bind(server).context("binding the server"))?;
        Ok(Self { variant, count, host, peer, senders, listener, server, _installed: installed })
    }

    /// The address that traffic of an interface comes from.
    pub(crate) fn source(&self, port: usize) -> Ipv4Addr {
        source(port, self.count)
    }

    /// How many packets have arrived on each of the peer's interfaces.
    ///
    /// # Errors
    ///
    /// When the kernel does not tell.
    pub(crate) fn arrived(&self) -> Result<[u64; 2]> {
        let text = self.peer.run(|| Ok(std::fs::read_to_string("/proc/thread-self/net/dev")?))?;
        let packets = |name: &str| {
            let line = text.lines().find_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix(':'));
            let packets = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
            packets.with_context(|| format!("/proc/net/dev has no {name}"))
        };
        Ok([packets(PEERS[0])?, packets(PEERS[1])?])
    }
}

/// The last address of an interface.
fn source(port: usize, count: u32) -> Ipv4Addr {
    addresses_of(port, count).last().unwrap_or(Ipv4Addr::UNSPECIFIED)
}

fn peer_script(host: &str) -> String {
    let mut script = format!("address add {SERVER}/32 dev lo\n");
    for ((name, at_host), gateway) in PEERS.iter().zip(INTERFACES).zip(GATEWAYS) {
        // Writing into a string cannot fail.
        let _ = writeln!(script, "link add {name} type veth peer name {at_host} netns {host}");
        let _ = writeln!(script, "address add {gateway}/16 dev {name}");
        let _ = writeln!(script, "link set {name} up");
    }
    script
}

fn host_script(count: u32) -> String {
    let mut script = String::new();
    for (port, name) in INTERFACES.iter().enumerate() {
        let _ = writeln!(script, "link set {name} up");
        for address in addresses_of(port, count) {
            let _ = writeln!(script, "address add {address}/16 dev {name}");
        }
        let metric = 10 + port;
        let _ = writeln!(script, "route add 198.18.0.0/15 via {} dev {name} metric {metric}", GATEWAYS[port]);
    }
    script
}
