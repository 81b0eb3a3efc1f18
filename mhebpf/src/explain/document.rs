//! An explanation as one JSON document, described by `mhebpf/schema/explain.json`.

use std::{io, net::IpAddr};

use anyhow::{Context as _, Result};
use mhebpf_ebpf::{Announce, Direction, DiscoveryKind, Network, Receive, Send, Unknown, Verdict};
use serde::Serialize;

use super::{
    difference::Difference,
    explanation::{self, Explanation, Judged, Model, Question, Role, Standing, Switch},
    why::{self, TryOutcome},
};
use crate::{
    model::{Host, Policy},
    netlink::KernelRoute,
};

/// The version of the schema. It changes when a field goes or changes its meaning, not when one is added.
pub const SCHEMA: u32 = 1;

/// All that an explanation says.
#[derive(Clone, Debug, Serialize)]
pub struct Document {
    /// [`SCHEMA`]
    pub schema: u32,
    /// What the verdict comes from.
    pub source: Source,
    /// Where the maps of the daemon say something else than the host; none where it was not asked.
    pub differences: Vec<Difference>,
    /// What was asked.
    pub packet: Packet,
    /// What becomes of it.
    pub verdict: Answer,
    /// The addresses that were looked at, up to the one that decides.
    pub judged: Vec<Address>,
    /// What is enforced on the interface; `null` where nothing is.
    pub policy: Option<PolicyWords>,
    /// The owners that the packet could be redirected to, up to the first that can take it.
    pub owners: Vec<Owner>,
    /// What the kernel's own route lookups say.
    pub kernel: Vec<KernelAnswer>,
}

/// What a verdict comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The maps of the daemon, as they are in the kernel.
    Daemon,
    /// The maps that a daemon has pinned that is gone.
    Pinned,
    /// Tables computed from the host as it is.
    Host,
}

/// A packet.
#[derive(Clone, Debug, Serialize)]
pub struct Packet {
    /// `egress` or `ingress`.
    pub direction: &'static str,
    /// The interface that it crosses.
    pub interface: String,
    /// `datagram`, `arp-request`, `arp-reply`, `solicitation` or `advertisement`.
    pub kind: &'static str,
    /// The source of a datagram or of neighbour discovery, the sender of ARP.
    pub from: IpAddr,
    /// The destination of a datagram or of neighbour discovery, the target of ARP.
    pub to: IpAddr,
    /// The target of neighbour discovery.
    pub target: Option<IpAddr>,
    /// Whether it goes to a group of stations.
    pub group: bool,
    /// Whether this host forwards it.
    pub forwarded: bool,
}

/// A verdict.
#[derive(Clone, Debug, Serialize)]
pub struct Answer {
    /// `pass`, `drop`, `redirect`, `redirect-group`, `rewrite-sender` or `rewrite-source`.
    pub action: &'static str,
    /// Whether that is done; else it is only counted, and the packet passes.
    pub enforced: bool,
    /// As what it is counted; `null` for what passes.
    pub reason: Option<&'static str>,
    /// The interface that it is redirected to.
    pub owner: Option<String>,
    /// The next hop of a redirect, or the address that an ARP request asks as, or that IGMP leaves with.
    pub address: Option<IpAddr>,
}

/// An address that is judged.
#[derive(Clone, Debug, Serialize)]
pub struct Address {
    /// Its place in the packet.
    pub role: Role,
    /// The address.
    pub address: IpAddr,
    /// Whose it is, seen from the interface.
    pub standing: Standing,
    /// What makes interfaces its owners.
    pub owned: Vec<Claim>,
    /// The part of the policy that is asked about it.
    pub switch: Switch,
}

/// Something that makes an interface an owner.
#[derive(Clone, Debug, Serialize)]
pub struct Claim {
    /// The owner; `null` for every interface.
    pub by: Option<String>,
    /// What makes it one.
    pub rule: why::Rule,
    /// The interface that the rule is about.
    pub through: String,
    /// The prefix of a local route, of an `allow` or an `owns`.
    pub prefix: Option<String>,
}

