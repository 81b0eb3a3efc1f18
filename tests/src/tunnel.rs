//! Tunnels between host and peer without an Ethernet header: what is inside is judged on the tunnel, and what carries it on
//! the interface below.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    Daemon, FAR, FAR6, Lab, PATIENCE, PEER,
    device::{LISTENING, MODES, delivered_of_both, delivered_until, give_addresses, interfaces, start},
    family::Family,
    features::{self, Feature},
    frame::Packet,
    ipsec::{self, REQUEST_ID},
    lab::INTERFACES,
    traffic::{icmp, udp},
    wireguard,
};

/// The tunnel's interface on both sides.
const TUNNEL: &str = "tun";

/// The UDP port of both ends of WireGuard.
const WIREGUARD_PORT: u16 = 51_820;

/// A kind of tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// IPv4 in IPv4.
    Ipip,
    /// Both families in GRE in IPv4.
    Gre,
    /// IPv6 in IPv4.
    Sit,
    /// Both families in IPv6.
    Ip6Tunnel,
    /// Both families in UDP in IPv4, encrypted.
    WireGuard,
    /// Both families in ESP in IPv4, chosen by routes rather than by policies alone.
    Xfrm,
}

impl Kind {
    /// What it takes.
    const fn feature(self) -> Feature {
        match self {
            Self::Ipip => Feature::Ipip,
            Self::Gre => Feature::Gre,
            Self::Sit => Feature::Sit,
            Self::Ip6Tunnel => Feature::Ip6Tunnel,
            Self::WireGuard => Feature::WireGuard,
            Self::Xfrm => Feature::XfrmInterface,
        }
    }

    /// The families that it carries.
    const fn inside(self) -> &'static [Family] {
        match self {
            Self::Ipip => &[Family::V4],
            Self::Sit => &[Family::V6],
            _ => &Family::BOTH,
        }
    }

    /// The family in which it carries them.
    const fn outside(self) -> Family {
        match self {
            Self::Ip6Tunnel => Family::V6,
            _ => Family::V4,
        }
    }

    /// The protocol number by which a family is carried.
    const fn protocol(self, inside: Family) -> u8 {
        match (self, inside) {
            (Self::Gre, _) => 47,
            (Self::WireGuard, _) => 17,
            (Self::Xfrm, _) => 50,
            (_, Family::V4) => 4,
            (_, Family::V6) => 41,
        }
    }

    /// How one end is made, between these outer addresses and on top of this interface.
    fn script(self, local: IpAddr, remote: IpAddr, below: &str) -> String {
        let ends = format!("local {local} remote {remote}");
        let what = match self {
            Self::Ipip => format!("ipip {ends}"),
            Self::Gre => format!("gre {ends}"),
            Self::Sit => format!("sit {ends}"),
            // Without the option for the limit of nesting, which would stand between the headers.
            Self::Ip6Tunnel => format!("ip6tnl mode any {ends} encaplimit none"),
            Self::WireGuard => "wireguard".to_owned(),
            Self::Xfrm => format!("xfrm dev {below} if_id 7"),
        };
        format!("link add {TUNNEL} type {what}\n")
    }
}

/// The addresses of host and peer inside, and one of the peer that the main table says is behind the tunnel.
fn inside(family: Family) -> [IpAddr; 3] {
    const V4: [Ipv4Addr; 3] =
        [Ipv4Addr::new(10, 8, 0, 2), Ipv4Addr::new(10, 8, 0, 1), Ipv4Addr::new(172, 16, 0, 1)];
    let v6 = |subnet, number| Ipv6Addr::new(0x2001, 0xdb8, subnet, 0, 0, 0, 0, number);
    family.choose(V4.map(IpAddr::V4), [v6(8, 2), v6(8, 1), v6(9, 1)].map(IpAddr::V6))
}

/// A lab with two links, the first with the default routes, and a tunnel from its address to the peer.
#[derive(Debug)]
pub struct Tunnel {
    kind: Kind,
    lab: Lab,
}

