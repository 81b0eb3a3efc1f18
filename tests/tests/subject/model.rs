//! A host in the words of the daemon's model.

use std::collections::BTreeMap;

use mhebpf::model::{self, host::prefix};
use mhebpf_ebpf::{Announce as Announced, Receive as Received, Send as Sent, Unknown as Stranger};

use crate::oracle::{
    Announce, Host, Interface, Kind, LocalRoute, Policy, Receive, Send, Unknown, owners::Domain,
};

/// The tables that the daemon would write for this host.
pub(crate) fn tables(host: &Host) -> model::Tables {
    model::Tables::new(&model_of(host), &policies_of(host))
}

/// What is enforced where.
pub(crate) fn policies_of(host: &Host) -> BTreeMap<u32, model::Policy> {
    host.interfaces.iter().filter_map(|i| Some((i.index, policy(i.policy.as_ref()?)))).collect()
}

/// The host, without what is enforced on it.
pub(crate) fn model_of(host: &Host) -> model::Host {
    let mut links: BTreeMap<u32, model::Link> = host.interfaces.iter().map(|i| (i.index, link(i))).collect();
    for interface in &host.interfaces {
        for port in interface.kind.ports() {
            links.entry(*port).and_modify(|link| link.master = Some(interface.index));
        }
    }
    let addresses = host.interfaces.iter().flat_map(|interface| {
        interface.addresses.iter().map(|address| model::Address {
            ifindex: interface.index,
            local: address.local,
            subnet: prefix(address.peer.unwrap_or(address.local), address.length),
            tentative: false,
        })
    });
    let routes = host.routes.iter().map(|route| model::Route {
        table: route.table,
        destination: prefix(route.destination.address, route.destination.length),
        metric: route.metric,
        hops: route
            .hops
            .iter()
            .map(|hop| model::Hop { ifindex: hop.interface, gateway: hop.gateway })
            .collect(),
        metrics: model::Metrics::default(),
    });
    model::Host {
        other_routes: Vec::new(),
        addresses: addresses.collect(),
        routes: routes.collect(),
        local_routes: host.local_routes.iter().filter_map(|route| local_route(host, route)).collect(),
        links,
    }
}

/// The kernel's own, and those of tables for which nobody asks, are left out as they are read.
fn local_route(host: &Host, route: &LocalRoute) -> Option<model::LocalRoute> {
    let domain = match host.domain_of_table(route.table)? {
        _ if route.by_kernel => return None,
        Domain::Main => model::host::MAIN_DOMAIN,
        Domain::Vrf(index) => index,
    };
    let prefix = prefix(route.destination.address, route.destination.length);
    Some(model::LocalRoute { domain, prefix, ifindex: route.interface })
}

fn link(interface: &Interface) -> model::Link {
    let (kind, below) = match interface.kind {
        Kind::Loopback => (model::LinkKind::Loopback, None),
        Kind::Dummy => (model::LinkKind::Dummy, None),
        Kind::Wire => (model::LinkKind::Other, None),
        Kind::Tunnel => (model::LinkKind::Tunnel, None),
        Kind::VethTo(peer) => (model::LinkKind::Veth, Some(peer)),
        Kind::OnTopOf(lower) => (model::LinkKind::Stacked, Some(lower)),
        Kind::Over(_) => (model::LinkKind::Aggregate, None),
        Kind::Vrf { table, .. } => (model::LinkKind::Vrf { table }, None),
    };
    let is_ethernet = interface.kind.is_ethernet();
    model::Link {
        index: interface.index,
        name: format!("eth{}", interface.index),
        kind,
        framing: if is_ethernet { model::Framing::Ethernet } else { model::Framing::Bare },
        mac: Some(interface.mac).filter(|_| is_ethernet),
        mtu: interface.mtu,
        up: interface.up,
        master: None,
        link: below,
        link_elsewhere: false,
        route_localnet: interface.route_localnet,
        router: false,
        strict_reverse_path: false,
    }
}

fn policy(policy: &Policy) -> model::Policy {
    model::Policy {
        send: match policy.send {
            Send::Redirect => Sent::Redirect,
            Send::Drop => Sent::Drop,
            Send::Observe => Sent::Observe,
            Send::Off => Sent::Off,
        },
        receive: match policy.receive {
            Receive::Drop => Received::Drop,
            Receive::Observe => Received::Observe,
            Receive::Off => Received::Off,
        },
        announce: match policy.announce {
            Announce::Enforce => Announced::Enforce,
            Announce::Observe => Announced::Observe,
            Announce::Off => Announced::Off,
        },
        unknown: match policy.unknown {
            Unknown::Pass => Stranger::Pass,
            Unknown::Drop => Stranger::Drop,
        },
        allow: policy.allow.iter().map(|allowed| prefix(allowed.address, allowed.length)).collect(),
    }
}
