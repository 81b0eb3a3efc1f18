//! Routes that are followed by their events are those of the kernel, whatever happens to them.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use mhebpf::{
    model::{Hop, Route},
    netlink::{Dumper, Events},
};
use mhebpf_tests::{NetNs, PATIENCE, wait_until};
use tokio::{runtime::Builder, time::timeout};

/// How many times something is done and looked at.
const STEPS: usize = 120;

/// Interfaces.
const LINKS: u64 = 3;

/// A linear congruential generator (Knuth, MMIX): the same changes at each run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len() as u64) as usize]
    }
}

/// A change, as `ip` takes it; whether routes may go with it that the kernel does not tell of.
fn change(random: &mut Random) -> (String, bool) {
    let link = random.below(LINKS);
    match random.below(24) {
        0 => return (format!("link set e{link} {}", random.one(&["down", "up"])), true),
        1 => {
            let verb = random.one(&["add", "delete"]);
            return (format!("address {verb} 10.{link}.0.{}/24 dev e{link}", 2 + random.below(2)), true);
        }
        2 => {
            let id = 1 + random.below(3);
            return (
                format!("nexthop replace id {id} via 10.{link}.0.{} dev e{link}", 9 + random.below(3)),
                true,
            );
        }
        3 => return ("nexthop replace id 9 group 1,3/2".to_owned(), true),
        4 => return (format!("nexthop delete id {}", random.one(&["1", "9"])), true),
        _ => {}
    }
    let is_ipv4 = random.below(2) == 0;
    let verb = random.one(&["add", "add", "append", "prepend", "replace", "change", "delete", "delete"]);
    let n = random.below(6);
    let prefix = if is_ipv4 {
        random.one(&["default", "198.51.100.0/24", "198.51.0.0/16", "203.0.113.0/24", "203.0.113.128/25"])
    } else {
        random.one(&["default", "2001:db8:9::/48", "2001:db8:9:9::/64", "2001:db8:a::/48", "2001:db8:b::/48"])
    };
    let gateway = |random: &mut Random, link: u64| {
        let last = 9 + random.below(3);
        if is_ipv4 {
            format!("via 10.{link}.0.{last} dev e{link}")
        } else {
            format!("via fd00:{link}::{last} dev e{link}")
        }
    };
    let mut text = format!("{} route {verb} ", if is_ipv4 { "-4" } else { "-6" });
    if n == 0 && verb != "delete" {
        text += random.one(&["blackhole ", "unreachable ", ""]);
    }
    text += prefix;
    match random.below(5) {
        0 => _ = write!(text, " metric {}", 1 + random.below(2)),
        1 => text += " metric 7",
        2 => text += " metric 7 table 100",
        _ => {}
    }
    match n {
        0 => {}
        1 => _ = write!(text, " dev e{link}"),
        2 => {
            for _ in 0..=1 + random.below(2) {
                let link = random.below(LINKS);
                let gateway = gateway(random, link);
                _ = write!(text, " nexthop {gateway} weight {}", 1 + random.below(2));
            }
        }
        3 if is_ipv4 => _ = write!(text, " nhid {}", random.one(&["1", "3", "9"])),
        4 if is_ipv4 => {
            let gateway = gateway(random, link);
            _ = write!(text, " {gateway} src 10.{link}.0.2");
        }
        _ => _ = write!(text, " {}", gateway(random, link)),
    }
    (text, false)
}

/// All routes of a host, in some order.
fn sorted<T: std::fmt::Debug>(routes: impl IntoIterator<Item = T>) -> Vec<String> {
    let mut routes: Vec<String> = routes.into_iter().map(|route| format!("{route:?}")).collect();
    routes.sort();
    routes
}

/// Whether what is followed is what there is; else what differs.
fn difference(dumper: &mut Dumper) -> Result<Option<String>> {
    let followed = dumper.snapshot()?.host;
    let fresh = Dumper::connect()?.snapshot()?.host;
    let leaves: Vec<_> = dumper.leaves().context("it follows")?.iter().collect();
    // Of those of an interface that is down, which nothing leaves by, the kernel says now and then that they are not dead after all.
    let usable = |route: &Route| {
        let is_up = |hop: &&Hop| fresh.links.get(&hop.ifindex).is_some_and(|link| link.up);
        let hops: Vec<Hop> = route.hops.iter().filter(is_up).copied().collect();
        (!hops.is_empty()).then(|| Route { hops, ..route.clone() })
    };
    let pairs = [
        (
            "routes",
            sorted(followed.routes.iter().chain(&leaves).filter_map(usable)),
            sorted(fresh.routes.iter().filter_map(usable)),
        ),
        ("other routes", sorted(&followed.other_routes), sorted(&fresh.other_routes)),
        ("local routes", sorted(&followed.local_routes), sorted(&fresh.local_routes)),
    ];
    Ok(pairs.into_iter().find(|(_, followed, fresh)| followed != fresh).map(|(what, followed, fresh)| {
        let only = |these: &[String], those: &[String]| {
            let count = |of: &[String], each: &String| of.iter().filter(|other| *other == each).count();
            let more = these.iter().filter(|each| count(these, each) > count(those, each));
            more.cloned().collect::<Vec<_>>().join("\n  ")
        };
        format!(
            "{what}: followed only\n  {}\nthere only\n  {}",
            only(&followed, &fresh),
            only(&fresh, &followed)
        )
    }))
}

