//! The judge of leaks: no frame may leave the host with an address that belongs to another interface.

use std::{
    fmt::Write as _,
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use crate::capture::Captured;

/// How long after a change of addresses both the old and the new order are allowed.
pub const GRACE: Duration = Duration::from_secs(1);

/// How many leaks a message shows in full.
const SHOWN: usize = 12;

/// What a lab knows about who owns what, and when mhebpf was there to enforce it.
#[derive(Debug, Default)]
pub(crate) struct Judge(Mutex<Record>);

#[derive(Debug, Default)]
struct Record {
    claims: Vec<Claim>,
    periods: Vec<Period>,
}

/// An address belongs to the interface behind a port.
#[derive(Debug)]
struct Claim {
    address: Ipv4Addr,
    port: usize,
    /// From here on the port may use the address …
    allowed: SystemTime,
    /// … and from here on no other may that has no claim.
    exclusive: SystemTime,
    until: Option<SystemTime>,
}

/// mhebpf enforces.
#[derive(Debug)]
struct Period {
    id: usize,
    from: SystemTime,
    until: Option<SystemTime>,
}

impl Judge {
    fn lock(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address belongs to the port: from now on, exclusively when `grace` has passed.
    pub(crate) fn claim(&self, port: usize, address: Ipv4Addr, grace: Duration) {
        let allowed = SystemTime::now();
        self.lock().claims.push(Claim { address, port, allowed, exclusive: allowed + grace, until: None });
    }

    /// The address belongs to the port no longer when `grace` has passed.
    pub(crate) fn release(&self, port: usize, address: Ipv4Addr, grace: Duration) {
        let end = SystemTime::now() + grace;
        for claim in &mut self.lock().claims {
            if (claim.port, claim.address, claim.until) == (port, address, None) {
                claim.until = Some(end);
            }
        }
    }

    /// Begins a period of enforcement.
    pub(crate) fn begin(&self) -> usize {
        let mut record = self.lock();
        let id = record.periods.len();
        record.periods.push(Period { id, from: SystemTime::now(), until: None });
        id
    }

    /// Ends it.
    pub(crate) fn end(&self, id: usize) {
        for period in &mut self.lock().periods {
            if period.id == id && period.until.is_none() {
                period.until = Some(SystemTime::now());
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
        let Some(address) = captured.frame.speaker() else { return false };
        let enforced = self.periods.iter().any(|period| contains(period.from, period.until, captured.at));
        let claimed = self.claims.iter().any(|claim| {
            claim.address == address && contains(claim.exclusive, claim.until, captured.at)
        });
        let allowed = self.claims.iter().any(|claim| {
            (claim.address, claim.port) == (address, captured.port)
                && contains(claim.allowed, claim.until, captured.at)
        });
        // No end system says "I am 127.0.0.1" on a wire.
        enforced && (address.is_loopback() || (claimed && !allowed))
    }
}

fn contains(from: SystemTime, until: Option<SystemTime>, moment: SystemTime) -> bool {
    from <= moment && until.is_none_or(|until| moment <= until)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
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
    fn both_owners_are_allowed_while_an_address_moves() {
        let judge = Judge::default();
        judge.claim(0, A, Duration::ZERO);
        judge.begin();
        judge.release(0, A, GRACE);
        judge.claim(1, A, GRACE);
        assert_eq!(judge.verdict(&[sent(0, A), sent(1, A)]), None);
        assert!(judge.verdict(&[sent(2, A)]).is_some(), "a third was never an owner");
    }
}
