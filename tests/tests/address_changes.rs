//! Addresses that come, go and move while mhebpf runs, and addresses that more than one interface has.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddrV4},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
};

use anyhow::{Context as _, Result};
use mhebpf_tests::{
    GRACE, Lab, Mac, PEER,
    frame::ARP_REPLY,
    lab::PROBE_PORT,
    traffic::{ARTICLE_PORT, tcp, udp},
};

const EXTRA: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 150);

#[test]
fn an_added_address_belongs_to_its_interface() -> Result<()> {
    let lab = Lab::article()?;
    let daemon = lab.mhebpf(&[])?;
    lab.add_address(2, EXTRA)?;
    lab.wait_until_it_leaves_by(0, EXTRA, &[2])?;
    // And the other interfaces no longer answer for it.
    let recording = lab.record();
    lab.ask_all(EXTRA)?;
    assert_eq!(recording.arp_replies_for(EXTRA)?, [(2, lab.mac(2))]);
    let socket = udp::bind(&lab.host, EXTRA, PROBE_PORT)?;
    lab.deliver(0, SocketAddrV4::new(EXTRA, PROBE_PORT), b"stray")?;
    lab.deliver(2, SocketAddrV4::new(EXTRA, PROBE_PORT), b"right")?;
    lab.fence()?;
    assert_eq!(udp::take_delivered(&socket)?.map(|(payload, _)| payload), Some(b"right".to_vec()));
    daemon.stop()?;
    lab.finish()
}

#[test]
fn an_added_address_is_announced() -> Result<()> {
    let lab = Lab::article()?;
    let daemon = lab.mhebpf(&[])?;
    let recording = lab.record();
    lab.add_address(2, EXTRA)?;
    let announcement = recording.wait_from_host("an announcement", |frame| {
        frame.arp().is_some_and(|arp| arp.sender == EXTRA && arp.target == EXTRA)
    })?;
    assert_eq!((announcement.port, announcement.frame.source), (2, lab.mac(2)));
    daemon.stop()?;
    lab.finish()
}

#[test]
fn a_removed_address_is_foreign() -> Result<()> {
    let lab = Lab::article()?;
    lab.add_address(2, EXTRA)?;
    let daemon = lab.mhebpf(&[])?;
    lab.wait_until_it_leaves_by(0, EXTRA, &[2])?;
    lab.remove_address(2, EXTRA)?;
    lab.wait_until_it_leaves_by(0, EXTRA, &[0])?;
    daemon.stop()?;
    lab.finish()
}

/// How many datagrams are to be sent while an address moves, and how often it goes round at most.
const ENOUGH: u32 = 100;
const MOST_ROUNDS: u32 = 50;

#[test]
fn a_moving_address_keeps_to_its_owner_while_traffic_flows() -> Result<()> {
    let lab = Lab::article()?;
    let server = tcp::EchoServer::start(&lab.switch, PEER, ARTICLE_PORT)?;
    lab.add_address(1, EXTRA)?;
    let daemon = lab.mhebpf(&[])?;
    let mut stream = tcp::connect(&lab.host, EXTRA, server.address())?;
    let socket = udp::bind(&lab.host, EXTRA, 0)?;
    let (over, sent) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                // It may find no route for a moment.
                if socket.send_to(b"flow", (PEER, PROBE_PORT)).is_ok() {
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                thread::yield_now();
            }
        });
        // Round and round until enough was sent: the daemon may be quicker than the sender.
        let rounds =
            (0..MOST_ROUNDS).take_while(|round| *round == 0 || sent.load(Ordering::Relaxed) <= ENOUGH);
        let moves = rounds.flat_map(|_| [(1, 2), (2, 3), (3, 0), (0, 1)]).try_for_each(|(from, to)| {
            lab.move_address(from, to, EXTRA)?;
            lab.wait_until_it_leaves_by((to + 1) % 4, EXTRA, &[to])?;
            // The peer has been told, so the session goes on.
            tcp::echo(&mut stream, b"still here").with_context(|| format!("after the move to port {to}"))
        });
        over.store(true, Ordering::Release);
        moves
    })?;
    let sent = sent.into_inner();
    assert!(sent > ENOUGH, "traffic flowed: {sent} datagrams");
    daemon.stop()?;
    lab.finish()
}

