//! IPv6 that leaves: what it does not share with IPv4, for which see `datagrams_sent.rs`.

use std::{
    collections::BTreeSet,
    net::{Ipv6Addr, SocketAddrV6},
};

use anyhow::Result;
use mhebpf_tests::{
    FAR6, Lab, PATIENCE, PEER6,
    craft::{self, Stations},
    frame::{ETHERTYPE_QINQ, ETHERTYPE_VLAN, SOLICITATION},
    lab::PROBE_PORT,
    traffic::udp,
    wait_until,
};

const FOREIGN: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 7);

const fn at(address: Ipv6Addr) -> SocketAddrV6 {
    SocketAddrV6::new(address, PROBE_PORT, 0, 0)
}

/// The only default route is port 0's.
#[test]
fn a_datagram_to_a_far_address_leaves_through_the_owner_for_the_gateway() -> Result<()> {
    let lab = Lab::article6()?;
    let daemon = lab.mhebpf_quietly(&[])?;
    for owner in lab.ports() {
        let recording = lab.record();
        udp::bind(&lab.host, lab.address6(owner), 0)?.send_to(b"far", (FAR6, PROBE_PORT))?;
        let sent = recording.wait_datagram_from(lab.address6(owner))?;
        assert_eq!(
            (sent.port, sent.frame.source, sent.frame.destination),
            (owner, lab.mac(owner), lab.peer_mac(owner))
        );
        // Nobody asked on the wire for an address that is not on it.
        let all = recording.all_ipv6_from_host()?;
        assert!(all.iter().all(|(_, datagram)| datagram.target != Some(FAR6)), "{all:?}");
    }
    assert_eq!(daemon.stop()?.summary.count("eth0_int", "redirected"), 3);
    lab.finish()
}

#[test]
fn observing_only_counts() -> Result<()> {
    let lab = Lab::builder().links(2).ipv6().build()?;
    let daemon = lab.mhebpf_quietly(&["--mode", "observe"])?;
    let recording = lab.record();
    lab.emit(1, lab.address6(0))?;
    lab.emit(1, lab.link_local(0))?;
    let sent: Vec<_> =
        recording.ipv6_from_host()?.iter().map(|(port, datagram)| (*port, datagram.source)).collect();
    assert_eq!(sent, [(1, lab.address6(0)), (1, lab.link_local(0))]);
    let summary = daemon.stop()?.summary;
    assert_eq!(summary.observed("eth1_int", "redirected"), 2, "{summary:?}");
    lab.finish()
}

/// Who looks for duplicates of an address has none yet (RFC 4862 section 5.4.2).
#[test]
fn a_datagram_without_source_passes() -> Result<()> {
    for mode in ["redirect", "drop"] {
        let lab = Lab::builder().links(2).ipv6().build()?;
        let daemon = lab.mhebpf_quietly(&["--mode", mode, "--unknown", "drop"])?;
        // An address that the host is yet to have: the bridge carries the question to port 0.
        let group = craft::solicited_node(FOREIGN);
        let stations = Stations { source: lab.mac(1), destination: craft::group_mac(group) };
        let recording = lab.record();
        lab.send_from_host(1, &craft::solicitation(stations, (Ipv6Addr::UNSPECIFIED, group), FOREIGN))?;
        let sent = recording.all_ipv6_from_host()?;
        let solicitations: Vec<_> =
            sent.iter().filter(|(_, datagram)| datagram.icmp_type == SOLICITATION).collect();
        let [(1, solicitation)] = solicitations[..] else { panic!("mode {mode}: {solicitations:?}") };
        assert_eq!((solicitation.source, solicitation.target), (Ipv6Addr::UNSPECIFIED, Some(FOREIGN)));
        assert_eq!(daemon.stop()?.summary.counts(), [], "mode {mode}");
        lab.finish()?;
    }
    Ok(())
}

/// A link-local address has a meaning on its own link only (RFC 4007): here all are on one, and still each is one
/// interface's.
#[test]
fn a_link_local_source_of_another_interface_does_not_leave() -> Result<()> {
    for (mode, reason) in [("redirect", "redirected"), ("drop", "wrong_source")] {
        let lab = Lab::article6()?;
        let daemon = lab.mhebpf_quietly(&["--mode", mode])?;
        for owner in lab.ports().skip(1) {
            let recording = lab.record();
            lab.emit(0, lab.link_local(owner))?;
            let ways = recording.ways_of(lab.link_local(owner))?;
            let redirected = BTreeSet::from([(owner, lab.mac(owner))]);
            assert_eq!(ways, if mode == "drop" { BTreeSet::new() } else { redirected }, "mode {mode}");
        }
        let summary = daemon.stop()?.summary;
        assert_eq!(summary.count("eth0_int", reason), 3, "mode {mode}: {summary:?}");
        lab.finish()?;
    }
    Ok(())
}

