//! Virtual services of IPVS, set up by netlink so that no package is needed for it.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result};

use crate::{
    family::Family,
    generic_netlink,
    netlink::{attribute, nested},
    netns::NetNs,
};

/// `IPVS_CMD_NEW_SERVICE` and `IPVS_CMD_NEW_DEST` of linux/ip_vs.h.
const NEW_SERVICE: u8 = 1;
const NEW_DESTINATION: u8 = 5;
/// `IPVS_CMD_ATTR_SERVICE` and `IPVS_CMD_ATTR_DEST`.
const SERVICE: u16 = 1;
const DESTINATION: u16 = 2;

/// How packets get from the director to a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Forwarding {
    /// Their destination is translated, and the source of the answers (`ipvsadm -m`, LVS-NAT, kube-proxy).
    Masquerading = 0,
    /// They are sent on as they are; the real server has the address too, and answers by itself (`ipvsadm -g`, LVS-DR).
    DirectRouting = 3,
}

/// Makes a virtual service, by TCP and by UDP, with one real server: the same as `ipvsadm -A -t SERVICE -s rr` and
/// `ipvsadm -a -t SERVICE -r SERVER -m`, and again with `-u`.
///
/// # Errors
///
/// When the kernel has no IPVS or no such scheduler.
pub fn add_service(
    ns: &NetNs,
    service: SocketAddr,
    server: SocketAddr,
    forwarding: Forwarding,
) -> Result<()> {
    // Flags and their mask, the timeout of persistent clients, and how much of a client's address is looked at.
    let family = Family::of(service.ip());
    let netmask = family.choose(u32::MAX, 128);
    let settings = [attribute(6, b"rr\0"), attribute(7, &[0; 8]), number(8, 0), number(9, netmask)];
    // Weight 1, and thresholds of connections, which 0 turns off.
    let destination = [
        attribute(1, &octets(server.ip())),
        attribute(2, &server.port().to_be_bytes()),
        number(3, forwarding as u32),
        number(4, 1),
        number(5, 0),
        number(6, 0),
    ];
    let address_family = family.choose(libc::AF_INET, libc::AF_INET6) as u16;
    for protocol in [libc::IPPROTO_TCP, libc::IPPROTO_UDP] {
        let key = [
            attribute(1, &address_family.to_ne_bytes()),
            attribute(2, &(protocol as u16).to_ne_bytes()),
            attribute(3, &octets(service.ip())),
            attribute(4, &service.port().to_be_bytes()),
        ];
        let whole = nested(SERVICE, &[&key[..], &settings].concat());
        let attributes = [nested(SERVICE, &key), nested(DESTINATION, &destination)];
        ns.run(|| {
            generic_netlink::command("IPVS", NEW_SERVICE, &[whole])?;
            generic_netlink::command("IPVS", NEW_DESTINATION, &attributes)
        })
        .with_context(|| format!("a virtual service {service} of IPVS"))?;
    }
    Ok(())
}

fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_ne_bytes())
}

/// `union nf_inet_addr`, which has room for either family.
fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(address) => address.octets(),
    }
}