impl Tunnel {
    /// Makes a lab and looks at it, where the kernel has such tunnels.
    ///
    /// # Errors
    ///
    /// Those of `look`, and when something leaked.
    pub fn with(kind: Kind, look: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        if !features::require(kind.feature())? {
            return Ok(());
        }
        let tunnel = Self::new(kind)?;
        look(&tunnel)?;
        tunnel.lab.finish()
    }

    fn new(kind: Kind) -> Result<Self> {
        let lab = Lab::builder().links(2).ipv6().build()?;
        let (own, peer) = (lab.address_in(kind.outside(), 0), lab.peer_in(kind.outside(), 0));
        lab.host.ip_batch(&kind.script(own, peer, "eth0_int"))?;
        lab.switch.ip_batch(&kind.script(peer, own, "br0"))?;
        match kind {
            Kind::WireGuard => {
                let end = |ns, address| {
                    let outer = SocketAddrV4::new(address, WIREGUARD_PORT);
                    wireguard::End { ns, interface: TUNNEL, outer }
                };
                wireguard::connect(end(&lab.host, lab.address(0)), end(&lab.switch, PEER))?;
            }
            Kind::Xfrm => protect(&lab)?,
            _ => {}
        }
        lab.host.ip(&format!("route add default via {PEER} dev eth0_int"))?;
        for family in kind.inside() {
            let [own, peer, behind] = inside(*family);
            give_addresses(&lab.host, TUNNEL, &[own])?;
            give_addresses(&lab.switch, TUNNEL, &[peer])?;
            let (all, length) = family.choose(("0.0.0.0/0", 32), ("::/0", 128));
            lab.host.ip_batch(&format!(
                "route add {all} dev {TUNNEL} metric 4000\n\
                 route add {behind}/{length} dev {TUNNEL}"
            ))?;
            lab.switch.ip_batch(&format!(
                "address add {behind}/{length} dev lo\n\
                 route add {}/{length} dev {TUNNEL} metric 4000",
                lab.address_in(*family, 1)
            ))?;
        }
        Ok(Self { kind, lab })
    }

