//! Interfaces that go down, lose their carrier, vanish, come back, and change their name or hardware address.

use std::{collections::BTreeSet, net::SocketAddrV4, time::Duration};

use anyhow::Result;
use mhebpf_tests::{
    Lab, Mac, PATIENCE, PEER,
    craft::{self, Stations},
    features::{self, Feature},
    lab::PROBE_PORT,
    tcx,
    traffic::{ARTICLE_PORT, tcp, udp},
    wait_until,
};

/// Waits until datagrams of a port's address, sent through port 0 by an AF_PACKET socket, leave through the port.
fn wait_until_it_owns(lab: &Lab, port: usize) -> Result<()> {
    wait_until(&format!("port {port} to own its address"), PATIENCE, || {
        let recording = lab.record();
        lab.emit(0, lab.address(port))?;
        Ok((recording.ways_of(lab.address(port))? == BTreeSet::from([(port, lab.mac(port))])).then_some(()))
    })
}

/// Sends datagrams of port 3's address from a socket and through port 0, and asserts that none leaves; returns how many.
fn assert_owner_down(lab: &Lab) -> Result<u64> {
    let recording = lab.record();
    let socket = udp::bind(&lab.host, lab.address(3), 0)?;
    for _ in 0..3 {
        socket.send_to(b"nobody sends this", (PEER, PROBE_PORT))?;
        lab.emit(0, lab.address(3))?;
    }
    assert_eq!(recording.ports_of(lab.address(3))?, BTreeSet::new());
    Ok(6)
}

#[test]
fn nothing_is_sent_for_an_interface_that_is_down() -> Result<()> {
    let lab = Lab::article()?;
    let daemon = lab.mhebpf(&[])?;
    udp::bind(&lab.host, lab.address(0), 0)?.send_to(b"the next hop is known", (PEER, PROBE_PORT))?;
    lab.down(3)?;
    lab.wait_in_step(1, 0)?;
    let sent = assert_owner_down(&lab)?;
    lab.up(3)?;
    wait_until_it_owns(&lab, 3)?;
    let summary = daemon.stop()?.summary;
    assert!(summary.count("eth0_int", "owner_down") >= sent, "{summary:?}");
    lab.finish()
}

#[test]
fn nothing_is_sent_for_an_interface_without_carrier() -> Result<()> {
    let lab = Lab::article()?;
    let daemon = lab.mhebpf(&[])?;
    udp::bind(&lab.host, lab.address(0), 0)?.send_to(b"the next hop is known", (PEER, PROBE_PORT))?;
    lab.switch.ip("link set eth3_ext down")?;
    wait_until("the loss of carrier", PATIENCE, || {
        Ok((!lab.host.run(|| mhebpf_tests::interface::is_running("eth3_int"))?).then_some(()))
    })?;
    lab.wait_in_step(1, 0)?;
    let sent = assert_owner_down(&lab)?;
    lab.switch.ip("link set eth3_ext up")?;
    lab.wait_running(3)?;
    wait_until_it_owns(&lab, 3)?;
    let summary = daemon.stop()?.summary;
    assert!(summary.count("eth0_int", "owner_down") >= sent, "{summary:?}");
    lab.finish()
}

/// The kernel's route goes through the interface that is down no more, so the others are not affected.
#[test]
fn the_others_go_on_when_the_first_routes_interface_goes_down() -> Result<()> {
    let lab = Lab::article()?;
    let server = tcp::EchoServer::start(&lab.switch, PEER, ARTICLE_PORT)?;
    let daemon = lab.mhebpf(&[])?;
    let connect = |port| tcp::connect(&lab.host, lab.address(port), server.address());
    let mut streams = [connect(1)?, connect(2)?, connect(3)?];
    lab.down(0)?;
    for stream in &mut streams {
        tcp::echo(stream, b"still here")?;
    }
    let recording = lab.record();
    for port in 1..4 {
        tcp::echo(&mut connect(port)?, b"and new")?;
        assert_eq!(recording.ports_of(lab.address(port))?, BTreeSet::from([port]));
    }
    daemon.stop()?;
    lab.finish()
}

