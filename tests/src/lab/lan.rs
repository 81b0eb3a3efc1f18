//! A network behind the host, of which the host is the router.

use std::net::Ipv4Addr;

use anyhow::Result;

use super::Lab;
use crate::{device::wait_running, netns::NetNs, wire};

/// The host's bridge in this network.
pub const LAN: &str = "br-lan";
/// The host's address in it.
pub const LAN_HOST: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 1);
/// The server's address.
pub const LAN_SERVER: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 10);
/// The client's address.
pub const LAN_CLIENT: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 20);

/// Two stations on a bridge of the host, which has a card among its ports.
#[derive(Debug)]
pub struct Lan {
    /// The server's namespace.
    pub server: NetNs,
    /// The client's namespace.
    pub client: NetNs,
    /// What the card is on.
    _elsewhere: NetNs,
}

impl Lab {
    /// Adds the network, and lets the host forward for it. With a card among its interfaces a host is no container, so
    /// its other interfaces, which are ends of pairs, are uplinks where default routes lead through them.
    ///
    /// # Errors
    ///
    /// When there is one already, or the kernel has no macvlans.
    pub fn add_lan(&self) -> Result<Lan> {
        let lan = Lan {
            server: NetNs::new("server")?,
            client: NetNs::new("client")?,
            _elsewhere: NetNs::new("elsewhere")?,
        };
        self.host.ip_batch(&format!(
            "link add {LAN} type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
             address add {LAN_HOST}/24 dev {LAN}\n\
             link set {LAN} up"
        ))?;
        // Where that module is loaded, netfilter would see frames on bridges.
        let _ = self.host.sysctl("net.bridge.bridge-nf-call-iptables", "0");
        wire::add(&self.host, &lan._elsewhere, "lan0")?;
        self.host.ip(&format!("link set lan0 master {LAN}"))?;
        for (name, ns, address) in [("lan1", &lan.server, LAN_SERVER), ("lan2", &lan.client, LAN_CLIENT)] {
            self.host.ip_batch(&format!(
                "link add {name} type veth peer name eth0 netns {}\n\
                 link set {name} master {LAN} up",
                ns.path()
            ))?;
            ns.ip_batch(&format!(
                "address add {address}/24 dev eth0\n\
                 link set eth0 up\n\
                 route add default via {LAN_HOST}"
            ))?;
        }
        self.host.sysctl("net.ipv4.ip_forward", "1")?;
        wait_running(&self.host, LAN)?;
        Ok(lan)
    }
}
