//! Which addresses are an interface's own, on live interfaces: what is not in the files about single devices, local routes and
//! the configuration.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use anyhow::{Result, ensure};
use mhebpf_tests::{Family, GRACE, Lab, lab::PROBE_PORT, traffic::udp};

const MODES: [&str; 2] = ["redirect", "drop"];

/// An address in the first subnet that no interface has.
fn extra(family: Family) -> IpAddr {
    family.choose(Ipv4Addr::new(192, 168, 0, 150).into(), subnet6(0x150).into())
}

const fn subnet6(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number)
}

/// Looks, in every mode, whether an address is the third port's and no other's, in both directions.
fn assert_owned_by_port_2(lab: &Lab, address: IpAddr) -> Result<()> {
    lab.claim(2, address, Duration::ZERO);
    for mode in MODES {
        let daemon = lab.mhebpf_quietly(&["--mode", mode, "--unknown", "drop"])?;
        for port in lab.ports() {
            let recording = lab.record();
            lab.emit(port, address)?;
            let own_or_redirected = port == 2 || mode == "redirect";
            let expected: BTreeSet<_> = own_or_redirected.then_some(2).into_iter().collect();
            assert_eq!(recording.ports_of(address)?, expected, "{address} through {port} in mode {mode}");
            lab.deliver(port, (address, PROBE_PORT), b"hello")?;
        }
        lab.fence()?;
        let summary = daemon.stop()?.summary;
        let counts = lab.ports().map(|port| summary.count(&format!("eth{port}_int"), "wrong_destination"));
        assert_eq!(counts.collect::<Vec<_>>(), [1, 1, 0, 1], "{address} in mode {mode}");
    }
    Ok(())
}

/// No new connection is to be made from it, but those that there are go on (RFC 4862 section 5.5.4).
#[test]
fn a_deprecated_address_is_an_address_like_others() -> Result<()> {
    for family in Family::BOTH {
        let lab = Lab::article_in(family)?;
        let (address, options) = (extra(family), family.choose("/21", "/64 nodad"));
        lab.host
            .ip(&format!("address add {address}{options} dev eth2_int valid_lft 9999 preferred_lft 0"))?;
        ensure!(lab.host.ip("address show dev eth2_int deprecated")?.contains(&address.to_string()));
        assert_owned_by_port_2(&lab, address)?;
        lab.finish()?;
    }
    Ok(())
}

/// While the kernel looks for duplicates, which here it does not cease to, the address is the interface's all the same.
#[test]
fn a_tentative_address_is_an_address_like_others() -> Result<()> {
    let lab = Lab::article6()?;
    for (key, value) in [("accept_dad", "1"), ("dad_transmits", "1000")] {
        lab.host.sysctl(&format!("net.ipv6.conf.eth2_int.{key}"), value)?;
    }
    let address = subnet6(0x150);
    lab.host.ip(&format!("address add {address}/64 dev eth2_int"))?;
    assert_owned_by_port_2(&lab, address.into())?;
    ensure!(lab.host.ip("address show dev eth2_int tentative")?.contains(&address.to_string()));
    lab.finish()
}

#[test]
fn an_address_without_a_subnet_is_an_address_like_others() -> Result<()> {
    for family in Family::BOTH {
        let lab = Lab::article_in(family)?;
        let address: IpAddr =
            family.choose([203, 0, 113, 9].into(), [0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 9].into());
        let options = family.choose("/32", "/128 nodad");
        lab.host.ip(&format!("address add {address}{options} dev eth2_int"))?;
        assert_owned_by_port_2(&lab, address)?;
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn the_peers_end_of_a_point_to_point_address_is_foreign() -> Result<()> {
    for family in Family::BOTH {
        let lab = Lab::article_in(family)?;
        let (address, far_end): (IpAddr, IpAddr) =
            (extra(family), family.choose([192, 168, 0, 9].into(), subnet6(9).into()));
        let options = family.choose("", " nodad");
        lab.host.ip(&format!("address add {address} peer {far_end} dev eth2_int{options}"))?;
        assert_owned_by_port_2(&lab, address)?;
        assert_foreign(&lab, far_end)?;
        lab.finish()?;
    }
    Ok(())
}

/// Looks whether an address is foreign on every port.
fn assert_foreign(lab: &Lab, address: IpAddr) -> Result<()> {
    for mode in MODES {
        let daemon = lab.mhebpf_quietly(&["--mode", mode, "--unknown", "drop"])?;
        for port in lab.ports() {
            lab.emit(port, address)?;
            lab.deliver(port, (address, PROBE_PORT), b"hello")?;
        }
        lab.fence()?;
        let summary = daemon.stop()?.summary;
        for port in lab.ports() {
            let counts = ["unknown_source", "wrong_source", "redirected", "wrong_destination"]
                .map(|reason| summary.count(&format!("eth{port}_int"), reason));
            assert_eq!(counts, [1, 0, 0, 0], "{address} on port {port} in mode {mode}: {summary:?}");
        }
    }
    Ok(())
}

/// They are in the kernel's table of local routes, but are nobody's address.
#[test]
fn the_broadcast_addresses_of_a_subnet_are_foreign() -> Result<()> {
    let lab = Lab::article()?;
    for address in [[192, 168, 7, 255], [192, 168, 0, 0]] {
        assert_foreign(&lab, address.into())?;
    }
    lab.finish()
}

/// fe80::1 is every router's, on each of its links.
#[test]
fn the_same_link_local_address_on_two_interfaces_has_two_owners() -> Result<()> {
    let same = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x77);
    for mode in MODES {
        let lab = Lab::article6()?;
        for port in [1, 2] {
            lab.add_address(port, same)?;
        }
        let socket = udp::bind(&lab.host, Ipv6Addr::UNSPECIFIED, PROBE_PORT)?;
        let daemon = lab.mhebpf_quietly(&["--mode", mode])?;
        for port in lab.ports() {
            let recording = lab.record();
            lab.emit(port, same)?;
            let left = recording.ports_of(same)?;
            match (port, mode) {
                (1 | 2, _) => assert_eq!(left, BTreeSet::from([port]), "mode {mode}"),
                (_, "drop") => assert_eq!(left, BTreeSet::new()),
                _ => assert!(left == BTreeSet::from([1]) || left == BTreeSet::from([2]), "{left:?}"),
            }
            lab.deliver(port, (same, PROBE_PORT), b"hello")?;
            lab.fence()?;
            let taken = udp::take_delivered(&socket)?.is_some();
            assert_eq!(taken, matches!(port, 1 | 2), "through port {port} in mode {mode}");
        }
        daemon.stop()?;
        lab.finish()?;
    }
    Ok(())
}

/// Virtual addresses for load balancing and anycast, router ids.
#[test]
fn an_ipv6_address_on_loopback_is_owned_by_every_interface() -> Result<()> {
    let lab = Lab::article6()?;
    let daemon = lab.mhebpf_quietly(&["--unknown", "drop"])?;
    let address = subnet6(0x150);
    lab.host.ip(&format!("address add {address}/128 dev lo nodad"))?;
    let socket = udp::bind(&lab.host, address, PROBE_PORT)?;
    for port in lab.ports() {
        lab.claim(port, address, GRACE);
        lab.wait_until_it_leaves_by(port, address, &[port])?;
        lab.deliver(port, (address, PROBE_PORT), b"hello")?;
        lab.fence()?;
        assert!(udp::take_delivered(&socket)?.is_some(), "through port {port}");
    }
    daemon.stop()?;
    lab.finish()
}
