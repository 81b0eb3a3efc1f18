//! The daemon: from start to stop.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use anyhow::{Context as _, Result};
use mhebpf_ebpf::{Announce, Send};
use sd_notify::NotifyState;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, MissedTickBehavior, interval_at, sleep},
};
use tracing::{debug, error, info, warn};

use crate::{
    announce::Announcer,
    cli::RunOptions,
    datapath::{self, Attachments, Datapath},
    instance::Instance,
    model::{Host, Policy, Selection, Selector, Tables, select},
    netlink::{Dumper, Events, Snapshot},
    preflight, summary,
};

/// How often the host is dumped even if no event came.
const CROSS_CHECK: Duration = Duration::from_secs(30);

/// How long to wait before a failed synchronisation is tried again: at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(32));

/// A command line that can't be carried out as it is.
#[derive(Debug)]
pub struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// Enforces until a signal comes or the time is up, then takes everything off and prints a summary.
///
/// # Errors
///
/// When the start fails; once the programs are attached, failures are logged and tried again. [`UsageError`]
/// when no interface was named.
pub async fn run(options: &RunOptions) -> Result<()> {
    let mut dumper = Dumper::connect()?;
    let Some(selector) = options.selector() else {
        return Err(UsageError(no_selection(&dumper.snapshot().await?.host)).into());
    };
    preflight::check()?;
    let _instance = Instance::claim().await?;
    let mut stop = Stop::new(options.run_for)?;
    // Subscribed before the first dump, so that nothing falls between the two.
    let mut events = Events::subscribe()?;
    let policy = options.policy();
    let mut daemon = Daemon {
        // An announcement changes what peers know; observing must not.
        announcer: (!options.no_announce && policy.announce == Announce::Enforce).then(Announcer::default),
        policy,
        intent: options.intent(),
        selector,
        attachments: Attachments::new(options.hook),
        datapath: datapath::load()?,
        selection: None,
        names: BTreeMap::new(),
        ready: false,
    };
    let outcome = match daemon.start(&mut dumper).await {
        Ok(pace) => daemon.keep_in_step(&mut dumper, &mut events, &mut stop, pace).await,
        Err(error) => Err(error),
    };
    tell_service_manager(NotifyState::Stopping);
    daemon.attachments.detach_all();
    outcome?;
    daemon.print_summary();
    Ok(())
}

struct Daemon {
    policy: Policy,
    /// The policy in the operator's words.
    intent: String,
    selector: Selector,
    announcer: Option<Announcer>,
    attachments: Attachments,
    datapath: Datapath,
    /// The last selection, to log only what changes.
    selection: Option<Selection>,
    /// The last name of each interface that was ever enforced.
    names: BTreeMap<u32, String>,
    ready: bool,
}

impl Daemon {
    /// The first synchronisation. It fails where the kernel refuses the programs everywhere; trouble with
    /// some of the interfaces or entries is tried again later.
    async fn start(&mut self, dumper: &mut Dumper) -> Result<Pace> {
        let mut pace = Pace::default();
        match self.synchronise(dumper).await {
            Err(error) if self.attachments.names().next().is_none() => return Err(error),
            result => pace.note(result),
        }
        if !self.ready {
            info!("no interface matches {} yet: waiting for one", self.selector.describe());
        }
        Ok(pace)
    }

