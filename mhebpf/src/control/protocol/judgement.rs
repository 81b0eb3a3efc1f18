//! What the maps of the running daemon say of a packet. `mhebpf explain` asks for it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use mhebpf_ebpf::{
    self as shared, Arp, ArpOperation, Datagram, Discovery, DiscoveryKind, Network, Packet, Reason,
};
use serde::{Deserialize, Serialize};

use super::{Act, Policy, Read};
use crate::model;

/// A packet that crosses an interface, neither bridged nor tagged for a VLAN, nor out of an IPsec tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crossing {
    /// Whether it leaves or arrives.
    pub direction: Direction,
    /// The interface.
    pub ifindex: u32,
    /// What it is.
    pub kind: Kind,
    /// The source of a datagram or of neighbour discovery, the sender of ARP.
    pub from: IpAddr,
    /// The destination of a datagram or of neighbour discovery, the target of ARP.
    pub to: IpAddr,
    /// The target of neighbour discovery.
    pub target: Option<Ipv6Addr>,
    /// Whether it goes to a group of stations.
    pub group: bool,
    /// Whether this host forwards it.
    #[serde(default)]
    pub forwarded: bool,
}

/// Which way a packet crosses an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// It leaves.
    Egress,
    /// It arrives.
    Ingress,
}

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "RFC 826 and RFC 4861 say what they are")]
pub enum Kind {
    Datagram,
    ArpRequest,
    ArpReply,
    Solicitation,
    Advertisement,
}

impl Crossing {
    /// Puts a packet into words.
    pub fn new(direction: shared::Direction, ifindex: u32, packet: &Packet, forwarded: bool) -> Self {
        let (kind, from, to, target) = match packet.network {
            Network::Ipv4(Datagram { source, destination, .. }) => {
                (Kind::Datagram, v4(source), v4(destination), None)
            }
            Network::Arp(Arp { operation, sender, target, .. }) => match operation {
                ArpOperation::Request => (Kind::ArpRequest, v4(sender), v4(target), None),
                ArpOperation::Reply => (Kind::ArpReply, v4(sender), v4(target), None),
            },
            Network::Ipv6(Datagram { source, destination, .. }, discovery) => {
                let (kind, target) = match discovery.kind {
                    DiscoveryKind::None => (Kind::Datagram, None),
                    DiscoveryKind::Solicitation => (Kind::Solicitation, Some(discovery.target.into())),
                    DiscoveryKind::Advertisement => (Kind::Advertisement, Some(discovery.target.into())),
                };
                (kind, Ipv6Addr::from(source).into(), Ipv6Addr::from(destination).into(), target)
            }
        };
        let direction = match direction {
            shared::Direction::Egress => Direction::Egress,
            shared::Direction::Ingress => Direction::Ingress,
        };
        Self { direction, ifindex, kind, from, to, target, group: packet.group, forwarded }
    }

    /// The packet; `None` where the words don't go together.
    pub fn packet(&self) -> Option<Packet> {
        let discovery = match (self.kind, self.target) {
            (Kind::Solicitation, Some(target)) => {
                Discovery { kind: DiscoveryKind::Solicitation, target: target.into() }
            }
            (Kind::Advertisement, Some(target)) => {
                Discovery { kind: DiscoveryKind::Advertisement, target: target.into() }
            }
            (Kind::Solicitation | Kind::Advertisement, None) => return None,
            _ => Discovery::NONE,
        };
        let network = match (self.kind, self.from, self.to) {
            (Kind::ArpRequest, IpAddr::V4(sender), IpAddr::V4(target)) => {
                Network::Arp(arp(ArpOperation::Request, sender, target))
            }
            (Kind::ArpReply, IpAddr::V4(sender), IpAddr::V4(target)) => {
                Network::Arp(arp(ArpOperation::Reply, sender, target))
            }
            (Kind::Datagram, IpAddr::V4(source), IpAddr::V4(destination)) => {
                Network::Ipv4(datagram(source, destination))
            }
            (Kind::Datagram | Kind::Solicitation | Kind::Advertisement, IpAddr::V6(from), IpAddr::V6(to)) => {
                Network::Ipv6(datagram(from, to), discovery)
            }
            _ => return None,
        };
        Some(Packet { group: self.group, offset: 0, network })
    }

