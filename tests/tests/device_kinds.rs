//! Hosts with interfaces of other kinds than an Ethernet card, in both families. Not every kernel has each: see [`features`].

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4},
    time::Duration,
};

use anyhow::Result;
use mhebpf_tests::{
    Daemon, Lab, Mac, NetNs, PATIENCE,
    device::{
        Device, ENFORCING, LISTENING, MODES, Sender, delivered_of_both, delivered_until, give_addresses,
        interfaces, mac_of, start, wait_running, ways_of_anothers,
    },
    features::{self, Feature},
    interface,
    lab::{INTERFACES, PROBE_PORT},
    team,
    traffic::{icmp, udp},
};

/// The addresses of the device in question, and of the switch in the same subnet.
const OWN: Ipv4Addr = Ipv4Addr::new(10, 10, 0, 2);
const PEER_OF_OWN: Ipv4Addr = Ipv4Addr::new(10, 10, 0, 1);
const OWN6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x10, 0, 0, 0, 0, 2);
const PEER_OF_OWN6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x10, 0, 0, 0, 0, 1);
const ADDRESSES: [(IpAddr, IpAddr); 2] =
    [(IpAddr::V4(OWN), IpAddr::V4(PEER_OF_OWN)), (IpAddr::V6(OWN6), IpAddr::V6(PEER_OF_OWN6))];

/// What most devices here are: on top of the first port of two.
const DEVICE: Device<'_> = Device {
    name: "top",
    addresses: &ADDRESSES,
    peer_interface: "br0",
    through: &[("top", 0), ("eth0_int", 0)],
    other: 1,
};

/// Gives the device its addresses and the switch's interface those of its peer, and says that they belong to these ports.
fn give_all_addresses(lab: &Lab, device: &Device<'_>, ports: &[usize]) -> Result<()> {
    give_addresses(&lab.switch, device.peer_interface, &ADDRESSES.map(|(_, peer)| peer))?;
    give_addresses(&lab.host, device.name, &ADDRESSES.map(|(own, _)| own))?;
    for port in ports {
        lab.claim(*port, OWN, Duration::ZERO);
        lab.claim(*port, OWN6, Duration::ZERO);
    }
    Ok(())
}

#[test]
fn a_vlan_interface_is_an_interface_of_its_own() -> Result<()> {
    if !features::require(Feature::Vlan)? {
        return Ok(());
    }
    let lab = Lab::builder().links(2).ipv6().build()?;
    for (ns, end) in [(&lab.host, "int"), (&lab.switch, "ext")] {
        ns.ip(&format!("link add link eth0_{end} name v10 type vlan id 10"))?;
    }
    let device = Device { name: "v10", peer_interface: "v10", through: &[("v10", 0)], ..DEVICE };
    give_all_addresses(&lab, &device, &[0])?;
    // The parent does not judge what is in its VLANs.
    device.try_out(&lab, &MODES, &interfaces(&[INTERFACES]), &[])?;
    device.try_out(&lab, &ENFORCING, &interfaces(&["v10", INTERFACES]), &["v10"])?;
    lab.finish()
}

/// A device of this type on top of the first link, whose frames that interface judges as well.
fn a_device_on_top_shares_its_parents_policy(feature: Feature, kind: &str) -> Result<()> {
    if !features::require(feature)? {
        return Ok(());
    }
    let lab = Lab::builder().links(2).ipv6().build()?;
    lab.host.ip(&format!("link add link eth0_int name top type {kind}"))?;
    give_all_addresses(&lab, &DEVICE, &[0])?;
    let judged = ["top", "eth0_int"];
    DEVICE.try_out(&lab, &MODES, &interfaces(&[INTERFACES]), &judged)?;
    DEVICE.try_out(&lab, &ENFORCING, &interfaces(&["top", INTERFACES]), &judged)?;
    lab.finish()
}

/// Its frames have a hardware address of its own: with that its addresses pass on the parent, and with the parent's they don't.
/// Whoever enforces on the parent alone has it judge what the device sends.
fn a_device_with_its_own_hardware_address(feature: Feature, kind: &str) -> Result<()> {
    if !features::require(feature)? {
        return Ok(());
    }
    let lab = Lab::builder().links(2).ipv6().build()?;
    lab.host.ip(&format!("link add link eth0_int name top type {kind}"))?;
    give_all_addresses(&lab, &DEVICE, &[0])?;
    let device = Device { through: &[("top", 0)], ..DEVICE };
    device.try_out(&lab, &MODES, &interfaces(&[INTERFACES]), &["top"])?;
    device.try_out(&lab, &ENFORCING, &interfaces(&["top", INTERFACES]), &["top"])?;
    lab.finish()
}

#[test]
fn a_macvlan_interface_has_its_addresses_for_itself() -> Result<()> {
    a_device_with_its_own_hardware_address(Feature::Macvlan, "macvlan mode bridge")
}

