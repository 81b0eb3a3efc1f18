use super::*;
use crate::{
    console::WIDTH,
    control::protocol::{Earlier, Former, InterfaceSteering, LeftOut, NoRoom, Policy, Resynchronisations},
    status::rates,
};

fn owned(address: &str, rule: Rule, through: &str) -> Owned {
    Owned { address: address.to_owned(), rule, through: through.to_owned() }
}

fn counter(reason: &str, packets: u64, observed: bool) -> Counter {
    let [direction, family] = ["egress", "ipv4"].map(str::to_owned);
    Counter { direction, family, reason: reason.to_owned(), observed, packets, rate: None }
}

fn status() -> Status {
    let [send, receive, announce, unknown, forwarded] =
        ["redirect", "drop", "enforce", "pass", "redirect"].map(str::to_owned);
    let eth0 = Interface {
        name: "eth0".to_owned(),
        ifindex: 2,
        up: true,
        mtu: 1500,
        vrf: None,
        hook: Some("tcx".to_owned()),
        ingress_chain: Some(Chain { place: 1, programs: 1 }),
        egress_chain: Some(Chain { place: 1, programs: 2 }),
        policy: Policy { send, receive, announce, unknown, forwarded },
        steering: Some(InterfaceSteering {
            table: 280_080_002,
            routes: 2,
            sources: vec!["192.168.0.100/32".to_owned()],
        }),
        owned: vec![
            owned("192.168.0.100", Rule::Configured, "eth0"),
            owned("10.5.0.0/16", Rule::LocalRoute, "eth0"),
            owned("2001:db8:1234:5678:9abc:def0:1234:5678", Rule::Below, "bond-of-15-char"),
            owned("10.7.0.0/16", Rule::Allowed, "eth0"),
        ],
        counters: vec![counter("redirected", 12, false), counter("wrong_destination", 3, true)],
    };
    let eth1 = Interface {
        name: "eth1".to_owned(),
        ifindex: 3,
        up: false,
        vrf: Some("blue".to_owned()),
        hook: None,
        steering: None,
        owned: Vec::new(),
        counters: Vec::new(),
        ..eth0.clone()
    };
    Status {
        schema: Status::SCHEMA,
        version: "0.1.0".to_owned(),
        pid: 4242,
        uptime: 7384.25,
        intent: "mode redirect, receive drop, unknown pass".to_owned(),
        selected_by: "--all".to_owned(),
        observing: false,
        hook: Some("tcx".to_owned()),
        pinned: None,
        in_step: Some(3.5),
        synchronisations: 17,
        resynchronisations: Resynchronisations { lost_events: 1, interrupted_dumps: 2, failures: 0 },
        addresses: 6,
        next_hops: 4,
        routes: None,
        no_room: vec![NoRoom {
            name: "eth3_int".to_owned(),
            ifindex: 5,
            addresses: 9000,
            unjudged: false,
            why: "the BPF maps have no room: 9000 addresses of eth3_int may be used on all interfaces; free memory for \
                  larger ones, or have fewer addresses and interfaces"
                .to_owned(),
        }],
        steering: Some(Steering {
            rules: 1,
            priority: 28_008,
            protocol: 208,
            tables: 1,
            routes: 2,
            redirected: 7,
            flows: vec![
                "eth0 egress ipv4 192.168.0.100 -> 192.168.7.255 udp 9 redirected to eth1".to_owned(),
            ],
            left_out: vec!["eth1: it is in the VRF blue, whose own rule comes first".to_owned()],
        }),
        interfaces: vec![eth0, eth1],
        host_wide: vec![owned("203.0.113.9", Rule::HostWide, "lo")],
        left_out: vec![LeftOut {
            name: "lo".to_owned(),
            ifindex: 1,
            why: "no packet leaves the host through it".to_owned(),
        }],
        former: vec![Former {
            name: "usb0".to_owned(),
            ifindex: 9,
            counters: vec![counter("no_route", 1, false)],
        }],
        earlier: Earlier { interfaces: 1936, counters: vec![counter("no_route", 5808, false)] },
        counts_lost: 3,
    }
}

#[test]
fn text_looks_like_this_and_fits() {
    let text = text(&status(), Colours::Off);
    assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
    insta::assert_snapshot!("text", text);
}

#[test]
fn rates_are_shown_where_they_are_known() {
    let mut later = status();
    later.interfaces[0].counters[0].packets += 5;
    rates::add(&mut later, &status(), Duration::from_secs(2));
    let text = text(&later, Colours::Off);
    assert!(text.contains("redirected                   17        2.5/s\n"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
}

#[test]
fn observing_is_said() {
    let text = text(&Status { observing: true, ..status() }, Colours::Off);
    assert!(text.contains("nothing is changed: what is counted would be done"), "{text}");
}

#[test]
fn it_is_said_what_outlives_the_daemon() {
    let text =
        text(&Status { pinned: Some("/sys/fs/bpf/mhebpf/netns-1".to_owned()), ..status() }, Colours::Off);
    assert!(text.contains("outlives this process: pinned in /sys/fs/bpf/mhebpf/netns-1"), "{text}");
}

#[test]
fn colours_are_for_terminals() {
    let escapes = |colours| text(&status(), colours).matches('\u{1b}').count();
    assert_eq!(escapes(Colours::Off), 0);
    assert!(escapes(Colours::On) > 0);
}

#[test]
fn json_looks_like_this() {
    let json = serde_json::to_string_pretty(&status()).unwrap_or_default();
    insta::assert_snapshot!("json", json);
    assert_eq!(serde_json::from_str::<Status>(&json).ok(), Some(status()));
}

/// Ten thousand are a few hundred lines, and what is wrong is among them.
#[test]
fn of_many_interfaces_the_most_telling_are_shown() {
    let mut status = status();
    let plain = Interface { counters: Vec::new(), ..status.interfaces[0].clone() };
    status.interfaces =
        (1..=10_000).map(|n| Interface { ifindex: n, name: format!("veth{n}"), ..plain.clone() }).collect();
    status.interfaces[5000].hook = None;
    status.interfaces[7000].counters = vec![counter("redirected", 1, false)];
    status.interfaces[9000].egress_chain = Some(Chain { place: 2, programs: 2 });
    let why = |n: u32| format!("why; --interface tap{n} takes it");
    status.left_out =
        (1..=10_000).map(|n| LeftOut { ifindex: 20_000 + n, name: format!("tap{n}"), why: why(n) }).collect();
    let gone = |n: u32| Former {
        ifindex: 40_000 + n,
        name: format!("gone{n}"),
        counters: vec![counter("loop", 1, false)],
    };
    status.former = (1..=10_000).map(gone).collect();
    let text = text(&status, Colours::Off);
    assert!(text.lines().count() < 1000, "{}", text.lines().count());
    for part in [
        "veth5001 (5001)",
        "veth7001 (7001)",
        "veth9001 (9001)",
        "others come first on egress",
        "and 9936 more interfaces, 9936 of them up",
        "tap1, tap2, tap3, tap4, tap5, tap6 and 9994 more: why; --interface NAME takes",
        "and 9936 more that are not enforced any more",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
}