/// To a link-local destination it can go through the owner as well: every interface has fe80::/64 on its link.
#[test]
fn a_link_local_source_reaches_a_link_local_peer_through_its_owner() -> Result<()> {
    let lab = Lab::builder().links(2).ipv6().build()?;
    let daemon = lab.mhebpf_quietly(&[])?;
    let peer = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    lab.switch.ip(&format!("address add {peer}/64 dev br0 nodad"))?;
    let recording = lab.record();
    let frame = craft::udp(lab.outward(0), at(lab.link_local(1)), at(peer), b"local")?;
    lab.send_from_host(0, &frame)?;
    let sent = recording.wait_datagram_from(lab.link_local(1))?;
    assert_eq!((sent.port, sent.frame.source, sent.frame.destination), (1, lab.mac(1), lab.peer_mac(1)));
    assert_eq!(recording.ports_of(lab.link_local(1))?, BTreeSet::from([1]));
    daemon.stop()?;
    lab.finish()
}

/// Each fragment is judged by the source in its own fixed header.
#[test]
fn every_fragment_leaves_through_the_owner() -> Result<()> {
    let lab = Lab::builder().links(2).ipv6().build()?;
    let server = udp::EchoServer::start(&lab.switch, PEER6, 0)?;
    let daemon = lab.mhebpf_quietly(&[])?;
    let addresses = (lab.address6(1), PEER6);
    let recording = lab.record();
    lab.send_from_host(0, &craft::fragment6(lab.outward(0), addresses, 0, true, &[0; 64]))?;
    lab.send_from_host(0, &craft::fragment6(lab.outward(0), addresses, 64, false, &[0; 16]))?;
    recording.wait_datagram_from(lab.address6(1))?;
    let sent = recording.ipv6_from_host()?;
    assert!(sent.iter().all(|(port, datagram)| *port == 1 && datagram.is_fragment), "{sent:?}");
    assert_eq!(sent.len(), 2);
    // The kernel's own fragments, there and back.
    udp::echo(&udp::bind(&lab.host, lab.address6(1), 0)?, server.address(), &[7; 4000])?;
    assert_eq!(recording.ports_of(lab.address6(1))?, BTreeSet::from([1]));
    daemon.stop()?;
    lab.finish()
}

/// Tags with VLAN identifier 0 carry a priority only: the frame belongs to the interface itself.
#[test]
fn a_priority_tag_hides_nothing() -> Result<()> {
    let lab = Lab::builder().links(2).ipv6().build()?;
    let daemon = lab.mhebpf_quietly(&["--mode", "drop"])?;
    let hidden = |tags: &[(u16, u16)], from| -> Result<_> {
        Ok(craft::tagged(&craft::udp(lab.outward(0), at(from), at(PEER6), b"tagged")?, tags))
    };
    let recording = lab.record();
    for tags in [&[(ETHERTYPE_VLAN, 0x6000)][..], &[(ETHERTYPE_QINQ, 0), (ETHERTYPE_VLAN, 0)]] {
        lab.send_from_host(0, &hidden(tags, lab.address6(1))?)?;
    }
    assert_eq!(recording.ipv6_from_host()?, []);
    lab.send_from_host(0, &hidden(&[(ETHERTYPE_VLAN, 0x6000)], lab.address6(0))?)?;
    lab.send_from_host(0, &hidden(&[(ETHERTYPE_VLAN, 7)], lab.address6(1))?)?;
    assert_eq!(recording.ipv6_from_host()?.len(), 2, "an own source, and another VLAN");
    let summary = daemon.stop()?.summary;
    assert_eq!(summary.count("eth0_int", "wrong_source"), 2, "{summary:?}");
    lab.finish()
}

#[test]
fn a_redirect_that_cannot_be_done_is_counted() -> Result<()> {
    let lab = Lab::builder().links(2).links_in_second_subnet(1).ipv6().build()?;
    // Otherwise the kernel takes an interface's addresses away with its state.
    lab.host.sysctl("net.ipv6.conf.eth1_int.keep_addr_on_down", "1")?;
    let daemon = lab.mhebpf_quietly(&[])?;
    let recording = lab.record();
    // Port 2 has no way to the first subnet.
    lab.emit(0, lab.address6(2))?;
    assert_eq!(recording.ports_of(lab.address6(2))?, BTreeSet::new());
    lab.down(1)?;
    // Port 1's datagrams are dropped in any case, and counted as one of both; that is settled within the time that the
    // daemon has.
    wait_until("the daemon to know that the owner is down", PATIENCE, || {
        lab.emit(0, lab.address6(1))?;
        let tables = lab.host.ip("-6 route show dev eth1_int")?;
        Ok(tables.trim().is_empty().then_some(()))
    })?;
    // What proves that it has seen the change: a newer one.
    lab.add_address(2, Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 9))?;
    let marker = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x900);
    lab.add_address(0, marker)?;
    wait_until("mhebpf to be in step", PATIENCE, || {
        let recording = lab.record();
        lab.emit(2, marker)?;
        Ok((recording.ports_of(marker)? == BTreeSet::from([0])).then_some(()))
    })?;
    lab.emit(0, lab.address6(1))?;
    assert_eq!(recording.ports_of(lab.address6(1))?, BTreeSet::new());
    let summary = daemon.stop()?.summary;
    assert_eq!(summary.count("eth0_int", "no_route"), 1, "{summary:?}");
    assert!(summary.count("eth0_int", "owner_down") > 0, "{summary:?}");
    lab.finish()
}
