//! Memberships of groups (IGMP) are of the link: a report leaves where the group was joined, whatever its source.

use std::net::{Ipv4Addr, UdpSocket};

use anyhow::{Context as _, Result};
use etherparse::{IpNumber, Ipv4Header};
use mhebpf_tests::{
    Lab, Mac,
    craft::{self, Stations},
    frame::{ETHERTYPE_IPV4, Ipv4},
    interface,
    traffic::udp,
};
use socket2::{InterfaceIndexOrAddress, SockRef};

/// IGMP's number as an IP protocol.
const IGMP: u8 = 2;
const MODES: [&str; 2] = ["redirect", "drop"];
const ALL_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 2);
const VERSION_3_REPORTS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 22);

/// Two links with addresses, and one without, which speaks this version of IGMP.
fn lab(version: u8) -> Result<Lab> {
    let lab = Lab::builder().links(2).links_without_address(1).build()?;
    for port in lab.ports() {
        let key = format!("net.ipv4.conf.eth{port}_int.force_igmp_version");
        lab.host.sysctl(&key, &version.to_string())?;
    }
    Ok(lab)
}

/// The group that is joined on a port.
fn group(port: usize) -> Ipv4Addr {
    Ipv4Addr::new(239, 1, 1, port as u8)
}

/// What a report of a port says of where it comes from: the third has no address.
fn source(lab: &Lab, port: usize) -> Ipv4Addr {
    if port == 2 { Ipv4Addr::UNSPECIFIED } else { lab.address(port) }
}

fn join(lab: &Lab, port: usize) -> Result<UdpSocket> {
    let socket = udp::bind(&lab.host, Ipv4Addr::UNSPECIFIED, 0)?;
    let index = lab.host.run(|| interface::index(&format!("eth{port}_int")))?;
    SockRef::from(&socket).join_multicast_v4_n(&group(port), &InterfaceIndexOrAddress::Index(index))?;
    Ok(socket)
}

/// The IGMP messages that left the host to a group, with their ports.
fn messages(frames: &[std::sync::Arc<mhebpf_tests::Captured>], to: Ipv4Addr) -> Vec<(usize, Mac, Ipv4)> {
    let igmp = frames.iter().filter_map(|frame| Some((frame.port, frame.frame.destination, *frame.ipv4()?)));
    igmp.filter(|(_, _, header)| header.protocol == IGMP && header.destination == to).collect()
}

/// The hardware address of a group (RFC 1112 section 6.4).
const fn mac_of(group: Ipv4Addr) -> Mac {
    let [_, b, c, d] = group.octets();
    Mac([0x01, 0x00, 0x5e, b & 0x7f, c, d])
}

/// Looks at what was said to a group: on this port only, with the source that it has there.
fn check(lab: &Lab, said: &[(usize, Mac, Ipv4)], to: Ipv4Addr, port: usize) {
    assert!(!said.is_empty(), "nothing to {to}");
    for (by, mac, header) in said {
        assert_eq!((*by, *mac, header.source), (port, mac_of(to), source(lab, port)), "to {to}");
        assert!(header.is_sound, "the header's checksum is wrong to {to}");
    }
}

#[test]
fn a_report_leaves_by_the_link_where_the_group_was_joined() -> Result<()> {
    for mode in MODES {
        let lab = lab(2)?;
        let daemon = lab.mhebpf_quietly(&["--mode", mode, "--unknown", "drop"])?;
        for port in lab.ports() {
            let recording = lab.record();
            let socket = join(&lab, port)?;
            recording.wait_from_host("a report", |frame| {
                frame.ipv4().is_some_and(|header| header.destination == group(port))
            })?;
            check(&lab, &messages(&recording.from_host()?, group(port)), group(port), port);
            let recording = lab.record();
            drop(socket);
            recording.wait_from_host("a message that leaves the group", |frame| {
                frame.ipv4().is_some_and(|header| header.destination == ALL_ROUTERS)
            })?;
            check(&lab, &messages(&recording.from_host()?, ALL_ROUTERS), ALL_ROUTERS, port);
        }
        let summary = daemon.stop()?.summary;
        assert!(summary.count("eth2_int", "igmp_rewritten") >= 2, "mode {mode}: {summary:?}");
        assert_eq!(
            summary.total("redirected") + summary.total("wrong_source"),
            0,
            "mode {mode}: {summary:?}"
        );
        lab.finish()?;
    }
    Ok(())
}

/// With another interface's address: so it is without mhebpf, and so it is when somebody only looks.
#[test]
fn the_kernel_by_itself_reports_with_another_interfaces_address() -> Result<()> {
    for arguments in [None, Some(["--mode", "observe"])] {
        let lab = lab(2)?;
        let daemon = arguments.map(|arguments| lab.mhebpf_quietly(&arguments)).transpose()?;
        let recording = lab.record();
        let _socket = join(&lab, 2)?;
        let report = recording.wait_from_host("a report", |frame| {
            frame.ipv4().is_some_and(|header| header.destination == group(2))
        })?;
        let header = report.ipv4().context("IPv4")?;
        assert_eq!((report.port, header.source, header.is_sound), (2, lab.address(0), true));
        if let Some(daemon) = daemon {
            let summary = daemon.stop()?.summary;
            assert!(summary.observed("eth2_int", "igmp_rewritten") > 0, "{summary:?}");
        }
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn reports_of_version_3_leave_as_the_kernel_makes_them() -> Result<()> {
    let lab = lab(3)?;
    let daemon = lab.mhebpf_quietly(&["--unknown", "drop"])?;
    for port in lab.ports() {
        let recording = lab.record();
        let _socket = join(&lab, port)?;
        let report = recording.wait_from_host("a report", |frame| {
            frame.port == port && frame.ipv4().is_some_and(|header| header.destination == VERSION_3_REPORTS)
        })?;
        let header = report.ipv4().context("IPv4")?;
        assert_eq!((header.source, header.is_sound), (source(&lab, port), true));
    }
    assert_eq!(daemon.stop()?.summary.counts(), []);
    lab.finish()
}

/// As a multicast router's daemon may make it, by a raw socket.
#[test]
fn a_report_with_another_interfaces_address_leaves_with_the_own_one() -> Result<()> {
    for mode in MODES {
        let lab = lab(2)?;
        let daemon = lab.mhebpf_quietly(&["--mode", mode])?;
        for port in lab.ports() {
            let recording = lab.record();
            let (another, to) = (lab.address(usize::from(port == 0)), group(9));
            let report = [0x16, 0, 0xf9, 0xf4, 239, 1, 1, 9];
            let mut header = Ipv4Header::new(8, 1, IpNumber::IGMP, another.octets(), to.octets())?;
            header.header_checksum = header.calc_header_checksum();
            let body = [&header.to_bytes()[..], &report].concat();
            let stations = Stations { source: lab.mac(port), destination: mac_of(to) };
            lab.send_from_host(port, &craft::ethernet(stations, ETHERTYPE_IPV4, &body))?;
            check(&lab, &messages(&recording.from_host()?, to), to, port);
        }
        let summary = daemon.stop()?.summary;
        for port in lab.ports() {
            assert_eq!(summary.count(&format!("eth{port}_int"), "igmp_rewritten"), 1, "{summary:?}");
        }
        lab.finish()?;
    }
    Ok(())
}
