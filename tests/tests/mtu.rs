//! An owner with a smaller MTU than the interface that the kernel routed to.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, UdpSocket},
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use mhebpf_tests::{
    Lab, PATIENCE, PEER, PEER6, Recording, interface, scaled,
    traffic::{ARTICLE_PORT, tcp, udp},
    wait_until,
};

/// The largest Ethernet frame on a link with an MTU of 1500.
const LARGEST: usize = 1514;

/// Within this the transfer of a megabyte, which takes milliseconds, is not a sequence of timeouts.
const PROMPT: Duration = scaled(Duration::from_secs(2));

/// A lab in which the first route's interface takes jumbo frames, and so does the peer, but port 3 does not.
fn lab() -> Result<Lab> {
    let lab = Lab::article6()?;
    lab.switch.ip_batch("link set eth0_ext mtu 9000\nlink set br0 mtu 9000")?;
    lab.host.ip("link set eth0_int mtu 9000")?;
    // The peer knows better than to send large segments to port 3, but offers to take them.
    lab.switch.ip_batch(&format!(
        "route add {} dev br0 mtu 1500 advmss 8960\n\
         route add {} dev br0 mtu 1500 advmss 8940",
        lab.address(3),
        lab.address6(3)
    ))?;
    Ok(lab)
}

/// Port 3's addresses, each with the peer's of its family.
fn pairs(lab: &Lab) -> [(IpAddr, IpAddr); 2] {
    [(lab.address(3).into(), PEER.into()), (lab.address6(3).into(), PEER6.into())]
}

/// Asserts that port 3's address has kept to its port, and that no ICMP was seen outside.
fn assert_undisturbed(recording: &Recording<'_>, address: IpAddr) -> Result<()> {
    assert_eq!(recording.ports_of(address)?, BTreeSet::from([3]));
    let frames = recording.from_host()?;
    assert!(frames.iter().all(|frame| frame.ipv4().is_none_or(|datagram| datagram.protocol != 1)));
    let is_icmp6 = |(_, datagram): &(usize, mhebpf_tests::frame::Ipv6)| datagram.icmp_type != 0;
    assert!(!recording.ipv6_from_host()?.iter().any(is_icmp6));
    Ok(())
}

/// Without help TCP sends the same large segment again and again.
#[test]
fn tcp_adapts_to_the_owners_mtu() -> Result<()> {
    for offload in [true, false] {
        let lab = lab()?;
        lab.host.run(|| interface::set_segmentation_offload("eth0_int", offload))?;
        let daemon = lab.mhebpf_quietly(&[])?;
        for (address, peer) in pairs(&lab) {
            let server = tcp::EchoServer::start(&lab.switch, peer, ARTICLE_PORT)?;
            let recording = lab.record();
            let (stream, _) = tcp::connect_timed(&lab.host, address, server.address(), PATIENCE)?;
            let start = Instant::now();
            tcp::echo_bulk(&stream, 1_000_000)?;
            let elapsed = start.elapsed();
            assert!(elapsed < PROMPT, "{address}, TSO {offload}: {elapsed:?}");
            assert_undisturbed(&recording, address)?;
        }
        let summary = daemon.stop()?.summary;
        for family in ["ipv4", "ipv6"] {
            let found =
                summary.counts().iter().any(|count| count.reason == "too_big" && count.family == family);
            assert!(found, "{family}, TSO {offload}: {summary:?}");
        }
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn udp_adapts_to_the_owners_mtu() -> Result<()> {
    let lab = lab()?;
    let daemon = lab.mhebpf_quietly(&[])?;
    for (address, peer) in pairs(&lab) {
        let server = udp::EchoServer::start(&lab.switch, peer, ARTICLE_PORT)?;
        let socket = udp::bind(&lab.host, address, 0)?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        let recording = lab.record();
        // The first is lost, as on any path with a smaller MTU; then the kernel knows, and sends fragments.
        wait_until("a datagram to get through", PATIENCE, || {
            Ok(udp::echo(&socket, server.address(), &[7; 4000]).is_ok().then_some(()))
        })?;
        assert_undisturbed(&recording, address)?;
        assert!(recording.from_host()?.iter().all(|frame| frame.length <= LARGEST));
    }
    let summary = daemon.stop()?.summary;
    assert!(summary.count("eth0_int", "too_big") >= 2, "{summary:?}");
    lab.finish()
}

/// Who wants no fragments is told the size, as on any path with a smaller MTU.
#[test]
fn udp_without_fragments_is_told_of_the_owners_mtu() -> Result<()> {
    let lab = lab()?;
    let daemon = lab.mhebpf_quietly(&[])?;
    for (address, peer) in pairs(&lab) {
        let server = udp::EchoServer::start(&lab.switch, peer, ARTICLE_PORT)?;
        let socket = udp::bind(&lab.host, address, 0)?;
        forbid_fragments(&socket, address)?;
        let recording = lab.record();
        wait_until("the kernel to refuse a large datagram", PATIENCE, || {
            match socket.send_to(&[7; 4000], server.address()) {
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => Ok(Some(())),
                sent => sent.map(|_| None).context("sending a large datagram"),
            }
        })?;
        assert_eq!(recording.ports_of(address)?, BTreeSet::new());
        udp::echo(&socket, server.address(), &[7; 1400])?;
        assert_undisturbed(&recording, address)?;
    }
    let summary = daemon.stop()?.summary;
    assert!(summary.count("eth0_int", "too_big") >= 2, "{summary:?}");
    lab.finish()
}

fn forbid_fragments(socket: &UdpSocket, address: IpAddr) -> Result<()> {
    let (level, option, value) = match address {
        IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, 1),
    };
    // SAFETY: the kernel reads the integer only, whose size goes with it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of_val(&value) as u32,
        )
    };
    ensure!(result == 0, "forbidding fragments: {}", io::Error::last_os_error());
    Ok(())
}
