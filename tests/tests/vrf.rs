//! Virtual routing domains: who owns an address is asked within one, and so is where the next hop is.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result};
use mhebpf_tests::{
    Daemon, FAR, Family, Lab, Mac, PATIENCE, PEER,
    device::{
        LISTENING, MODES, Sender, delivered_of_both, delivered_until, interfaces, mac_of, start,
        wait_running, ways_of_anothers,
    },
    features::{self, Feature},
    lab::{INTERFACES, PROBE_PORT},
    traffic::{icmp, udp},
};

/// On the VRF device `red` itself.
fn of_red(family: Family) -> IpAddr {
    let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x50);
    family.choose(Ipv4Addr::new(192, 168, 0, 50).into(), v6.into())
}

/// Six links of which the first two are in the VRF `red`, the next two in `blue`, and two in none.
///
/// Port `i` has 192.168.0.(100+i) and 2001:db8::10i whichever the domain. There is no lab where the kernel has no VRFs.
fn lab() -> Result<Option<Lab>> {
    if !features::require(Feature::Vrf)? {
        return Ok(None);
    }
    let lab = Lab::builder().links(6).ipv6().build()?;
    lab.host.ip_batch(
        "link add red type vrf table 100\n\
         link add blue type vrf table 200\n\
         link set red up\n\
         link set blue up",
    )?;
    for (port, vrf) in ["red", "red", "blue", "blue"].into_iter().enumerate() {
        // Addresses of IPv4 stay, and their routes move to the table of the VRF; those of IPv6 are taken away, unless they
        // are to be kept while an interface is down.
        lab.host.sysctl(&format!("net.ipv6.conf.eth{port}_int.keep_addr_on_down"), "1")?;
        lab.host.ip(&format!("link set eth{port}_int master {vrf}"))?;
        lab.wait_running(port)?;
    }
    // Sockets that are bound to no device take what arrives in any domain: this is for both families.
    lab.host.sysctl("net.ipv4.udp_l3mdev_accept", "1")?;
    Ok(Some(lab))
}

/// Tries out in every mode.
fn in_each_mode(lab: &Lab, look: impl Fn(Option<&str>) -> Result<()>) -> Result<()> {
    for mode in MODES {
        let daemon = mode.map(|mode| start(lab, &interfaces(&[INTERFACES]), mode)).transpose()?;
        look(mode).with_context(|| format!("in mode {mode:?}"))?;
        daemon.map(Daemon::stop).transpose()?;
    }
    Ok(())
}

/// Where a datagram comes out that is sent through a port with this source.
fn ways_out(lab: &Lab, through: usize, source: impl Into<IpAddr>) -> Result<BTreeSet<usize>> {
    let (recording, source) = (lab.record(), source.into());
    lab.emit(through, source)?;
    // Another fence, because what is redirected may have to wait for its neighbour.
    lab.fence()?;
    recording.ports_of(source)
}

/// What is taken of two datagrams that come through a port: one for another's address and, when that has been dealt with, one for
/// `own`.
fn taken(
    lab: &Lab,
    socket: &UdpSocket,
    port: usize,
    anothers: impl Into<IpAddr>,
    own: impl Into<IpAddr>,
) -> Result<Vec<String>> {
    lab.deliver(port, (anothers.into(), LISTENING), b"another's")?;
    lab.fence()?;
    lab.deliver(port, (own.into(), LISTENING), b"own")?;
    delivered_until(socket, "own")
}