#[test]
fn an_interface_that_is_deleted_and_made_anew_is_enforced_again() -> Result<()> {
    let mut lab = Lab::article()?;
    let server = tcp::EchoServer::start(&lab.switch, PEER, ARTICLE_PORT)?;
    let daemon = lab.mhebpf(&[])?;
    let old = lab.mac(3);
    lab.delete_link(3)?;
    lab.wait_in_step(1, 0)?;
    lab.recreate_link(3)?;
    assert_ne!(lab.mac(3), old);
    wait_until_it_owns(&lab, 3)?;
    wait_until_it_answers_for_others(&lab, 3, false)?;
    wait_until_it_takes_nothing_for_others(&lab, 3)?;
    let mut stream = tcp::connect(&lab.host, lab.address(3), server.address())?;
    tcp::echo(&mut stream, b"as before")?;
    // Its index is a high one now: what is to be redirected is judged and counted there, and from there as elsewhere.
    let source = lab.address(0);
    let recording = lab.record();
    lab.emit(3, source)?;
    assert_eq!(recording.wait_datagram_from(source)?.port, 0);
    assert_eq!(recording.ports_of(source)?, BTreeSet::from([0]));
    let summary = daemon.stop()?.summary;
    assert_eq!(summary.count("eth3_int", "redirected"), 1, "{summary:?}");
    lab.finish()
}

/// Between two of the daemon's dumps, an interface can go and another one come with its name and index.
#[test]
fn an_interface_in_the_place_of_another_one_with_the_same_index_is_enforced() -> Result<()> {
    if !features::require(Feature::Tcx)? {
        return Ok(());
    }
    let lab = Lab::builder().links(2).build()?;
    let make = "link add eth9_int index 900 type veth peer name eth9_far index 901\nlink set eth9_int up\n";
    lab.host.ip_batch(make)?;
    let daemon = lab.mhebpf(&[])?;
    let programs = |hook| tcx::programs(&lab.host, "eth9_int", hook);
    let before = programs(tcx::Hook::Egress)?;
    assert_eq!(before.len(), 1);
    daemon.pause()?;
    lab.host.ip_batch(&format!("link delete eth9_int\n{make}"))?;
    assert_eq!(programs(tcx::Hook::Egress)?, []);
    daemon.resume()?;
    for hook in [tcx::Hook::Egress, tcx::Hook::Ingress] {
        wait_until("the programs on the new interface", PATIENCE, || {
            Ok((programs(hook)?.len() == 1).then_some(()))
        })?;
    }
    assert_eq!(programs(tcx::Hook::Egress)?, before);
    daemon.stop()?;
    lab.finish()
}

/// Sends datagrams for another's address to a port again and again, until none is delivered.
fn wait_until_it_takes_nothing_for_others(lab: &Lab, port: usize) -> Result<()> {
    let socket = udp::bind(&lab.host, lab.address(0), PROBE_PORT)?;
    wait_until("the receive filter", PATIENCE, || {
        lab.deliver(port, SocketAddrV4::new(lab.address(0), PROBE_PORT), b"stray")?;
        lab.fence()?;
        Ok(udp::take_delivered(&socket)?.is_none().then_some(()))
    })
}

fn rename(lab: &Lab, from: &str, to: &str) -> Result<()> {
    lab.host.ip_batch(&format!("link set {from} down\nlink set {from} name {to}\nlink set {to} up"))?;
    wait_until(&format!("{to} to run"), PATIENCE, || {
        Ok(lab.host.run(|| mhebpf_tests::interface::is_running(to))?.then_some(()))
    })
}

/// Asks a port again and again, until the answer to a request for another's address is as expected.
fn wait_until_it_answers_for_others(lab: &Lab, port: usize, answers: bool) -> Result<()> {
    wait_until("the programs to come or go", PATIENCE, || {
        let recording = lab.record();
        lab.ask(port, lab.address(0), Mac::BROADCAST)?;
        // The fence does not know a renamed interface; a request for the own address makes a later answer in any case.
        lab.ask(port, lab.address(port), Mac::BROADCAST)?;
        let answer =
            recording.wait_from_host_within(PATIENCE / 4, "the answer for the own address", |frame| {
                frame.port == port && frame.arp().is_some_and(|arp| arp.sender == lab.address(port))
            });
        if answer.is_err() {
            return Ok(None);
        }
        Ok((recording.arp_replies_for(lab.address(0))?.is_empty() != answers).then_some(()))
    })
}

