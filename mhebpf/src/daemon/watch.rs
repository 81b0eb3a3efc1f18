//! Samples for the monitors.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use mhebpf_ebpf::{
    AddressTables, CounterKey, Direction, Family, Ipv4, Ipv6, Location, Network, Owners, OwnersKey, Reason,
    SAMPLED, Sample, packet,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};
use tracing::warn;

use super::flows::{self, Flows};
use crate::{
    control::{
        Answer,
        protocol::{Act, Seen, to_hex},
        server::to_line,
    },
    datapath::Samples,
    model::{Host, Tables},
    monitor,
    netlink::conntrack::Conntrack,
};

/// How many samples each CPU takes in a second and direction while somebody watches.
const RATE: u32 = 1000;

/// The same for the flows of the summary.
const FLOWS_RATE: u32 = 100;

/// How many samples are shown before others have their turn.
const ROUND: usize = 256;

/// How often those who watch are told what was suppressed.
const TELL: Duration = Duration::from_secs(1);

/// The monitors, and what wakes them up.
pub(super) struct Watch {
    ready: AsyncFd<OwnedFd>,
    tell: tokio::time::Interval,
    watchers: Vec<Watcher>,
    /// Kept in observe mode and while steering.
    flows: Option<Flows>,
    conntrack: Conntrack,
    /// There may be more samples, though nothing will say so.
    more: bool,
    /// What the kernel had suppressed when it was last asked.
    suppressed: u64,
}

struct Watcher {
    lines: mpsc::Sender<Arc<str>>,
    suppressed: u64,
    told: u64,
}

/// What samples are explained by.
pub(super) struct Context<'a> {
    pub(super) host: &'a Host,
    pub(super) tables: &'a Tables,
}

impl Watch {
    pub(super) fn new(samples: &Samples) -> Result<Self> {
        let ready = readiness(samples)?;
        let mut tell = interval(TELL);
        tell.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            ready,
            tell,
            watchers: Vec::new(),
            flows: None,
            conntrack: Conntrack::default(),
            more: false,
            suppressed: 0,
        })
    }

    /// Waits for these samples from now on, which come at the rate of those before.
    pub(super) fn turn_to(&mut self, samples: &mut Samples) -> Result<()> {
        self.ready = readiness(samples)?;
        self.set_rate(samples);
        Ok(())
    }

    /// Waits until there is something to show.
    pub(super) async fn ready(&mut self) {
        if self.rate() == 0 {
            return std::future::pending().await;
        }
        if self.more {
            return tokio::task::yield_now().await;
        }
        tokio::select! {
            _ = self.tell.tick() => {}
            ready = self.ready.readable() => match ready {
                // Before they are taken: what comes meanwhile makes it ready again.
                Ok(mut ready) => ready.clear_ready(),
                Err(error) => warn!("waiting for samples: {error}"),
            },
        }
    }

    /// Keeps the flows of interest from now on, and forgets those that are not any more.
    pub(super) fn keep_flows(&mut self, interest: Option<flows::Interest>, samples: &mut Samples) {
        if interest != self.flows.as_ref().map(Flows::interest) {
            self.flows = interest.map(Flows::new);
            self.set_rate(samples);
        }
    }

    /// The flows of interest.
    pub(super) fn flows(&self) -> Option<&Flows> {
        self.flows.as_ref()
    }

    /// Adds a monitor.
    pub(super) fn begin(
        &mut self,
        lines: mpsc::Sender<Arc<str>>,
        samples: &mut Samples,
        context: &Context<'_>,
    ) {
        // It sees nothing of what is left from an earlier time.
        self.show(samples, context);
        if self.watchers.is_empty() {
            self.suppressed = samples.suppressed().unwrap_or_default();
        }
        let mut watcher = Watcher { lines, suppressed: 0, told: 0 };
        watcher.send(&line(&Answer::Watching));
        self.watchers.push(watcher);
        self.set_rate(samples);
    }

    /// Lets go of monitors that have gone away.
    pub(super) fn prune(&mut self, samples: &mut Samples) {
        self.watchers.retain(|watcher| !watcher.lines.is_closed());
        self.set_rate(samples);
    }

    fn rate(&self) -> u32 {
        match (self.watchers.is_empty(), &self.flows) {
            (false, _) => RATE,
            (true, Some(_)) => FLOWS_RATE,
            (true, None) => 0,
        }
    }

    fn set_rate(&self, samples: &mut Samples) {
        if let Err(error) = samples.set_rate(self.rate()) {
            warn!("packets are shown to monitors at another rate than they should be: {error:#}");
        }
    }

    /// Shows what is there.
    pub(super) fn show(&mut self, samples: &mut Samples, context: &Context<'_>) {
        let clock = Clock::now();
        let mut shown = 0;
        while shown < ROUND
            && let Some(sample) = samples.next()
        {
            shown += 1;
            let Some(mut seen) = seen(&sample, context, &clock) else { continue };
            seen.original_destination = self.original_destination(&sample);
            if let Some(flows) = &mut self.flows {
                flows.add(&seen);
            }
            if self.watchers.is_empty() {
                continue;
            }
            let line = line(&Answer::Seen(Box::new(seen)));
            for watcher in &mut self.watchers {
                watcher.send(&line);
            }
        }
        self.more = shown == ROUND;
        if !self.more {
            self.tell_suppressed(samples);
        }
    }

    /// Where the socket has sent a packet, if its destination is another one since.
    fn original_destination(&mut self, sample: &Sample) -> Option<SocketAddr> {
        let is_own = sample.counted.direction == Direction::Egress as u8
            && sample.forwarded == 0
            && sample.socket != 0;
        let packet = monitor::tracked(sampled(sample)).filter(|_| is_own)?;
        self.conntrack.original_destination(&packet)
    }

    fn tell_suppressed(&mut self, samples: &Samples) {
        let Ok(now) = samples.suppressed() else { return };
        let more = now.saturating_sub(self.suppressed);
        self.suppressed = now;
        for watcher in &mut self.watchers {
            watcher.suppressed += more;
            watcher.tell_suppressed();
        }
    }
}