    async fn keep_in_step(
        &mut self,
        dumper: &mut Dumper,
        events: &mut Events,
        stop: &mut Stop,
        mut pace: Pace,
    ) -> Result<()> {
        let mut cross_check = interval_at(Instant::now() + CROSS_CHECK, CROSS_CHECK);
        cross_check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.requested() => return Ok(()),
                _ = cross_check.tick() => {}
                () = pace.retry() => {}
                changed = events.changed() => {
                    if let Err(error) = changed {
                        error!("receiving netlink events: {error}; subscribing anew");
                        // Not at once: if it fails again, the log must not fill.
                        sleep(RETRY.0).await;
                        match Events::subscribe() {
                            Ok(anew) => *events = anew,
                            Err(error) => error!("{error:#}"),
                        }
                    }
                }
            }
            let started = Instant::now();
            pace.note(self.synchronise(dumper).await);
            // At most half of the time is spent synchronising, however long a burst of changes is.
            tokio::select! {
                () = stop.requested() => return Ok(()),
                () = sleep(started.elapsed()) => {}
            }
        }
    }

    /// Dumps the host and brings maps and attachments in step with it.
    ///
    /// The maps are filled before programs are attached, and programs taken off before their interface's
    /// policy is.
    ///
    /// # Errors
    ///
    /// The first failure. After a failed dump nothing was changed; after any other failure all the rest was
    /// done.
    async fn synchronise(&mut self, dumper: &mut Dumper) -> Result<Outcome> {
        let started = Instant::now();
        let Snapshot { host, exact } = dumper.snapshot().await?;
        let selection = self.selector.select(&host);
        self.let_go(&host, &selection.enforced);
        let policies: BTreeMap<u32, Policy> =
            selection.enforced.iter().map(|ifindex| (*ifindex, self.policy)).collect();
        let written = self.datapath.maps.write(&Tables::new(&host, &policies));
        let attached = self.attach(&host, &selection);
        self.log_selection(&host, selection);
        if let Some(announcer) = &mut self.announcer {
            let attachments = &self.attachments;
            announcer.announce(&host, |ifindex| attachments.contains(ifindex));
        }
        self.say_when_ready();
        debug!(
            "in step with {} links, {} addresses and {} routes, exactly: {exact}; {:?}",
            host.links.len(),
            host.addresses.len(),
            host.routes.len(),
            started.elapsed()
        );
        written.and(attached)?;
        Ok(if exact { Outcome::InStep } else { Outcome::Behind })
    }

    fn let_go(&mut self, host: &Host, enforced: &BTreeSet<u32>) {
        let attached: Vec<u32> = self.attachments.names().map(|(ifindex, _)| ifindex).collect();
        for ifindex in attached {
            match host.links.get(&ifindex) {
                None => self.attachments.forget(ifindex),
                Some(link) => {
                    self.attachments.rename(ifindex, &link.name);
                    if !enforced.contains(&ifindex) {
                        info!("letting go of {}", link.name);
                        self.attachments.detach(ifindex);
                    }
                }
            }
        }
    }

    fn attach(&mut self, host: &Host, selection: &Selection) -> Result<()> {
        let mut result = Ok(());
        for ifindex in &selection.enforced {
            let name = host.name_of(*ifindex);
            if !self.attachments.contains(*ifindex) {
                match self.attachments.attach(&mut self.datapath.programs, *ifindex, &name) {
                    Ok(()) => {
                        info!("enforcing on {name}");
                        self.warn_of_reverse_path_filter(host, *ifindex);
                    }
                    Err(error) => result = Err(error.context(format!("enforcing on {name}"))),
                }
            }
            self.names.insert(*ifindex, name);
        }
        result
    }

    /// Answers to a redirected packet come back through the owner, while the route still points elsewhere.
    fn warn_of_reverse_path_filter(&self, host: &Host, ifindex: u32) {
        if let Some(link) = host.links.get(&ifindex)
            && link.strict_reverse_path
            && self.policy.send == Send::Redirect
        {
            warn!(
                "rp_filter is strict on {name}: the kernel will discard answers to redirected packets there; set \
                 net.ipv4.conf.{name}.rp_filter to 2 (loose), which holds whatever net.ipv4.conf.all.rp_filter is",
                name = link.name
            );
        }
    }

    fn log_selection(&mut self, host: &Host, selection: Selection) {
        let before = self.selection.replace(selection);
        let Some(now) = &self.selection else { return };
        for (ifindex, reason) in &now.left_out {
            if before.as_ref().is_none_or(|before| !before.left_out.contains_key(ifindex)) {
                info!("leaving out {}: {reason}", host.name_of(*ifindex));
            }
        }
    }

    fn say_when_ready(&mut self) {
        if self.ready {
            return;
        }
        let names: Vec<&str> = self.attachments.names().map(|(_, name)| name).collect();
        if let Some(hook) = self.attachments.hook() {
            self.ready = true;
            let addresses = self.datapath.maps.written().owners.len();
            info!(
                "mhebpf ready: {} on {} by {hook}, {addresses} local addresses",
                self.intent,
                names.join(", ")
            );
        }
    }

    fn print_summary(&self) {
        match self.datapath.counters.read() {
            Ok(counts) => {
                for line in summary::lines(&counts, &self.names) {
                    eprintln!("{line}");
                }
            }
            Err(error) => warn!("no summary: {error:#}"),
        }
    }
}

