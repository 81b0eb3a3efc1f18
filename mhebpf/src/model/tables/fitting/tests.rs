use mhebpf_ebpf::{Announce, Ipv4, Receive, Send};

use super::*;
use crate::model::{
    Host, LinkKind, Policy,
    testing::{address, host, link, port, stacked},
};

const POLICY: Policy = Policy {
    send: Send::Redirect,
    receive: Receive::Drop,
    announce: Announce::Enforce,
    unknown: Unknown::Pass,
    forwarded: Send::Redirect,
    allow: Vec::new(),
    owns: Vec::new(),
    binds: true,
};

/// Three wires: the first has 8 addresses, the second 4, and the third 2.
fn three() -> Host {
    let of = |ifindex: u32, count: u32| {
        (1..=count).map(move |n| address(ifindex, &format!("10.{ifindex}.0.{n}/24")))
    };
    host([2, 3, 4].map(|index| link(index, LinkKind::Wire)), of(2, 8).chain(of(3, 4)).chain(of(4, 2)))
}

fn tables(host: &Host, enforced: &[u32]) -> (Tables, BTreeSet<u32>) {
    let policies: BTreeMap<u32, Policy> = enforced.iter().map(|ifindex| (*ifindex, POLICY)).collect();
    (Tables::new(host, &policies), enforced.iter().copied().collect())
}

fn fitted(host: &Host, enforced: &[u32], room: Entries) -> (Tables, LeftOut) {
    let (tables, enforced) = tables(host, enforced);
    let (tables, left_out) = fit(tables, room, &enforced);
    assert!(Entries::of(&tables).fit_in(room), "{:?} in {room:?}", Entries::of(&tables));
    (tables, left_out)
}

fn addresses(left_out: &LeftOut) -> Vec<(u32, usize)> {
    left_out.iter().map(|(ifindex, missing)| (*ifindex, missing.addresses)).collect()
}

fn owner(tables: &Tables, address: [u8; 4]) -> u32 {
    let key = OwnersKey { domain: 0, address: Ipv4::new(address) };
    let owners = tables.ipv4.owners.get(&key).or_else(|| tables.ipv4.owners_by_prefix(&key));
    owners.map_or(0, |owners| owners.inline[0])
}

#[test]
fn what_fits_stays_as_it_is() {
    let (before, _) = tables(&three(), &[2, 3, 4]);
    let (after, left_out) = fitted(&three(), &[2, 3, 4], Entries::all(14));
    assert!(before == after && left_out.is_empty());
}

#[test]
fn addresses_without_room_in_the_hash_map_go_to_the_trie_and_are_owned_as_before() {
    let room = Entries { owners: 6, ..Entries::all(14) };
    let (tables, left_out) = fitted(&three(), &[2, 3, 4], room);
    assert!(left_out.is_empty());
    assert_eq!((tables.ipv4.owners.len(), tables.ipv4.prefixes.len()), (6, 8));
    assert!(tables.ifaces.values().all(|iface| iface.flags & Iface::PREFIXES != 0));
    for (ifindex, last) in [(2, 8), (3, 4), (4, 2)] {
        for n in 1..=last {
            assert_eq!(owner(&tables, [10, ifindex, 0, n]), u32::from(ifindex), "10.{ifindex}.0.{n}");
        }
    }
}

#[test]
fn interfaces_are_left_out_as_a_whole_and_enforced_ones_last() {
    let room = |owners| Entries { owners, prefixes: 0, ..Entries::all(14) };
    assert_eq!(addresses(&fitted(&three(), &[2, 3, 4], room(13)).1), [(4, 2)]);
    assert_eq!(
        addresses(&fitted(&three(), &[2, 3, 4], room(7)).1),
        [(2, 8)],
        "what is too large makes no room for none"
    );
    assert_eq!(addresses(&fitted(&three(), &[4], room(9)).1), [(2, 8)]);
    assert_eq!(addresses(&fitted(&three(), &[3, 4], room(6)).1), [(2, 8)]);
    assert_eq!(addresses(&fitted(&three(), &[2, 3, 4], room(1)).1), [(2, 8), (3, 4), (4, 2)]);
}