#[test]
fn the_ports_of_a_vrf_are_judged_among_themselves() -> Result<()> {
    let Some(lab) = lab()? else { return Ok(()) };
    in_each_mode(&lab, |mode| {
        for family in Family::BOTH {
            let socket = udp::bind(&lab.host, family.unspecified(), LISTENING)?;
            icmp::ping(&lab.switch, lab.peer_in(family, 0), lab.address_in(family, 0), PATIENCE)?;
            for (port, other) in [(0, 1), (1, 0), (2, 3), (3, 2), (4, 5), (5, 4)] {
                let (own, others) = (lab.address_in(family, port), lab.address_in(family, other));
                assert_eq!(ways_out(&lab, port, own)?, BTreeSet::from([port]), "{mode:?}");
                assert_eq!(
                    ways_out(&lab, port, others)?,
                    ways_of_anothers(mode, port, other),
                    "{others} through {port} in mode {mode:?}"
                );
                let expected = delivered_of_both(mode.is_some());
                let what = format!("{others} through {port} in mode {mode:?}");
                assert_eq!(taken(&lab, &socket, port, others, own)?, expected, "{what}");
            }
        }
        Ok(())
    })?;
    lab.finish()
}

/// Linux itself does not answer a solicitation for another interface's address; that it is discarded shows in the counters.
#[test]
fn a_port_of_a_vrf_answers_for_its_own_addresses_only() -> Result<()> {
    let Some(lab) = lab()? else { return Ok(()) };
    for mode in ["redirect", "drop"] {
        let daemon = start(&lab, &interfaces(&[INTERFACES]), mode)?;
        for (port, other) in [(0, 1), (3, 2), (4, 5)] {
            let recording = lab.record();
            for asked in [other, port] {
                lab.ask(port, lab.address(asked), Mac::BROADCAST)?;
                lab.solicit(port, lab.address6(asked))?;
            }
            let (mac, frames) = (lab.mac(port), recording.from_host()?);
            let answered = |asked| {
                let addresses = Family::BOTH.map(|family| Some(lab.address_in(family, asked)));
                let answers = frames.iter().filter(|frame| addresses.contains(&frame.frame.answered()));
                answers.map(|frame| (frame.port, frame.frame.source)).collect::<Vec<_>>()
            };
            assert_eq!(answered(port), [(port, mac); 2], "{mode}");
            assert_eq!(answered(other), [], "{mode}");
        }
        let summary = daemon.stop()?.summary;
        for port in [0, 3, 4] {
            let name = format!("eth{port}_int");
            let counts = ["arp_target", "ndp_target"].map(|reason| summary.count(&name, reason));
            assert_eq!(counts, [1, 1], "{name} in mode {mode}: {summary:?}");
        }
    }
    lab.finish()
}

#[test]
fn an_address_of_the_vrf_device_belongs_to_all_its_ports() -> Result<()> {
    let Some(lab) = lab()? else { return Ok(()) };
    for family in Family::BOTH {
        let (address, options) = (of_red(family), family.choose("/32", "/128 nodad"));
        lab.host.ip(&format!("address add {address}{options} dev red"))?;
        for port in [0, 1] {
            lab.claim(port, address, Duration::ZERO);
        }
    }
    for mode in ["redirect", "drop"] {
        let daemon = start(&lab, &interfaces(&[INTERFACES]), mode)?;
        for family in Family::BOTH {
            let socket = udp::bind(&lab.host, family.unspecified(), LISTENING)?;
            for port in [0, 1] {
                assert_eq!(ways_out(&lab, port, of_red(family))?, BTreeSet::from([port]), "{mode}");
                let others = lab.address_in(family, 1 - port);
                assert_eq!(taken(&lab, &socket, port, others, of_red(family))?, ["own"], "{mode}");
            }
        }
        icmp::ping(&lab.switch, PEER, of_red(Family::V4), PATIENCE)?;
        drop(daemon);
    }
    lab.finish()
}

/// Domains may use the same addresses: each address is its own domain's.
#[test]
fn the_same_address_in_two_vrfs_and_outside_has_an_owner_in_each() -> Result<()> {
    let Some(lab) = lab()? else { return Ok(()) };
    let same: [IpAddr; 2] =
        [[192, 168, 0, 60].into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x60).into()];
    let owners = [0, 2, 4];
    for port in owners {
        for address in same {
            lab.add_address(port, address)?;
        }
    }
    in_each_mode(&lab, |mode| {
        for (owner, same) in owners.into_iter().flat_map(|owner| same.map(|same| (owner, same))) {
            assert_eq!(ways_out(&lab, owner, same)?, BTreeSet::from([owner]), "{mode:?}");
            let beside = owner + 1;
            assert_eq!(ways_out(&lab, beside, same)?, ways_of_anothers(mode, beside, owner), "{mode:?}");
        }
        Ok(())
    })?;
    lab.finish()
}

