//! ARP that leaves: an interface speaks for its own addresses only.

use std::net::Ipv4Addr;

use anyhow::Result;
use mhebpf_tests::{
    Lab, Mac, PEER,
    craft::HARDWARE_IEEE802,
    frame::{ARP_REPLY, Arp},
};

/// The modes in which something is enforced.
const ENFORCING: [&str; 2] = ["redirect", "drop"];

const FOREIGN: Ipv4Addr = Ipv4Addr::new(192, 168, 3, 33);

#[test]
fn arp_request_with_another_interfaces_address_leaves_with_an_own_one() -> Result<()> {
    for mode in ENFORCING {
        let lab = Lab::article()?;
        let daemon = lab.mhebpf_quietly(&["--mode", mode])?;
        let recording = lab.record();
        let request = Arp::request(lab.mac(0), lab.address(3), PEER);
        lab.send_from_host(0, &request.frame(Mac::BROADCAST))?;
        // All else is as it was.
        assert_eq!(
            recording.arp_from_host()?,
            [(0, Arp { sender: lab.address(0), ..request })],
            "mode {mode}"
        );
        let summary = daemon.stop()?.summary;
        assert_eq!(summary.count("eth0_int", "arp_rewritten"), 1, "mode {mode}: {summary:?}");
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn the_own_address_is_one_of_the_targets_subnet_where_there_is_one() -> Result<()> {
    let lab = Lab::article()?;
    lab.host.ip("address add 10.9.0.100/24 dev eth0_int")?;
    let daemon = lab.mhebpf_quietly(&[])?;
    let elsewhere: Ipv4Addr = "172.16.0.1".parse()?;
    for (target, sender) in
        [("10.9.0.5".parse()?, "10.9.0.100".parse()?), (PEER, lab.address(0)), (elsewhere, lab.address(0))]
    {
        let recording = lab.record();
        lab.send_from_host(0, &Arp::request(lab.mac(0), lab.address(3), target).frame(Mac::BROADCAST))?;
        let sent = recording.arp_from_host()?;
        assert_eq!(sent, [(0, Arp::request(lab.mac(0), sender, target))]);
    }
    daemon.stop()?;
    lab.finish()
}

/// There is no own address to speak with. Redirecting needs the answer, and asks without claiming anything; dropping does not.
#[test]
fn an_interface_without_address_claims_nobodys() -> Result<()> {
    for (mode, expected) in [("redirect", Some([0, 0, 0, 0].into())), ("drop", None)] {
        let lab = Lab::builder().links(1).links_without_address(1).build()?;
        let daemon = lab.mhebpf_quietly(&["--mode", mode])?;
        let recording = lab.record();
        lab.send_from_host(1, &Arp::request(lab.mac(1), lab.address(0), PEER).frame(Mac::BROADCAST))?;
        let senders: Vec<_> =
            recording.arp_from_host()?.iter().map(|(port, arp)| (*port, arp.sender)).collect();
        assert_eq!(
            senders,
            expected.map(|sender| (1, sender)).into_iter().collect::<Vec<_>>(),
            "mode {mode}"
        );
        daemon.stop()?;
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn arp_reply_for_another_interfaces_address_is_dropped() -> Result<()> {
    for mode in ENFORCING {
        let lab = Lab::article()?;
        let daemon = lab.mhebpf_quietly(&["--mode", mode])?;
        let recording = lab.record();
        let reply = |sender| Arp::reply(lab.mac(1), sender, lab.peer_mac(1), PEER);
        lab.send_from_host(1, &reply(lab.address(2)).frame(lab.peer_mac(1)))?;
        lab.send_from_host(1, &reply(lab.address(1)).frame(lab.peer_mac(1)))?;
        assert_eq!(recording.arp_from_host()?, [(1, reply(lab.address(1)))], "mode {mode}: only the own one");
        let summary = daemon.stop()?.summary;
        assert_eq!(summary.count("eth1_int", "arp_sender"), 1, "mode {mode}: {summary:?}");
        lab.finish()?;
    }
    Ok(())
}

/// RFC 5227 section 3: announcements may be requests or replies.
#[test]
fn gratuitous_arp_for_another_interfaces_address_is_dropped() -> Result<()> {
    for mode in ENFORCING {
        let lab = Lab::article()?;
        let daemon = lab.mhebpf_quietly(&["--mode", mode])?;
        let recording = lab.record();
        for address in [lab.address(2), lab.address(1)] {
            let request = Arp::announcement(lab.mac(1), address);
            lab.send_from_host(1, &request.frame(Mac::BROADCAST))?;
            lab.send_from_host(1, &Arp { operation: ARP_REPLY, ..request }.frame(Mac::BROADCAST))?;
        }
        let own = Arp::announcement(lab.mac(1), lab.address(1));
        assert_eq!(
            recording.arp_from_host()?,
            [(1, own), (1, Arp { operation: ARP_REPLY, ..own })],
            "mode {mode}: only the own ones"
        );
        let summary = daemon.stop()?.summary;
        assert_eq!(summary.count("eth1_int", "arp_sender"), 2, "mode {mode}: {summary:?}");
        lab.finish()?;
    }
    Ok(())
}

/// MetalLB and keepalived announce addresses that the host itself may not have.
#[test]
fn arp_with_a_foreign_sender_follows_the_policy_for_the_unknown() -> Result<()> {
    for (unknown, passed) in [("pass", 3), ("drop", 0)] {
        let lab = Lab::builder().links(2).build()?;
        let daemon = lab.mhebpf_quietly(&["--unknown", unknown])?;
        let recording = lab.record();
        for arp in [
            Arp::reply(lab.mac(1), FOREIGN, lab.peer_mac(1), PEER),
            Arp::announcement(lab.mac(1), FOREIGN),
            Arp::request(lab.mac(1), FOREIGN, PEER),
        ] {
            lab.send_from_host(1, &arp.frame(Mac::BROADCAST))?;
        }
        assert_eq!(recording.arp_from_host()?.len(), passed, "--unknown {unknown}");
        let summary = daemon.stop()?.summary;
        assert_eq!(summary.count("eth1_int", "unknown_source"), 3 - passed as u64, "{summary:?}");
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn arp_probe_of_the_host_passes_untouched() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = lab.mhebpf_quietly(&["--unknown", "drop"])?;
    let recording = lab.record();
    let probe = Arp::request(lab.mac(1), [0, 0, 0, 0].into(), FOREIGN);
    lab.send_from_host(1, &probe.frame(Mac::BROADCAST))?;
    assert_eq!(recording.arp_from_host()?, [(1, probe)]);
    assert_eq!(daemon.stop()?.summary.counts(), []);
    lab.finish()
}

#[test]
fn arp_of_hardware_type_6_leaves_by_the_same_rules() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = lab.mhebpf_quietly(&[])?;
    let recording = lab.record();
    let reply = Arp::reply(lab.mac(1), lab.address(0), lab.peer_mac(1), PEER);
    lab.send_from_host(1, &reply.frame_with_hardware_type(lab.peer_mac(1), HARDWARE_IEEE802))?;
    let request = Arp::request(lab.mac(1), lab.address(0), PEER);
    lab.send_from_host(1, &request.frame_with_hardware_type(Mac::BROADCAST, HARDWARE_IEEE802))?;
    assert_eq!(recording.arp_from_host()?, [(1, Arp { sender: lab.address(1), ..request })]);
    daemon.stop()?;
    lab.finish()
}
