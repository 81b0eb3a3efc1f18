//! Where the maps of the daemon are not in step with the host.

use std::net::IpAddr;

use serde::Serialize;

use super::explanation::Model;
use crate::control::protocol::{Hop, Known, OwnedBy, Read};

/// Something that the maps say otherwise than the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What it is about.
    pub of: String,
    /// What the maps say.
    pub maps: String,
    /// What they would say if they were in step with the host.
    pub host: String,
}

/// Compares what was read of the maps with what the model would have there.
pub fn differences(model: &Model, read: &[Read]) -> Vec<Difference> {
    let mut differences = Vec::new();
    for read in read {
        for difference in between(model, read, &read.again(&model.tables)) {
            // What a packet's addresses have in common is read more than once.
            if !differences.contains(&difference) {
                differences.push(difference);
            }
        }
    }
    differences
}

fn between(model: &Model, maps: &Read, host: &Read) -> Vec<Difference> {
    if maps == host {
        return Vec::new();
    }
    let name = |ifindex: u32| model.host.name_of(ifindex);
    let (of, words) = match (maps, host) {
        (Read::Interface { ifindex, found: maps }, Read::Interface { found: host, .. }) => {
            return of_interface(&name(*ifindex), maps.as_deref(), host.as_deref());
        }
        (Read::Owners { address, found: maps, .. }, Read::Owners { found: host, .. }) => {
            (format!("the owners of {address}"), [maps, host].map(|found| owners(found.as_ref(), name)))
        }
        (Read::Prefix { address, found: maps, .. }, Read::Prefix { found: host, .. }) => {
            let of = format!("the owners of the prefix around {address}");
            (of, [maps, host].map(|found| owners(found.as_ref(), name)))
        }
        (Read::FurtherOwner { ifindex, found: maps, .. }, Read::FurtherOwner { found: host, .. }) => {
            let of = format!("whether {} is among further owners or carriers", name(*ifindex));
            (of, [maps, host].map(|found| yes(*found)))
        }
        (Read::NextHop { owner, destination, found: maps, .. }, Read::NextHop { found: host, .. }) => {
            let of = format!("the next hop of {} to {destination}", name(*owner));
            (of, [maps, host].map(|found| next_hop(*found)))
        }
        // The same lookup, read again.
        _ => return Vec::new(),
    };
    let [maps, host] = words;
    vec![Difference { of, maps, host }]
}

fn of_interface(name: &str, maps: Option<&Known>, host: Option<&Known>) -> Vec<Difference> {
    type Row = (&'static str, fn(&Known) -> String);
    let rows: [Row; 9] = [
        ("the policy", |known| known.policy.to_string()),
        ("the state", |known| if known.up { "up" } else { "down" }.to_owned()),
        ("the own addresses", |known| addresses(&known.addresses)),
        ("the block of own addresses", |known| {
            listed(&known.blocks.iter().map(ToString::to_string).collect::<Vec<_>>())
        }),
        ("the MTU", |known| known.mtu.to_string()),
        ("the VRF", |known| known.domain.to_string()),
        ("whether loopback is routed", |known| yes(known.route_localnet)),
        ("whether frames have an Ethernet header", |known| yes(known.ethernet)),
        ("whether there are owners by prefix", |known| yes(known.prefixes)),
    ];
    let (Some(maps), Some(host)) = (maps, host) else {
        let words = |known: Option<&Known>| known.map_or("none", |_| "there").to_owned();
        return vec![Difference { of: format!("the entry of {name}"), maps: words(maps), host: words(host) }];
    };
    let rows = rows.into_iter().map(|(what, words)| (what, words(maps), words(host)));
    let differing = rows.filter(|(_, maps, host)| maps != host);
    differing.map(|(what, maps, host)| Difference { of: format!("{what} of {name}"), maps, host }).collect()
}

fn addresses(addresses: &[(IpAddr, Option<u8>)]) -> String {
    let words = |(address, length): &(IpAddr, Option<u8>)| match length {
        Some(length) => format!("{address}/{length}"),
        None => address.to_string(),
    };
    listed(&addresses.iter().map(words).collect::<Vec<_>>())
}

fn owners(found: Option<&OwnedBy>, name: impl Fn(u32) -> String) -> String {
    let Some(OwnedBy { by, further, host_wide, allowed_only }) = found else { return "none".to_owned() };
    let mut words: Vec<String> = by.iter().map(|owner| name(*owner)).collect();
    for (is, word) in
        [(*further, "others"), (*host_wide, "every interface"), (*allowed_only, "by `allow` only")]
    {
        if is {
            words.push(word.to_owned());
        }
    }
    listed(&words)
}

fn next_hop(found: Option<Hop>) -> String {
    match found {
        None => "none".to_owned(),
        Some(Hop::OnLink) => "on-link".to_owned(),
        Some(Hop::Gateway(gateway)) => gateway.to_string(),
    }
}

fn yes(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}

fn listed(words: &[String]) -> String {
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mhebpf_ebpf::Direction;

    use super::*;
    use crate::{
        control::{protocol::Crossing, recording},
        model::{
            LinkKind,
            testing::{address, host, link},
        },
    };

    fn model(second: &str) -> Model {
        let links = [link(2, LinkKind::Wire), link(3, LinkKind::Wire)];
        let policy = crate::model::Policy {
            send: mhebpf_ebpf::Send::Redirect,
            receive: mhebpf_ebpf::Receive::Drop,
            announce: mhebpf_ebpf::Announce::Enforce,
            unknown: mhebpf_ebpf::Unknown::Pass,
            forwarded: mhebpf_ebpf::Send::Redirect,
            allow: Vec::new(),
            owns: Vec::new(),
            binds: true,
        };
        let host = host(links, [address(2, "10.0.0.2/24"), address(3, second)]);
        Model::new(host, BTreeMap::from([(2, policy)]))
    }

    fn asked(source: [u8; 4]) -> Crossing {
        use mhebpf_ebpf::{Datagram, Ipv4, Network, Packet};
        let (source, destination) = (Ipv4::new(source), Ipv4::new([10, 0, 0, 1]));
        let datagram = Datagram { source, destination, protocol: 17 };
        let packet = Packet { group: false, offset: 0, network: Network::Ipv4(datagram) };
        Crossing::new(Direction::Egress, 2, &packet, false)
    }

    #[test]
    fn only_what_differs_is_told() {
        let (maps, host) = (model("10.0.0.3/24"), model("10.0.0.4/24"));
        let read = |source| recording::judge(&maps.tables, &asked(source)).expect("a packet").1;
        assert!(differences(&maps, &read([10, 0, 0, 3])).is_empty());
        let told = differences(&host, &read([10, 0, 0, 3]));
        let told: Vec<_> = told.iter().map(|each| [&each.of[..], &each.maps[..], &each.host[..]]).collect();
        // The owner's entry is looked at for the redirect.
        let expected = [
            ["the owners of 10.0.0.3", "eth3", "none"],
            ["the own addresses of eth3", "10.0.0.3/24", "10.0.0.4/24"],
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn an_interface_is_compared_by_what_an_operator_knows_of_it() {
        let (maps, mut host) = (model("10.0.0.3/24"), model("10.0.0.3/24"));
        host.tables.ifaces.entry(2).and_modify(|iface| iface.mtu = 9000);
        let (_, read) = recording::judge(&maps.tables, &asked([10, 0, 0, 9])).expect("a packet");
        let told = differences(&host, &read);
        assert_eq!((told.len(), told[0].of.as_str(), told[0].host.as_str()), (1, "the MTU of eth2", "9000"));
    }
}
