//! The kernel's own lookups with steering, on random hosts: packets of a source go where the model says, and all others
//! where they went before.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::{Context as _, Result, ensure};
use mhebpf::{
    model::{
        Host, Policy, Steering,
        steering::{SteeringRoute, Way},
    },
    netlink::{Dumper, KernelRoute, RouteLookup, Snapshot},
    steering::{Steerer, Wanted},
};
use mhebpf_ebpf::{Announce, Receive, Send, Unknown};
use mhebpf_tests::{Family, NetNs, PATIENCE, wait_until};

/// How many hosts are tried out.
const HOSTS: u64 = 40;

/// Interfaces of each.
const LINKS: u64 = 5;

/// Those that are enforced: e0 to e2.
const ENFORCED: u64 = 3;

/// Addresses and prefixes come from the first so many of a subnet, so that they meet often.
const ADDRESSES: u64 = 64;

/// A linear congruential generator (Knuth, MMIX): the same hosts at each run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

fn address(family: Family, n: u64) -> IpAddr {
    let n = n as u8;
    family.choose(
        Ipv4Addr::new(10, 0, 0, n).into(),
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n.into()).into(),
    )
}

/// A prefix around a random address, as `ip` takes it.
fn prefix(family: Family, random: &mut Random) -> String {
    let shorter = [8, 6, 5, 4, 3, 2, 0][random.below(7) as usize];
    let n = random.below(ADDRESSES) >> shorter << shorter;
    let address = address(family, n);
    if random.below(4) == 0 {
        return "default".to_owned();
    }
    format!("{address}/{}", family.choose(32, 128) - shorter)
}

/// Commands for `ip -batch -force` that make a host. Some fail: a gateway that can't be reached, an address twice.
fn host(family: Family, random: &mut Random) -> String {
    let mut script = String::new();
    for _ in 0..10 {
        let (n, link) = (random.below(ADDRESSES), random.below(LINKS));
        let length = family.choose(32, 128) - random.below(6);
        let nodad = family.choose("", "nodad");
        let _ = writeln!(script, "address add {}/{length} dev e{link} {nodad}", address(family, n));
    }
    for n in 0..14 {
        let prefix = prefix(family, random);
        // Among IPv6 routes of equal metric the kernel chooses by what it knows of the neighbours, and that changes.
        let metric = 10 + family.choose(random.below(3), random.below(3) * 100 + n);
        let mut hop = || {
            let gateway = address(family, random.below(ADDRESSES));
            let onlink = if random.below(3) == 0 { "onlink" } else { "" };
            format!("via {gateway} dev e{} {onlink}", random.below(LINKS))
        };
        let (one, other) = (hop(), hop());
        let way = match random.below(8) {
            0 => format!("{prefix} metric {metric} nexthop {one} nexthop {other}"),
            1 => format!("blackhole {prefix} metric {metric}"),
            2 => format!("throw {prefix} metric {metric}"),
            3 => format!("{prefix} dev e{} metric {metric}", random.below(LINKS)),
            4 => format!("{prefix} {one} metric {metric} mtu lock 1300 initcwnd 20"),
            _ => format!("{prefix} {one} metric {metric}"),
        };
        let _ = writeln!(script, "route append {way}");
    }
    script
}

fn make(ns: &NetNs, peers: &NetNs, script: &str, family: Family) -> Result<()> {
    let mut links = String::new();
    for n in 0..LINKS {
        let _ = writeln!(
            links,
            "link add e{n} type veth peer name p{n} netns {}\nlink set e{n} up",
            peers.path()
        );
    }
    ns.ip_batch(&links)?;
    peers.ip_batch(&(0..LINKS).map(|n| format!("link set p{n} up\n")).collect::<String>())?;
    wait_until("the links to carry frames", PATIENCE, || {
        let shown = ns.ip("-oneline link show type veth")?;
        Ok((shown.matches(" state UP ").count() as u64 == LINKS).then_some(()))
    })?;
    for line in script.lines() {
        // What the kernel does not take is not part of the host.
        let _ = ns.ip(&format!("{} {line}", family.choose("-4", "-6")));
    }
    Ok(())
}

fn policies(host: &Host) -> BTreeMap<u32, Policy> {
    let policy = Policy {
        send: Send::Redirect,
        receive: Receive::Drop,
        announce: Announce::Enforce,
        unknown: Unknown::Pass,
        forwarded: Send::Redirect,
        allow: Vec::new(),
        owns: Vec::new(),
        binds: true,
    };
    let enforced = host.links.values().filter(|link| (0..ENFORCED).any(|n| link.name == format!("e{n}")));
    enforced.map(|link| (link.index, policy.clone())).collect()
}

/// The way that the model wants for a packet; `None` where main is to have the word.
fn wanted(steering: &Steering, source: IpAddr, destination: IpAddr) -> Option<&Way> {
    let rule = steering.rules.iter().find(|rule| rule.source.contains(&source))?;
    let routes = steering.tables[&rule.table].iter().filter(|(to, _)| to.contains(&destination));
    match routes.max_by_key(|(to, _)| to.prefix_len())? {
        (_, SteeringRoute::Through(way)) => Some(way),
        (_, SteeringRoute::Throw) => None,
    }
}