    /// The direction as the programs have it.
    pub fn way(&self) -> shared::Direction {
        match self.direction {
            Direction::Egress => shared::Direction::Egress,
            Direction::Ingress => shared::Direction::Ingress,
        }
    }
}

/// What a datagram carries is not asked about.
fn datagram<A>(source: impl Into<A>, destination: impl Into<A>) -> Datagram<A> {
    Datagram { source: source.into(), destination: destination.into(), protocol: 0 }
}

/// The hardware address is that of the interface, which is known elsewhere.
fn arp(operation: ArpOperation, sender: Ipv4Addr, target: Ipv4Addr) -> Arp {
    Arp { operation, hardware: shared::Mac::ZERO, sender: sender.into(), target: target.into() }
}

fn v4(address: shared::Ipv4) -> IpAddr {
    Ipv4Addr::from(address).into()
}

/// What the maps say of a packet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// What the programs would do; `null` where it simply passes.
    pub verdict: Option<Ruling>,
    /// What was read of the maps to find out, in this order.
    pub read: Vec<Read>,
    /// What the daemon enforces, by ifindex.
    pub policies: Vec<Enforced>,
}

/// The verdict on a packet that does not simply pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ruling {
    /// `ipv4`, `ipv6`, `arp` or `ndp`.
    pub family: String,
    /// As what it is counted.
    pub reason: String,
    /// What is done.
    pub act: Act,
    /// The index of the interface that it is redirected to.
    pub owner: Option<u32>,
    /// The next hop of a redirect that is not for a group, or the address that an ARP request asks as.
    pub address: Option<IpAddr>,
    /// Whether it is done; else it is only counted.
    pub enforced: bool,
}

/// What is enforced on an interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Enforced {
    /// Its index.
    pub ifindex: u32,
    /// What.
    pub policy: Policy,
    /// Prefixes in which it is an owner too.
    pub allow: Vec<IpNet>,
    /// Prefixes that no interface has, and that belong to it.
    #[serde(default)]
    pub owns: Vec<IpNet>,
    /// Whether its addresses are its own, and not those of the whole host.
    #[serde(default)]
    pub binds: bool,
}

impl Ruling {
    /// Puts a verdict into words; `None` for what passes.
    pub fn of(verdict: &shared::Verdict) -> Option<Self> {
        let shared::Verdict::Act { family, reason, action, enforced } = *verdict else { return None };
        Some(Self {
            family: family.name().to_owned(),
            reason: reason.name().to_owned(),
            act: match action.act {
                shared::Act::Drop => Act::Drop,
                shared::Act::Redirect | shared::Act::RedirectGroup => Act::Redirect,
                shared::Act::RewriteSender | shared::Act::RewriteSource => Act::Rewrite,
            },
            owner: (action.owner != 0).then_some(action.owner),
            address: action.address.ip(),
            enforced,
        })
    }

    /// The verdict; `None` where the words are of another version.
    pub fn verdict(&self) -> Option<shared::Verdict> {
        let families = [shared::Family::Ipv4, shared::Family::Arp, shared::Family::Ipv6, shared::Family::Ndp];
        let family = families.into_iter().find(|family| family.name() == self.family)?;
        let reason = Reason::ALL.into_iter().find(|reason| reason.name() == self.reason)?;
        let act = match (self.act, self.address) {
            (Act::Drop, _) => shared::Act::Drop,
            (Act::Redirect, Some(_)) => shared::Act::Redirect,
            (Act::Redirect, None) => shared::Act::RedirectGroup,
            (Act::Rewrite, _) if family == shared::Family::Arp => shared::Act::RewriteSender,
            (Act::Rewrite, _) => shared::Act::RewriteSource,
        };
        let address = self.address.map_or(shared::Neighbour::DESTINATION, Into::into);
        let action = shared::Action { act, owner: self.owner.unwrap_or_default(), address };
        Some(shared::Verdict::Act { family, reason, action, enforced: self.enforced })
    }
}