/// Lets the dump that compares all go on to its end, until nothing is in doubt.
async fn compare(dumper: &mut Dumper, events: &mut Events) -> Result<()> {
    while dumper.followed().is_some_and(|(_, _, in_doubt)| in_doubt) || dumper.is_comparing() {
        let part = timeout(PATIENCE, dumper.part()).await.context("a part of the dump")?;
        dumper.follow(events)?;
        dumper.compare(part);
    }
    Ok(())
}

/// Whether an event is coming: the kernel changes routes first.
fn tells(events: &Events) -> bool {
    wait_until("an event", PATIENCE, || Ok(events.is_pending().then_some(()))).is_ok()
}

async fn follow(ns: &NetNs, random: &mut Random) -> Result<()> {
    let mut events = Events::subscribe()?;
    let mut dumper = Dumper::following_from(0)?;
    dumper.snapshot()?;
    let (mut compared, mut lost) = (0, 0);
    let mut script = String::new();
    for step in 0..STEPS {
        _ = writeln!(script, "# {step}");
        let mut in_doubt = false;
        for _ in 0..=random.below(5) {
            let (line, is_silent) = change(random);
            // What the kernel does not take changes nothing.
            if ns.ip(&line).is_ok() {
                _ = writeln!(script, "{line}");
                in_doubt |= is_silent;
            }
        }
        if random.below(10) == 0 {
            // What would have been told is not.
            events = Events::subscribe()?;
            in_doubt = true;
            lost += 1;
        }
        dumper.follow(&mut events)?;
        if in_doubt {
            dumper.doubt_routes();
            compare(&mut dumper, &mut events).await?;
            compared += 1;
        }
        let in_doubt = dumper.followed().is_some_and(|(_, _, in_doubt)| in_doubt);
        if let Some(difference) = difference(&mut dumper)? {
            ensure!(in_doubt || tells(&events), "step {step}: {difference}\nafter\n{script}");
        }
        // What a link that comes up brings comes when it likes, but an event comes with it.
        while events.is_pending() || dumper.followed().is_some_and(|(_, _, in_doubt)| in_doubt) {
            events.forget_pending();
            dumper.doubt_routes();
            compare(&mut dumper, &mut events).await?;
            let difference = difference(&mut dumper)?;
            ensure!(
                difference.is_none() || tells(&events),
                "step {step}, compared: {difference:?}\nafter\n{script}"
            );
        }
    }
    println!("{STEPS} steps, {compared} of them compared with a dump, {lost} with lost events");
    ensure!(compared < STEPS * 3 / 4, "hardly anything was followed by events alone");
    Ok(())
}

#[test]
fn what_is_followed_is_what_there_is() -> Result<()> {
    let (ns, peers) = (NetNs::new("routes")?, NetNs::new("its peers")?);
    for interfaces in ["all", "default"] {
        ns.sysctl(&format!("net.ipv6.conf.{interfaces}.disable_ipv6"), "0")?;
    }
    let mut script = String::new();
    for n in 0..LINKS {
        for line in [
            format!("link add e{n} type veth peer name p{n} netns {}", peers.path()),
            format!("link set e{n} up"),
            format!("address add 10.{n}.0.2/24 dev e{n}"),
            format!("address add fd00:{n}::2/64 dev e{n} nodad"),
        ] {
            script += &line;
            script += "\n";
        }
    }
    ns.ip_batch(&script)?;
    peers.ip_batch(&(0..LINKS).map(|n| format!("link set p{n} up\n")).collect::<String>())?;
    wait_until("the links to carry frames", PATIENCE, || {
        let shown = ns.ip("-oneline link show type veth")?;
        Ok((shown.matches(" state UP ").count() as u64 == LINKS).then_some(()))
    })?;
    // So that the table matters.
    ns.ip("rule add from 10.0.0.2 table 100")?;
    for seed in 1..3 {
        // Then events say of nexthop objects no more than their numbers.
        ns.sysctl("net.ipv4.nexthop_compat_mode", if seed == 1 { "1" } else { "0" })?;
        let run =
            || Builder::new_current_thread().enable_all().build()?.block_on(follow(&ns, &mut Random(seed)));
        ns.run(run).with_context(|| format!("seed {seed}"))?;
    }
    Ok(())
}