type Answers = BTreeMap<(IpAddr, IpAddr), Result<KernelRoute, Option<i32>>>;

/// What the kernel says of each source and destination.
fn ask(host: &Host, family: Family) -> Result<Answers> {
    let mut lookup = RouteLookup::connect()?;
    let mut answers = Answers::new();
    let sources = host.addresses.iter().map(|address| address.local);
    for source in sources.filter(|source| Family::of(*source) == family && !source.is_loopback()) {
        if matches!(source, IpAddr::V6(source) if source.is_unicast_link_local()) {
            continue;
        }
        let far = family
            .choose(IpAddr::from([192, 0, 2, 1]), Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 1).into());
        // The table local comes before all rules.
        let is_broadcast = |destination: &IpAddr| {
            host.addresses.iter().any(|a| [a.subnet.network(), a.subnet.broadcast()].contains(destination))
        };
        let near = (0..ADDRESSES).map(|n| address(family, n));
        for destination in near.chain([far]).filter(|to| to.is_ipv6() || !is_broadcast(to)) {
            let route = lookup.route(Some(source), destination, None);
            // With the first rule, the kernel takes the tables local and main apart, and says so.
            let route = route.map(|route| KernelRoute { table: 0, ..route });
            answers.insert((source, destination), route.map_err(|error: io::Error| error.raw_os_error()));
        }
    }
    Ok(answers)
}

fn steer(steerer: &mut Steerer, wanted: Wanted, dumper: &mut Dumper) -> Result<Steering> {
    let Snapshot { host, placed, exact, .. } = dumper.snapshot()?;
    let steering = Steering::new(&host, &policies(&host));
    steerer.keep(wanted, &host, || steering.clone(), &placed, exact)?;
    Ok(steering)
}

/// Tries one host, and says how many lookups were steered; `None` where the kernel does not take a gateway.
fn try_out(family: Family) -> Result<Option<usize>> {
    let mut dumper = Dumper::connect()?;
    let host = dumper.snapshot()?.host;
    let before = ask(&host, family)?;
    let mut steerer = Steerer::connect()?;
    let steering = match steer(&mut steerer, Wanted::Rules, &mut dumper) {
        // The operator says that a broadcast address is a gateway, or said so before there was a better route to it, which
        // IPv6 looks for in main whatever the table is (`ip6_route_check_nh_onlink`, net/ipv6/route.c).
        Err(error) if format!("{error:#}").contains(" onlink ") => return Ok(None),
        steering => steering?,
    };

    // What is there is what was wanted: a second look finds nothing to do.
    let placed = dumper.snapshot()?.placed;
    ensure!(placed.len() == steering.routes(), "{placed:#?} is not {steering:#?}");
    for route in &placed {
        let wanted = &steering.tables[&route.table][&route.destination];
        ensure!(route.says(wanted), "{route:?} is there for {wanted:?}");
    }

    let mut steered = 0;
    for ((source, destination), after) in ask(&host, family)? {
        let before = &before[&(source, destination)];
        let is_local = before.is_ok_and(|route| route.local);
        match wanted(&steering, source, destination).filter(|_| !is_local) {
            None => {
                let told = format!("{source} to {destination} went by {before:?} and goes by {after:?}");
                ensure!(*before == after, "{told}: {steering:#?}");
            }
            Some(way) => {
                steered += 1;
                let is_right = after.is_ok_and(|route| {
                    route.ifindex == way.ifindex
                        && way.gateways.iter().any(|gateway| gateway.address == route.gateway)
                });
                ensure!(is_right, "{source} to {destination} goes by {after:?} instead of {way:?}");
            }
        }
    }
    steer(&mut steerer, Wanted::Nothing, &mut dumper)?;
    ensure!(ask(&host, family)? == before, "something is left");
    Ok(Some(steered))
}

#[test]
fn the_kernel_goes_where_the_model_says_and_elsewhere_as_before() -> Result<()> {
    for family in Family::BOTH {
        let mut random = Random(7);
        let (mut steered, mut refused) = (0, 0);
        for round in 0..HOSTS {
            let (ns, peers) = (NetNs::new("random host")?, NetNs::new("its peers")?);
            // The new links inherit it.
            for key in ["disable_ipv6", "accept_dad", "router_solicitations"] {
                ns.sysctl(&format!("net.ipv6.conf.default.{key}"), "0")?;
            }
            ns.sysctl("net.ipv6.conf.all.disable_ipv6", "0")?;
            let script = host(family, &mut random);
            make(&ns, &peers, &script, family)?;
            let tried = ns.run(|| try_out(family));
            match tried.with_context(|| format!("{family}, host {round}:\n{script}"))? {
                Some(lookups) => steered += lookups,
                None => refused += 1,
            }
        }
        println!("{family}: {steered} lookups were steered, and {refused} hosts were not accepted");
        assert!(steered > 1000 && refused < HOSTS / 3, "{family}: {steered}, {refused}");
    }
    Ok(())
}