impl Watcher {
    /// One that reads too slowly misses lines.
    fn send(&mut self, line: &Arc<str>) {
        if self.lines.try_send(Arc::clone(line)).is_err() {
            self.suppressed += 1;
        }
    }

    fn tell_suppressed(&mut self) {
        if self.suppressed == self.told {
            return;
        }
        let packets = self.suppressed;
        if self.lines.try_send(line(&Answer::Suppressed { packets })).is_ok() {
            self.told = packets;
        }
    }
}

fn readiness(samples: &Samples) -> Result<AsyncFd<OwnedFd>> {
    // SAFETY: it is one descriptor of its own, the same for as long as it lives.
    let ready = unsafe { AsyncFd::register_with_interest(samples.readiness()?, Interest::READABLE) };
    ready.context("waiting for samples")
}

/// An empty line would end nothing: it can't be read, and the monitor says so.
fn line(answer: &Answer) -> Arc<str> {
    to_line(answer).unwrap_or_else(|_| "\n".to_owned()).into()
}

/// The time of day at which `CLOCK_MONOTONIC` began.
struct Clock {
    beginning: Duration,
}

impl Clock {
    fn now() -> Self {
        let mut monotonic = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the pointer is valid, and the clock is always there.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut monotonic) };
        let since = Duration::new(monotonic.tv_sec.unsigned_abs(), monotonic.tv_nsec.unsigned_abs() as u32);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { beginning: now.saturating_sub(since) }
    }

    /// In microseconds since 1970.
    fn time(&self, monotonic: u64) -> u64 {
        (self.beginning + Duration::from_nanos(monotonic)).as_micros() as u64
    }
}

