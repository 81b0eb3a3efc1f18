//! WireGuard between two namespaces, set up by netlink so that no package is needed for it.

use std::net::{IpAddr, SocketAddrV4};

use anyhow::{Context as _, Result};

use crate::{
    family::Family,
    generic_netlink,
    netlink::{attribute, nested},
    netns::NetNs,
};

/// `WG_CMD_SET_DEVICE`.
const SET_DEVICE: u8 = 1;

/// The key pairs of RFC 7748 section 6.1, each the private and the public key: secret enough for a lab.
const KEYS: [(&str, &str); 2] = [
    (
        "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
        "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
    ),
    (
        "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
        "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
    ),
];

/// One end of a tunnel.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// Its namespace.
    pub ns: &'a NetNs,
    /// Its WireGuard interface.
    pub interface: &'a str,
    /// Where the other end finds it.
    pub outer: SocketAddrV4,
}

/// Makes two WireGuard interfaces each other's only peer, for all addresses inside.
///
/// # Errors
///
/// When an interface is not there or not one of WireGuard's.
pub fn connect(one: End<'_>, other: End<'_>) -> Result<()> {
    configure(one, other, [0, 1])?;
    configure(other, one, [1, 0])
}

fn configure(end: End<'_>, peer: End<'_>, [own_key, peer_key]: [usize; 2]) -> Result<()> {
    let mut name = end.interface.as_bytes().to_vec();
    name.push(0);
    // struct sockaddr_in: family, port, address, padding.
    let mut endpoint = (libc::AF_INET as u16).to_ne_bytes().to_vec();
    endpoint.extend(peer.outer.port().to_be_bytes());
    endpoint.extend(peer.outer.ip().octets());
    endpoint.extend([0; 8]);
    // WGPEER_A_PUBLIC_KEY, WGPEER_A_ENDPOINT, WGPEER_A_ALLOWEDIPS.
    let peer = [
        attribute(1, &key(KEYS[peer_key].1)?),
        attribute(4, &endpoint),
        nested(9, &Family::BOTH.map(|family| nested(0, &everything(family)))),
    ];
    // WGDEVICE_A_IFNAME, _PRIVATE_KEY, _LISTEN_PORT, _PEERS.
    let device = [
        attribute(2, &name),
        attribute(3, &key(KEYS[own_key].0)?),
        attribute(6, &end.outer.port().to_ne_bytes()),
        nested(8, &[nested(0, &peer)]),
    ];
    end.ns
        .run(|| generic_netlink::command("wireguard", SET_DEVICE, &device))
        .with_context(|| format!("setting up {}", end.interface))
}

/// All addresses of a family: WGALLOWEDIP_A_FAMILY, _IPADDR, _CIDR_MASK.
fn everything(family: Family) -> [Vec<u8>; 3] {
    let number = family.choose(libc::AF_INET, libc::AF_INET6) as u16;
    let address = match family.unspecified() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    [attribute(1, &number.to_ne_bytes()), attribute(2, &address), attribute(3, &[0])]
}

fn key(hexadecimal: &str) -> Result<Vec<u8>> {
    let byte = |at: usize| Ok(u8::from_str_radix(hexadecimal.get(at..at + 2).context("half a byte")?, 16)?);
    (0..hexadecimal.len()).step_by(2).map(byte).collect()
}
