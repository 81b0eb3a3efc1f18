//! ARP that arrives: an interface answers for its own addresses only.

use anyhow::Result;
use mhebpf_tests::{
    Lab, Mac, PEER,
    craft::HARDWARE_IEEE802,
    frame::{Arp, ETHERTYPE_IPV4},
};

/// The modes in which something is enforced.
const ENFORCING: [&str; 2] = ["redirect", "drop"];

#[test]
fn arp_request_for_another_interfaces_address_is_not_answered() -> Result<()> {
    for mode in ENFORCING {
        let lab = Lab::article()?;
        let daemon = lab.mhebpf_quietly(&["--mode", mode])?;
        let recording = lab.record();
        for port in lab.ports() {
            for other in lab.ports().filter(|other| *other != port) {
                lab.ask(port, lab.address(other), Mac::BROADCAST)?;
                lab.ask(port, lab.address(other), lab.mac(port))?;
            }
        }
        assert_eq!(recording.arp_from_host()?, [], "mode {mode}");
        let summary = daemon.stop()?.summary;
        for port in lab.ports() {
            assert_eq!(summary.count(&format!("eth{port}_int"), "arp_target"), 6, "mode {mode}: {summary:?}");
        }
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn arp_request_to_all_is_answered_once_by_the_owner() -> Result<()> {
    for mode in ENFORCING {
        let lab = Lab::article()?;
        let daemon = lab.mhebpf_quietly(&["--mode", mode])?;
        for port in lab.ports() {
            let recording = lab.record();
            lab.ask_all(lab.address(port))?;
            assert_eq!(recording.arp_replies_for(lab.address(port))?, [(port, lab.mac(port))], "mode {mode}");
        }
        daemon.stop()?;
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn arp_request_for_an_own_address_is_answered() -> Result<()> {
    let lab = Lab::article()?;
    let daemon = lab.mhebpf_quietly(&[])?;
    for port in lab.ports() {
        for destination in [Mac::BROADCAST, lab.mac(port)] {
            let recording = lab.record();
            lab.ask(port, lab.address(port), destination)?;
            assert_eq!(recording.arp_replies_for(lab.address(port))?, [(port, lab.mac(port))]);
        }
    }
    daemon.stop()?;
    lab.finish()
}

/// RFC 5227 section 2.1.1: the sender protocol address of a probe is all zero.
#[test]
fn arp_probe_for_another_interfaces_address_is_not_answered() -> Result<()> {
    let lab = Lab::article()?;
    let daemon = lab.mhebpf_quietly(&[])?;
    let recording = lab.record();
    let probe =
        |asked| Arp::request(lab.peer_mac(0), [0, 0, 0, 0].into(), lab.address(asked)).frame(Mac::BROADCAST);
    lab.send_to_host(0, &probe(1))?;
    assert_eq!(recording.arp_from_host()?, []);
    lab.send_to_host(1, &probe(1))?;
    assert_eq!(recording.arp_from_host()?.len(), 1, "the owner defends its address");
    daemon.stop()?;
    lab.finish()
}

/// The kernel accepts ARP of IEEE 802 (hardware type 6) on Ethernet, so it is judged too.
#[test]
fn arp_of_hardware_type_6_is_judged_like_any_other() -> Result<()> {
    let lab = Lab::article()?;
    let request = |asked| {
        Arp::request(lab.peer_mac(0), PEER, lab.address(asked))
            .frame_with_hardware_type(Mac::BROADCAST, HARDWARE_IEEE802)
    };
    let recording = lab.record();
    lab.send_to_host(0, &request(1))?;
    assert_eq!(recording.arp_replies_for(lab.address(1))?.len(), 1, "without mhebpf the kernel answers");

    let daemon = lab.mhebpf_quietly(&[])?;
    let recording = lab.record();
    lab.send_to_host(0, &request(1))?;
    assert_eq!(recording.arp_replies_for(lab.address(1))?, []);
    lab.send_to_host(0, &request(0))?;
    assert_eq!(recording.arp_replies_for(lab.address(0))?, [(0, lab.mac(0))]);
    daemon.stop()?;
    lab.finish()
}

/// Proxy ARP answers for addresses that are not the host's: those are foreign.
#[test]
fn arp_request_for_a_foreign_address_passes() -> Result<()> {
    for (unknown, answers) in [("pass", 1), ("drop", 0)] {
        let lab = Lab::builder().links(2).build()?;
        lab.host.ip_batch(
            "link add c0 type veth peer name c1\n\
             address add 10.9.9.1/24 dev c0\n\
             link set c0 up\n\
             link set c1 up",
        )?;
        for (key, value) in [
            ("ip_forward", "1"),
            ("conf.eth0_int.proxy_arp", "1"),
            // Answers may be delayed at random, but need not.
            ("neigh.eth0_int.proxy_delay", "0"),
        ] {
            lab.host.sysctl(&format!("net.ipv4.{key}"), value)?;
        }
        let daemon = lab.mhebpf_quietly(&["--unknown", unknown])?;
        let recording = lab.record();
        let foreign = "10.9.9.9".parse()?;
        lab.ask(0, foreign, Mac::BROADCAST)?;
        assert_eq!(recording.arp_replies_for(foreign)?.len(), answers, "--unknown {unknown}");
        let summary = daemon.stop()?.summary;
        assert_eq!(summary.count("eth0_int", "unknown_source"), 1 - answers as u64, "{summary:?}");
        lab.finish()?;
    }
    Ok(())
}

/// An ARP reply that arrives on the wrong interface for its target teaches the host nothing.
#[test]
fn arp_reply_to_another_interfaces_address_is_not_heard() -> Result<()> {
    let lab = Lab::article()?;
    let peer = "192.168.0.9".parse()?;
    let (first, second, third) = (Mac::lab(0x71), Mac::lab(0x72), Mac::lab(0x73));
    lab.host.ip(&format!("neighbour add {peer} lladdr {first} dev eth1_int nud stale"))?;
    // Else an entry that has just changed is not changed again for a second.
    lab.host.sysctl("net.ipv4.neigh.eth1_int.locktime", "0")?;
    let daemon = lab.mhebpf_quietly(&[])?;

    let reply = |mac, target| Arp::reply(mac, peer, lab.mac(1), target).frame(lab.mac(1));
    lab.send_to_host(1, &reply(second, lab.address(1)))?;
    lab.fence()?;
    assert_eq!(lab.host_neighbours(1)?[&peer], second, "a reply to an own address is heard");
    lab.send_to_host(1, &reply(third, lab.address(0)))?;
    lab.fence()?;
    assert_eq!(lab.host_neighbours(1)?[&peer], second);

    let summary = daemon.stop()?.summary;
    assert_eq!(summary.count("eth1_int", "arp_target"), 1, "{summary:?}");
    lab.finish()
}

#[test]
fn gratuitous_arp_of_a_peer_is_heard() -> Result<()> {
    let lab = Lab::article()?;
    let peer = "192.168.0.9".parse()?;
    let (first, second) = (Mac::lab(0x71), Mac::lab(0x72));
    lab.host.ip(&format!("neighbour add {peer} lladdr {first} dev eth1_int nud stale"))?;
    let daemon = lab.mhebpf_quietly(&[])?;
    lab.send_to_host(1, &Arp::announcement(second, peer).frame(Mac::BROADCAST))?;
    lab.fence()?;
    assert_eq!(lab.host_neighbours(1)?[&peer], second);
    let summary = daemon.stop()?.summary;
    assert_eq!(summary.counts(), [], "nothing was wrong with it");
    lab.finish()
}

#[test]
fn arp_for_another_protocol_passes() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = lab.mhebpf_quietly(&[])?;
    let mut frame = Arp::request(lab.peer_mac(0), PEER, lab.address(1)).frame(Mac::BROADCAST);
    assert_eq!(frame[16..18], ETHERTYPE_IPV4.to_be_bytes());
    // AppleTalk's; the kernel discards it, and mhebpf does not count it.
    frame[16..18].copy_from_slice(&[0x80, 0x9b]);
    lab.send_to_host(0, &frame)?;
    lab.send_from_host(0, &frame)?;
    lab.fence()?;
    assert_eq!(daemon.stop()?.summary.counts(), []);
    lab.finish()
}
