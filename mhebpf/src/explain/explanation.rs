//! The verdict on a packet, and what led to it. Pure: no I/O.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use mhebpf_ebpf::{
    Act, ArpOperation, Direction, DiscoveryKind, Family, Iface, Network, Packet, Reason, Verdict,
    decide::decide,
};
use serde::Serialize;

use super::why::{self, Claim, Try};
use crate::model::{
    Host, Policy, Tables,
    metadata::AsUsual,
    ownership::{self, Bindings, Ownership, Ownerships},
    stacking::Stacking,
};

/// A host, what is enforced on it, and the tables that the programs would decide from.
pub struct Model {
    /// The host.
    pub host: Host,
    /// By ifindex; nothing is enforced on the others.
    pub policies: BTreeMap<u32, Policy>,
    /// What the programs know.
    pub tables: Tables,
    /// Whose addresses are their own.
    pub bindings: Bindings,
    ownerships: Ownerships,
}

impl Model {
    /// Computes the tables.
    pub fn new(host: Host, policies: BTreeMap<u32, Policy>) -> Self {
        let tables = Tables::new(&host, &policies);
        let bindings = Bindings::new(&host, &policies);
        let ownerships = ownership::of_addresses(&Stacking::of(&host), &bindings);
        Self { host, policies, tables, bindings, ownerships }
    }
}

impl Model {
    /// The ownership of an address in a domain; `None` where it is foreign.
    pub fn ownership(&self, domain: u32, address: IpAddr) -> Option<&Ownership> {
        self.ownerships.of_address(domain, address)
    }
}

/// A packet that crosses an interface.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// Whether it leaves or arrives.
    pub direction: Direction,
    /// The interface.
    pub ifindex: u32,
    /// The packet, which is neither bridged nor tagged for a VLAN.
    pub packet: Packet,
    /// Whether this host forwards it.
    pub forwarded: bool,
    /// Whether it came out of an IPsec tunnel or transport.
    pub decapsulated: bool,
}

impl Question {
    /// Source and destination, or sender and target.
    pub fn addresses(&self) -> (IpAddr, IpAddr) {
        match self.packet.network {
            Network::Ipv4(datagram) => (v4(datagram.source), v4(datagram.destination)),
            Network::Ipv6(datagram, _) => (v6(datagram.source), v6(datagram.destination)),
            Network::Arp(arp) => (v4(arp.sender), v4(arp.target)),
        }
    }
}

fn v4(address: mhebpf_ebpf::Ipv4) -> IpAddr {
    Ipv4Addr::from(address).into()
}

fn v6(address: mhebpf_ebpf::Ipv6) -> IpAddr {
    Ipv6Addr::from(address).into()
}

/// What becomes of a packet, and why.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// What the programs say.
    pub verdict: Verdict,
    /// The addresses that they look at, in this order, up to the one that decides.
    pub judged: Vec<Judged>,
    /// The owners that a packet could be redirected to, in this order, up to the first that can take it.
    pub tries: Vec<Try>,
}

/// An address that is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Its place in the packet.
    pub role: Role,
    /// The address.
    pub address: IpAddr,
    /// Whose it is, seen from the interface.
    pub standing: Standing,
    /// What makes interfaces its owners.
    pub claims: Vec<Claim>,
    /// The policy that is asked about it.
    pub switch: Switch,
}

/// The place of an address in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The source of a datagram.
    Source,
    /// The destination of a datagram.
    Destination,
    /// The sender protocol address of an ARP packet.
    Sender,
    /// The target of an ARP packet or of neighbour discovery.
    Target,
}

/// Whose an address is, seen from an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// The interface's own.
    Own,
    /// 0.0.0.0 or ::, which claims nothing.
    Unspecified,
    /// Of loopback, where that may not cross the wire.
    Loopback,
    /// No address of this host.
    Foreign,
    /// Other interfaces' only.
    Elsewhere,
}

/// A part of the policy of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    /// For packets of this host that leave.
    Send,
    /// For packets that it forwards.
    Forwarded,
    /// For datagrams that arrive.
    Receive,
    /// For ARP and NDP.
    Announce,
}

/// Asks the programs' own decision, and finds out why it is what it is.
pub fn explain(model: &Model, question: &Question) -> Explanation {
    because(model, question, verdict(model, question))
}