/// What is enforced on an interface, in the words of the configuration file.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the keys of the configuration file")]
pub struct PolicyWords {
    pub send: &'static str,
    pub receive: &'static str,
    pub announce: &'static str,
    pub unknown: &'static str,
    pub forwarded: &'static str,
}

/// An owner that the packet could be redirected to.
#[derive(Clone, Debug, Serialize)]
pub struct Owner {
    /// The owner.
    pub interface: String,
    /// `ready`, `owner_down` or `no_route`.
    pub state: &'static str,
    /// The gateway; `null` when the destination is on-link, or there is no next hop.
    pub gateway: Option<IpAddr>,
    /// The destination of the route that the next hop comes from.
    pub route: Option<String>,
    /// Its metric.
    pub metric: Option<u32>,
    /// Its interface: another than the owner where the owner reaches the gateway as well.
    pub route_through: Option<String>,
}

/// The answer of a route lookup of the kernel.
#[derive(Clone, Debug, Serialize)]
pub struct KernelAnswer {
    /// The source that was asked for.
    pub source: Option<IpAddr>,
    /// The destination that was asked for.
    pub destination: IpAddr,
    /// The interface that the lookup was bound to, as a socket can be.
    pub bound_to: Option<String>,
    /// The interface that the packet would leave by.
    pub leaves_by: Option<String>,
    /// The next hop; `null` when the destination is on-link.
    pub gateway: Option<IpAddr>,
    /// The routing table; `null` where the route comes of none.
    pub table: Option<u32>,
    /// Why there is no route.
    pub error: Option<String>,
}

impl KernelAnswer {
    /// The answer to a lookup bound to `oif`.
    pub fn new(
        host: &Host,
        source: Option<IpAddr>,
        destination: IpAddr,
        oif: Option<u32>,
        route: io::Result<KernelRoute>,
    ) -> Self {
        let bound_to = oif.map(|oif| host.name_of(oif));
        let is_own = |source: IpAddr| host.addresses.iter().any(|address| address.local == source);
        let route = route.map_err(|error| match error.raw_os_error() {
            Some(libc::ENETUNREACH | libc::EHOSTUNREACH) if source.is_some_and(|source| !is_own(source)) => {
                "there is no route (it looks up the host's own sources only)".to_owned()
            }
            Some(libc::ENETUNREACH | libc::EHOSTUNREACH) => "there is no route".to_owned(),
            Some(libc::EINVAL) => "the source can't be one, or the route says to drop".to_owned(),
            Some(libc::EACCES) => "the route prohibits it".to_owned(),
            _ => error.to_string(),
        });
        let mut answer =
            Self { source, destination, bound_to, leaves_by: None, gateway: None, table: None, error: None };
        match route {
            Ok(route) => {
                answer.leaves_by = Some(host.name_of(route.ifindex));
                answer.gateway = route.gateway;
                // Broadcasts and multicasts come of no table.
                answer.table = (route.table != 0).then_some(route.table);
            }
            Err(error) => answer.error = Some(error),
        }
        answer
    }
}

impl Document {
    /// Puts together what there is to say.
    pub fn new(
        model: &Model,
        question: &Question,
        explanation: &Explanation,
        kernel: Vec<KernelAnswer>,
    ) -> Self {
        let name = |ifindex: u32| model.host.name_of(ifindex);
        Self {
            schema: SCHEMA,
            source: Source::Host,
            differences: Vec::new(),
            packet: packet(question, name(question.ifindex)),
            verdict: answer(explanation, name),
            judged: explanation.judged.iter().map(|judged| address(judged, name)).collect(),
            policy: model.policies.get(&question.ifindex).map(words),
            owners: explanation.tries.iter().map(|each| owner(each, name)).collect(),
            kernel,
        }
    }

    /// The document as text, with a newline at its end.
    ///
    /// # Errors
    ///
    /// Never, as far as is known.
    pub fn to_json(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self).context("writing the explanation as JSON")?;
        Ok(text + "\n")
    }
}

