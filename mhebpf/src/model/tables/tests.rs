use std::collections::BTreeMap;

use mhebpf_ebpf::{AddressTables as _, address::Address as _};

use super::*;
use crate::model::testing::{address, host, link, port};

fn of(host: &Host) -> Tables {
    Tables::new(host, &BTreeMap::new())
}

#[test]
fn inline_addresses_have_one_of_each_subnet_first() {
    let addresses =
        ["10.0.0.1/24", "10.0.0.2/24", "192.168.0.1/16", "2001:db8::1/64", "2001:db8::2/64", "fe80::1/64"];
    let tables = of(&host([link(2, LinkKind::Wire)], addresses.iter().map(|text| address(2, text))));
    let iface = &tables.ifaces[&2];
    let expected = [[10, 0, 0, 1], [192, 168, 0, 1], [10, 0, 0, 2]].map(Ipv4::new);
    assert_eq!(iface.addresses[..3], expected);
    assert_eq!(iface.prefix_lengths[..3], [24, 16, 24]);
    assert!(iface.addresses[3..].iter().all(|address| address.is_unspecified()));
    let ipv6 = iface.addresses6.map(|slot| slot.0.to_string());
    assert_eq!(ipv6[..4], ["2001:db8::1", "fe80::1", "2001:db8::2", "::"]);
}

#[test]
fn a_subnet_is_found_behind_however_many_addresses_of_another() {
    let crowd = (1..=100).map(|n| address(2, &format!("10.1.0.{n}/24")));
    let tables = of(&host([link(2, LinkKind::Wire)], crowd.chain([address(2, "10.2.0.1/24")])));
    let towards = tables.ifaces[&2].address_towards(Ipv4::new([10, 2, 0, 7]));
    assert_eq!(towards, Some(Ipv4::new([10, 2, 0, 1])));
}

#[test]
fn an_address_with_two_prefixes_speaks_to_both() {
    let addresses = ["172.16.0.1/24", "10.7.0.1/24", "10.7.0.1/8"].map(|text| address(2, text));
    let tables = of(&host([link(2, LinkKind::Wire)], addresses));
    let towards = tables.ifaces[&2].address_towards(Ipv4::new([10, 9, 0, 7]));
    assert_eq!(towards, Some(Ipv4::new([10, 7, 0, 1])));
}

#[test]
fn host_wide_addresses_are_nobodys_own() {
    let links = [link(1, LinkKind::Loopback), link(2, LinkKind::Wire)];
    let tables = of(&host(links, [address(1, "10.9.9.9/32"), address(2, "10.0.0.1/24")]));
    let vip = Ipv4::new([10, 9, 9, 9]);
    assert!(!vip.is_inline(&tables.ifaces[&2]));
    assert!(tables.ipv4.owners[&OwnersKey { domain: 0, address: vip }].is_host_wide());
}

#[test]
fn owners_beyond_the_inline_ones_are_kept_apart_and_shared() {
    let ports = (20..26).map(|index| port(index, 9));
    let links = ports.chain([link(9, LinkKind::Bond)]);
    let tables = of(&host(links, [address(9, "10.0.0.1/24"), address(9, "2001:db8::1/64")]));
    let owners = tables.ipv4.owners[&OwnersKey { domain: 0, address: Ipv4::new([10, 0, 0, 1]) }];
    assert_eq!(owners.inline[0], 9);
    assert!(owners.has_further());
    assert_eq!(tables.further_owners.len(), 7 - INLINE_OWNERS);
    assert!(tables.further_owners.contains(&FurtherOwnerKey::new(owners.set, 25)));
}

#[test]
fn only_domains_with_prefixes_look_for_them() {
    use crate::model::{LocalRoute, testing::net};
    let links = [link(2, LinkKind::Wire), port(3, 9), link(9, LinkKind::Vrf { table: 10 })];
    let local_routes = vec![LocalRoute { domain: 9, prefix: net("10.0.0.0/8"), ifindex: 3 }];
    let tables = of(&Host { local_routes, ..host(links, []) });
    assert_eq!([2, 3].map(|ifindex| tables.ifaces[&ifindex].has_prefixes()), [false, true]);
    let key = OwnersKey { domain: 9, address: Ipv4::new([10, 1, 2, 3]) };
    assert_eq!(tables.owners_by_prefix(&key).map(|owners| owners.inline[0]), Some(3));
}

#[test]
fn a_vrf_device_is_never_sent_through() {
    let tables = of(&host([link(9, LinkKind::Vrf { table: 10 })], []));
    assert!(!tables.ifaces[&9].is_up());
}

#[test]
fn the_longest_prefix_wins() {
    let mut tables = Tables::default();
    let gateway: Neighbour = Ipv4::new([10, 0, 0, 1]).into();
    let key = |destination| NextHopKey { owner: 2, destination: Ipv4::new(destination) };
    tables.ipv4.next_hops.insert((key([0, 0, 0, 0]), 0), [gateway].into());
    tables.ipv4.next_hops.insert((key([10, 0, 0, 0]), 24), [Neighbour::DESTINATION].into());
    let next_hop = |owner, destination| tables.next_hop(owner, Ipv4::new(destination), 0).copied();
    assert_eq!(next_hop(2, [10, 0, 0, 9]), Some(Neighbour::DESTINATION));
    assert_eq!(next_hop(2, [10, 0, 1, 9]), Some(gateway));
    assert_eq!(next_hop(3, [10, 0, 1, 9]), None);
}
