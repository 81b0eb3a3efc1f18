//! Changes to a lab that runs.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    sync::atomic::{AtomicU8, Ordering},
};

use anyhow::Result;

use super::{Lab, Segment, build::link_script};
use crate::{
    judge::GRACE,
    mac::Mac,
    rtnetlink,
    wait::{PATIENCE, wait_until},
};

impl Lab {
    /// Adds an address to a port, without starting a program: the next line of the test comes microseconds later.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn add_address(&self, port: usize, address: impl Into<IpAddr>) -> Result<()> {
        let address = address.into();
        self.claim(port, address, GRACE);
        self.configure(port, address)
    }

    fn prefix_length(&self, port: usize, address: IpAddr) -> u8 {
        match address {
            IpAddr::V4(_) => Segment::nth(self.links[port].segment).prefix_length(),
            IpAddr::V6(_) => 64,
        }
    }

    fn configure(&self, port: usize, address: IpAddr) -> Result<()> {
        let length = self.prefix_length(port, address);
        rtnetlink::add_address(&self.host, &format!("eth{port}_int"), address, length)
    }

    /// Removes an address from a port.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn remove_address(&self, port: usize, address: impl Into<IpAddr>) -> Result<()> {
        let address = address.into();
        self.release(port, address, GRACE);
        self.unconfigure(port, address)
    }

    fn unconfigure(&self, port: usize, address: IpAddr) -> Result<()> {
        let length = self.prefix_length(port, address);
        rtnetlink::remove_address(&self.host, &format!("eth{port}_int"), address, length)
    }

    /// Moves an address from one port to another, as a failover does: first added, then removed.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn move_address(&self, from: usize, to: usize, address: impl Into<IpAddr>) -> Result<()> {
        let address = address.into();
        self.judge.hand_over(from, to, address, GRACE);
        self.configure(to, address)?;
        self.unconfigure(from, address)
    }

    /// Waits until mhebpf, in redirect mode, has taken note of all that was changed before.
    ///
    /// It works from dumps of the whole host, links first and then addresses. So a new address on port `owner` that it knows
    /// proves that a dump has ended since, and a second one that a dump has begun since and is in force: older ones, which may
    /// be in force late, are history then. `through` is another port, whose datagrams with those addresses are redirected from then
    /// on. Both ports have to be up.
    ///
    /// # Errors
    ///
    /// When it has not in time.
    pub fn wait_in_step(&self, owner: usize, through: usize) -> Result<()> {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        for _ in 0..2 {
            let marker = Ipv4Addr::new(192, 168, 6, NEXT.fetch_add(1, Ordering::Relaxed));
            self.add_address(owner, marker)?;
            self.wait_until_it_leaves_by(through, marker, &[owner])?;
        }
        Ok(())
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
        if let Some(address) = self.links[port].address {
            self.release(port, address, GRACE);
        }
        if let Some(address) = self.links[port].address6 {
            self.release(port, address, GRACE);
            self.release(port, self.link_local(port), GRACE);
        }
        self.switch.ip(&format!("link delete eth{port}_ext")).map(drop)
    }

    /// Makes a link anew, with other indices and another hardware address for the host, up and with its address.
    ///
    /// # Errors
    ///
    /// When `ip` fails.
    pub fn recreate_link(&mut self, port: usize) -> Result<()> {
        self.generation += 1;
        self.judge.newcomer(port, GRACE);
        let link = &mut self.links[port];
        link.mac = Mac([0x02, 0, 0, 0, self.generation as u8, 0xa0 + port as u8]);
        let segment = Segment::nth(link.segment);
        let script = link_script(port, self.generation, link.mac, segment, &self.host.path());
        let address = link.address;
        self.switch.ip_batch(&script)?;
        let length = segment.prefix_length();
        let mut lines = format!("link set eth{port}_int up\n");
        if let Some(address) = address {
            lines.push_str(&format!("address add {address}/{length} broadcast + dev eth{port}_int\n"));
            self.claim(port, address, GRACE);
        }
        if let Some(address) = self.links[port].address6 {
            lines.push_str(&format!("address add {address}/64 dev eth{port}_int nodad\n"));
            self.claim(port, address, GRACE);
            self.claim(port, self.link_local(port), GRACE);
        }
        self.host.ip_batch(&lines)?;
        self.wait_running(port)
    }

    /// Waits until what an AF_PACKET socket sends through one port with this source leaves through these ports only.
    ///
    /// # Errors
    ///
    /// When that is not so in time.
    pub fn wait_until_it_leaves_by(
        &self,
        through: usize,
        source: impl Into<IpAddr>,
        ports: &[usize],
    ) -> Result<()> {
        let (source, ports) = (source.into(), BTreeSet::from_iter(ports.iter().copied()));
        wait_until(&format!("{source} to leave by {ports:?}"), PATIENCE, || {
            let recording = self.record();
            self.emit(through, source)?;
            Ok((recording.ports_of(source)? == ports).then_some(()))
        })
    }
}
