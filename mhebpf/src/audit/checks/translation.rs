//! What is translated (NAT): the program sees what is on the wire, so it is the translated source that counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use mhebpf_ebpf::Send;

use super::{count, list, objects, ways};
use crate::{
    audit::{
        finding::{Finding, Id, Kind, Object, Severity},
        published::Published,
        snapshot::{To, View},
    },
    model::Tables,
};

/// Answers of published ports, and whatever else gets an address of this host as its source, on hosts that forward.
pub(super) fn answers(view: &View<'_>) -> Vec<Finding> {
    let snapshot = view.snapshot;
    if !(snapshot.forwards() && snapshot.translation.arriving) {
        return Vec::new();
    }
    let tables = Tables::new(&snapshot.host, &BTreeMap::new());
    let mut moved: BTreeMap<(u32, u32), BTreeSet<IpAddr>> = BTreeMap::new();
    let mut lost: BTreeMap<(u32, u32), BTreeSet<IpAddr>> = BTreeMap::new();
    for (way, route) in view.wrong_ways() {
        let key = (way.configured, route.ifindex);
        if !snapshot.host.links.get(&way.configured).is_some_and(|link| link.up)
            || !judges_forwarded(view, route.ifindex)
        {
            continue;
        }
        let has_next_hop = ways::next_hop(view, &tables, way).is_some();
        match way.to {
            To::Beyond if !has_next_hop => lost.entry(key).or_default().insert(way.source),
            _ => moved.entry(key).or_default().insert(way.source),
        };
    }
    let moved = moved.into_iter().map(|((owner, by), sources)| move_to_owner(view, owner, by, sources));
    let lost = lost.into_iter().map(|((owner, by), sources)| without_next_hop(view, owner, by, sources));
    moved.chain(lost).collect()
}

/// Whether the configuration has forwarded packets judged on an interface.
fn judges_forwarded(view: &View<'_>, ifindex: u32) -> bool {
    let snapshot = view.snapshot;
    let judges = |forwarded| matches!(forwarded, Send::Redirect | Send::Drop);
    let policy = snapshot.policies.get(&ifindex);
    snapshot.interfaces.contains(&ifindex) && policy.is_none_or(|policy| judges(policy.forwarded))
}

fn move_to_owner(view: &View<'_>, owner: u32, by: u32, sources: BTreeSet<IpAddr>) -> Finding {
    let answers = Answers::of(view, owner, by, sources);
    Finding {
        id: Id::TranslatedAnswers,
        severity: Severity::Note,
        objects: answers.objects(),
        summary: format!("answers of {} leave by {} today", answers.published(), answers.by),
        consequence: format!(
            "{}Packets that are forwarded and get {} as their source by translation, answers of containers and forwarded ports \
             above all, follow the first route. With mhebpf they leave by {}.",
            answers.named(),
            list(&answers.sources),
            answers.owner
        ),
        remedy: "None is needed: peers expect them there. To leave them as they are: --forwarded off"
            .to_owned(),
    }
}

fn without_next_hop(view: &View<'_>, owner: u32, by: u32, sources: BTreeSet<IpAddr>) -> Finding {
    let answers = Answers::of(view, owner, by, sources);
    let flag = if answers.sources.iter().all(IpAddr::is_ipv6) { "-6 " } else { "" };
    let (owner, by) = (&answers.owner, &answers.by);
    Finding {
        id: Id::TranslatedAnswersLost,
        severity: Severity::Warning,
        objects: answers.objects(),
        summary: format!("answers of {} to far peers would be dropped", answers.published()),
        consequence: format!(
            "{}Forwarded packets that get {} as their source by translation leave by {by} today, and {owner} knows no \
             gateway: mhebpf would drop them, counted as no_route.",
            answers.named(),
            list(&answers.sources)
        ),
        remedy: format!(
            "Where {owner} has a gateway G, say so, less preferred than the route that there is: ip {flag}route add default \
             via G dev {owner} metric 4096. Where it has none, let what is forwarded leave as it does, by the \
             configuration file: forwarded = \"off\" in an [[interface]] with name = \"{by}\"."
        ),
    }
}

/// Forwarded packets that get addresses of one interface as their source, and leave by another.
struct Answers {
    owner: String,
    by: String,
    sources: Vec<IpAddr>,
    /// What is known to be published there.
    ports: Vec<String>,
}

impl Answers {
    fn of(view: &View<'_>, owner: u32, by: u32, sources: BTreeSet<IpAddr>) -> Self {
        let ports = published_at(view, owner, &sources);
        let (owner, by) = (view.name(owner), view.name(by));
        Self { owner, by, sources: sources.into_iter().collect(), ports }
    }

    fn objects(&self) -> Vec<Object> {
        let interfaces = objects(Kind::Interface, [&self.owner, &self.by]);
        [interfaces, objects(Kind::Address, &self.sources), objects(Kind::Port, &self.ports)].concat()
    }

    fn published(&self) -> String {
        match self.ports.len() {
            0 => format!("ports published on {}", self.owner),
            number => format!("{} published on {}", count(number, "port", "ports"), self.owner),
        }
    }

    /// The beginning of a text: which ports.
    fn named(&self) -> String {
        if self.ports.is_empty() { String::new() } else { format!("{}. ", list(&self.ports)) }
    }
}

/// What is published at addresses of an interface.
pub(super) fn published_at(view: &View<'_>, ifindex: u32, addresses: &BTreeSet<IpAddr>) -> Vec<String> {
    let name = view.name(ifindex);
    let is_here = |published: &&Published| addresses.iter().any(|address| published.is_at(*address, &name));
    let here = view.snapshot.translation.published.iter().filter(is_here);
    // Rules that differ in the interface only are told apart by nothing that is said.
    here.map(ToString::to_string).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Connections of this host that it translates itself: their source is chosen for the destination before.
pub(super) fn output(view: &View<'_>) -> Vec<Finding> {
    let snapshot = view.snapshot;
    let mut subnets: BTreeMap<u32, BTreeSet<_>> = BTreeMap::new();
    for address in view.judged_addresses().filter(|address| address.local.is_ipv4()) {
        subnets.entry(address.ifindex).or_default().insert(address.subnet);
    }
    let is_apart = |ifindex: &u32, own: &BTreeSet<_>| {
        subnets.iter().any(|(other, theirs)| other != ifindex && theirs.is_disjoint(own))
    };
    let apart = subnets.iter().filter(|(ifindex, own)| is_apart(ifindex, own));
    let names: Vec<String> = apart.map(|(ifindex, _)| view.name(*ifindex)).collect();
    if !snapshot.translation.output || names.is_empty() {
        return Vec::new();
    }
    vec![Finding {
        id: Id::OutputTranslated,
        severity: Severity::Note,
        objects: objects(Kind::Interface, &names),
        summary: "connections of this host itself are translated after their source was chosen".to_owned(),
        consequence: format!(
            "Where it asks for a service's or a published port's address and the endpoint lies behind another one of {} \
             than the route to that address, the packets carry the first one's address. With mhebpf they leave \
             by that one, unless they are masqueraded.",
            list(&names)
        ),
        remedy: "None is needed where they are masqueraded for the interface that they leave by, as kube-proxy and Docker do \
                 by themselves for most. Else connect from an address of the interface that the endpoint is behind."
            .to_owned(),
    }]
}
