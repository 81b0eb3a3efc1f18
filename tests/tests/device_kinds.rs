//! Hosts with interfaces of other kinds than an Ethernet card. Not every kernel has each: see [`features`].

use std::{collections::BTreeSet, net::Ipv4Addr};

use anyhow::Result;
use mhebpf_tests::{
    Lab, PATIENCE,
    features::{self, Feature},
    traffic::icmp,
};

const ON_THE_VLAN: Ipv4Addr = Ipv4Addr::new(10, 10, 0, 2);
const PEER_ON_THE_VLAN: Ipv4Addr = Ipv4Addr::new(10, 10, 0, 1);
const VIRTUAL: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 9);

/// A lab whose first link carries a VLAN as well.
fn lab_with_vlan() -> Result<Lab> {
    let lab = Lab::builder().links(2).build()?;
    for (ns, end, address) in [(&lab.host, "int", ON_THE_VLAN), (&lab.switch, "ext", PEER_ON_THE_VLAN)] {
        ns.ip_batch(&format!(
            "link add link eth0_{end} name v10 type vlan id 10\n\
             address add {address}/24 dev v10\n\
             link set v10 up"
        ))?;
    }
    Ok(lab)
}

#[test]
fn a_vlan_interface_keeps_its_own_traffic() -> Result<()> {
    if !features::require(Feature::Vlan)? {
        return Ok(());
    }
    for further in [&[][..], &["--interface", "v10"]] {
        let lab = lab_with_vlan()?;
        let daemon = lab.mhebpf(further)?;
        icmp::ping(&lab.host, ON_THE_VLAN, PEER_ON_THE_VLAN, PATIENCE)?;
        icmp::ping(&lab.switch, PEER_ON_THE_VLAN, ON_THE_VLAN, PATIENCE)?;
        let summary = daemon.stop()?.summary;
        assert_eq!(summary.total("redirected"), 0, "{summary:?}");
        lab.finish()?;
    }
    Ok(())
}

/// A service's address on an interface without a wire is the host's, not one interface's.
#[test]
fn an_address_of_a_dummy_interface_leaves_by_every_interface() -> Result<()> {
    if !features::require(Feature::Dummy)? {
        return Ok(());
    }
    let lab = Lab::builder().links(2).build()?;
    lab.host
        .ip_batch(&format!("link add vip type dummy\naddress add {VIRTUAL}/32 dev vip\nlink set vip up"))?;
    let daemon = lab.mhebpf(&[])?;
    for port in lab.ports() {
        let recording = lab.record();
        lab.emit(port, VIRTUAL)?;
        recording.wait_datagram_from(VIRTUAL)?;
        assert_eq!(recording.ports_of(VIRTUAL)?, BTreeSet::from([port]));
    }
    daemon.stop()?;
    lab.finish()
}