fn packet(question: &Question, interface: String) -> Packet {
    let (from, to) = question.addresses();
    let (kind, target) = match question.packet.network {
        Network::Ipv4(_) => ("datagram", None),
        Network::Arp(arp) => (explanation::arp_name(arp.operation), None),
        Network::Ipv6(_, discovery) => match discovery.kind {
            DiscoveryKind::None => ("datagram", None),
            DiscoveryKind::Solicitation => ("solicitation", Some(discovery.target)),
            DiscoveryKind::Advertisement => ("advertisement", Some(discovery.target)),
        },
    };
    let direction = match question.direction {
        Direction::Egress => "egress",
        Direction::Ingress => "ingress",
    };
    let target = target.map(|target| IpAddr::V6(target.into()));
    let (group, forwarded) = (question.packet.group, question.forwarded);
    Packet { direction, interface, kind, from, to, target, group, forwarded }
}

fn answer(explanation: &Explanation, name: impl Fn(u32) -> String) -> Answer {
    let action = explanation::action_name(&explanation.verdict);
    match explanation.verdict {
        Verdict::Pass => Answer { action, enforced: true, reason: None, owner: None, address: None },
        Verdict::Act { reason, action: what, enforced, .. } => Answer {
            action,
            enforced,
            reason: Some(reason.name()),
            owner: (what.owner != 0).then(|| name(what.owner)),
            address: what.address.ip(),
        },
    }
}

fn address(judged: &Judged, name: impl Fn(u32) -> String) -> Address {
    let claim = |claim: &why::Claim| Claim {
        by: claim.owner.map(&name),
        rule: claim.rule,
        through: name(claim.through),
        prefix: claim.prefix.map(|prefix| prefix.to_string()),
    };
    Address {
        role: judged.role,
        address: judged.address,
        standing: judged.standing,
        owned: judged.claims.iter().map(claim).collect(),
        switch: judged.switch,
    }
}

fn words(policy: &Policy) -> PolicyWords {
    let send = |send| match send {
        Send::Off => "off",
        Send::Observe => "observe",
        Send::Drop => "drop",
        Send::Redirect => "redirect",
    };
    PolicyWords {
        send: send(policy.send),
        forwarded: send(policy.forwarded),
        receive: match policy.receive {
            Receive::Off => "off",
            Receive::Observe => "observe",
            Receive::Drop => "drop",
        },
        announce: match policy.announce {
            Announce::Off => "off",
            Announce::Observe => "observe",
            Announce::Enforce => "enforce",
        },
        unknown: match policy.unknown {
            Unknown::Pass => "pass",
            Unknown::Drop => "drop",
        },
    }
}

fn owner(each: &why::Try, name: impl Fn(u32) -> String) -> Owner {
    let interface = name(each.owner);
    let mut owner =
        Owner { interface, state: "ready", gateway: None, route: None, metric: None, route_through: None };
    match &each.outcome {
        TryOutcome::Down => owner.state = "owner_down",
        TryOutcome::NoRoute => owner.state = "no_route",
        TryOutcome::Group => {}
        TryOutcome::NextHop { gateway, prefix, metric, route_through } => {
            owner.gateway = *gateway;
            owner.route = Some(prefix.to_string());
            owner.metric = Some(*metric);
            owner.route_through = Some(name(*route_through));
        }
    }
    owner
}

#[cfg(test)]
mod tests {
    use mhebpf_ebpf::Reason;

    use super::*;

    #[test]
    fn the_schema_names_reasons_that_there_are() {
        let schema: serde_json::Value =
            serde_json::from_str(include_str!("../../schema/explain.json")).expect("JSON");
        assert_eq!(schema["properties"]["schema"]["const"], SCHEMA);
        let reasons = &schema["properties"]["verdict"]["properties"]["reason"]["enum"];
        let named: Vec<&str> = reasons.as_array().into_iter().flatten().filter_map(|r| r.as_str()).collect();
        // Those of the programs themselves: a packet that is asked about has no length, no tags and no contents, and was not
        // redirected before.
        let elsewhere = ["too_big", "loop", "redirect_failed", "priority_tags", "icmp_rewritten"];
        let all: Vec<&str> =
            Reason::ALL.iter().map(|r| r.name()).filter(|r| !elsewhere.contains(r)).collect();
        assert!(
            all.iter().all(|reason| named.contains(reason)) && named.len() == all.len(),
            "{named:?} {all:?}"
        );
    }
}
