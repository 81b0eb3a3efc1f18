//! A host with four uplinks and many routes, as one has that takes them from two BGP neighbours.

use std::{
    fmt::Write as _,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result};
use mhebpf_tests::{
    Mac, NetNs,
    craft::{self, Stations},
    interface,
    route::{Route, Routes},
    way::{Stream, Way},
};

use super::addresses::numbered;

/// Where the prefixes of the routes begin; each has 24 bits.
const FIRST: Ipv4Addr = Ipv4Addr::new(20, 0, 0, 0);
/// What one route leads to that changes.
const CHANGING: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 0);
/// What no route but the default one leads to.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// Where the routes that flap lead to.
const FLAPPING: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 0);
/// How many routes flap, each once a second.
const FLAPS: u32 = 50;
/// How many uplinks there are.
const UPLINKS: u8 = 4;
/// The uplink that owns the address whose route changes, and the one that gets and loses an address.
const ROUTED: u8 = 1;
const ADDRESSED: u8 = 2;

/// How the uplinks are numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// All in one subnet: each gateway is on-link for each owner.
    OneSubnet,
    /// Each in one of its own: a route is its own interface's only.
    FourSubnets,
}

impl Shape {
    /// Both.
    pub(super) const ALL: [Self; 2] = [Self::OneSubnet, Self::FourSubnets];

    /// Its name, as the head of a column.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::OneSubnet => "one subnet",
            Self::FourSubnets => "four subnets",
        }
    }

    /// An address in the subnet of an uplink.
    const fn address(self, uplink: u8, host: u8) -> Ipv4Addr {
        match self {
            Self::OneSubnet => Ipv4Addr::new(192, 168, 0, host),
            Self::FourSubnets => Ipv4Addr::new(172, 16, uplink, host),
        }
    }

    const fn own_address(self, uplink: u8) -> Ipv4Addr {
        self.address(uplink, 100 + uplink)
    }

    const fn length(self) -> u8 {
        match self {
            Self::OneSubnet => 21,
            Self::FourSubnets => 24,
        }
    }
}

/// The hardware address of the gateway whose address ends with this.
const fn gateway_mac(host: u8) -> Mac {
    Mac::lab(0x10 + host)
}

const fn own_mac(uplink: u8) -> Mac {
    Mac::lab(0xa0 + uplink)
}

/// The host, and where its frames arrive.
pub(super) struct Uplinks {
    pub(super) host: NetNs,
    outside: NetNs,
    shape: Shape,
    routes: Routes,
}

impl Uplinks {
    /// Makes the host with `count` routes, each by one of two gateways at random, and a default route by the first.
    ///
    /// # Errors
    ///
    /// Without root.
    pub(super) fn new(shape: Shape, count: u32) -> Result<Self> {
        let (host, outside) = (NetNs::new("host")?, NetNs::new("outside")?);
        let mut script = String::new();
        for uplink in 0..UPLINKS {
            let (name, own) = (format!("eth{uplink}"), shape.own_address(uplink));
            let path = outside.path();
            let _ = writeln!(
                script,
                "link add {name} address {} type veth peer name p{uplink} netns {path}\n\
                 link set {name} up\n\
                 address add {own}/{} dev {name}",
                own_mac(uplink),
                shape.length()
            );
            // Nobody answers for them: what is measured is not how a neighbour is found.
            for gateway in [2, 3] {
                let (address, mac) = (shape.address(uplink, gateway), gateway_mac(gateway));
                let _ = writeln!(script, "neighbour add {address} lladdr {mac} dev {name} nud permanent");
            }
        }
        host.ip_batch(&script).context("making uplinks")?;
        outside.ip_batch(&(0..UPLINKS).map(|n| format!("link set p{n} up\n")).collect::<String>())?;
        host.ip(&format!("route add default via {} dev eth0 metric 10", shape.address(0, 2)))?;
        if shape == Shape::FourSubnets {
            // The second one's are in the table; the others have nothing else.
            for uplink in 2..UPLINKS {
                let gateway = shape.address(uplink, 2);
                host.ip(&format!("route add default via {gateway} dev eth{uplink} metric 10{uplink}"))?;
            }
        }
        let mut uplinks = Self { routes: Routes::open(&host)?, host, outside, shape };
        let ways = [uplinks.route(0, FIRST, 2)?, uplinks.route(1, FIRST, uplinks.second_gateway())?];
        let nth = |n: u32| Route {
            destination: Ipv4Addr::from_bits(FIRST.to_bits() + (n << 8)).into(),
            ..ways[(n.wrapping_mul(0x9e37_79b9) >> 31) as usize]
        };
        uplinks.routes.add((0..count).map(nth))?;
        uplinks.change_route(2)?;
        Ok(uplinks)
    }