#[test]
fn a_renamed_interface_that_still_matches_stays_enforced() -> Result<()> {
    let lab = Lab::article()?;
    let daemon = lab.mhebpf(&[])?;
    rename(&lab, "eth3_int", "ethernet9_int")?;
    lab.wait_in_step(1, 0)?;
    wait_until_it_owns(&lab, 3)?;
    wait_until_it_answers_for_others(&lab, 3, false)?;
    let summary = daemon.stop()?.summary;
    assert!(summary.count("ethernet9_int", "arp_target") > 0, "it is known by its new name: {summary:?}");
    lab.finish()
}

#[test]
fn an_interface_that_is_renamed_out_of_the_pattern_is_let_go_and_one_renamed_into_it_is_taken() -> Result<()>
{
    let lab = Lab::article()?;
    let daemon = lab.mhebpf(&[])?;
    // What it says for others while it is let go is no leak.
    lab.ports().for_each(|port| lab.claim(3, lab.address(port), Duration::ZERO));
    rename(&lab, "eth3_int", "mgmt0")?;
    wait_until_it_answers_for_others(&lab, 3, true)?;
    for hook in [tcx::Hook::Ingress, tcx::Hook::Egress] {
        assert_eq!(tcx::programs(&lab.host, "mgmt0", hook)?, []);
    }
    rename(&lab, "mgmt0", "eth3_int")?;
    wait_until_it_answers_for_others(&lab, 3, false)?;
    daemon.stop()?;
    lab.finish()
}

/// Groups are reached from the owner's hardware address, which may change.
#[test]
fn a_changed_hardware_address_is_followed() -> Result<()> {
    let lab = Lab::article()?;
    let daemon = lab.mhebpf(&[])?;
    let new = Mac::lab(0x77);
    lab.host.ip(&format!("link set eth2_int address {new}"))?;
    let from = SocketAddrV4::new(lab.address(2), PROBE_PORT);
    let to = SocketAddrV4::new([255, 255, 255, 255].into(), PROBE_PORT);
    let stations = Stations { source: lab.mac(0), destination: Mac::BROADCAST };
    let broadcast = craft::udp(stations, from, to, b"all")?;
    wait_until("the new hardware address", PATIENCE, || {
        let recording = lab.record();
        lab.send_from_host(0, &broadcast)?;
        Ok((recording.ways_of(lab.address(2))? == BTreeSet::from([(2, new)])).then_some(()))
    })?;
    // A datagram for a station takes the new address from the neighbour code.
    let recording = lab.record();
    lab.emit(0, lab.address(2))?;
    recording.wait_datagram_from(lab.address(2))?;
    assert_eq!(recording.ways_of(lab.address(2))?, BTreeSet::from([(2, new)]));
    // And peers hear of it.
    let server = udp::EchoServer::start(&lab.host, lab.address(2), ARTICLE_PORT)?;
    udp::echo(&udp::bind(&lab.switch, PEER, 0)?, server.address(), b"to the new address")?;
    daemon.stop()?;
    lab.finish()
}

/// Whatever was seen in between, the end is right.
#[test]
fn an_interface_that_flaps_ends_up_right() -> Result<()> {
    let lab = Lab::article()?;
    let daemon = lab.mhebpf(&[])?;
    let flap = "link set eth3_int down\nlink set eth3_int up\nlink set eth2_int down\nlink set eth2_int up\n";
    lab.host.ip_batch(&flap.repeat(25))?;
    for port in [2, 3] {
        lab.wait_running(port)?;
        wait_until_it_owns(&lab, port)?;
        wait_until_it_answers_for_others(&lab, port, false)?;
    }
    daemon.stop()?;
    lab.finish()
}

/// An interface that is gone before it was enforced is no trouble, and is not told of as such.
#[test]
fn interfaces_that_come_and_go_are_no_trouble() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = lab.mhebpf(&[])?;
    for round in 0..10 {
        let pairs = |verb: &str, rest: &str| -> String {
            (0..30)
                .map(|n| format!("link {verb} eth{round}x{n}_int{}\n", rest.replace('#', &n.to_string())))
                .collect()
        };
        lab.host.ip_batch(&pairs("add", " type veth peer name far#"))?;
        lab.host.ip_batch(&pairs("set", " up"))?;
        lab.host.ip_batch(&pairs("del", ""))?;
    }
    lab.wait_in_step(1, 0)?;
    let said = daemon.stop()?.stderr;
    let told: Vec<&str> =
        said.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).collect();
    assert_eq!(told, [""; 0]);
    lab.finish()
}