#[test]
fn an_address_on_two_interfaces_has_two_owners() -> Result<()> {
    let lab = Lab::article()?;
    for port in [1, 2] {
        lab.add_address(port, EXTRA)?;
    }
    let daemon = lab.mhebpf(&[])?;
    for port in [1, 2] {
        let recording = lab.record();
        lab.emit(port, EXTRA)?;
        assert_eq!(recording.ports_of(EXTRA)?, BTreeSet::from([port]));
    }
    let recording = lab.record();
    lab.ask_all(EXTRA)?;
    let answered = BTreeSet::from_iter(recording.arp_replies_for(EXTRA)?);
    assert_eq!(answered, BTreeSet::from([(1, lab.mac(1)), (2, lab.mac(2))]));
    let socket = udp::bind(&lab.host, EXTRA, PROBE_PORT)?;
    for port in lab.ports() {
        lab.deliver(port, SocketAddrV4::new(EXTRA, PROBE_PORT), &[port as u8])?;
    }
    lab.fence()?;
    let mut delivered = Vec::new();
    while let Some((payload, _)) = udp::take_delivered(&socket)? {
        delivered.extend(payload);
    }
    assert_eq!(delivered, [1, 2]);

    // From elsewhere it leaves by one of them, and always by the same.
    let recording = lab.record();
    for _ in 0..8 {
        lab.emit(0, EXTRA)?;
        lab.emit(3, EXTRA)?;
    }
    let owners = recording.ports_of(EXTRA)?;
    assert!(owners == BTreeSet::from([1]) || owners == BTreeSet::from([2]), "{owners:?}");

    // Without the one the other is left.
    lab.remove_address(1, EXTRA)?;
    lab.wait_until_it_leaves_by(1, EXTRA, &[2])?;
    daemon.stop()?;
    lab.finish()
}

#[test]
fn of_two_owners_the_one_that_is_up_is_taken() -> Result<()> {
    let lab = Lab::article()?;
    for port in [1, 2] {
        lab.add_address(port, EXTRA)?;
    }
    let daemon = lab.mhebpf(&[])?;
    for (down, left) in [(1, 2), (2, 1)] {
        lab.down(down)?;
        lab.wait_until_it_leaves_by(0, EXTRA, &[left])?;
        lab.up(down)?;
        lab.wait_in_step(0, 3)?;
    }
    daemon.stop()?;
    lab.finish()
}

/// More than are kept beside the address.
#[test]
fn an_address_on_six_interfaces_has_six_owners() -> Result<()> {
    let lab = Lab::builder().links(7).build()?;
    for port in 1..7 {
        lab.add_address(port, EXTRA)?;
    }
    let daemon = lab.mhebpf(&[])?;
    for port in 1..7 {
        let recording = lab.record();
        lab.emit(port, EXTRA)?;
        assert_eq!(recording.ports_of(EXTRA)?, BTreeSet::from([port]));
    }
    let recording = lab.record();
    lab.ask_all(EXTRA)?;
    assert_eq!(recording.arp_replies_for(EXTRA)?.len(), 6);
    lab.emit(0, EXTRA)?;
    assert!(!recording.ports_of(EXTRA)?.contains(&0));
    daemon.stop()?;
    lab.finish()
}

