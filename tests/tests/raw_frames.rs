//! Frames that no IP stack made: DHCP clients', priority-tagged ones, and those of VLANs.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
};

use anyhow::Result;
use mhebpf_tests::{
    Lab, Mac, PEER,
    craft::{self, tagged},
    frame::{Arp, ETHERTYPE_QINQ, ETHERTYPE_VLAN},
    lab::PROBE_PORT,
    traffic::udp,
};
use socket2::SockRef;

const DHCP_SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::BROADCAST, 67);
const DHCP_CLIENT_PORT: u16 = 68;

/// Tags that belong to no VLAN: the kernel takes such frames like untagged ones.
const PRIORITY_TAGS: [&[(u16, u16)]; 4] = [
    &[(ETHERTYPE_VLAN, 0)],
    &[(ETHERTYPE_VLAN, 0xe000)],
    &[(ETHERTYPE_QINQ, 0)],
    &[(ETHERTYPE_QINQ, 0), (ETHERTYPE_VLAN, 0x2000)],
];

/// The tag of VLAN 5.
const VLAN_5: &[(u16, u16)] = &[(ETHERTYPE_VLAN, 5)];

/// A DHCP client's socket, bound to an interface and not to an address.
fn dhcp_socket(lab: &Lab, interface: &str) -> Result<UdpSocket> {
    let socket = udp::bind(&lab.host, Ipv4Addr::UNSPECIFIED, DHCP_CLIENT_PORT)?;
    socket.set_broadcast(true)?;
    SockRef::from(&socket).bind_device(Some(interface.as_bytes()))?;
    Ok(socket)
}

#[test]
fn dhcp_discover_leaves_through_the_interface_that_it_is_for() -> Result<()> {
    for mode in ["redirect", "drop"] {
        let lab = Lab::builder().links(1).links_without_address(1).build()?;
        let daemon = lab.mhebpf_quietly(&["--mode", mode, "--unknown", "drop"])?;
        let recording = lab.record();
        let from = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, DHCP_CLIENT_PORT);
        lab.send_from_host(1, &craft::udp(lab.outward_to_all(1), from, DHCP_SERVER, b"discover")?)?;
        let sent = recording.wait_datagram_from(Ipv4Addr::UNSPECIFIED)?;
        assert_eq!((sent.port, sent.frame.source, sent.frame.destination), (1, lab.mac(1), Mac::BROADCAST));
        assert_eq!(daemon.stop()?.summary.counts(), [], "mode {mode}");
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn dhcp_works_through_a_udp_socket_before_there_is_any_address() -> Result<()> {
    let lab = Lab::builder().links_without_address(2).build()?;
    let daemon = lab.mhebpf_quietly(&["--unknown", "drop"])?;
    let client = dhcp_socket(&lab, "eth1_int")?;
    let recording = lab.record();
    client.send_to(b"discover", DHCP_SERVER)?;
    let sent = recording.wait_datagram_from(Ipv4Addr::UNSPECIFIED)?;
    assert_eq!((sent.port, sent.frame.destination), (1, Mac::BROADCAST));

    // The offer comes to all, or to an address that the host does not have yet.
    let from = SocketAddrV4::new(PEER, DHCP_SERVER.port());
    let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, DHCP_CLIENT_PORT);
    let stations = craft::Stations { source: lab.peer_mac(1), destination: Mac::BROADCAST };
    lab.send_to_host(1, &craft::udp(stations, from, to, b"offer")?)?;
    lab.fence()?;
    assert_eq!(udp::take_delivered(&client)?.map(|(offer, _)| offer), Some(b"offer".to_vec()));
    assert_eq!(daemon.stop()?.summary.counts(), []);
    lab.finish()
}