/// Finds out why a verdict is what it is, by a model of the host that led to it.
pub fn because(model: &Model, question: &Question, verdict: Verdict) -> Explanation {
    let mut judged = judged_addresses(question)
        .into_iter()
        .map(|(role, address, switch)| judge(model, question.ifindex, role, address, switch))
        .collect::<Vec<_>>();
    // A message of neighbour discovery that passes by its target is looked at as a datagram too.
    if let Verdict::Act { family, .. } = verdict
        && let Some(last) =
            judged.iter().position(|judged| (family == Family::Ndp) == (judged.role == Role::Target))
        && judged.len() > 1
    {
        judged.truncate(last + 1);
    }
    let is_redirect = matches!(
        verdict,
        Verdict::Act { reason: Reason::Redirected | Reason::NoRoute | Reason::OwnerDown, .. }
    );
    let tries = match judged.last() {
        Some(source) if is_redirect => {
            let owners = owners(model, question.ifindex, source.address);
            why::tries(model, owners, question.addresses(), question.packet.group)
        }
        _ => Vec::new(),
    };
    Explanation { verdict, judged, tries }
}

/// What the programs say, by the very function that they run.
fn verdict(model: &Model, question: &Question) -> Verdict {
    let Question { direction, ifindex, packet, forwarded, decapsulated } = *question;
    let Some(iface) = model.tables.ifaces.get(&ifindex) else { return Verdict::Pass };
    let metadata = AsUsual { forwarded, decapsulated, ..AsUsual::new(iface, &packet) };
    decide(&model.tables, direction, ifindex, iface, &metadata.on(&packet), false, &metadata)
}

/// In the order in which they are looked at.
fn judged_addresses(question: &Question) -> Vec<(Role, IpAddr, Switch)> {
    let (role, switch) = match question.direction {
        Direction::Egress if question.forwarded => (Role::Source, Switch::Forwarded),
        Direction::Egress => (Role::Source, Switch::Send),
        Direction::Ingress => (Role::Destination, Switch::Receive),
    };
    let (first, second) = question.addresses();
    let address = if question.direction == Direction::Egress { first } else { second };
    match (question.direction, question.packet.network) {
        (Direction::Egress, Network::Arp(_)) => vec![(Role::Sender, first, Switch::Announce)],
        (Direction::Ingress, Network::Arp(_)) => vec![(Role::Target, second, Switch::Announce)],
        (Direction::Egress, Network::Ipv6(_, discovery))
            if discovery.kind == DiscoveryKind::Advertisement =>
        {
            vec![(Role::Target, v6(discovery.target), Switch::Announce), (role, address, switch)]
        }
        (Direction::Ingress, Network::Ipv6(_, discovery))
            if discovery.kind == DiscoveryKind::Solicitation =>
        {
            vec![(role, address, switch), (Role::Target, v6(discovery.target), Switch::Announce)]
        }
        _ => vec![(role, address, switch)],
    }
}

fn judge(model: &Model, ifindex: u32, role: Role, address: IpAddr, switch: Switch) -> Judged {
    let claims = why::claims(model, model.host.domain_of(ifindex), address);
    Judged { role, address, standing: standing(model, ifindex, address), claims, switch }
}

fn standing(model: &Model, ifindex: u32, address: IpAddr) -> Standing {
    let iface = model.tables.ifaces.get(&ifindex);
    if address.is_unspecified() {
        return Standing::Unspecified;
    }
    if address.is_loopback() {
        let routes_localnet = iface.is_some_and(Iface::routes_localnet);
        return if routes_localnet { Standing::Own } else { Standing::Loopback };
    }
    let domain = model.host.domain_of(ifindex);
    match model.ownerships.of_address(domain, address) {
        None => Standing::Foreign,
        Some(ownership) if ownership.host_wide || ownership.owners.contains(&ifindex) => Standing::Own,
        Some(ownership) if ownership.allowed_only => Standing::Foreign,
        Some(_) => Standing::Elsewhere,
    }
}

fn owners(model: &Model, ifindex: u32, address: IpAddr) -> &[u32] {
    let ownership = model.ownerships.of_address(model.host.domain_of(ifindex), address);
    ownership.map_or(&[], |ownership| &ownership.owners)
}

/// What is done, in one word, as documents have it.
pub fn action_name(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Act { action, .. } => match action.act {
            Act::Drop => "drop",
            Act::Redirect => "redirect",
            Act::RedirectGroup => "redirect-group",
            Act::RewriteSender => "rewrite-sender",
            Act::RewriteSource => "rewrite-source",
        },
    }
}

/// What an ARP packet does, as documents have it.
pub fn arp_name(operation: ArpOperation) -> &'static str {
    match operation {
        ArpOperation::Request => "arp-request",
        ArpOperation::Reply => "arp-reply",
    }
}