#[test]
fn the_peers_end_of_a_point_to_point_address_is_not_local() -> Result<()> {
    let lab = Lab::article()?;
    let remote: Ipv4Addr = "192.168.0.9".parse()?;
    lab.switch.ip(&format!("address add {remote}/21 dev br0"))?;
    lab.host.ip(&format!("address add {EXTRA} peer {remote} dev eth1_int"))?;
    lab.claim(1, EXTRA, GRACE);
    let server = udp::EchoServer::start(&lab.switch, remote, ARTICLE_PORT)?;
    let daemon = lab.mhebpf_quietly(&["--unknown", "drop"])?;

    let recording = lab.record();
    udp::echo(&udp::bind(&lab.host, EXTRA, 0)?, server.address(), b"to the other end")?;
    udp::bind(&lab.host, EXTRA, 0)?.send_to(b"to the subnet", (PEER, PROBE_PORT))?;
    recording.wait_from_host("the second datagram", |f| f.ipv4().is_some_and(|ip| ip.destination == PEER))?;
    assert_eq!(recording.ways_of(EXTRA)?, BTreeSet::from([(1, lab.mac(1))]));
    let recording = lab.record();
    lab.ask_all(EXTRA)?;
    assert_eq!(recording.arp_replies_for(EXTRA)?, [(1, lab.mac(1))]);

    // The remote end's address is foreign, on the interface itself as well.
    lab.emit(1, remote)?;
    lab.fence()?;
    let summary = daemon.stop()?.summary;
    assert_eq!(summary.count("eth1_int", "unknown_source"), 1, "{summary:?}");
    lab.finish()
}

/// Virtual addresses for load balancing and anycast, router ids.
#[test]
fn an_address_on_loopback_is_owned_by_every_interface() -> Result<()> {
    let lab = Lab::article()?;
    let daemon = lab.mhebpf_quietly(&["--unknown", "drop"])?;
    lab.host.ip(&format!("address add {EXTRA}/32 dev lo"))?;
    for port in lab.ports() {
        lab.wait_until_it_leaves_by(port, EXTRA, &[port])?;
    }
    let recording = lab.record();
    lab.ask_all(EXTRA)?;
    let replies = recording.arp_from_host()?;
    let by: BTreeSet<_> =
        replies.iter().filter(|(_, arp)| arp.operation == ARP_REPLY).map(|(port, _)| *port).collect();
    assert_eq!(by, BTreeSet::from_iter(lab.ports()));
    let socket = udp::bind(&lab.host, EXTRA, PROBE_PORT)?;
    for port in lab.ports() {
        lab.deliver(port, SocketAddrV4::new(EXTRA, PROBE_PORT), &[port as u8])?;
    }
    lab.fence()?;
    for port in lab.ports() {
        assert_eq!(udp::take_delivered(&socket)?.map(|(payload, _)| payload), Some(vec![port as u8]));
    }
    daemon.stop()?;
    lab.finish()
}

/// More than an interface keeps inline: secondary addresses, single addresses and those of other subnets.
#[test]
fn thirty_addresses_on_one_interface_are_all_its_own() -> Result<()> {
    let lab = Lab::article()?;
    let extra: Vec<Ipv4Addr> = (0..30)
        .map(|i| match i % 3 {
            0 => Ipv4Addr::new(192, 168, 2, i),
            1 => Ipv4Addr::new(10, 20, i, 1),
            _ => Ipv4Addr::new(172, 16, 0, i),
        })
        .collect();
    let lines: String = extra
        .iter()
        .enumerate()
        .map(|(i, address)| format!("address add {address}/{} dev eth2_int\n", [21, 24, 32][i % 3]))
        .collect();
    lab.host.ip_batch(&lines)?;
    extra.iter().for_each(|address| lab.claim(2, *address, GRACE));
    let daemon = lab.mhebpf(&[])?;
    let recording = lab.record();
    for address in &extra {
        lab.emit(0, *address)?;
        lab.emit(2, *address)?;
        lab.ask(0, *address, Mac::BROADCAST)?;
    }
    let ports = recording.ports_by_source()?;
    for address in &extra {
        assert_eq!(ports.get(&(*address).into()), Some(&BTreeSet::from([2])), "{address}");
    }
    assert!(recording.arp_from_host()?.iter().all(|(_, arp)| arp.operation != ARP_REPLY));
    daemon.stop()?;
    lab.finish()
}