#[test]
fn an_address_of_two_stays_with_the_one_that_fits() {
    let mut host = three();
    host.addresses.push(address(4, "10.2.0.1/24"));
    let room = Entries { owners: 7, prefixes: 0, ..Entries::all(14) };
    let (tables, left_out) = fitted(&host, &[2, 3, 4], room);
    assert_eq!(addresses(&left_out), [(2, 7)]);
    assert_ne!(owner(&tables, [10, 2, 0, 1]), 0);
    assert_eq!(owner(&tables, [10, 2, 0, 2]), 0);
}

#[test]
fn what_is_left_out_is_foreign_and_passes() {
    let strict = Policy { unknown: Unknown::Drop, ..POLICY };
    let policies: BTreeMap<u32, Policy> = [2, 3, 4].map(|ifindex| (ifindex, strict.clone())).into();
    let mut whole = Tables::new(&three(), &policies);
    // A prefix around it that is another's.
    let key = OwnersKey { domain: 0, address: Ipv4::new([10, 4, 0, 0]) };
    whole.ipv4.prefixes.insert((key, 16), Owners { inline: [2, 0, 0, 0], ..Owners::NONE });
    let room = Entries { owners: 13, prefixes: 1, ..Entries::all(14) };
    let (tables, left_out) = fit(whole, room, &[2, 3, 4].into());
    assert_eq!(addresses(&left_out), [(2, 1), (4, 2)]);
    assert_eq!((owner(&tables, [10, 4, 0, 1]), owner(&tables, [10, 3, 0, 1])), (0, 3));
    assert!(tables.ifaces.values().all(|iface| iface.unknown == Unknown::Pass as u8));
}

#[test]
fn high_interfaces_that_nobody_enforces_go_first() {
    let high = DIRECT_IFACES + 10;
    let mut host = three();
    host.links.extend((high..high + 8).map(|index| (index, link(index, LinkKind::Wire))));
    host.addresses.push(address(high + 2, "10.9.0.1/24"));
    let room = |high_ifaces| Entries { high_ifaces, ..Entries::all(30) };
    let (tables, left_out) = fitted(&host, &[high + 5], room(2));
    assert!(left_out.is_empty(), "{left_out:?}");
    let kept: Vec<u32> = tables.ifaces.range(DIRECT_IFACES..).map(|(ifindex, _)| *ifindex).collect();
    assert_eq!(kept, [high + 2, high + 5]);
    let (_, left_out) = fitted(&host, &[high + 5], room(1));
    assert_eq!(left_out, [(high + 2, Missing { addresses: 1, is_unjudged: false })].into());
    let (_, left_out) = fitted(&host, &[high + 5], room(0));
    assert!(left_out[&(high + 5)].is_unjudged && left_out[&(high + 2)].addresses == 1);
}

#[test]
fn a_set_of_owners_is_whole_or_its_addresses_are_left_out() {
    let links =
        (20..28).map(|index| port(index, 9)).chain([link(9, LinkKind::Bond), link(10, LinkKind::Wire)]);
    let host = host(links, [address(9, "10.0.0.1/24"), address(10, "10.1.0.1/24")]);
    let room = |further_owners| Entries { further_owners, ..Entries::all(30) };
    let (whole, left_out) = fitted(&host, &[9, 10], room(30));
    assert!(left_out.is_empty() && whole.further_owners.len() > 1);
    let (tables, left_out) = fitted(&host, &[9, 10], room(whole.further_owners.len() - 1));
    assert!(tables.further_owners.is_empty());
    assert_eq!(left_out[&9].addresses, 1);
    assert_eq!((owner(&tables, [10, 0, 0, 1]), owner(&tables, [10, 1, 0, 1])), (0, 10));
}

#[test]
fn an_interface_that_cannot_say_whose_frames_cross_it_is_not_judged() {
    let macvlan = crate::model::Link { kind: LinkKind::Macvlan, ..stacked(5, 2) };
    let host =
        host([link(2, LinkKind::Wire), macvlan], [address(2, "10.0.0.1/24"), address(5, "10.0.0.2/24")]);
    let (whole, _) = fitted(&host, &[2], Entries::all(30));
    assert!(whole.ifaces[&2].carries());
    let (tables, left_out) = fitted(&host, &[2], Entries { further_owners: 1, ..Entries::all(30) });
    assert!(!tables.ifaces[&2].carries() && !is_judged(&tables.ifaces[&2]));
    assert!(left_out[&2].is_unjudged);
}
