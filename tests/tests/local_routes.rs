//! Addresses that are local by a route: AnyIP, and the VIP routes of cloud agents.

use std::net::{IpAddr, Ipv6Addr};

use anyhow::Result;
use mhebpf_tests::{Family, GRACE, Lab, lab::PROBE_PORT, traffic::udp};

/// An address, and a prefix that has it as its own, that no interface of the lab has anything to do with.
fn address_and_prefix(family: Family, number: u8) -> (IpAddr, String) {
    let v6 = Ipv6Addr::new(0x2001, 0xdb8, u16::from(number), 1, 0, 0, 0, 2);
    family.choose(
        ([10, number, 1, 2].into(), format!("10.{number}.0.0/16")),
        (v6.into(), format!("2001:db8:{number:x}::/48")),
    )
}

#[test]
fn a_vip_route_through_an_interface_is_owned_by_it() -> Result<()> {
    for family in Family::BOTH {
        let lab = Lab::article_in(family)?;
        let (of_prefix, prefix) = address_and_prefix(family, 77);
        let single = address_and_prefix(family, 76).0;
        lab.host.ip_batch(&format!(
            "route add local {single} dev eth2_int table local proto 66\n\
             route add local {prefix} dev eth2_int table local proto 66"
        ))?;
        let daemon = lab.mhebpf_quietly(&[])?;
        for vip in [single, of_prefix] {
            lab.claim(2, vip, GRACE);
            lab.wait_until_it_leaves_by(0, vip, &[2])?;
            lab.wait_until_it_leaves_by(2, vip, &[2])?;
            let socket = udp::bind(&lab.host, family.unspecified(), PROBE_PORT)?;
            lab.deliver(0, (vip, PROBE_PORT), b"stray")?;
            lab.deliver(2, (vip, PROBE_PORT), b"right")?;
            lab.fence()?;
            assert_eq!(udp::take_delivered(&socket)?.map(|(payload, _)| payload), Some(b"right".to_vec()));
            assert!(udp::take_delivered(&socket)?.is_none());
        }
        // It moves as an address does.
        lab.host.ip_batch(&format!(
            "route del local {prefix} dev eth2_int table local\n\
             route add local {prefix} dev eth3_int table local proto 66"
        ))?;
        lab.hand_over(2, 3, of_prefix, GRACE);
        lab.wait_until_it_leaves_by(2, of_prefix, &[3])?;
        daemon.stop()?;
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn anyip_is_host_wide_and_other_tables_say_nothing() -> Result<()> {
    for family in Family::BOTH {
        let lab = Lab::article_in(family)?;
        let (anyip, prefix) = address_and_prefix(family, 78);
        let (proxied, _) = address_and_prefix(family, 79);
        let all = family.choose("0.0.0.0/0", "::/0");
        lab.host.ip_batch(&format!(
            "route add local {prefix} dev lo table local\n\
             route add local {all} dev lo table 100"
        ))?;
        let daemon = lab.mhebpf_quietly(&[])?;
        for port in lab.ports() {
            lab.claim(port, anyip, GRACE);
            lab.wait_until_it_leaves_by(port, anyip, &[port])?;
            // A transparent proxy's table makes nothing local: this is foreign, and what is owned stays so.
            lab.claim(port, proxied, GRACE);
            lab.wait_until_it_leaves_by(port, proxied, &[port])?;
        }
        lab.wait_until_it_leaves_by(0, lab.address_in(family, 1), &[1])?;
        daemon.stop()?;
        lab.finish()?;
    }
    Ok(())
}