/// `None` for numbers that this version does not know.
fn seen(sample: &Sample, context: &Context<'_>, clock: &Clock) -> Option<Seen> {
    let CounterKey { ifindex, direction, family, reason, observed } = sample.counted;
    let (direction, family) = (Direction::from_u8(direction)?, Family::from_u8(family)?);
    let reason = Reason::from_u8(reason)?;
    let act = match sample.act {
        act if act == mhebpf_ebpf::Act::Drop as u8 => Act::Drop,
        act if act == mhebpf_ebpf::Act::RewriteSender as u8 => Act::Rewrite,
        act if act == mhebpf_ebpf::Act::RewriteSource as u8 => Act::Rewrite,
        _ => Act::Redirect,
    };
    let bytes = sampled(sample);
    let judged = judged(bytes, direction, family, reason);
    let domain = context.tables.ifaces.get(&ifindex).map_or(0, |iface| iface.domain);
    let owners = judged.and_then(|address| owners(context.tables, domain, address));
    let owners = owners.iter().flat_map(|owners| owners.inline).filter(|owner| *owner != 0);
    Some(Seen {
        time: clock.time(sample.time),
        interface: context.host.name_of(ifindex),
        direction: direction.name().to_owned(),
        family: family.name().to_owned(),
        reason: reason.name().to_owned(),
        act,
        observed: observed != 0,
        redirected_to: (act == Act::Redirect && sample.owner != 0)
            .then(|| context.host.name_of(sample.owner)),
        judged,
        owners: owners.map(|owner| context.host.name_of(owner)).collect(),
        socket: sample.socket,
        forwarded: sample.forwarded != 0,
        original_destination: None,
        length: sample.length,
        bytes: to_hex(bytes),
    })
}

/// As much of a packet as a sample has.
fn sampled(sample: &Sample) -> &[u8] {
    &sample.bytes[..usize::from(sample.sampled).min(SAMPLED)]
}

/// The address that was judged, by the parser that judged it.
fn judged(bytes: &[u8], direction: Direction, family: Family, reason: Reason) -> Option<IpAddr> {
    let ethertype = match family {
        Family::Ipv4 => packet::ETHERTYPE_IPV4,
        Family::Arp => packet::ETHERTYPE_ARP,
        Family::Ipv6 | Family::Ndp => packet::ETHERTYPE_IPV6,
    };
    let is_sent = direction == Direction::Egress;
    let v4 = |address: Ipv4| IpAddr::from(Ipv4Addr::from(address.octets()));
    let v6 = |address: Ipv6| IpAddr::from(Ipv6Addr::from(address.octets()));
    let location = Location { ethertype, offset: 0, group: None };
    Some(match packet::parse_at(bytes, location)?.network {
        Network::Ipv4(datagram) => v4(if is_sent { datagram.source } else { datagram.destination }),
        Network::Arp(arp) => v4(if reason == Reason::ArpTarget { arp.target } else { arp.sender }),
        Network::Ipv6(_, discovery) if family == Family::Ndp => v6(discovery.target),
        Network::Ipv6(datagram, _) => v6(if is_sent { datagram.source } else { datagram.destination }),
    })
}

fn owners(tables: &Tables, domain: u32, address: IpAddr) -> Option<Owners> {
    fn find<A>(tables: &impl AddressTables<A>, key: &OwnersKey<A>) -> Option<Owners> {
        tables.owners(key).or_else(|| tables.owners_by_prefix(key)).copied()
    }
    match address {
        IpAddr::V4(address) => find(tables, &OwnersKey { domain, address: Ipv4::from(address) }),
        IpAddr::V6(address) => find(tables, &OwnersKey { domain, address: Ipv6::from(address) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_reads_slowly_is_told_how_much_it_has_missed() {
        let (lines, mut read) = mpsc::channel(1);
        let mut watcher = Watcher { lines, suppressed: 0, told: 0 };
        for _ in 0..3 {
            watcher.send(&line(&Answer::Watching));
            watcher.tell_suppressed();
        }
        assert_eq!(read.try_recv().as_deref().ok(), Some("{\"answer\":\"watching\"}\n"));
        watcher.tell_suppressed();
        assert_eq!(read.try_recv().as_deref().ok(), Some("{\"answer\":\"suppressed\",\"packets\":2}\n"));
        watcher.tell_suppressed();
        assert!(read.try_recv().is_err(), "once is enough");
    }
}
