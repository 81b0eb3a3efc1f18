//! Addresses that are local by a route: AnyIP, and the VIP routes of cloud agents.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::Result;
use mhebpf_tests::{GRACE, Lab, lab::PROBE_PORT, traffic::udp};

#[test]
fn a_vip_route_through_an_interface_is_owned_by_it() -> Result<()> {
    let lab = Lab::article()?;
    let (single, of_prefix) = (Ipv4Addr::new(198, 51, 100, 77), Ipv4Addr::new(10, 77, 1, 2));
    lab.host.ip_batch(&format!(
        "route add local {single} dev eth2_int table local proto 66\n\
         route add local 10.77.0.0/16 dev eth2_int table local proto 66"
    ))?;
    let daemon = lab.mhebpf_quietly(&[])?;
    for vip in [single, of_prefix] {
        lab.claim(2, vip, GRACE);
        lab.wait_until_it_leaves_by(0, vip, &[2])?;
        lab.wait_until_it_leaves_by(2, vip, &[2])?;
        let socket = udp::bind(&lab.host, Ipv4Addr::UNSPECIFIED, PROBE_PORT)?;
        lab.deliver(0, SocketAddrV4::new(vip, PROBE_PORT), b"stray")?;
        lab.deliver(2, SocketAddrV4::new(vip, PROBE_PORT), b"right")?;
        lab.fence()?;
        assert_eq!(udp::take_delivered(&socket)?.map(|(payload, _)| payload), Some(b"right".to_vec()));
        assert!(udp::take_delivered(&socket)?.is_none());
    }
    // It moves as an address does.
    lab.host.ip("route change local 10.77.0.0/16 dev eth3_int table local proto 66")?;
    lab.hand_over(2, 3, of_prefix, GRACE);
    lab.wait_until_it_leaves_by(2, of_prefix, &[3])?;
    daemon.stop()?;
    lab.finish()
}

#[test]
fn anyip_is_host_wide_and_other_tables_say_nothing() -> Result<()> {
    let lab = Lab::article()?;
    let (anyip, proxied) = (Ipv4Addr::new(10, 78, 1, 2), Ipv4Addr::new(203, 0, 113, 9));
    lab.host.ip_batch(
        "route add local 10.78.0.0/16 dev lo table local\n\
         route add local default dev lo table 100",
    )?;
    let daemon = lab.mhebpf_quietly(&[])?;
    for port in lab.ports() {
        lab.claim(port, anyip, GRACE);
        lab.wait_until_it_leaves_by(port, anyip, &[port])?;
        // A transparent proxy's table makes nothing local: this is foreign, and what is owned stays so.
        lab.claim(port, proxied, GRACE);
        lab.wait_until_it_leaves_by(port, proxied, &[port])?;
    }
    lab.wait_until_it_leaves_by(0, lab.address(1), &[1])?;
    daemon.stop()?;
    lab.finish()
}
