//! Hosts with interfaces of other kinds than an Ethernet card. Not every kernel has each: see [`features`].

use std::{collections::BTreeSet, net::Ipv4Addr, net::SocketAddrV4, time::Duration};

use anyhow::Result;
use mhebpf_tests::{
    Lab, NetNs, PATIENCE,
    device::{Device, ENFORCING, LISTENING, MODES, Sender, delivered_until, mac_of, start, wait_running},
    features::{self, Feature},
    lab::{INTERFACES, PROBE_PORT},
    traffic::{icmp, udp},
};

/// The address of the device in question, and of the switch in the same subnet.
const OWN: Ipv4Addr = Ipv4Addr::new(10, 10, 0, 2);
const PEER_OF_OWN: Ipv4Addr = Ipv4Addr::new(10, 10, 0, 1);
const VIRTUAL: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 9);

const DEVICE: Device<'_> =
    Device { name: "", address: OWN, peer: PEER_OF_OWN, peer_interface: "br0", through: &[], other: 1 };

/// Gives the switch's bridge an address in the device's subnet.
fn give_peer_its_address(lab: &Lab) -> Result<()> {
    lab.switch.ip(&format!("address add {PEER_OF_OWN}/24 dev br0")).map(drop)
}

/// A lab with two links where a device of this type is on top of the first.
fn lab_with_device_on_top(kind: &str) -> Result<Lab> {
    let lab = Lab::builder().links(2).build()?;
    give_peer_its_address(&lab)?;
    lab.host.ip_batch(&format!(
        "link add link eth0_int name top type {kind}\n\
         address add {OWN}/24 dev top\n\
         link set top up"
    ))?;
    wait_running(&lab.host, "top")?;
    lab.claim(0, OWN, Duration::ZERO);
    Ok(lab)
}

#[test]
fn a_vlan_interface_is_an_interface_of_its_own() -> Result<()> {
    if !features::require(Feature::Vlan)? {
        return Ok(());
    }
    let lab = Lab::builder().links(2).build()?;
    for (ns, end, address) in [(&lab.host, "int", OWN), (&lab.switch, "ext", PEER_OF_OWN)] {
        ns.ip_batch(&format!(
            "link add link eth0_{end} name v10 type vlan id 10\n\
             address add {address}/24 dev v10\n\
             link set v10 up"
        ))?;
    }
    lab.claim(0, OWN, Duration::ZERO);
    let through = &[("v10", 0), ("eth0_int", 0)];
    let device = Device { name: "v10", peer_interface: "v10", through, ..DEVICE };
    // The parent does not judge what is in its VLANs.
    device.try_out(&lab, &MODES, &["--interface", INTERFACES], &["eth0_int"])?;
    device.try_out(
        &lab,
        &ENFORCING,
        &["--interface", "v10", "--interface", INTERFACES],
        &["v10", "eth0_int"],
    )?;
    lab.finish()
}

#[test]
fn a_macvlan_interface_shares_its_parents_policy() -> Result<()> {
    if !features::require(Feature::Macvlan)? {
        return Ok(());
    }
    let lab = lab_with_device_on_top("macvlan mode bridge")?;
    let device = Device { name: "top", through: &[("top", 0), ("eth0_int", 0)], ..DEVICE };
    device.try_out(&lab, &MODES, &["--interface", INTERFACES], &["top", "eth0_int"])?;
    device.try_out(
        &lab,
        &ENFORCING,
        &["--interface", "top", "--interface", INTERFACES],
        &["top", "eth0_int"],
    )?;
    lab.finish()
}

#[test]
fn an_ipvlan_interface_shares_its_parents_policy() -> Result<()> {
    if !features::require(Feature::Ipvlan)? {
        return Ok(());
    }
    let lab = lab_with_device_on_top("ipvlan mode l2")?;
    let device = Device { name: "top", through: &[("top", 0), ("eth0_int", 0)], ..DEVICE };
    device.try_out(&lab, &MODES, &["--interface", INTERFACES], &["top", "eth0_int"])?;
    device.try_out(
        &lab,
        &ENFORCING,
        &["--interface", "top", "--interface", INTERFACES],
        &["top", "eth0_int"],
    )?;
    lab.finish()
}

