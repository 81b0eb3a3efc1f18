//! What tests of next hops share: two routers beside the peer, and which of them many flows go to.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use mhebpf_tests::{
    Family, Lab, Mac, PATIENCE, craft,
    lab::{PROBE_PORT, Router},
    traffic::udp,
    wait_until,
};

/// The addresses of the routers, on the first subnet.
pub(crate) const ROUTERS: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 168, 0, 2), Ipv4Addr::new(192, 168, 0, 3)];
/// Their IPv6 addresses.
pub(crate) const ROUTERS6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 3)];

/// The port whose address is the source of the flows, and where the routers are reached.
pub(crate) const OWNER: usize = 1;
/// The port by which the kernel, or an AF_PACKET socket, sends them.
pub(crate) const ELSEWHERE: usize = 0;

/// How flows are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// By an AF_PACKET socket through [`ELSEWHERE`]: all have to be redirected.
    Redirected,
    /// By a UDP socket that is bound to the owner's address: the kernel routes them.
    Routed,
}

/// A lab with three links in one subnet and two routers, and the default route by the peer through [`ELSEWHERE`].
pub(crate) fn lab(family: Family) -> Result<(Lab, [Router; 2])> {
    let lab = Lab::builder().links(3).family(family).build()?;
    let routers = [lab.add_router(ROUTERS[0])?, lab.add_router(ROUTERS[1])?];
    if family == Family::V6 {
        for (router, address) in routers.iter().zip(ROUTERS6) {
            router.add_ipv6(address)?;
        }
    }
    // In IPv6 the lab has made it.
    lab.host.ip(&format!("route add default via {} dev eth0_int metric 10", lab.peer(0)))?;
    Ok((lab, routers))
}

/// Tells the host where the routers are, for good, on all its interfaces: nothing waits for an answer.
pub(crate) fn know(lab: &Lab, routers: &[Router; 2], family: Family) -> Result<()> {
    let mut lines = String::new();
    for port in lab.ports() {
        for (router, address6) in routers.iter().zip(ROUTERS6) {
            let address: IpAddr = family.choose(router.address.into(), address6.into());
            lines += &format!(
                "neighbour replace {address} lladdr {} dev eth{port}_int nud permanent\n",
                router.mac
            );
        }
    }
    lab.host.ip_batch(&lines)
}

/// Destinations behind the routers, as many as are asked for.
pub(crate) fn destinations(family: Family, count: u16) -> Vec<IpAddr> {
    let one = |n: u16| {
        let [high, low] = n.to_be_bytes();
        family.choose(
            Ipv4Addr::new(198, 51, 100 + high, low).into(),
            Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 1, n).into(),
        )
    };
    // .0 and .255 look like broadcasts, and .1 is the peer's own far address.
    (0..).filter(|n| (2..255).contains(&(n % 256))).take(count.into()).map(one).collect()
}

/// Sends a datagram to each destination, and says by which port and to which station it left: nothing where it did not.
pub(crate) fn hops(
    lab: &Lab,
    sender: Sender,
    from: impl Into<IpAddr>,
    to: &[IpAddr],
) -> Result<BTreeMap<IpAddr, (usize, Mac)>> {
    let from = from.into();
    let recording = lab.record();
    let socket = (sender == Sender::Routed).then(|| udp::bind(&lab.host, from, 0)).transpose()?;
    for destination in to {
        if let Some(socket) = &socket {
            // That there is no route is seen from what does not leave.
            let _ = socket.send_to(b"flow", (*destination, PROBE_PORT));
        } else {
            let stations = lab.outward(ELSEWHERE);
            let frame = craft::udp(stations, (from, PROBE_PORT), (*destination, PROBE_PORT), b"flow")?;
            lab.send_from_host(ELSEWHERE, &frame)?;
        }
    }
    let mut found = BTreeMap::new();
    for frame in recording.from_host()? {
        if frame.frame.datagram_source() != Some(from) {
            continue;
        }
        let to = match (frame.ipv4(), frame.ipv6()) {
            (Some(ip), _) => IpAddr::from(ip.destination),
            (_, Some(ip)) => IpAddr::from(ip.destination),
            _ => continue,
        };
        let way = (frame.port, frame.frame.destination);
        let before = found.insert(to, way);
        ensure!(before.is_none_or(|before| before == way), "{to} by {before:?} and {way:?}");
    }
    Ok(found)
}

/// How many flows each station got.
pub(crate) fn shares(hops: &BTreeMap<IpAddr, (usize, Mac)>) -> BTreeMap<(usize, Mac), usize> {
    let mut shares = BTreeMap::new();
    for way in hops.values() {
        *shares.entry(*way).or_default() += 1;
    }
    shares
}

/// Waits until all of these flows take one way; returns how long that took.
pub(crate) fn wait_all_by(
    lab: &Lab,
    sender: Sender,
    from: impl Into<IpAddr> + Copy,
    to: &[IpAddr],
    way: (usize, Mac),
) -> Result<Duration> {
    let start = Instant::now();
    let mut last = BTreeMap::new();
    // A gateway that does not answer is found out three seconds after each time that it is tried.
    wait_until(&format!("all by {way:?}"), PATIENCE * 3, || {
        last = shares(&hops(lab, sender, from, to)?);
        Ok((last == BTreeMap::from([(way, to.len())])).then_some(()))
    })
    .with_context(|| format!("{} flows, of which the last were by {last:?}", to.len()))?;
    Ok(start.elapsed())
}
