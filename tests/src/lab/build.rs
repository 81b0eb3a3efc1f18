//! Making a lab.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use anyhow::Result;

use super::{FAR, Lab, Link, PEER, PROBE_PORT, SECOND_PEER, ipv6};
use crate::{
    capture::Capture, family::Family, interface, judge::Judge, mac::Mac, netns::NetNs,
    packet_socket::PacketSocket, sentinel::Fence, traffic::udp,
};

/// The bridge of one subnet, with the peer's address on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment(usize);

impl Segment {
    pub(crate) const fn nth(n: usize) -> Self {
        Self(n)
    }

    /// The bridge's name in the switch namespace.
    pub fn bridge(self) -> String {
        format!("br{}", self.0)
    }

    /// The peer's address.
    pub const fn peer(self) -> Ipv4Addr {
        if self.0 == 0 { PEER } else { SECOND_PEER }
    }

    /// The peer's hardware address.
    pub const fn mac(self) -> Mac {
        Mac::lab(1 + self.0 as u8)
    }

    /// The length of the subnet's prefix.
    pub const fn prefix_length(self) -> u8 {
        if self.0 == 0 { 21 } else { 24 }
    }

    /// The peer's IPv6 address, in a subnet of 64 bits.
    pub const fn peer6(self) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, self.0 as u16, 0, 0, 0, 0, 1)
    }

    const fn host_address6(self, port: usize) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, self.0 as u16, 0, 0, 0, 0, 0x100 + port as u16)
    }

    fn host_address(self, port: usize) -> Ipv4Addr {
        let [a, b, c, _] = self.peer().octets();
        Ipv4Addr::new(a, b, c, 100 + port as u8)
    }
}

/// What a lab is to look like.
#[derive(Clone, Debug, Default)]
pub struct LabBuilder {
    /// Each link's segment, and whether the host has an address on it.
    links: Vec<(usize, bool)>,
    ipv6: bool,
}

impl LabBuilder {
    /// Further links in 192.168.0.0/21, where port `i` has the address 192.168.0.(100+i).
    pub fn links(mut self, count: usize) -> Self {
        self.links.extend(vec![(0, true); count]);
        self
    }

    /// Further links in 10.1.0.0/24, where port `i` has the address 10.1.0.(100+i).
    pub fn links_in_second_subnet(mut self, count: usize) -> Self {
        self.links.extend(vec![(1, true); count]);
        self
    }

    /// Further links to the first subnet's bridge on which the host has no address.
    pub fn links_without_address(mut self, count: usize) -> Self {
        self.links.extend(vec![(0, false); count]);
        self
    }

    /// IPv6 as well: port `i` has the address 2001:db8::10i and its link-local one, and the default route leads
    /// through port 0. Nobody looks for duplicates or routers.
    pub fn ipv6(mut self) -> Self {
        self.ipv6 = true;
        self
    }

    /// What a family takes: IPv6 is on where that is in question, IPv4 always.
    pub fn family(self, family: Family) -> Self {
        match family {
            Family::V4 => self,
            Family::V6 => self.ipv6(),
        }
    }

    /// Makes the lab.
    ///
    /// # Errors
    ///
    /// Without root.
    pub fn build(self) -> Result<Lab> {
        let host = NetNs::new("host")?;
        self.build_around(host)
    }

