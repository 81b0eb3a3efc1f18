//! The work for a host grows with what is on it, not with its square.

use std::time::Duration;

use mhebpf_ebpf::{Announce, Receive, Send, Unknown};

use super::*;
use crate::model::{
    Hop, Metrics, Route, Selector, Steering,
    host::MAIN_TABLE,
    testing::{address, host, ip, link, net, port, stacked},
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

/// Addresses of each interface, and routes through each.
const EACH: u32 = 40;

/// Addresses of the bridge, and of the bond, for each interface.
const WIDE: u32 = 8;

/// The indices of a bridge and a bond.
const BRIDGE: u32 = 1_000_000;
const BOND: u32 = 1_000_001;

/// A host with `n` interfaces in one subnet, each with subnets, addresses and routes of its own too, and a default route
/// by the gateway that they share; a bridge of `n` ports with many addresses, and `n` VLANs on a bond.
fn crowded(n: u32) -> Host {
    let wires = 0..n;
    let ports = (n..2 * n).map(|index| port(index, BRIDGE));
    let vlans = (2 * n..3 * n).map(|index| stacked(index, BOND));
    let bond = (3 * n..3 * n + 2).map(|index| port(index, BOND));
    let aggregates = [BRIDGE, BOND].map(|index| link(index, LinkKind::Bond));
    let links = wires.clone().map(|index| link(index, LinkKind::Wire));
    let links = links.chain(ports).chain(vlans).chain(bond).chain(aggregates);

    let own = |index: u32, nth: u32| format!("10.{}.{}.{}/26", index >> 8, index & 255, nth + 1);
    let wide = [BRIDGE, BOND].into_iter().flat_map(|device| {
        (0..WIDE * n).map(move |nth| {
            address(device, &format!("172.{}.{}.{}/16", 16 + device % 2, nth >> 8, nth & 255))
        })
    });
    let narrow = wires.clone().flat_map(|index| (0..EACH).map(move |nth| address(index, &own(index, nth))));

    let shared = net("192.168.0.0/16");
    let route = |destination, ifindex, gateway: Option<&str>| Route {
        table: MAIN_TABLE,
        destination,
        metric: ifindex,
        hops: vec![Hop::new(ifindex, gateway.map(ip))],
        metrics: Metrics::default(),
        preference: 0,
    };
    let mut routes = Vec::new();
    for index in wires {
        routes.push(route(net(&own(index, 0)).trunc(), index, None));
        routes.push(route(shared, index, None));
        routes.push(route(net("0.0.0.0/0"), index, Some("192.168.0.1")));
        let near = format!("10.{}.{}.62", index >> 8, index & 255);
        let far = |nth| net(&format!("100.{nth}.{}.{}/32", index >> 8, index & 255));
        routes.extend((0..EACH).map(|nth| route(far(nth), index, Some(&near))));
    }
    Host { routes, ..host(links, narrow.chain(wide)) }
}

/// The processor time of this thread, which other processes do not lengthen much.
fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a pointer to a `timespec` that lives through the call.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0, "the processor time of a thread");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// How long something takes for a crowded host whose uplinks are enforced, selecting them included, at best.
fn work<T>(n: u32, compute: impl Fn(&Host, &BTreeMap<u32, Policy>) -> T, check: impl Fn(T)) -> Duration {
    let host = crowded(n);
    let once = || {
        let start = processor_time();
        let selection = Selector::Uplinks { downlinks: false }.select(&host);
        let policies = selection.enforced.iter().map(|ifindex| (*ifindex, POLICY)).collect();
        let computed = compute(&host, &policies);
        let time = processor_time() - start;
        check(computed);
        time
    };
    (0..3).map(|_| once()).min().unwrap_or_default()
}

/// Quadratic work would be up to 256 times as much. Caches and allocation cost large hosts more, but not twice.
fn assert_in_proportion(work: impl Fn(u32) -> Duration) {
    let (small, large) = (work(64), work(1024));
    println!("64 interfaces: {small:?}; 1024: {large:?}");
    assert!(large < small * 40, "{large:?} is more than 40 times {small:?}");
}

#[test]
fn sixteen_times_the_host_is_about_sixteen_times_the_work() {
    assert_in_proportion(|n| {
        work(n, Tables::new, |tables| {
            let next_hops = n * (EACH + 3);
            assert_eq!(tables.ipv4.next_hops.len(), next_hops as usize, "the host is what it is meant to be");
            assert_eq!(tables.ipv4.owners.len(), (n * (EACH + 2 * WIDE)) as usize);
        })
    });
}

#[test]
fn and_for_steering_too() {
    assert_in_proportion(|n| {
        work(n, Steering::new, |steering| {
            assert_eq!(steering.tables.len(), n as usize);
            // The subnet that all share, their own, the default route, and a way to each far destination.
            assert_eq!(steering.routes(), (n * (EACH + 3)) as usize);
            assert_eq!(
                steering.rules.len(),
                n as usize,
                "the addresses of an interface are next to each other"
            );
        })
    });
}