/// A bridge as virtual machines use it: the host's address is on it, and an uplink and a container's interface are ports.
#[test]
fn a_bridges_address_belongs_to_its_ports() -> Result<()> {
    let lab = Lab::builder().links_without_address(1).links(1).build()?;
    give_peer_its_address(&lab)?;
    let container = NetNs::new("container")?;
    let address = Ipv4Addr::new(10, 10, 0, 3);
    lab.host.ip_batch(&format!(
        "link add virbr type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
         link add c0 type veth peer name eth0 netns {}\n\
         link set eth0_int master virbr\n\
         link set c0 master virbr up\n\
         address add {OWN}/24 dev virbr\n\
         link set virbr up",
        container.path()
    ))?;
    container.ip_batch(&format!("address add {address}/24 dev eth0\nlink set eth0 up"))?;
    wait_running(&lab.host, "virbr")?;
    lab.claim(0, OWN, Duration::ZERO);
    icmp::ping(&container, address, PEER_OF_OWN, PATIENCE)?;
    let device = Device { name: "virbr", through: &[("virbr", 0), ("eth0_int", 0)], ..DEVICE };
    for (modes, selected) in [(&MODES[..], &[INTERFACES][..]), (&ENFORCING, &["virbr", "c0", INTERFACES])] {
        let arguments: Vec<_> = selected.iter().flat_map(|name| ["--interface", name]).collect();
        device.try_out(&lab, modes, &arguments, &["virbr", "eth0_int"])?;
        let daemon = start(&lab, &arguments, "redirect")?;
        icmp::ping(&container, address, PEER_OF_OWN, PATIENCE)?;
        icmp::ping(&container, address, OWN, PATIENCE)?;
        // Every interface is asked for the address as well, and the other one says nothing.
        let summary = daemon.stop()?.summary;
        assert_eq!(summary.total("redirected") + summary.total("wrong_destination"), 0, "{summary:?}");
    }
    lab.finish()
}

/// A lab with three links, of which the first two are ports of a device made by `make`.
fn lab_with_ports_of(make: &str) -> Result<Lab> {
    let lab = Lab::builder().links_without_address(2).links(1).build()?;
    give_peer_its_address(&lab)?;
    // Neither a bond nor a team takes a port that is up.
    lab.host.ip_batch(&format!(
        "link add top {make}\n\
         link set eth0_int down\n\
         link set eth1_int down\n\
         link set eth0_int master top\n\
         link set eth1_int master top\n\
         address add {OWN}/24 dev top\n\
         link set top up"
    ))?;
    for port in [0, 1] {
        lab.host.ip(&format!("link set eth{port}_int up"))?;
        lab.wait_running(port)?;
        lab.claim(port, OWN, Duration::ZERO);
    }
    Ok(lab)
}

#[test]
fn a_bonds_address_belongs_to_its_ports() -> Result<()> {
    if !features::require(Feature::Bond)? {
        return Ok(());
    }
    let lab = lab_with_ports_of("type bond mode active-backup miimon 10")?;
    wait_running(&lab.host, "top")?;
    let active = || -> Result<usize> {
        let shown = lab.host.ip("-details -oneline link show dev top")?;
        Ok(usize::from(shown.contains("active_slave eth1_int")))
    };
    let active = active()?;
    let through = [("top", active), ("eth0_int", 0), ("eth1_int", 1)];
    let device = Device { name: "top", through: &through, other: 2, ..DEVICE };
    let all = ["top", "eth0_int", "eth1_int"];
    device.try_out(&lab, &MODES, &["--interface", INTERFACES], &all)?;
    // What the bond's ports send by themselves is nobody's business then.
    let bond = Device { through: &through[..1], ..device };
    bond.try_out(&lab, &ENFORCING, &["--interface", "top", "--interface", "eth2_int"], &["top"])?;
    device.try_out(&lab, &ENFORCING, &["--interface", "top", "--interface", INTERFACES], &all)?;
    lab.finish()
}

/// Without a process that tells it which port to use a team sends and takes nothing itself, but its ports do.
#[test]
fn a_teams_address_belongs_to_its_ports() -> Result<()> {
    if !features::require(Feature::Team)? {
        return Ok(());
    }
    let lab = lab_with_ports_of("type team")?;
    let host = Sender::new(&lab.host)?;
    let to = SocketAddrV4::new(lab.peer(2), PROBE_PORT);
    for mode in MODES {
        let daemon = mode.map(|mode| start(&lab, &["--interface", INTERFACES], mode)).transpose()?;
        for port in [0, 1] {
            let recording = lab.record();
            for source in [OWN, lab.address(2)] {
                host.datagram(&format!("eth{port}_int"), lab.peer_mac(port), source, to, b"sent")?;
            }
            assert_eq!(recording.ports_of(OWN)?, BTreeSet::from([port]), "{mode:?}");
            let expected = match mode {
                None => BTreeSet::from([port]),
                Some("redirect") => BTreeSet::from([2]),
                Some(_) => BTreeSet::new(),
            };
            assert_eq!(recording.ports_of(lab.address(2))?, expected, "{mode:?}");
        }
        drop(daemon);
    }
    lab.finish()
}