impl Judgement {
    /// The verdict; `None` where its words are of another version.
    pub fn verdict(&self) -> Option<shared::Verdict> {
        self.verdict.as_ref().map_or(Some(shared::Verdict::Pass), Ruling::verdict)
    }
}

impl Enforced {
    /// Puts a policy into words.
    pub fn new(ifindex: u32, policy: &model::Policy) -> Self {
        let (allow, owns) = (policy.allow.clone(), policy.owns.clone());
        Self { ifindex, policy: policy.into(), allow, owns, binds: policy.binds }
    }

    /// The policy; `None` where its words are of another version.
    pub fn policy(&self) -> Option<model::Policy> {
        let (allow, owns) = (self.allow.clone(), self.owns.clone());
        Some(model::Policy { allow, owns, binds: self.binds, ..model::Policy::try_from(&self.policy).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets() -> Vec<Packet> {
        let [one, other] = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)];
        let [one6, other6] = [1, 2].map(|last| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last).into());
        let arp = |operation| Network::Arp(arp(operation, one, other));
        let ipv6 = |kind, target| Network::Ipv6(datagram(one6, other6), Discovery { kind, target });
        let networks = [
            Network::Ipv4(datagram(one, other)),
            arp(ArpOperation::Request),
            arp(ArpOperation::Reply),
            Network::Ipv6(datagram(one6, other6), Discovery::NONE),
            ipv6(DiscoveryKind::Solicitation, other6),
            ipv6(DiscoveryKind::Advertisement, one6),
        ];
        let packet = |(n, network)| Packet { group: n % 2 == 0, offset: 0, network };
        networks.into_iter().enumerate().map(packet).collect()
    }

    #[test]
    fn a_packet_is_read_back_from_the_wire() {
        for packet in packets() {
            for direction in [shared::Direction::Egress, shared::Direction::Ingress] {
                let wire =
                    serde_json::to_string(&Crossing::new(direction, 7, &packet, true)).unwrap_or_default();
                let crossing: Crossing = serde_json::from_str(&wire).expect("what was written");
                assert_eq!((crossing.packet(), crossing.way()), (Some(packet), direction), "{wire}");
            }
        }
    }

    #[test]
    fn words_that_do_not_go_together_are_no_packet() {
        let arp = Crossing::new(shared::Direction::Egress, 7, &packets()[1], false);
        let mixed = Crossing { to: Ipv6Addr::LOCALHOST.into(), ..arp };
        let targetless = Crossing {
            kind: Kind::Solicitation,
            ..Crossing::new(shared::Direction::Egress, 7, &packets()[3], false)
        };
        for wrong in [mixed, targetless] {
            assert_eq!(wrong.packet(), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_verdict_is_read_back() {
        let address = shared::Neighbour::from(IpAddr::from([10, 0, 0, 1]));
        let actions = [
            shared::Action::DROP,
            shared::Action { act: shared::Act::Redirect, owner: 3, address },
            shared::Action { act: shared::Act::RedirectGroup, owner: 3, ..shared::Action::DROP },
            shared::Action { act: shared::Act::RewriteSender, owner: 0, address },
        ];
        for (action, reason) in actions.into_iter().zip(Reason::ALL) {
            let family = shared::Family::Arp;
            let verdict = shared::Verdict::Act { family, reason, action, enforced: true };
            assert_eq!(Ruling::of(&verdict).and_then(|ruling| ruling.verdict()), Some(verdict));
        }
        assert_eq!(Ruling::of(&shared::Verdict::Pass), None);
    }
}
