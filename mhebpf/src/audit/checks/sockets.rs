//! Sessions that are there now.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{count, list, objects, ways};
use crate::{
    audit::{
        finding::{Finding, Id, Kind, Severity},
        snapshot::{Socket, To, View},
    },
    model::Tables,
};

/// A socket in a sentence.
pub(super) fn name(socket: &Socket) -> String {
    match socket.peer {
        Some(peer) => format!("{} {} to {peer}", socket.protocol, socket.local),
        None => format!("{} {}", socket.protocol, socket.local),
    }
}

/// What becomes of a session once mhebpf enforces.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    /// It goes on through this interface.
    Moves(u32),
    /// The owners have no next hop.
    NoRoute,
    /// The owners are down.
    OwnerDown,
}

/// Connected sockets whose packets leave by another interface than that of their source.
pub(super) fn leave_elsewhere(view: &View<'_>) -> Vec<Finding> {
    let tables = Tables::new(&view.snapshot.host, &BTreeMap::new());
    let mut groups: BTreeMap<(u32, Fate), Vec<&Socket>> = BTreeMap::new();
    for socket in &view.snapshot.sockets {
        let (Some(peer), Some(leaves_by)) = (socket.peer, socket.leaves_by) else { continue };
        let owners = view.owners(view.domain_of(leaves_by), socket.local.ip());
        if !owners.is_empty() && !owners.contains(&leaves_by) {
            groups.entry((leaves_by, fate(view, &tables, owners, peer.ip()))).or_default().push(socket);
        }
    }
    let finding = |((leaves_by, fate), sockets): ((u32, Fate), Vec<&Socket>)| {
        let by = view.name(leaves_by);
        let names: Vec<String> = sockets.iter().map(|socket| name(socket)).collect();
        let (severity, what) = match fate {
            Fate::Moves(owner) => {
                let owner = view.name(owner);
                (Severity::Note, format!("With mhebpf they go on through {owner}; no session ends by that."))
            }
            Fate::NoRoute => (
                Severity::Warning,
                "With mhebpf they end: the owner of the address has no next hop there (no_route).".to_owned(),
            ),
            Fate::OwnerDown => (
                Severity::Warning,
                "With mhebpf they end: the owner of the address is down or has no carrier (owner_down)."
                    .to_owned(),
            ),
        };
        Finding {
            id: Id::SocketsLeaveElsewhere,
            severity,
            objects: [objects(Kind::Interface, [&by]), objects(Kind::Socket, &names)].concat(),
            summary: format!(
                "{} by {by}, which does not own the source",
                count(names.len(), "connected socket sends", "connected sockets send")
            ),
            consequence: format!("{}. {what}", list(&names)),
            remedy: if severity == Severity::Note {
                "None is needed.".to_owned()
            } else {
                "Connect them from an address of the interface that they leave by, or give the owner a route to the \
                 peers."
                    .to_owned()
            },
        }
    };
    groups.into_iter().map(finding).collect()
}

/// Services on an address whose owner has no next hop for far peers, which only the weak model serves.
pub(super) fn without_next_hop(view: &View<'_>) -> Vec<Finding> {
    let snapshot = view.snapshot;
    let tables = Tables::new(&snapshot.host, &BTreeMap::new());
    let mut lost: BTreeMap<u32, BTreeSet<IpAddr>> = BTreeMap::new();
    for (way, _) in view.wrong_ways().filter(|(way, _)| way.to == To::Beyond) {
        // Of those that are down another finding tells.
        let is_up = snapshot.host.links.get(&way.configured).is_some_and(|link| link.up);
        if is_up && ways::next_hop(view, &tables, way).is_none() {
            lost.entry(way.configured).or_default().insert(way.source);
        }
    }
    let finding = |(ifindex, addresses): (u32, BTreeSet<IpAddr>)| {
        let serves = |socket: &&Socket| socket.peer.is_none() && addresses.contains(&socket.local.ip());
        let services: Vec<&Socket> = snapshot.sockets.iter().filter(serves).collect();
        let names: Vec<String> = services.iter().map(|socket| name(socket)).collect();
        let served: BTreeSet<IpAddr> = services.iter().map(|socket| socket.local.ip()).collect();
        let interface = view.name(ifindex);
        let flag = if served.iter().all(IpAddr::is_ipv6) { "-6 " } else { "" };
        (!names.is_empty()).then(|| Finding {
            id: Id::ServiceWithoutNextHop,
            severity: Severity::Warning,
            objects: [
                objects(Kind::Interface, [&interface]),
                objects(Kind::Address, &served),
                objects(Kind::Socket, &names),
            ]
            .concat(),
            summary: format!("far peers of {} on {interface} would get no answer", count(names.len(), "socket", "sockets")),
            consequence: format!(
                "{}. {interface} knows no gateway: what they answer to peers beyond its subnets is dropped by mhebpf, \
                 counted as no_route.",
                list(&names)
            ),
            remedy: format!(
                "Where {interface} has a gateway G, say so, less preferred than the route that there is: ip {flag}route add \
                 default via G dev {interface} metric 4096. Where it has none, bind them to an address by which far peers \
                 come, or to all."
            ),
        })
    };
    lost.into_iter().filter_map(finding).collect()
}

fn fate(view: &View<'_>, tables: &Tables, owners: &[u32], peer: IpAddr) -> Fate {
    let mut fate = Fate::OwnerDown;
    for owner in owners.iter().take(mhebpf_ebpf::INLINE_OWNERS) {
        if view.snapshot.host.links.get(owner).is_none_or(|link| !link.up) {
            continue;
        }
        let has_next_hop = match peer {
            IpAddr::V4(peer) => tables.ipv4.next_hops(*owner, peer.into()).is_some(),
            IpAddr::V6(peer) => tables.ipv6.next_hops(*owner, peer.into()).is_some(),
        };
        if has_next_hop {
            return Fate::Moves(*owner);
        }
        fate = Fate::NoRoute;
    }
    fate
}