    /// The host's own traffic through the tunnel passes; and what has the tunnel's source but goes by the first link's default
    /// route leaves bare without mhebpf, in the tunnel if it is redirected, and else not at all.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub fn try_own_source(&self) -> Result<()> {
        self.in_each_mode(|mode, family| {
            let [own, peer, _] = inside(family);
            icmp::ping(&self.lab.host, own, peer, PATIENCE)?;
            icmp::ping(&self.lab.switch, peer, own, PATIENCE)?;
            let far: IpAddr = family.choose(FAR.into(), FAR6.into());
            let arriving = udp::bind(&self.lab.switch, far, LISTENING)?;
            let recording = self.lab.record();
            udp::bind(&self.lab.host, own, 0)?.send_to(b"far", (far, LISTENING))?;
            if mode == Some("drop") {
                // This one is sent later on the same way, and comes.
                icmp::ping(&self.lab.host, own, peer, PATIENCE)?;
                ensure!(udp::take_delivered(&arriving)?.is_none(), "it was not dropped");
            } else {
                delivered_until(&arriving, "far")?;
            }
            let bare = recording.ports_of(own)?;
            let expected = if mode.is_none() { BTreeSet::from([0]) } else { BTreeSet::new() };
            ensure!(bare == expected, "it left by {bare:?} instead of {expected:?}");
            if mode == Some("redirect") {
                let carried = self.carried(&recording, family)?;
                ensure!(carried == BTreeSet::from([0]), "what carries it left by {carried:?}");
            }
            Ok(())
        })
    }

    /// What has the second link's source but is routed into the tunnel leaves through that link if it is redirected, in an
    /// Ethernet frame.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub fn try_anothers_source(&self) -> Result<()> {
        self.in_each_mode(|mode, family| {
            let [own, _, behind] = inside(family);
            let others = self.lab.address_in(family, 1);
            let arriving = udp::bind(&self.lab.switch, behind, LISTENING)?;
            let recording = self.lab.record();
            for (source, payload) in [(others, "another's"), (own, "own")] {
                let socket = udp::bind(&self.lab.host, source, 0)?;
                socket.send_to(payload.as_bytes(), (behind, LISTENING))?;
                if source == own || mode != Some("drop") {
                    let messages = delivered_until(&arriving, payload)?;
                    ensure!(messages == [payload], "there came {messages:?}");
                }
            }
            let left = recording.ways_of(others)?;
            let redirected = mode == Some("redirect");
            let expected: BTreeSet<_> = redirected.then_some((1, self.lab.mac(1))).into_iter().collect();
            ensure!(left == expected, "another's source left by {left:?} instead of {expected:?}");
            if redirected {
                let frame = recording.wait_datagram_from(others)?;
                ensure!(frame.frame.destination == self.lab.peer_mac(1), "{frame}");
            }
            Ok(())
        })
    }

    /// Of two datagrams that come through the tunnel, for the second link's address and for the tunnel's own, both are taken
    /// without mhebpf; else the first one only where `passes` says so.
    ///
    /// # Errors
    ///
    /// When that is not so.
    pub fn try_arriving(&self, passes: bool) -> Result<()> {
        self.in_each_mode(|mode, family| {
            let [own, peer, _] = inside(family);
            let socket = udp::bind(&self.lab.host, family.unspecified(), LISTENING)?;
            let sender = udp::bind(&self.lab.switch, peer, 0)?;
            let expected = delivered_of_both(mode.is_some() && !passes);
            for (to, payload) in [(self.lab.address_in(family, 1), "another's"), (own, "own")] {
                sender.send_to(payload.as_bytes(), (to, LISTENING))?;
                if expected.contains(&payload) {
                    let messages = delivered_until(&socket, payload)?;
                    ensure!(messages == [payload], "there came {messages:?}, expected were {expected:?}");
                } else {
                    self.lab.fence()?;
                }
            }
            Ok(())
        })
    }

    fn in_each_mode(&self, look: impl Fn(Option<&str>, Family) -> Result<()>) -> Result<()> {
        for mode in MODES {
            let daemon: Option<Daemon> =
                mode.map(|mode| start(&self.lab, &interfaces(&[INTERFACES, TUNNEL]), mode)).transpose()?;
            for family in self.kind.inside() {
                look(mode, *family)
                    .with_context(|| format!("{family} in {:?}, in mode {mode:?}", self.kind))?;
            }
            daemon.map(Daemon::stop).transpose()?;
        }
        Ok(())
    }

    /// The ports by which the tunnel's packets left, whatever the inner one, with the outer source that is theirs.
    fn carried(&self, recording: &crate::Recording<'_>, inside: Family) -> Result<BTreeSet<usize>> {
        let outer = self.lab.address_in(self.kind.outside(), 0);
        let frames = recording.from_host()?;
        let of_tunnel = frames.iter().filter(|frame| {
            let (source, protocol): (IpAddr, u8) = match &frame.frame.packet {
                Packet::Ipv4(outer) => (outer.source.into(), outer.protocol),
                Packet::Ipv6(outer) => (outer.source.into(), outer.protocol),
                _ => return false,
            };
            (source, protocol) == (outer, self.kind.protocol(inside))
        });
        Ok(of_tunnel.map(|frame| frame.port).collect())
    }
}

/// A security association in each direction, and policies that take all that goes through the tunnel's interface.
fn protect(lab: &Lab) -> Result<()> {
    let own = lab.address(0);
    let mode = "tunnel flag af-unspec if_id 7";
    let states = ipsec::add_state(PEER, own, 0x701, mode) + &ipsec::add_state(own, PEER, 0x702, mode);
    for (ns, [near, far]) in [(&lab.host, [own, PEER]), (&lab.switch, [PEER, own])] {
        let mut script = states.clone();
        for all in ["0.0.0.0/0", "::/0"] {
            for (direction, from, to) in [("out", near, far), ("in", far, near)] {
                script += &format!(
                    "xfrm policy add src {all} dst {all} dir {direction} if_id 7 \
                     tmpl src {from} dst {to} proto esp {REQUEST_ID} mode tunnel\n"
                );
            }
        }
        ns.ip_batch(&script)?;
    }
    Ok(())
}
