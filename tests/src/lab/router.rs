//! Further stations: a second router on the switch, and a container behind the host.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use super::{FAR, Lab, PEER, Segment};
use crate::{mac::Mac, netns::NetNs};

/// A router of its own on the first subnet, with [`FAR`] behind it as behind the peer.
#[derive(Debug)]
pub struct Router {
    /// Its namespace.
    pub ns: NetNs,
    /// Its address in the first subnet.
    pub address: Ipv4Addr,
    /// Its hardware address.
    pub mac: Mac,
}

/// A container behind the host: a namespace with a routed link to it.
#[derive(Debug)]
pub struct Container {
    /// Its namespace.
    pub ns: NetNs,
    /// Its address, in no subnet of the host's other links.
    pub address: Ipv4Addr,
}

impl Router {
    /// Gives the router an IPv6 address in the first subnet as well.
    ///
    /// # Errors
    ///
    /// When it has that already.
    pub fn add_ipv6(&self, address: Ipv6Addr) -> Result<()> {
        // Nobody looks for duplicates or routers.
        for key in [
            "eth0.accept_ra",
            "eth0.accept_dad",
            "eth0.dad_transmits",
            "eth0.disable_ipv6",
            "lo.disable_ipv6",
        ] {
            self.ns.sysctl(&format!("net.ipv6.conf.{key}"), "0")?;
        }
        self.ns.ip(&format!("address add {address}/64 dev eth0 nodad")).map(drop)
    }
}

impl Container {
    /// Gives the container the address fd17::2 as well, and lets the host, whose IPv6 is on, forward for it.
    ///
    /// # Errors
    ///
    /// When it has that already.
    pub fn add_ipv6(&self, lab: &Lab) -> Result<Ipv6Addr> {
        let (host, address): (Ipv6Addr, Ipv6Addr) = ("fd17::1".parse()?, "fd17::2".parse()?);
        lab.host.ip(&format!("address add {host}/64 dev c0 nodad"))?;
        lab.host.sysctl("net.ipv6.conf.all.forwarding", "1")?;
        self.ns.sysctl("net.ipv6.conf.eth0.disable_ipv6", "0")?;
        self.ns.ip_batch(&format!(
            "address add {address}/64 dev eth0 nodad\n\
             route add default via {host}"
        ))?;
        Ok(address)
    }
}

impl Lab {
    /// Adds a router with this address, whose last byte tells its hardware address apart.
    ///
    /// # Errors
    ///
    /// When the address is taken.
    pub fn add_router(&self, address: Ipv4Addr) -> Result<Router> {
        let ns = NetNs::new("router")?;
        let (n, bridge) = (address.octets()[3], Segment::nth(0).bridge());
        let mac = Mac::lab(0x10 + n);
        let path = ns.path();
        self.switch.ip_batch(&format!(
            "link add r{n}_ext type veth peer name eth0 address {mac} netns {path}\n\
             link set r{n}_ext master {bridge} up"
        ))?;
        ns.ip_batch(&format!(
            "address add {address}/21 dev eth0\n\
             address add {FAR}/32 dev lo\n\
             link set eth0 up"
        ))?;
        ns.sysctl("net.ipv4.conf.all.arp_ignore", "1")?;
        Ok(Router { ns, address, mac })
    }

    /// Adds a container with the address 172.31.0.2, lets the host forward for it, and tells the peer the way back.
    ///
    /// # Errors
    ///
    /// When there is one already.
    pub fn add_container(&self) -> Result<Container> {
        let ns = NetNs::new("container")?;
        let (host, address) = (Ipv4Addr::new(172, 31, 0, 1), Ipv4Addr::new(172, 31, 0, 2));
        self.host.ip_batch(&format!(
            "link add c0 type veth peer name eth0 netns {}\n\
             address add {host}/24 dev c0\n\
             link set c0 up",
            ns.path()
        ))?;
        self.host.sysctl("net.ipv4.ip_forward", "1")?;
        ns.ip_batch(&format!(
            "address add {address}/24 dev eth0\n\
             link set eth0 up\n\
             route add default via {host}"
        ))?;
        self.switch.ip(&format!("route add 172.31.0.0/24 via {} src {PEER}", self.address(0)))?;
        Ok(Container { ns, address })
    }
}
