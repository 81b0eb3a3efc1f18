//! What is kept by changes says what all routes together say.

use std::{collections::HashMap, net::IpAddr, rc::Rc};

use super::*;
use crate::model::{
    Hop, LinkKind,
    host::MAIN_TABLE,
    next_hops::of_owners,
    tables::Tables,
    testing::{address, host, ip, link, net},
};

/// A linear congruential generator (Knuth, MMIX): the same routes at each run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

fn route(destination: IpNet, hops: Vec<Hop>) -> Route {
    Route { table: MAIN_TABLE, destination, metric: 0, preference: 0, hops, metrics: Metrics::default() }
}

/// Interfaces 2 and 3 in one subnet, 4 in another, and 5 that is not enforced.
fn some_host() -> Host {
    let links = (2..6).map(|index| link(index, LinkKind::Wire));
    let addresses = [
        address(2, "10.0.0.2/24"),
        address(3, "10.0.0.3/24"),
        address(4, "10.1.0.4/24"),
        address(5, "10.2.0.5/24"),
    ];
    let mut host = host(links, addresses);
    let on_link = [(2, "10.0.0.0/24"), (3, "10.0.0.0/24"), (4, "10.1.0.0/24"), (5, "10.2.0.0/24")];
    host.routes = on_link.map(|(index, subnet)| route(net(subnet), vec![Hop::new(index, None)])).into();
    host.routes.push(route(net("0.0.0.0/0"), vec![Hop::new(2, Some(ip("10.0.0.1")))]));
    host
}

fn hops(random: &mut Random) -> Vec<Hop> {
    let one = |random: &mut Random| {
        let index = 2 + random.below(4) as u32;
        let subnet = [0, 0, 1, 2][index as usize - 2];
        Hop::new(index, Some(IpAddr::from([10, subnet, 0, 1 + random.below(2) as u8])))
    };
    let count = 1 + random.below(2);
    (0..count).map(|_| one(random)).collect()
}

/// Prefixes that lie within one another often.
fn prefix_of(random: &mut Random) -> IpNet {
    let length = [8, 16, 20, 24, 28, 32][random.below(6) as usize];
    prefix(IpAddr::from([198, 51, random.below(3) as u8 * 16, random.below(3) as u8 * 16]), length)
}

/// By owner and prefix, as the maps have them.
type Written = HashMap<(u32, IpNet), Hops>;

fn lookup(written: &Written, owner: u32, destination: IpAddr) -> Option<&Hops> {
    (0..=32).rev().find_map(|length| written.get(&(owner, prefix(destination, length))))
}

#[test]
fn what_changes_adds_up_to_what_all_routes_say() {
    let mut random = Random(11);
    let owners = BTreeSet::from([2, 3, 4]);
    let mut host = some_host();
    let mut leaves = Leaves::default();
    let mut many = ManyNextHops::default();
    let mut by_leaves = Written::new();
    for step in 0..400 {
        for _ in 0..=random.below(4) {
            let to = prefix_of(&mut random);
            if random.below(3) == 0 {
                leaves.remove(to);
            } else {
                leaves.insert(route(to, hops(&mut random)), 0);
            }
        }
        if random.below(5) == 0 {
            // What else is on the host changes: a prefix between others, or the default route.
            let place = host.routes.len() - 1;
            let default = Some(IpAddr::from([10, 0, 0, 1 + random.below(2) as u8]));
            host.routes[place].hops = vec![Hop::new(2 + random.below(2) as u32, default)];
            host.routes.retain(|route| route.destination != net("198.51.16.0/22"));
            if random.below(2) == 0 {
                host.routes.insert(0, route(net("198.51.16.0/22"), vec![Hop::new(3, None)]));
            }
        }
        host.leaves = leaves.interfaces();
        let others: Vec<(u32, IpNet, Hops)> = of_owners(&host, &owners)
            .into_iter()
            .map(|((owner, prefix), hops)| (owner, prefix, by_weight(&hops)))
            .collect();
        if step % 3 != 0 || step == 0 {
            many.set(&Rc::new(host.clone()), &owners, others.iter().cloned(), &leaves);
        }
        many.follow(&mut leaves, &mut |change| {
            let key = (change.owner, change.prefix);
            let before = match change.after {
                Some(after) => by_leaves.insert(key, after),
                None => by_leaves.remove(&key),
            };
            assert_eq!(before, change.before, "step {step}");
        });
        assert_eq!(many.entries(), [by_leaves.len(), 0], "step {step}");
        if step % 3 == 0 && step > 0 {
            // Others have changed meanwhile, which it has not been told.
            continue;
        }
        let mut written = by_leaves.clone();
        written.extend(others.into_iter().map(|(owner, prefix, hops)| ((owner, prefix), hops)));
        let mut all = host.clone();
        all.routes.extend(leaves.iter());
        let all: Written =
            of_owners(&all, &owners).into_iter().map(|(key, hops)| (key, by_weight(&hops))).collect();
        for owner in &owners {
            for (third, fourth) in (0..48).flat_map(|third| [0, 1, 16, 17, 33].map(|fourth| (third, fourth)))
            {
                let destination = IpAddr::from([198, 51, third, fourth]);
                let (found, expected) =
                    (lookup(&written, *owner, destination), lookup(&all, *owner, destination));
                assert_eq!(found, expected, "step {step}: {owner} to {destination}");
            }
        }
    }
}

#[test]
fn a_hundred_thousand_routes_by_the_gateway_of_the_default_route_are_no_entries() {
    let host = some_host();
    let mut leaves = Leaves::default();
    for number in 0..100_000_u32 {
        let to = prefix(IpAddr::from((0x6400_0000 + (number << 8)).to_be_bytes()), 24);
        leaves.insert(route(to, vec![Hop::new(2, Some(ip("10.0.0.1")))]), 0);
    }
    let owners = BTreeSet::from([2, 3, 4]);
    let mut many = ManyNextHops::default();
    let tables = Tables::new(&Host { leaves: leaves.interfaces(), ..host.clone() }, &BTreeMap::new());
    many.set(&Rc::new(host), &owners, tables.next_hops(), &leaves);
    many.follow(&mut leaves, &mut |change| panic!("{change:?}"));
    assert_eq!(many.entries(), [0, 0]);
}
