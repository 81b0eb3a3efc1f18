//! The judge of leaks: no frame may leave the host with an address that belongs to another interface.

use std::{
    fmt::Write as _,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use crate::{capture::Captured, wait::scaled};

/// How long after a change both the old and the new order are allowed.
///
/// This is more than the figures that mhebpf is held to, and that tests of their own measure: a machine that is busy with something else
/// shall not make leaks out of delays.
pub const GRACE: Duration = scaled(Duration::from_secs(4));

/// How many leaks a message shows in full.
const SHOWN: usize = 12;

/// What a lab knows about who owns what, and when mhebpf was there to enforce it.
#[derive(Debug, Default)]
pub(crate) struct Judge(Mutex<Record>);

#[derive(Debug, Default)]
struct Record {
    claims: Vec<Claim>,
    periods: Vec<Period>,
    /// Ports whose interface is so new that mhebpf need not enforce there yet.
    newcomers: Vec<(usize, Span)>,
}

/// An address belongs to the interface behind a port.
#[derive(Debug)]
struct Claim {
    address: IpAddr,
    port: usize,
    /// When the port may use the address.
    allowed: Span,
    /// When no other port may that has no claim of its own.
    exclusive: Span,
}

/// A stretch of time, which may have no end yet.
#[derive(Clone, Copy, Debug)]
struct Span {
    from: SystemTime,
    until: Option<SystemTime>,
}

/// mhebpf enforces.
#[derive(Debug)]
struct Period {
    id: usize,
    span: Span,
}

impl Judge {
    fn lock(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address belongs to the port: from now on, and exclusively when `grace` has passed, or at once if mhebpf is yet to start.
    pub(crate) fn claim(&self, port: usize, address: impl Into<IpAddr>, grace: Duration) {
        let (now, address) = (SystemTime::now(), address.into());
        let mut record = self.lock();
        let running = record.periods.iter().any(|period| period.span.until.is_none());
        let exclusive = Span::since(if running { now + grace } else { now });
        record.claims.push(Claim { address, port, allowed: Span::since(now), exclusive });
    }

    /// The address belongs to the port no longer: others may use it at once, the port itself for the time of `grace`.
    pub(crate) fn release(&self, port: usize, address: impl Into<IpAddr>, grace: Duration) {
        let (now, address) = (SystemTime::now(), address.into());
        for claim in &mut self.lock().claims {
            if (claim.port, claim.address, claim.allowed.until) == (port, address, None) {
                claim.exclusive.until = Some(now);
                claim.allowed.until = Some(now + grace);
            }
        }
    }

    /// The address moves: from now on both ports may use it, for the time of `grace`, and no third.
    pub(crate) fn hand_over(&self, from: usize, to: usize, address: impl Into<IpAddr>, grace: Duration) {
        let address = address.into();
        self.claim(to, address, Duration::ZERO);
        let end = SystemTime::now() + grace;
        for claim in &mut self.lock().claims {
            if (claim.port, claim.address, claim.allowed.until) == (from, address, None) {
                claim.exclusive.until = Some(end);
                claim.allowed.until = Some(end);
            }
        }
    }

    /// The interface behind a port is new: what leaves through it for the time of `grace` is no leak.
    pub(crate) fn newcomer(&self, port: usize, grace: Duration) {
        let now = SystemTime::now();
        self.lock().newcomers.push((port, Span { from: now, until: Some(now + grace) }));
    }

    /// Begins a period of enforcement.
    pub(crate) fn begin(&self) -> usize {
        let mut record = self.lock();
        let id = record.periods.len();
        record.periods.push(Period { id, span: Span::since(SystemTime::now()) });
        id
    }

    /// Ends it.
    pub(crate) fn end(&self, id: usize) {
        for period in &mut self.lock().periods {
            if period.id == id && period.span.until.is_none() {
                period.span.until = Some(SystemTime::now());
            }
        }
    }

    /// What is wrong, or `None`.
    pub(crate) fn verdict(&self, frames: &[Arc<Captured>]) -> Option<String> {
        let record = self.lock();
        let leaks: Vec<_> = frames.iter().filter(|frame| record.is_leak(frame)).collect();
        if leaks.is_empty() {
            return None;
        }
        let mut text =
            format!("{} frames left through an interface that does not own their source:", leaks.len());
        for leak in leaks.iter().take(SHOWN) {
            let _ = write!(text, "\n  {leak}");
        }
        Some(text)
    }
}

impl Record {
    fn is_leak(&self, captured: &Captured) -> bool {
        if !captured.from_host || !captured.frame.is_untagged_or_priority_tagged() {
            return false;
        }
        // An advertisement tells where its target is, whoever says so.
        let advertised = captured.frame.advertised().map(IpAddr::from);
        captured.frame.speaker().into_iter().chain(advertised).any(|address| self.leaks(captured, address))
    }

    fn leaks(&self, captured: &Captured, address: IpAddr) -> bool {
        let is_new = |(port, span): &(usize, Span)| *port == captured.port && span.contains(captured.at);
        let enforced = self.periods.iter().any(|period| period.span.contains(captured.at))
            && !self.newcomers.iter().any(is_new);
        let claims = || self.claims.iter().filter(|claim| claim.address == address);
        let claimed = claims().any(|claim| claim.exclusive.contains(captured.at));
        let allowed =
            claims().any(|claim| claim.port == captured.port && claim.allowed.contains(captured.at));
        // No end system says "I am 127.0.0.1" on a wire, unless it is told to.
        enforced && (address.is_loopback() || claimed) && !allowed
    }
}

impl Span {
    const fn since(from: SystemTime) -> Self {
        Self { from, until: None }
    }

    fn contains(&self, moment: SystemTime) -> bool {
        self.from <= moment && self.until.is_none_or(|until| moment <= until)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;
    use crate::{
        craft::{self, Stations},
        frame::{Arp, Frame},
        mac::Mac,
    };

    const A: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 100);
    const PEER: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 1);

    fn sent(port: usize, sender: Ipv4Addr) -> Arc<Captured> {
        let arp = Arp::request(Mac::lab(9), sender, PEER);
        let frame = Frame::parse(&arp.frame(Mac::BROADCAST)).unwrap();
        Arc::new(Captured { port, from_host: true, at: SystemTime::now(), length: 42, frame })
    }

    #[test]
    fn a_frame_with_anothers_address_is_a_leak_while_mhebpf_runs() {
        let judge = Judge::default();
        judge.claim(0, A, Duration::ZERO);
        assert_eq!(judge.verdict(&[sent(1, A)]), None, "nobody enforces yet");
        let period = judge.begin();
        assert_eq!(judge.verdict(&[sent(0, A), sent(1, PEER)]), None);
        assert!(judge.verdict(&[sent(1, A)]).unwrap().contains("tell 192.168.0.100"));
        judge.end(period);
        assert_eq!(judge.verdict(&[sent(1, A)]), None);
    }

    #[test]
    fn an_advertisement_of_anothers_address_is_a_leak_whoever_sends_it() {
        let judge = Judge::default();
        let [first, second] = [1, 2].map(|n| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n));
        judge.claim(0, first, Duration::ZERO);
        judge.claim(1, second, Duration::ZERO);
        judge.begin();
        let advertised = |port, from, target| {
            let stations = Stations { source: Mac::lab(9), destination: Mac::lab(8) };
            let frame = craft::advertisement(stations, (from, second), target);
            let frame = Frame::parse(&frame).unwrap();
            Arc::new(Captured { port, from_host: true, at: SystemTime::now(), length: 86, frame })
        };
        assert_eq!(judge.verdict(&[advertised(0, first, first), advertised(1, second, second)]), None);
        assert!(judge.verdict(&[advertised(1, second, first)]).unwrap().contains("NA of 2001:db8::1"));
        assert!(judge.verdict(&[advertised(1, first, second)]).is_some(), "by its source");
    }

    #[test]
    fn both_owners_are_allowed_while_an_address_moves() {
        let judge = Judge::default();
        judge.claim(0, A, Duration::ZERO);
        judge.begin();
        judge.hand_over(0, 1, A, GRACE);
        assert_eq!(judge.verdict(&[sent(0, A), sent(1, A)]), None);
        assert!(judge.verdict(&[sent(2, A)]).is_some(), "a third was never an owner");
    }

    #[test]
    fn an_address_that_is_gone_is_foreign() {
        let judge = Judge::default();
        judge.claim(0, A, Duration::ZERO);
        judge.begin();
        judge.release(0, A, GRACE);
        assert_eq!(judge.verdict(&[sent(0, A), sent(2, A)]), None);
    }
}
