//! The code under test, in the words of the oracle.

use std::collections::BTreeMap;

use mhebpf::model;
use mhebpf_ebpf::{
    Action as Done, Announce, Direction as Way, Network, Receive as Received, Send, Unknown as Stranger,
    Verdict as Decided, decide::decide, packet::parse,
};

use crate::oracle::{
    Action, Crossing, Direction, Host, Interface, Kind, Mode, Policy, Receive, Unknown, Verdict,
};

/// The tables that the daemon would write for this host.
pub(crate) fn tables(host: &Host) -> model::Tables {
    let policies = host.interfaces.iter().filter_map(|i| Some((i.index, policy(i.policy?)))).collect();
    model::Tables::new(&model_of(host), &policies)
}

/// The verdict of the pure decision, reached as the programs reach it.
pub(crate) fn verdict(tables: &model::Tables, crossing: &Crossing) -> Verdict {
    let direction = match crossing.direction {
        Direction::Egress if crossing.arrived => return Verdict::Pass,
        Direction::Egress => Way::Egress,
        Direction::Ingress => Way::Ingress,
    };
    let Some(iface) = tables.ifaces.get(&crossing.interface) else { return Verdict::Pass };
    let Some(packet) = parse(crossing.frame.as_slice(), crossing.tag_beside) else { return Verdict::Pass };
    let family = match packet.network {
        Network::Ipv4(_) => "ipv4",
        Network::Arp(_) => "arp",
    };
    match decide(tables, direction, crossing.interface, iface, &packet) {
        Decided::Pass => Verdict::Pass,
        Decided::Act { reason, action, enforced } => {
            Verdict::Violation { family, reason: reason.name(), action: done(action), enforced }
        }
    }
}

fn done(action: Done) -> Action {
    match action {
        Done::Drop => Action::Drop,
        Done::Redirect { owner, neighbour } => Action::SendBy { owner, neighbour: neighbour.into() },
        Done::RedirectGroup { owner, source } => Action::SendToGroupBy { owner, source },
        Done::RewriteSender { address } => Action::AskAs(address.into()),
    }
}

fn model_of(host: &Host) -> model::Host {
    let mut links: BTreeMap<u32, model::Link> = host.interfaces.iter().map(|i| (i.index, link(i))).collect();
    for interface in &host.interfaces {
        if let Kind::Over(ports) = &interface.kind {
            for port in ports {
                links.entry(*port).and_modify(|link| link.master = Some(interface.index));
            }
        }
    }
    let addresses = host.interfaces.iter().flat_map(|interface| {
        interface.addresses.iter().map(|address| model::Address {
            ifindex: interface.index,
            local: address.local,
            subnet: model::Prefix::new(address.peer.unwrap_or(address.local), address.length),
        })
    });
    let routes = host.routes.iter().map(|route| model::Route {
        destination: model::Prefix::new(route.destination, route.length),
        metric: route.metric,
        hops: route
            .hops
            .iter()
            .map(|hop| model::Hop { ifindex: hop.interface, gateway: hop.gateway })
            .collect(),
    });
    model::Host { addresses: addresses.collect(), routes: routes.collect(), links }
}

fn link(interface: &Interface) -> model::Link {
    let (kind, below) = match interface.kind {
        Kind::Loopback => (model::LinkKind::Loopback, None),
        Kind::Dummy => (model::LinkKind::Dummy, None),
        Kind::Wire => (model::LinkKind::Other, None),
        Kind::VethTo(peer) => (model::LinkKind::Veth, Some(peer)),
        Kind::OnTopOf(lower) => (model::LinkKind::Stacked, Some(lower)),
        Kind::Over(_) => (model::LinkKind::Aggregate, None),
    };
    model::Link {
        index: interface.index,
        name: format!("eth{}", interface.index),
        kind,
        ethernet: kind != model::LinkKind::Loopback,
        mac: Some(interface.mac),
        mtu: interface.mtu,
        up: interface.up,
        master: None,
        link: below,
        link_elsewhere: false,
        route_localnet: interface.route_localnet,
        strict_reverse_path: false,
    }
}

/// What the command line makes of these words.
fn policy(policy: Policy) -> model::Policy {
    let observe = policy.mode == Mode::Observe;
    model::Policy {
        send: match policy.mode {
            Mode::Redirect => Send::Redirect,
            Mode::Drop => Send::Drop,
            Mode::Observe => Send::Observe,
        },
        receive: match policy.receive {
            Receive::Off => Received::Off,
            Receive::Drop if !observe => Received::Drop,
            Receive::Drop | Receive::Observe => Received::Observe,
        },
        announce: if observe { Announce::Observe } else { Announce::Enforce },
        unknown: match policy.unknown {
            Unknown::Pass => Stranger::Pass,
            Unknown::Drop => Stranger::Drop,
        },
    }
}