#[test]
fn priority_tagged_arp_that_arrives_is_judged_as_untagged() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let ask = |address, tags: &[(u16, u16)]| {
        let request = Arp::request(lab.peer_mac(0), PEER, address).frame(Mac::BROADCAST);
        lab.send_to_host(0, &tagged(&request, tags))
    };
    for tags in PRIORITY_TAGS {
        let recording = lab.record();
        ask(lab.address(1), tags)?;
        assert_eq!(recording.arp_replies_for(lab.address(1))?.len(), 1, "the kernel answers {tags:x?}");
    }
    let daemon = lab.mhebpf_quietly(&[])?;
    for tags in PRIORITY_TAGS {
        let recording = lab.record();
        ask(lab.address(1), tags)?;
        assert_eq!(recording.arp_replies_for(lab.address(1))?, [], "{tags:x?}");
        ask(lab.address(0), tags)?;
        assert_eq!(recording.arp_replies_for(lab.address(0))?, [(0, lab.mac(0))], "{tags:x?}");
    }
    let summary = daemon.stop()?.summary;
    assert_eq!(summary.count("eth0_int", "arp_target"), PRIORITY_TAGS.len() as u64, "{summary:?}");
    lab.finish()
}

#[test]
fn priority_tagged_datagrams_that_arrive_are_judged_as_untagged() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let socket = udp::bind(&lab.host, Ipv4Addr::UNSPECIFIED, PROBE_PORT)?;
    let deliver = |address, tags: &[(u16, u16)]| {
        let (from, to) = (SocketAddrV4::new(PEER, PROBE_PORT), SocketAddrV4::new(address, PROBE_PORT));
        lab.send_to_host(0, &tagged(&craft::udp(lab.inward(0), from, to, b"tagged")?, tags))?;
        lab.fence()?;
        udp::take_delivered(&socket)
    };
    for tags in PRIORITY_TAGS {
        assert!(deliver(lab.address(1), tags)?.is_some(), "the kernel takes {tags:x?}");
    }
    let daemon = lab.mhebpf_quietly(&[])?;
    for tags in PRIORITY_TAGS {
        assert!(deliver(lab.address(1), tags)?.is_none(), "{tags:x?}");
        assert!(deliver(lab.address(0), tags)?.is_some(), "{tags:x?}");
    }
    let summary = daemon.stop()?.summary;
    assert_eq!(summary.count("eth0_int", "wrong_destination"), PRIORITY_TAGS.len() as u64, "{summary:?}");
    lab.finish()
}

#[test]
fn priority_tagged_frames_that_leave_are_judged_as_untagged() -> Result<()> {
    for mode in ["redirect", "drop"] {
        let lab = Lab::builder().links(2).build()?;
        let daemon = lab.mhebpf_quietly(&["--mode", mode])?;
        for tags in PRIORITY_TAGS {
            let recording = lab.record();
            let (own, other) = (lab.address(0), lab.address(1));
            for from in [own, other] {
                let (from, to) = (SocketAddrV4::new(from, PROBE_PORT), SocketAddrV4::new(PEER, PROBE_PORT));
                let frame = craft::udp(lab.outward(0), from, to, b"tagged")?;
                lab.send_from_host(0, &tagged(&frame, tags))?;
            }
            let announcement = Arp::announcement(lab.mac(0), other).frame(Mac::BROADCAST);
            lab.send_from_host(0, &tagged(&announcement, tags))?;

            assert_eq!(recording.ports_of(own)?, BTreeSet::from([0]), "mode {mode}, {tags:x?}");
            // A redirected frame is taken by the bridge and the peer as before: it is sent on with or without its tag.
            let expected = if mode == "redirect" { BTreeSet::from([1]) } else { BTreeSet::new() };
            assert_eq!(recording.ports_of(other)?, expected, "mode {mode}, {tags:x?}");
            let announced =
                recording.arp_from_host()?.iter().any(|(_, arp)| arp.sender == other && arp.target == other);
            assert!(!announced, "mode {mode}, {tags:x?}");
        }
        let summary = daemon.stop()?.summary;
        assert_eq!(summary.count("eth0_int", "arp_sender"), PRIORITY_TAGS.len() as u64, "{summary:?}");
        let counted = summary.count("eth0_int", "redirected") + summary.count("eth0_int", "wrong_source");
        assert_eq!(counted, PRIORITY_TAGS.len() as u64, "{summary:?}");
        lab.finish()?;
    }
    Ok(())
}

