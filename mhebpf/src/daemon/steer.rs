//! Policy routing, where it is asked for.

use std::io;

use anyhow::Result;
use tokio::time::Instant;
use tracing::{debug, error};

use super::{Daemon, answers, flows::Interest};
use crate::{
    model::{Host, Selection, Steering},
    netlink::{Dumper, Events, PlacedRoute},
    steering::{self, Wanted},
};

/// How often policy routing is removed at a stop, until nothing is left.
const STOPS: usize = 5;

impl Daemon<'_> {
    /// What is to become of policy routing.
    pub(super) fn wants(&self) -> Wanted {
        match (self.settings.steers(), self.settings.observes()) {
            (true, false) => Wanted::Rules,
            // Observing leaves everything as it is, but for what this run has done before.
            (_, true) if !self.steerer.is_keeping() => Wanted::Untouched,
            _ => Wanted::Nothing,
        }
    }

    pub(super) fn steer(
        &mut self,
        host: &Host,
        selection: &Selection,
        placed: &[PlacedRoute],
        exact: bool,
        events: &Events,
    ) -> Result<Option<Instant>> {
        let wants = self.wants();
        if self.settings.steers() && self.settings.observes() && !self.steering_told {
            let policies = self.settings.policies_if_enforced(host, selection);
            steering::announce(host, &Steering::new(host, &policies));
            self.steering_told = true;
        }
        let policies = &self.policies;
        let was_keeping = self.steerer.is_keeping();
        let kept = self.steerer.keep(wants, host, || Steering::new(host, policies), placed, exact);
        if !was_keeping && self.steerer.is_keeping() {
            let counts = self.all_counts();
            self.history.redirected_before = counts.map_or(0, |counts| answers::redirected(&counts));
        }
        match kept {
            // The link is gone since it was dumped, which the event that waits will tell.
            Err(error) if events.is_pending() && is_down(&error) => {
                debug!("{error:#}; looking again");
                Ok(Some(Instant::now()))
            }
            kept => kept,
        }
    }

    /// Removes the rules and tables of this run. What changes meanwhile can hide some of them, so it is looked again.
    pub(super) fn stop_steering(&mut self, dumper: &mut Dumper) {
        for _ in 0..STOPS {
            if !self.steerer.is_keeping() {
                return;
            }
            let removed = dumper.snapshot().and_then(|snapshot| {
                self.steerer.remove_all(&snapshot.host, &snapshot.placed, snapshot.exact)
            });
            if let Err(error) = removed {
                error!("removing the rules and routing tables of mhebpf: {error:#}");
            }
        }
        if self.steerer.is_keeping() {
            error!(
                "rules or routing tables of mhebpf may be left (`ip rule show proto 208`): the next run adopts or removes \
                 them"
            );
        }
    }

    pub(super) fn keep_flows(&mut self) {
        let interest = match (self.settings.observes(), self.settings.steers()) {
            (true, _) => Some(Interest::WouldChange),
            (false, true) => Some(Interest::Redirected),
            (false, false) => None,
        };
        self.watch.keep_flows(interest, &mut self.datapath.samples);
    }
}

/// Whether the kernel says that an interface is down, or not there.
fn is_down(error: &anyhow::Error) -> bool {
    let code = error.root_cause().downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
    matches!(code, Some(libc::ENETDOWN | libc::ENODEV))
}