#[test]
fn an_address_of_another_vrf_is_foreign() -> Result<()> {
    let Some(lab) = lab()? else { return Ok(()) };
    // Here the judge is to hold nothing against those that pass what is foreign.
    for (port, of) in [(0, 2), (0, 4), (2, 0), (2, 4), (4, 0), (4, 2)] {
        lab.claim(port, lab.address(of), Duration::ZERO);
    }
    for unknown in ["pass", "drop"] {
        let daemon = start(&lab, &["--interface", INTERFACES, "--unknown", unknown], "redirect")?;
        for (port, of) in [(0, 2), (0, 4), (2, 0), (2, 4), (4, 0), (4, 2)] {
            let expected = if unknown == "pass" { BTreeSet::from([port]) } else { BTreeSet::new() };
            let left = ways_out(&lab, port, lab.address(of))?;
            assert_eq!(left, expected, "port {of}'s address through port {port}, unknown: {unknown}");
        }
        assert_eq!(daemon.stop()?.summary.total("redirected"), 0);
    }
    lab.finish()
}

/// In the main table there is another way to the same destination through the same interface.
#[test]
fn a_redirect_in_a_vrf_takes_the_next_hop_of_the_vrfs_table() -> Result<()> {
    let Some(lab) = lab()? else { return Ok(()) };
    let router = lab.add_router(Ipv4Addr::new(192, 168, 0, 9))?;
    lab.host.ip_batch(&format!(
        "route add {FAR}/32 via {} dev eth1_int table 100\n\
         route add {FAR}/32 via {PEER} dev eth4_int",
        router.address
    ))?;
    let host = Sender::new(&lab.host)?;
    let to = SocketAddrV4::new(FAR, PROBE_PORT);
    let source = lab.address(1);
    let daemon = start(&lab, &interfaces(&[INTERFACES]), "redirect")?;
    let recording = lab.record();
    host.datagram("eth0_int", lab.peer_mac(0), source, to, b"redirected")?;
    let frame = recording.wait_datagram_from(source)?;
    assert_eq!((frame.port, frame.frame.destination), (1, router.mac));
    assert_eq!(recording.ports_of(source)?, BTreeSet::from([1]));
    let summary = daemon.stop()?.summary;
    assert_eq!(summary.count("eth0_int", "redirected"), 1, "{summary:?}");

    // Without it there is no way, although the main table has one.
    lab.host.ip(&format!("route del {FAR}/32 table 100"))?;
    let daemon = start(&lab, &interfaces(&[INTERFACES]), "redirect")?;
    let recording = lab.record();
    host.datagram("eth0_int", lab.peer_mac(0), source, to, b"lost")?;
    assert_eq!(recording.ports_of(source)?, BTreeSet::new());
    let summary = daemon.stop()?.summary;
    assert_eq!(summary.count("eth0_int", "no_route"), 1, "{summary:?}");
    lab.finish()
}

/// What a process sends in the VRF, through a socket that is bound to the VRF's device.
#[test]
fn a_socket_in_a_vrf_sends_from_the_interface_of_its_source() -> Result<()> {
    let Some(lab) = lab()? else { return Ok(()) };
    in_each_mode(&lab, |mode| {
        let recording = lab.record();
        for port in [0, 1] {
            lab.host.run(|| {
                let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
                socket.bind_device(Some(b"red"))?;
                socket.bind(&SocketAddrV4::new(lab.address(port), 0).into())?;
                socket.send_to(b"hello", &SocketAddrV4::new(PEER, PROBE_PORT).into())?;
                Ok(())
            })?;
        }
        // The route of the first port is taken, and the neighbour may have to be asked for first.
        recording.wait_datagram_from(lab.address(0))?;
        assert_eq!(recording.ports_of(lab.address(0))?, BTreeSet::from([0]), "{mode:?}");
        assert_eq!(recording.ports_of(lab.address(1))?, ways_of_anothers(mode, 0, 1), "{mode:?}");
        Ok(())
    })?;
    lab.finish()
}