/// The kernel looks through all tags, the programs through 16 beside the first, which is not in the frame any more then.
#[test]
fn frames_with_many_priority_tags_are_judged_or_dropped() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let socket = udp::bind(&lab.host, Ipv4Addr::UNSPECIFIED, PROBE_PORT)?;
    let deliver = |address, count| {
        let (from, to) = (SocketAddrV4::new(PEER, PROBE_PORT), SocketAddrV4::new(address, PROBE_PORT));
        let tags = vec![(ETHERTYPE_VLAN, 0); count];
        lab.send_to_host(0, &tagged(&craft::udp(lab.inward(0), from, to, b"tagged")?, &tags))?;
        lab.fence()?;
        udp::take_delivered(&socket)
    };
    for count in [9, 16, 18, 40] {
        assert!(deliver(lab.address(1), count)?.is_some(), "the kernel takes {count} tags");
    }
    let daemon = lab.mhebpf_quietly(&[])?;
    for count in [9, 16, 18, 40] {
        assert!(deliver(lab.address(1), count)?.is_none(), "{count} tags");
        assert_eq!(deliver(lab.address(0), count)?.is_some(), count <= 16, "{count} tags");
    }
    let summary = daemon.stop()?.summary;
    assert_eq!(summary.count("eth0_int", "wrong_destination"), 2, "{summary:?}");
    assert_eq!(summary.count("eth0_int", "priority_tags"), 4, "{summary:?}");
    lab.finish()
}

/// The VLAN device's own programs judge those.
#[test]
fn frames_of_a_vlan_pass_both_ways() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = lab.mhebpf_quietly(&["--unknown", "drop"])?;
    let recording = lab.record();
    let arp = Arp::announcement(lab.mac(0), lab.address(1)).frame(Mac::BROADCAST);
    lab.send_from_host(0, &tagged(&arp, VLAN_5))?;
    lab.send_from_host(0, &tagged(&arp, &[(ETHERTYPE_QINQ, 7), (ETHERTYPE_VLAN, 0)]))?;
    let (from, to) = (SocketAddrV4::new(lab.address(1), PROBE_PORT), SocketAddrV4::new(PEER, PROBE_PORT));
    lab.send_from_host(0, &tagged(&craft::udp(lab.outward(0), from, to, b"tagged")?, VLAN_5))?;
    let sent = recording.from_host()?;
    let vlans: Vec<_> = sent.iter().map(|f| (f.port, f.frame.tags[0].1)).collect();
    assert_eq!(vlans, [(0, 5), (0, 7), (0, 5)]);

    let request = Arp::request(lab.peer_mac(0), PEER, lab.address(1)).frame(Mac::BROADCAST);
    lab.send_to_host(0, &tagged(&request, VLAN_5))?;
    lab.fence()?;
    assert_eq!(daemon.stop()?.summary.counts(), []);
    lab.finish()
}

/// IPv6 and everything else is left alone, also while IPv4 is enforced.
#[test]
fn frames_of_other_protocols_pass() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = lab.mhebpf_quietly(&["--mode", "drop", "--unknown", "drop"])?;
    let recording = lab.record();
    for ethertype in [0x88cc_u16, 0x0842, 0x05dc] {
        lab.send_from_host(0, &craft::ethernet(lab.outward(0), ethertype, &[0x45; 46]))?;
    }
    assert_eq!(recording.from_host()?.len(), 3);
    assert_eq!(daemon.stop()?.summary.counts(), []);
    lab.finish()
}
