//! A host in the words of the daemon's model.

use std::collections::{BTreeMap, BTreeSet};

use mhebpf::model::{self, host::prefix};
use mhebpf_ebpf::{Announce as Announced, Receive as Received, Send as Sent, Unknown as Stranger};

use crate::oracle::{
    Announce, Host, Interface, Kind, Link, LocalRoute, Policy, Prefix, Receive, Rule, Send, Unknown,
    owners::Domain,
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
    let links = host.interfaces.iter().map(|interface| (interface.index, link(interface))).collect();
    let addresses = host.interfaces.iter().flat_map(|interface| {
        interface.addresses.iter().map(|address| model::Address {
            ifindex: interface.index,
            local: address.local,
            subnet: prefix(address.peer.unwrap_or(address.local), address.length),
            tentative: false,
            host_scope: false,
        })
    });
    // Those of tables for which nobody asks are left out as they are read.
    let known = host.routes.iter().filter(|route| host.is_known(route));
    let routes = known.map(|route| model::Route {
        table: route.table,
        destination: prefix(route.destination.address, route.destination.length),
        metric: route.metric,
        hops: route.hops.iter().map(|hop| model::Hop::new(hop.interface, hop.gateway)).collect(),
        metrics: model::Metrics::default(),
        preference: 0,
    });
    model::Host {
        other_routes: Vec::new(),
        remembered: Vec::new(),
        unreachable: BTreeSet::new(),
        leaves: BTreeSet::new(),
        addresses: addresses.collect(),
        routes: routes.collect(),
        rules: host.rules.iter().zip(1..).map(|(rule, priority)| self::rule(rule, priority)).collect(),
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

fn rule(rule: &Rule, priority: u32) -> model::Rule {
    let Rule { ipv4, source, table, protocol, mark, is_choosy } = *rule;
    let source = source.map(|source| prefix(source.address, source.length));
    model::Rule { ipv4, priority, source, table, protocol, mark, selects: is_choosy }
}

fn link(interface: &Interface) -> model::Link {
    let kind = match interface.kind {
        Kind::Loopback => model::LinkKind::Loopback,
        Kind::Dummy => model::LinkKind::Dummy,
        Kind::Wire => model::LinkKind::Wire,
        Kind::Vlan(id) => model::LinkKind::Vlan { id },
        Kind::Macvlan => model::LinkKind::Macvlan,
        Kind::Ipvlan => model::LinkKind::Ipvlan,
        Kind::Bridge => model::LinkKind::Bridge,
        Kind::Bond => model::LinkKind::Bond,
        Kind::Vrf(table) => model::LinkKind::Vrf { table },
        Kind::Tunnel => model::LinkKind::Tunnel,
        Kind::Other => model::LinkKind::Other,
    };
    let framing = match interface.kind {
        Kind::Loopback => model::Framing::Unknown,
        _ if interface.is_ethernet => model::Framing::Ethernet,
        _ => model::Framing::Bare,
    };
    model::Link {
        index: interface.index,
        name: format!("eth{}", interface.index),
        kind,
        framing,
        mac: Some(interface.mac).filter(|_| interface.is_ethernet),
        mtu: interface.mtu,
        up: interface.up,
        master: interface.master,
        link: match interface.link {
            Link::To(index) => Some(index),
            Link::None | Link::Elsewhere => None,
        },
        link_elsewhere: interface.link == Link::Elsewhere,
        outer: interface.outer,
        route_localnet: interface.route_localnet,
        forwards: interface.forwarding.ipv4,
        router: interface.forwarding.ipv6,
        arp_ignore: 0,
        arp_filter: false,
        strict_reverse_path: false,
    }
}

fn sent(send: Send) -> Sent {
    match send {
        Send::Redirect => Sent::Redirect,
        Send::Drop => Sent::Drop,
        Send::Observe => Sent::Observe,
        Send::Off => Sent::Off,
    }
}

fn policy(policy: &Policy) -> model::Policy {
    let prefixes =
        |prefixes: &[Prefix]| prefixes.iter().map(|each| prefix(each.address, each.length)).collect();
    model::Policy {
        send: sent(policy.send),
        forwarded: sent(policy.send_forwarded()),
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
        allow: prefixes(&policy.allow),
        owns: prefixes(&policy.owns),
        binds: policy.binds,
    }
}