#[test]
fn local_routes_of_a_vrfs_table_count_in_the_vrf() -> Result<()> {
    let Some(lab) = lab()? else { return Ok(()) };
    let (anywhere, on_first) = (Ipv4Addr::new(10, 77, 0, 5), Ipv4Addr::new(10, 78, 0, 5));
    lab.host.ip_batch(
        "route add local 10.77.0.0/24 dev red table 100\n\
         route add local 10.78.0.0/24 dev eth0_int table 100",
    )?;
    let socket = udp::bind(&lab.host, Ipv4Addr::UNSPECIFIED, LISTENING)?;
    in_each_mode(&lab, |mode| {
        for port in [0, 1] {
            assert_eq!(ways_out(&lab, port, anywhere)?, BTreeSet::from([port]), "{mode:?}");
        }
        assert_eq!(ways_out(&lab, 0, on_first)?, BTreeSet::from([0]), "{mode:?}");
        assert_eq!(ways_out(&lab, 1, on_first)?, ways_of_anothers(mode, 1, 0), "{mode:?}");
        // To the other domains both are foreign.
        for port in [2, 4] {
            assert_eq!(ways_out(&lab, port, anywhere)?, BTreeSet::from([port]), "{mode:?}");
            assert_eq!(ways_out(&lab, port, on_first)?, BTreeSet::from([port]), "{mode:?}");
        }
        let expected = delivered_of_both(mode.is_some());
        assert_eq!(taken(&lab, &socket, 1, on_first, anywhere)?, expected, "{mode:?}");
        Ok(())
    })?;
    lab.finish()
}

/// The VRF of a bond's port is the bond's.
#[test]
fn a_port_of_a_bond_in_a_vrf_is_in_the_vrf() -> Result<()> {
    if !features::require(Feature::Vrf)? || !features::require(Feature::Bond)? {
        return Ok(());
    }
    let lab = Lab::builder().links_without_address(1).links(2).build()?;
    let own = Ipv4Addr::new(192, 168, 0, 70);
    lab.host.ip_batch(&format!(
        "link add red type vrf table 100\n\
         link set red up\n\
         link add top type bond mode active-backup miimon 10\n\
         link set eth0_int down\n\
         link set eth0_int master top\n\
         link set top master red\n\
         link set top up\n\
         address add {own}/21 dev top\n\
         link set eth1_int master red"
    ))?;
    lab.host.ip("link set eth0_int up")?;
    lab.wait_running(0)?;
    wait_running(&lab.host, "top")?;
    lab.claim(0, own, Duration::ZERO);
    let (of_1, of_2) = (lab.address(1), lab.address(2));
    let host = Sender::new(&lab.host)?;
    let station = mac_of(&lab.switch, "br0")?;
    let to = SocketAddrV4::new(PEER, PROBE_PORT);
    for (mode, expected) in [("redirect", BTreeSet::from([1])), ("drop", BTreeSet::new())] {
        for selected in [&[INTERFACES][..], &[INTERFACES, "top"]] {
            let daemon = start(&lab, &interfaces(selected), mode)?;
            icmp::ping(&lab.switch, PEER, own, PATIENCE)?;
            let recording = lab.record();
            host.datagram("top", station, of_1, to, b"another's")?;
            assert_eq!(recording.ports_of(of_1)?, expected, "{mode}");
            assert_eq!(ways_out(&lab, 1, own)?, ways_of_anothers(Some(mode), 1, 0), "{mode}");
            assert_eq!(ways_out(&lab, 2, of_2)?, BTreeSet::from([2]), "{mode}");
            drop(daemon);
        }
    }
    lab.finish()
}