    /// The last byte of the second neighbour's address.
    const fn second_gateway(&self) -> u8 {
        match self.shape {
            Shape::OneSubnet => 3,
            Shape::FourSubnets => 2,
        }
    }

    fn route(&self, uplink: u8, prefix: Ipv4Addr, gateway: u8) -> Result<Route> {
        let gateway = self.shape.address(uplink, gateway);
        Route::new(&self.host, &format!("eth{uplink}"), (prefix, 24), gateway)
    }

    /// Has the route that changes lead to the gateway whose address ends with 2 or 3.
    pub(super) fn change_route(&mut self, gateway: u8) -> Result<()> {
        let route = self.route(ROUTED, CHANGING, gateway)?;
        self.routes.replace(route)
    }

    /// What that route's owner sends, from another interface.
    pub(super) fn routed(&self) -> Result<Stream> {
        self.stream(self.shape.own_address(ROUTED), Ipv4Addr::from_bits(CHANGING.to_bits() + 1))
    }

    /// How that leaves.
    pub(super) fn routed_by(&self, gateway: u8) -> Result<Way> {
        self.way(ROUTED, gateway_mac(gateway))
    }

    /// What is sent with the address that comes and goes, from another interface.
    pub(super) fn addressed(&self) -> Result<Stream> {
        self.stream(numbered(1), ELSEWHERE)
    }

    /// How that leaves: through its owner, or unchanged while it has none.
    pub(super) fn addressed_by(&self, present: bool) -> Result<Way> {
        self.way(if present { ADDRESSED } else { 0 }, gateway_mac(2))
    }

    /// The name of the interface that has that address.
    pub(super) fn addressed_interface(&self) -> String {
        format!("eth{ADDRESSED}")
    }

    fn way(&self, uplink: u8, station: Mac) -> Result<Way> {
        Ok(Way { ifindex: self.outside.run(|| interface::index(&format!("p{uplink}")))?, station })
    }

    fn stream(&self, from: Ipv4Addr, to: Ipv4Addr) -> Result<Stream> {
        let stations = Stations { source: own_mac(0), destination: gateway_mac(2) };
        let frame = craft::udp(stations, (from, 4000), (to, 4000), b"measured")?;
        Stream::start(&self.host, "eth0", frame, &self.outside)
    }

    /// Has [`FLAPS`] routes come and go once a second each until the answer is dropped.
    pub(super) fn flap(&self) -> Result<Flapping> {
        let first = self.route(3, FLAPPING, 2)?;
        let nth = move |n: u32| Route {
            destination: Ipv4Addr::from_bits(FLAPPING.to_bits() + (n << 8)).into(),
            ..first
        };
        let (mut routes, over) = (Routes::open(&self.host)?, Arc::new(AtomicBool::new(false)));
        let ended = Arc::clone(&over);
        let thread = thread::spawn(move || -> Result<()> {
            let pause = Duration::from_secs(1) / (2 * FLAPS);
            while !ended.load(Ordering::Acquire) {
                for n in 0..FLAPS {
                    routes.add([nth(n)])?;
                    thread::sleep(pause);
                    routes.remove([nth(n)])?;
                    thread::sleep(pause);
                }
            }
            Ok(())
        });
        Ok(Flapping { over, thread })
    }
}

/// Routes that come and go.
pub(super) struct Flapping {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
}

impl Flapping {
    /// Ends.
    ///
    /// # Errors
    ///
    /// When the kernel has refused a change.
    pub(super) fn stop(self) -> Result<()> {
        self.over.store(true, Ordering::Release);
        self.thread.join().ok().context("the thread that changes routes")?.context("flapping routes")
    }
}