    /// Makes the lab around a host that is there already: the namespace of a container, say, that has no links yet.
    ///
    /// # Errors
    ///
    /// Without root.
    pub fn build_around(self, host: NetNs) -> Result<Lab> {
        let switch = NetNs::new("switch")?;
        // New namespaces inherit these from the machine; the lab wants the kernel's own defaults: a weak end system.
        for key in ["rp_filter", "arp_ignore", "arp_announce", "arp_filter", "accept_local"] {
            for scope in ["all", "default"] {
                host.sysctl(&format!("net.ipv4.conf.{scope}.{key}"), "0")?;
            }
        }
        // A peer with several bridges or a far address shall not be weak itself.
        switch.sysctl("net.ipv4.conf.all.arp_ignore", "1")?;
        switch.sysctl("net.ipv4.conf.all.rp_filter", "0")?;
        switch.sysctl("net.ipv4.conf.default.rp_filter", "0")?;

        if self.ipv6 {
            ipv6::prepare(&host)?;
            ipv6::prepare(&switch)?;
            // The bridge has addresses, its ports have none.
            switch.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
        }

        let links: Vec<_> = self
            .links
            .iter()
            .enumerate()
            .map(|(port, (segment, with_address))| Link {
                segment: *segment,
                address6: (self.ipv6 && *with_address).then(|| Segment(*segment).host_address6(port)),
                address: with_address.then(|| Segment(*segment).host_address(port)),
                mac: Lab::host_mac(port),
            })
            .collect();
        let segments = links.iter().map(|link| link.segment + 1).max().unwrap_or(0);

        switch.ip_batch(&switch_script(&links, segments, &host.path()))?;
        if self.ipv6 {
            ipv6::add_peers(&switch, segments)?;
        }
        let bridges: Vec<_> = (0..segments).map(|n| Segment(n).bridge()).collect();
        let except = switch.run(|| {
            bridges.iter().map(String::as_str).chain(["lo"]).map(interface::index).collect::<Result<Vec<_>>>()
        })?;
        let capture = Capture::start(&switch, &except)?;
        let fence = Fence::new(&host)?;
        host.ip_batch(&host_script(&links))?;

        let judge = Arc::new(Judge::default());
        for (port, link) in links.iter().enumerate() {
            if let Some(address) = link.address {
                judge.claim(port, address, Duration::ZERO);
            }
            if let Some(address) = link.address6 {
                judge.claim(port, address, Duration::ZERO);
            }
            if self.ipv6 {
                judge.claim(port, ipv6::link_local(link.mac), Duration::ZERO);
            }
        }
        let (host_sender, switch_sender) =
            (host.run(PacketSocket::sender)?, switch.run(PacketSocket::sender)?);
        let sink = udp::bind(&switch, Ipv4Addr::UNSPECIFIED, PROBE_PORT)?;
        let sink6 = self.ipv6.then(|| udp::bind(&switch, Ipv6Addr::UNSPECIFIED, PROBE_PORT)).transpose()?;
        let lab = Lab {
            host,
            switch,
            links,
            generation: 0,
            host_sender,
            switch_sender,
            _sink: sink,
            _sink6: sink6,
            capture,
            fence,
            judge,
            judged: false,
        };
        lab.wait_all_running(lab.ports())?;
        Ok(lab)
    }
}

/// The bridges and both ends of every link.
fn switch_script(links: &[Link], segments: usize, host: &str) -> String {
    let mut script = String::new();
    for segment in (0..segments).map(Segment) {
        let (bridge, mac) = (segment.bridge(), segment.mac());
        let (peer, length) = (segment.peer(), segment.prefix_length());
        // Without spanning tree and snooping a port forwards as soon as it is up, and everything.
        let _ = writeln!(
            script,
            "link add {bridge} address {mac} type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
             address add {peer}/{length} broadcast + dev {bridge}\n\
             link set {bridge} up"
        );
    }
    let _ = writeln!(script, "address add {FAR}/32 dev lo");
    for (port, link) in links.iter().enumerate() {
        script.push_str(&link_script(port, 0, link.mac, Segment(link.segment), host));
    }
    script
}

/// Makes a veth pair and puts one end into the host. `generation` counts how often there has been a link on this port before.
pub(super) fn link_script(port: usize, generation: usize, mac: Mac, segment: Segment, host: &str) -> String {
    let (external, bridge) = (Mac::lab(0xe0 + port as u8), segment.bridge());
    // With equal indices on both sides the kernel reports a change of carrier up to a second late
    // (`linkwatch_urgent_event` compares an interface's index with its peer's), hence two ranges. And the capture tells
    // links apart by index, so an old index must not mean a new link.
    let outer = 1000 + 20 * generation + port;
    // Once made anew, a link has an index beyond what the programs find without a hash.
    let inner = if generation == 0 { 10 + port } else { 100_000 + 20 * generation + port };
    format!(
        "link add eth{port}_ext address {external} index {outer} type veth \
         peer name eth{port}_int address {mac} index {inner} netns {host}\n\
         link set eth{port}_ext master {bridge} up\n"
    )
}

/// The host's addresses, in the order of the ports: so is the order of the routes.
fn host_script(links: &[Link]) -> String {
    let mut script = String::new();
    for (port, link) in links.iter().enumerate() {
        let length = Segment(link.segment).prefix_length();
        let _ = writeln!(script, "link set eth{port}_int up");
        if let Some(address) = link.address {
            let _ = writeln!(script, "address add {address}/{length} broadcast + dev eth{port}_int");
        }
        if let Some(address) = link.address6 {
            let _ = writeln!(script, "address add {address}/64 dev eth{port}_int nodad");
        }
    }
    if let Some(link) = links.first().filter(|link| link.address6.is_some()) {
        let _ = writeln!(script, "route add default via {} dev eth0_int", Segment(link.segment).peer6());
    }
    script
}