/// While no process has opened it, what comes is the host's.
#[test]
fn a_macvtap_interface_has_its_addresses_for_itself() -> Result<()> {
    a_device_with_its_own_hardware_address(Feature::Macvtap, "macvtap mode bridge")
}

/// It has its parent's hardware address.
#[test]
fn a_macvlan_in_passthru_mode_shares_its_parents_policy() -> Result<()> {
    a_device_on_top_shares_its_parents_policy(Feature::Macvlan, "macvlan mode passthru")
}

#[test]
fn an_ipvlan_interface_shares_its_parents_policy() -> Result<()> {
    a_device_on_top_shares_its_parents_policy(Feature::Ipvlan, "ipvlan mode l2")
}

/// A bridge as virtual machines use it: the host's address is on it, and an uplink and a container's interface are ports.
#[test]
fn a_bridges_address_belongs_to_its_ports() -> Result<()> {
    let lab = Lab::builder().links_without_address(1).links(1).ipv6().build()?;
    let container = NetNs::new("container")?;
    let address = Ipv4Addr::new(10, 10, 0, 3);
    lab.host.ip_batch(&format!(
        "link add virbr type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
         link add c0 type veth peer name eth0 netns {}\n\
         link set eth0_int master virbr\n\
         link set c0 master virbr up",
        container.path()
    ))?;
    container.ip_batch(&format!("address add {address}/24 dev eth0\nlink set eth0 up"))?;
    let device = Device { name: "virbr", through: &[("virbr", 0), ("eth0_int", 0)], ..DEVICE };
    give_all_addresses(&lab, &device, &[0])?;
    icmp::ping(&container, address, PEER_OF_OWN, PATIENCE)?;
    for (modes, selected) in [(&MODES[..], &[INTERFACES][..]), (&ENFORCING, &["virbr", "c0", INTERFACES])] {
        let arguments = interfaces(selected);
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

/// What is bridged through a macvlan crosses the interface below it with the hardware address of the bridge.
#[test]
fn a_bridges_address_belongs_to_what_is_below_a_macvlan_among_its_ports() -> Result<()> {
    if !features::require(Feature::Macvlan)? {
        return Ok(());
    }
    let lab = Lab::builder().links_without_address(1).links(1).ipv6().build()?;
    lab.host.ip_batch(
        "link add virbr type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
         link add link eth0_int name pass type macvlan mode passthru\n\
         link set pass master virbr up",
    )?;
    let device = Device { name: "virbr", through: &[("virbr", 0), ("pass", 0), ("eth0_int", 0)], ..DEVICE };
    give_all_addresses(&lab, &device, &[0])?;
    device.try_out(&lab, &MODES, &interfaces(&[INTERFACES]), &["virbr", "pass", "eth0_int"])?;
    let all = interfaces(&["virbr", "pass", INTERFACES]);
    device.try_out(&lab, &ENFORCING, &all, &["virbr", "pass", "eth0_int"])?;
    lab.finish()
}

/// A lab with three links, of which the first two become ports of the device `top`.
fn lab_with_ports_of(make: impl FnOnce(&NetNs) -> Result<()>) -> Result<Lab> {
    let lab = Lab::builder().links_without_address(2).links(1).ipv6().build()?;
    make(&lab.host)?;
    // Neither a bond nor a team takes a port that is up.
    lab.host.ip_batch(
        "link set eth0_int down\n\
         link set eth1_int down\n\
         link set eth0_int master top\n\
         link set eth1_int master top\n\
         link set top up",
    )?;
    for port in [0, 1] {
        lab.host.ip(&format!("link set eth{port}_int up"))?;
        lab.wait_running(port)?;
        // The device has the hardware address of its first port, and with it that one's link-local address.
        lab.claim(port, lab.link_local(0), Duration::ZERO);
    }
    Ok(lab)
}

/// Tries out a device of which the first two of three links are ports, and this one of them carries its frames.
fn try_device_with_ports(lab: &Lab, active: usize) -> Result<()> {
    give_all_addresses(lab, &DEVICE, &[0, 1])?;
    let through = [("top", active), ("eth0_int", 0), ("eth1_int", 1)];
    let device = Device { through: &through, other: 2, ..DEVICE };
    let all = ["top", "eth0_int", "eth1_int"];
    device.try_out(lab, &MODES, &interfaces(&[INTERFACES]), &all)?;
    // What the ports send by themselves is nobody's business then.
    let alone = Device { through: &through[..1], ..device };
    alone.try_out(lab, &ENFORCING, &interfaces(&["top", "eth2_int"]), &["top"])?;
    device.try_out(lab, &ENFORCING, &interfaces(&["top", INTERFACES]), &all)
}

/// A lab with a bond, and which of its ports carries its frames.
fn lab_with_bond() -> Result<(Lab, usize)> {
    let lab =
        lab_with_ports_of(|host| host.ip("link add top type bond mode active-backup miimon 10").map(drop))?;
    wait_running(&lab.host, "top")?;
    let shown = lab.host.ip("-details -oneline link show dev top")?;
    Ok((lab, usize::from(shown.contains("active_slave eth1_int"))))
}

#[test]
fn a_bonds_address_belongs_to_its_ports() -> Result<()> {
    if !features::require(Feature::Bond)? {
        return Ok(());
    }
    let (lab, active) = lab_with_bond()?;
    try_device_with_ports(&lab, active)?;
    lab.finish()
}

/// Devices on top of each other: the VLAN's address is its own, the bond's, and that of the bond's ports.
#[test]
fn the_address_of_a_vlan_on_a_bond_belongs_to_it_alone() -> Result<()> {
    if !features::require(Feature::Bond)? || !features::require(Feature::Vlan)? {
        return Ok(());
    }
    let (lab, active) = lab_with_bond()?;
    for (ns, below) in [(&lab.host, "top"), (&lab.switch, "br0")] {
        ns.ip(&format!("link add link {below} name v10 type vlan id 10"))?;
    }
    let through = [("v10", active)];
    let device = Device { name: "v10", peer_interface: "v10", through: &through, other: 2, ..DEVICE };
    give_all_addresses(&lab, &device, &[0, 1])?;
    device.try_out(&lab, &MODES, &interfaces(&[INTERFACES]), &[])?;
    device.try_out(&lab, &ENFORCING, &interfaces(&["v10", "top", INTERFACES]), &["v10"])?;
    lab.finish()
}

#[test]
fn a_teams_address_belongs_to_its_ports() -> Result<()> {
    if !features::require(Feature::Team)? {
        return Ok(());
    }
    let lab = lab_with_ports_of(|host| {
        // The ports keep their own hardware addresses, so frames for the team come in by the first.
        host.ip(&format!("link add top address {} type team", Lab::host_mac(0)))?;
        team::set_load_balancing(host, "top")
    })?;
    try_device_with_ports(&lab, 0)?;
    lab.finish()
}

/// A container's device on top of the host's interface, in another namespace.
fn a_containers_device_is_not_the_hosts(kind: &str) -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    lab.switch.ip(&format!("address add {PEER_OF_OWN}/24 dev br0"))?;
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
            let expected = ways_of_anothers(mode, 0, 1);
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
            lab.fence()?;
        }
        let expected = delivered_of_both(mode.is_some());
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

/// To a container the index of its macvlan's parent says nothing: it is another interface's here.
#[test]
fn an_interface_with_the_index_of_a_lower_device_elsewhere_owns_nothing() -> Result<()> {
    if !features::require(Feature::Macvlan)? {
        return Ok(());
    }
    let lab = Lab::builder().links(1).build()?;
    let container = NetNs::new("container")?;
    lab.host.ip_batch(&format!(
        "link add link eth0_int name top type macvlan mode bridge\n\
         link set top netns {}",
        container.path()
    ))?;
    let index = lab.host.run(|| interface::index("eth0_int"))?;
    container.ip_batch(&format!(
        "link add other index {index} type veth peer name end\n\
         link set end up\n\
         link set other up"
    ))?;
    give_addresses(&container, "top", &[OWN.into()])?;
    let daemon =
        Daemon::spawn(&container, &["run", "--interface", "top", "--interface", "other", "--mode", "drop"])?;
    daemon.wait_ready()?;
    let to = SocketAddrV4::new(PEER_OF_OWN, PROBE_PORT);
    Sender::new(&container)?.datagram("other", Mac::BROADCAST, OWN, to, b"another's")?;
    let summary = daemon.stop()?.summary;
    assert_eq!(summary.count("other", "wrong_source"), 1, "{summary:?}");
    lab.finish()
}

/// A service's address on an interface without a wire is the host's, not one interface's.
#[test]
fn an_address_of_a_dummy_interface_is_the_hosts() -> Result<()> {
    if !features::require(Feature::Dummy)? {
        return Ok(());
    }
    let lab = Lab::builder().links(2).ipv6().build()?;
    lab.host.ip_batch(&format!(
        "link add vip type dummy\n\
         link set vip up\n\
         address add {OWN}/32 dev vip\n\
         address add {OWN6}/128 dev vip nodad"
    ))?;
    for mode in ["redirect", "drop"] {
        let daemon = lab.mhebpf(&["--mode", mode, "--no-announce"])?;
        for (address, _) in ADDRESSES {
            let socket = udp::bind(&lab.host, address, LISTENING)?;
            for port in lab.ports() {
                let recording = lab.record();
                lab.emit(port, address)?;
                recording.wait_datagram_from(address)?;
                assert_eq!(recording.ports_of(address)?, BTreeSet::from([port]));
                lab.deliver(port, (address, LISTENING), b"own")?;
                assert_eq!(delivered_until(&socket, "own")?, ["own"]);
            }
        }
        let summary = daemon.stop()?.summary;
        assert_eq!(summary.total("redirected") + summary.total("wrong_source"), 0, "{summary:?}");
        assert_eq!(summary.total("wrong_destination"), 0, "{summary:?}");
    }
    lab.finish()
}
