//! Questions to the capture since a moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Result;

use super::Lab;
use crate::{
    capture::Captured,
    frame::{ARP_REPLY, Arp, Ipv6},
    mac::Mac,
    wait::PATIENCE,
};

/// The frames that crossed the lab's links since [`Lab::record`].
#[derive(Clone, Copy, Debug)]
pub struct Recording<'lab> {
    lab: &'lab Lab,
    start: SystemTime,
}

impl<'lab> Recording<'lab> {
    pub(super) const fn new(lab: &'lab Lab, start: SystemTime) -> Self {
        Self { lab, start }
    }

    /// All frames, when those that are still on their way have arrived.
    ///
    /// # Errors
    ///
    /// When the capture is not complete.
    pub fn frames(&self) -> Result<Vec<Arc<Captured>>> {
        self.lab.fence()?;
        Ok(self.lab.capture.since(self.start))
    }

    /// The frames that the host sent, once those on their way have arrived.
    ///
    /// # Errors
    ///
    /// When the capture is not complete.
    pub fn from_host(&self) -> Result<Vec<Arc<Captured>>> {
        let mut frames = self.frames()?;
        frames.retain(|frame| frame.from_host);
        Ok(frames)
    }

    /// The frames that somebody wanted sent: without those in which the kernel looks after IPv6's neighbours and groups
    /// whenever it likes.
    ///
    /// # Errors
    ///
    /// When the capture is not complete.
    pub fn wanted_from_host(&self) -> Result<Vec<Arc<Captured>>> {
        let mut frames = self.from_host()?;
        frames.retain(|frame| !frame.ipv6().is_some_and(Ipv6::is_housekeeping));
        Ok(frames)
    }

    /// Waits for a frame from the host.
    ///
    /// # Errors
    ///
    /// When none comes in time, with what came instead.
    pub fn wait_from_host(&self, what: &str, wanted: impl FnMut(&Captured) -> bool) -> Result<Arc<Captured>> {
        self.wait_from_host_within(PATIENCE, what, wanted)
    }

    /// The same for a question that is asked again: kernels before TCX take an interface's queue away for a moment while a
    /// clsact qdisc comes or goes, and an answer that is sent in that moment is lost.
    ///
    /// # Errors
    ///
    /// When none comes in time, with what came instead.
    pub fn wait_from_host_within(
        &self,
        limit: Duration,
        what: &str,
        mut wanted: impl FnMut(&Captured) -> bool,
    ) -> Result<Arc<Captured>> {
        self.lab.capture.wait_for(self.start, what, limit, |frame| frame.from_host && wanted(frame))
    }

    /// Waits for a datagram from the host with this source address.
    ///
    /// # Errors
    ///
    /// When none comes in time, with what came instead.
    pub fn wait_datagram_from(&self, source: impl Into<IpAddr>) -> Result<Arc<Captured>> {
        let source = source.into();
        self.wait_from_host(&format!("a datagram from {source}"), |frame| {
            frame.frame.datagram_source() == Some(source)
        })
    }

    /// The ARP packets that the host sent, with their ports, in order.
    ///
    /// # Errors
    ///
    /// When the capture is not complete.
    pub fn arp_from_host(&self) -> Result<Vec<(usize, Arp)>> {
        Ok(self.from_host()?.iter().filter_map(|frame| Some((frame.port, *frame.arp()?))).collect())
    }

    /// Through which ports the host sent datagrams with this source, and from which hardware addresses.
    ///
    /// # Errors
    ///
    /// When the capture is not complete.
    pub fn ways_of(&self, source: impl Into<IpAddr>) -> Result<BTreeSet<(usize, Mac)>> {
        let (frames, source) = (self.from_host()?, source.into());
        let datagrams = frames.iter().filter(|f| f.frame.datagram_source() == Some(source));
        Ok(datagrams.map(|f| (f.port, f.frame.source)).collect())
    }

    /// Through which ports the host sent datagrams with this source.
    ///
    /// # Errors
    ///
    /// When the capture is not complete.
    pub fn ports_of(&self, source: impl Into<IpAddr>) -> Result<BTreeSet<usize>> {
        Ok(self.ways_of(source)?.into_iter().map(|(port, _)| port).collect())
    }

    /// The IPv6 datagrams that the host sent, with their ports, in order: those that a program asked for, and not
    /// what the kernel says about neighbours and groups whenever it likes.
    ///
    /// # Errors
    ///
    /// When the capture is not complete.
    pub fn ipv6_from_host(&self) -> Result<Vec<(usize, Ipv6)>> {
        let mut datagrams = self.all_ipv6_from_host()?;
        datagrams.retain(|(_, datagram)| !datagram.is_housekeeping());
        Ok(datagrams)
    }

    /// All the IPv6 that the host sent, with its ports, in order.
    ///
    /// # Errors
    ///
    /// When the capture is not complete.
    pub fn all_ipv6_from_host(&self) -> Result<Vec<(usize, Ipv6)>> {
        Ok(self.from_host()?.iter().filter_map(|frame| Some((frame.port, *frame.ipv6()?))).collect())
    }

    /// The ports and hardware addresses of the host's neighbour advertisements of this address, in order.
    ///
    /// # Errors
    ///
    /// When the capture is not complete.
    pub fn advertisements_of(&self, address: Ipv6Addr) -> Result<Vec<(usize, Mac)>> {
        let mut frames = self.from_host()?;
        frames.retain(|frame| frame.frame.advertised() == Some(address));
        Ok(frames.iter().map(|frame| (frame.port, frame.frame.source)).collect())
    }

    /// The ports of datagrams by source address.
    ///
    /// # Errors
    ///
    /// When the capture is not complete.
    pub fn ports_by_source(&self) -> Result<BTreeMap<IpAddr, BTreeSet<usize>>> {
        let mut ports: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for frame in self.from_host()? {
            if let Some(source) = frame.frame.datagram_source() {
                ports.entry(source).or_default().insert(frame.port);
            }
        }
        Ok(ports)
    }

    /// The ports and sender hardware addresses of the host's ARP replies for this address, in order.
    ///
    /// # Errors
    ///
    /// When the capture is not complete.
    pub fn arp_replies_for(&self, address: Ipv4Addr) -> Result<Vec<(usize, Mac)>> {
        let frames = self.from_host()?;
        let replies = frames.iter().filter_map(|frame| Some((frame.port, frame.arp()?)));
        Ok(replies
            .filter(|(_, arp)| arp.operation == ARP_REPLY && arp.sender == address)
            .map(|(port, arp)| (port, arp.sender_mac))
            .collect())
    }
}