/// A container's device on top of the host's interface, in another namespace.
fn a_containers_device_is_not_the_hosts(kind: &str) -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    give_peer_its_address(&lab)?;
    let container = NetNs::new("container")?;
    lab.host.ip_batch(&format!(
        "link add link eth0_int name top type {kind}\n\
         link set top netns {}",
        container.path()
    ))?;
    container.ip_batch(&format!("address add {OWN}/24 dev top\nlink set top up"))?;
    wait_running(&container, "top")?;
    let (inside, outside, switch) =
        (Sender::new(&container)?, Sender::new(&lab.host)?, Sender::new(&lab.switch)?);
    let inner = udp::bind(&container, Ipv4Addr::UNSPECIFIED, LISTENING)?;
    let outer = udp::bind(&lab.host, Ipv4Addr::UNSPECIFIED, LISTENING)?;
    let others = lab.address(1);
    for mode in MODES {
        let daemon = mode.map(|mode| start(&lab, &["--interface", INTERFACES], mode)).transpose()?;
        icmp::ping(&container, OWN, PEER_OF_OWN, PATIENCE)?;
        icmp::ping(&lab.switch, PEER_OF_OWN, OWN, PATIENCE)?;
        let to = SocketAddrV4::new(lab.peer(0), PROBE_PORT);
        for (sender, through) in [(&inside, "top"), (&outside, "eth0_int")] {
            let recording = lab.record();
            sender.datagram(through, lab.peer_mac(0), others, to, b"another's")?;
            let expected = match mode {
                None => BTreeSet::from([0]),
                Some("redirect") => BTreeSet::from([1]),
                Some(_) => BTreeSet::new(),
            };
            assert_eq!(recording.ports_of(others)?, expected, "through {through} in mode {mode:?}");
        }
        // To the container, and then to the host.
        let station = mac_of(&container, "top")?;
        let to = SocketAddrV4::new(OWN, LISTENING);
        switch.datagram("br0", station, PEER_OF_OWN, to, b"own")?;
        assert_eq!(delivered_until(&inner, "own")?, ["own"]);
        for (to, payload) in [(others, "another's"), (lab.address(0), "own")] {
            let to = SocketAddrV4::new(to, LISTENING);
            switch.datagram("br0", lab.mac(0), lab.peer(0), to, payload.as_bytes())?;
        }
        let expected = if mode.is_some() { &["own"][..] } else { &["another's", "own"] };
        assert_eq!(delivered_until(&outer, "own")?, expected, "{mode:?}");
        drop(daemon);
    }
    lab.finish()
}

#[test]
fn a_containers_macvlan_passes_its_parent() -> Result<()> {
    if !features::require(Feature::Macvlan)? {
        return Ok(());
    }
    a_containers_device_is_not_the_hosts("macvlan mode bridge")
}

#[test]
fn a_containers_ipvlan_passes_its_parent() -> Result<()> {
    if !features::require(Feature::Ipvlan)? {
        return Ok(());
    }
    a_containers_device_is_not_the_hosts("ipvlan mode l2")
}

/// A service's address on an interface without a wire is the host's, not one interface's.
#[test]
fn an_address_of_a_dummy_interface_is_the_hosts() -> Result<()> {
    if !features::require(Feature::Dummy)? {
        return Ok(());
    }
    let lab = Lab::builder().links(2).build()?;
    lab.host
        .ip_batch(&format!("link add vip type dummy\naddress add {VIRTUAL}/32 dev vip\nlink set vip up"))?;
    let socket = udp::bind(&lab.host, VIRTUAL, LISTENING)?;
    for mode in ["redirect", "drop"] {
        let daemon = lab.mhebpf(&["--mode", mode, "--no-announce"])?;
        for port in lab.ports() {
            let recording = lab.record();
            lab.emit(port, VIRTUAL)?;
            recording.wait_datagram_from(VIRTUAL)?;
            assert_eq!(recording.ports_of(VIRTUAL)?, BTreeSet::from([port]));
            lab.deliver(port, SocketAddrV4::new(VIRTUAL, LISTENING), b"own")?;
            assert_eq!(delivered_until(&socket, "own")?, ["own"]);
        }
        assert_eq!(daemon.stop()?.summary.counts(), []);
    }
    lab.finish()
}