/// How far a synchronisation came.
#[derive(Debug)]
enum Outcome {
    /// The tables are those of the host at one moment.
    InStep,
    /// The host changed all the while: once more, soon.
    Behind,
}

/// When a synchronisation is tried again: after a failure, later each time.
#[derive(Debug, Default)]
struct Pace {
    failures: u32,
    retry_at: Option<Instant>,
}

impl Pace {
    fn note(&mut self, result: Result<Outcome>) {
        let error = match result {
            Ok(outcome) => {
                let retry_at = matches!(outcome, Outcome::Behind).then(Instant::now);
                *self = Self { failures: 0, retry_at };
                return;
            }
            Err(error) => error,
        };
        let (first, most) = RETRY;
        let delay = first.saturating_mul(1 << self.failures.min(16)).min(most);
        warn!("{error:#}; trying again in {}s", delay.as_secs());
        self.failures += 1;
        self.retry_at = Some(Instant::now() + delay);
    }

    async fn retry(&self) {
        match self.retry_at {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}

/// What ends a run.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
    // The terminal is gone, perhaps because of what is enforced: filters of a clsact qdisc must not outlive
    // the process.
    hang_up: Signal,
    deadline: Option<Instant>,
}

impl Stop {
    fn new(run_for: Option<Duration>) -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("handling SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("handling SIGTERM")?,
            hang_up: signal(SignalKind::hangup()).context("handling SIGHUP")?,
            deadline: run_for.map(|run_for| Instant::now() + run_for),
        })
    }

    async fn requested(&mut self) {
        let deadline = self.deadline;
        let time_is_up = async move {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => debug!("stopping: SIGINT"),
            _ = self.terminate.recv() => debug!("stopping: SIGTERM"),
            _ = self.hang_up.recv() => debug!("stopping: SIGHUP"),
            () = time_is_up => info!("stopping: the time is up"),
        }
    }
}

/// Does nothing where no service manager listens.
fn tell_service_manager(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        warn!("telling the service manager: {error}");
    }
}

fn no_selection(host: &Host) -> String {
    let shared = select::shared_subnets(host);
    if shared.is_empty() {
        return "say which interfaces: --interface GLOB (may be repeated), or --all for every uplink"
            .to_owned();
    }
    let mut text = "say which interfaces. These share a subnet:\n".to_owned();
    let mut named = BTreeSet::new();
    for (subnet, interfaces) in &shared {
        let names: Vec<String> = interfaces.iter().map(|ifindex| host.name_of(*ifindex)).collect();
        text += &format!("  {}/{}: {}\n", subnet.address(), subnet.length(), names.join(", "));
        named.extend(names);
    }
    let flags: Vec<String> = named.iter().map(|name| format!("--interface {name}")).collect();
    text + &format!("Use\n  mhebpf run {}\nor, for every uplink,\n  mhebpf run --all", flags.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        LinkKind,
        testing::{address, host, link},
    };

    #[test]
    fn a_missing_selection_names_the_interfaces_that_share_a_subnet() {
        let host = host(
            [link(2, LinkKind::Other), link(3, LinkKind::Other), link(4, LinkKind::Other)],
            [address(2, [10, 0, 0, 1], 24), address(3, [10, 0, 0, 2], 24), address(4, [10, 1, 0, 2], 24)],
        );
        let text = no_selection(&host);
        assert!(text.contains("10.0.0.0/24: eth2, eth3"), "{text}");
        assert!(text.contains("mhebpf run --interface eth2 --interface eth3\n"), "{text}");
    }
}
