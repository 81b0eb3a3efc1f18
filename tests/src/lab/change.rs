//! Changes to a lab that runs.

use std::{
    net::Ipv4Addr,
    time::Duration,
};

use anyhow::Result;

use super::{Lab, Segment, build::link_script};
use crate::{judge::GRACE, mac::Mac, rtnetlink};

impl Lab {
    /// Adds an address to a port, without starting a program: the next line of the test comes microseconds later.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn add_address(&self, port: usize, address: Ipv4Addr) -> Result<()> {
        self.claim(port, address, GRACE);
        let length = Segment::nth(self.links[port].segment).prefix_length();
        rtnetlink::add_address(&self.host, &format!("eth{port}_int"), address, length)
    }

    /// Removes an address from a port.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn remove_address(&self, port: usize, address: Ipv4Addr) -> Result<()> {
        self.release(port, address, GRACE);
        let length = Segment::nth(self.links[port].segment).prefix_length();
        rtnetlink::remove_address(&self.host, &format!("eth{port}_int"), address, length)
    }

    /// Moves an address from one port to another, as a failover does: first added, then removed.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn move_address(&self, from: usize, to: usize, address: Ipv4Addr) -> Result<()> {
        self.add_address(to, address)?;
        self.remove_address(from, address)
    }

    /// Takes the host's end of a link down; its addresses stay, its routes go.
    ///
    /// # Errors
    ///
    /// When `ip` fails.
    pub fn down(&self, port: usize) -> Result<()> {
        self.host.ip(&format!("link set eth{port}_int down")).map(drop)
    }

    /// Takes the host's end of a link up and waits until it runs. Its subnet's route is the last one now.
    ///
    /// # Errors
    ///
    /// When `ip` fails.
    pub fn up(&self, port: usize) -> Result<()> {
        self.host.ip(&format!("link set eth{port}_int up"))?;
        self.wait_running(port)
    }

    /// Reorders the routes to the subnet as the article does: the port's comes last.
    ///
    /// # Errors
    ///
    /// When `ip` fails.
    pub fn reorder_routes(&self, port: usize) -> Result<()> {
        self.down(port)?;
        self.up(port)
    }

    /// Deletes a link with both its ends.
    ///
    /// # Errors
    ///
    /// When `ip` fails.
    pub fn delete_link(&self, port: usize) -> Result<()> {
        self.switch.ip(&format!("link delete eth{port}_ext")).map(drop)
    }

    /// Makes a link anew, with other indices and another hardware address for the host, up and with its address.
    ///
    /// # Errors
    ///
    /// When `ip` fails.
    pub fn recreate_link(&mut self, port: usize) -> Result<()> {
        let link = &mut self.links[port];
        link.mac = Mac([0x02, 0, 0, 0, 1, 0xa0 + port as u8]);
        let segment = Segment::nth(link.segment);
        // The capture tells links apart by index, and an old index must not mean a new link.
        let script = link_script(port + 50, link.mac, segment, &self.host.path())
            .replace(&format!("eth{}_", port + 50), &format!("eth{port}_"));
        let address = link.address;
        self.switch.ip_batch(&script)?;
        let length = segment.prefix_length();
        let mut lines = format!("link set eth{port}_int up\n");
        if let Some(address) = address {
            lines.push_str(&format!("address add {address}/{length} broadcast + dev eth{port}_int\n"));
            self.claim(port, address, Duration::from_secs(2));
        }
        self.host.ip_batch(&lines)?;
        self.wait_running(port)
    }
}
