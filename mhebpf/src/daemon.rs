//! The daemon: from start to stop.

mod advice;
mod answers;
mod attaching;
mod blocks;
mod flows;
mod gone;
mod growing;
mod judge;
mod lasting;
mod measures;
mod memory;
mod pace;
mod plan;
mod reports;
mod signals;
mod steer;
mod turns;
mod watch;

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};
use mhebpf_ebpf::Announce;
use sd_notify::NotifyState;
use tokio::{task::JoinHandle, time::Instant};
use tracing::{debug, error, info, warn};

use self::{
    answers::History,
    blocks::GracePeriod,
    gone::Gone,
    growing::Growing,
    lasting::Lasting,
    pace::{Outcome, Pace},
    plan::Plan,
    signals::Signals,
    watch::Watch,
};
use crate::{
    announce::Announcer,
    cli::RunOptions,
    control::Control,
    datapath::{Attachments, Count, Datapath, Sizes},
    instance::Instance,
    logging::{self, Limit},
    metrics,
    model::{Policy, Route, Selection, Selector, next_hops::ManyNextHops, tables::Entries},
    netlink::{Dumper, Events, NeighbourEvents, Snapshot},
    preflight,
    settings::{Fixed, Settings},
    steering::{Steerer, Wanted},
    stop, summary,
    usage::UsageError,
};

/// How often it is looked whether the programs are in their place.
const LOOK: Duration = Duration::from_secs(1);

/// How often the host is dumped even if no event came.
const CROSS_CHECK: Duration = Duration::from_secs(30);

/// How long after a route has expired the host is dumped: by then the kernel, which counts in ticks, says so.
const EXPIRED: Duration = Duration::from_millis(20);

/// How long nothing has happened before memory is given back.
const QUIET: Duration = Duration::from_millis(500);

/// What changes of the host can have the log say, which routers cause by their advertisements too.
static LINES: Limit = Limit::new("synchronisations");

/// Enforces until a signal comes or the time is up, then takes everything off and prints a summary.
///
/// # Errors
///
/// When the start fails; once the programs are attached, failures are logged and tried again. [`UsageError`]
/// when no interface was named.
pub async fn run(options: &RunOptions) -> Result<()> {
    match run_on(options).await {
        Err(error) if stop::has_caused(&error) => {
            info!("stopped before it was ready");
            Ok(())
        }
        result => result,
    }
}

async fn run_on(options: &RunOptions) -> Result<()> {
    let (settings, config) =
        Settings::load(options).map_err(|error| UsageError::new(format!("{error:#}")))?;
    let mut dumper = Dumper::following()?;
    let Some(selector) = settings.selector.clone() else {
        return Err(UsageError::new(advice::no_selection(&dumper.snapshot()?.host)).into());
    };
    preflight::check()?;
    preflight::raise_descriptor_limit();
    let instance = Instance::claim().await?;
    let fixed = Fixed::new(options, &config);
    let scrapes = match fixed.metrics {
        Some(address) => Some(metrics::Listener::bind(address).await?),
        None => None,
    };
    let mut signals = Signals::new(fixed.run_for)?;
    // Subscribed before the first dump, so that nothing falls between the two.
    let mut events = Events::subscribe()?;
    let mut control = Control::serve(instance.listeners()?)?;
    if let Some(scrapes) = scrapes {
        scrapes.serve(control.asks());
    }
    let plan = Plan::make((&settings, &selector), &mut dumper, &events)?;
    let sizes = Sizes::for_entries(Entries::of(&plan.tables));
    let (lasting, mut datapath, attachments, inherited) = Lasting::load(&fixed, sizes)?;
    let reporter = datapath.reports.take().map(reports::follow).transpose()?;
    let mut daemon = Daemon {
        options,
        settings,
        selector,
        fixed,
        announcer: Announcer::default(),
        attachments,
        lasting,
        watch: Watch::new(&datapath.samples)?,
        steerer: Steerer::connect()?,
        steering_told: false,
        datapath,
        reporter,
        plan: Some(plan),
        growing: Growing::default(),
        observed_before: 0,
        history: History::begin(),
        totals: metrics::Totals::default(),
        selection: None,
        remembered: Vec::new(),
        policies: BTreeMap::new(),
        names: BTreeMap::new(),
        gone: Gone::default(),
        unproven: BTreeMap::new(),
        grace_period: GracePeriod::default(),
        ready: false,
        expires: None,
        neighbours: NeighbourEvents::default(),
        next_hops: ManyNextHops::default(),
    };
    daemon.free_inherited(&inherited);
    daemon.observed_before = observed(&daemon.all_counts()?);
    let outcome = match daemon.start(&mut dumper, &events) {
        Ok(pace) => daemon.keep_in_step(&mut dumper, &mut events, &mut signals, &mut control, pace).await,
        Err(error) => {
            daemon.lasting.give_up(&daemon.attachments);
            Err(error)
        }
    };
    stop::begin_end();
    tell_service_manager(&[NotifyState::Stopping]);
    // The programs are the guarantee, so they go last.
    daemon.stop_steering(&mut dumper);
    outcome?;
    daemon.lasting.end(&mut daemon.attachments, signals.has_lost_terminal());
    daemon.show(&dumper);
    daemon.print_summary();
    Ok(())
}

struct Daemon<'a> {
    options: &'a RunOptions,
    settings: Settings,
    selector: Selector,
    fixed: Fixed,
    announcer: Announcer,
    attachments: Attachments,
    lasting: Lasting,
    datapath: Datapath,
    /// Hands on what the programs say.
    reporter: Option<JoinHandle<()>>,
    /// What was to be brought about when the programs were loaded.
    plan: Option<Plan>,
    growing: Growing,
    watch: Watch,
    steerer: Steerer,
    /// What was counted in observe mode by those whose counters go on.
    observed_before: u64,
    /// What would be kept of policy routing was told, in observe mode.
    steering_told: bool,
    history: History,
    totals: metrics::Totals,
    /// The gateways that were remembered at the last look, to log only what changes.
    remembered: Vec<Route>,
    /// The last selection, to log only what changes.
    selection: Option<Selection>,
    /// What is enforced now, by ifindex.
    policies: BTreeMap<u32, Policy>,
    /// The last name of each interface that was ever enforced and is there, or was a moment ago.
    names: BTreeMap<u32, String>,
    /// What was counted on those that are gone.
    gone: Gone,
    /// Since when programs have been on interfaces that were not looked at for others of mhebpf yet.
    unproven: BTreeMap<u32, Instant>,
    /// The one that blocks of addresses wait for.
    grace_period: GracePeriod,
    ready: bool,
    /// When the first of the routes expires, of which there is no event.
    expires: Option<Instant>,
    /// The gateways among which the kernel chooses by whether they answer.
    neighbours: NeighbourEvents,
    /// The next hops of routes that are followed.
    next_hops: ManyNextHops,
}

impl Daemon<'_> {
    /// The first synchronisation. It fails where the kernel refuses the programs everywhere; trouble with
    /// some of the interfaces or entries is tried again later.
    fn start(&mut self, dumper: &mut Dumper, events: &Events) -> Result<Pace> {
        let mut pace = Pace::default();
        self.keep_flows();
        if self.wants() == Wanted::Rules {
            let Snapshot { host, placed, .. } = dumper.snapshot()?;
            self.steerer.check_room(&host, &placed)?;
        }
        match self.synchronise_and_note(dumper, events) {
            Err(error) if self.attachments.names().next().is_none() => return Err(error),
            _ if stop::is_asked() => return Ok(pace),
            result => pace.note(result),
        }
        if !self.ready {
            info!("no interface matches {} yet: waiting for one", self.selector.describe());
        }
        self.remove_leftovers(dumper.last());
        Ok(pace)
    }

    fn show(&mut self, dumper: &Dumper) {
        let context = watch::Context { host: dumper.last(), tables: self.datapath.maps.written() };
        self.watch.show(&mut self.datapath.samples, &context);
    }

    /// Reads the configuration again. What it says is in force with the synchronisation that follows: entries of
    /// the maps are replaced one by one, and programs stay attached. A file that can't be used changes nothing.
    fn reload(&mut self) {
        let source = self.options.config_source();
        tell_service_manager(&[
            NotifyState::Reloading,
            NotifyState::monotonic_usec_now().unwrap_or(NotifyState::Reloading),
        ]);
        let loaded = Settings::load(self.options).and_then(|(settings, config)| {
            let selector = settings.selector.clone().context("it names no interface any more")?;
            Ok((settings, selector, config))
        });
        match loaded {
            Ok((settings, selector, config)) => {
                for option in self.fixed.changed(&Fixed::new(self.options, &config)) {
                    warn!("`{option}` stays as it is until mhebpf is started again");
                }
                info!("reloaded {source}: {}", settings.intent());
                (self.settings, self.selector) = (settings, selector);
                self.keep_flows();
                self.steering_told = false;
                // Interfaces that are left out are named again.
                self.selection = None;
            }
            Err(error) => error!("reloading {source}: {error:#}; what was in force stays in force"),
        }
        tell_service_manager(&[NotifyState::Ready]);
    }

    fn synchronise_and_note(&mut self, dumper: &mut Dumper, events: &Events) -> Result<Outcome> {
        let started = Instant::now();
        let result = self.synchronise(dumper, events);
        self.history.note(&result, started.elapsed());
        // What is left out is another than the host.
        self.history.is_in_step &= self.growing.left_out.is_empty();
        result
    }

    /// Dumps the host and brings maps and attachments in step with it.
    ///
    /// The maps are filled before programs are attached, and programs taken off before their interface's
    /// policy is.
    ///
    /// # Errors
    ///
    /// The first failure. After a failed dump nothing was changed; after any other failure all the rest was
    /// done, unless the daemon is told to end meanwhile.
    fn synchronise(&mut self, dumper: &mut Dumper, events: &Events) -> Result<Outcome> {
        let started = Instant::now();
        let plan = match self.plan.take().filter(|plan| plan.holds(dumper, events)) {
            Some(plan) => plan,
            None => Plan::make((&self.settings, &self.selector), dumper, events)?,
        };
        let Plan { at, snapshot, selection, policies, tables } = plan;
        let Snapshot { host, placed, expires, choices, exact } = snapshot;
        self.expires = expires.map(|left| at + left + EXPIRED);
        self.neighbours.follow(choices, &host.unreachable)?;
        self.let_go(&host, &selection.enforced);
        self.note_gone(&host);
        self.policies = policies;
        let tables = self.make_room(&host, dumper, tables)?;
        let mut written = self.datapath.maps.write(&tables);
        if let Some(leaves) = dumper.leaves() {
            self.next_hops.set(&host, &tables.owners, tables.next_hops(), leaves);
            written = written.and(self.follow_routes(dumper));
        }
        stop::check()?;
        let in_step = exact && written.is_ok();
        let takes_over = self.lasting.takes_over();
        if takes_over {
            written?;
            written = Ok(());
        } else {
            self.lasting.note(&mut self.datapath.state, in_step);
        }
        let (new, attached) = self.attach(&host, &selection);
        stop::check()?;
        // Until then packets are judged by an earlier run's maps.
        if takes_over && self.attachments.are_in_use() {
            self.lasting.note(&mut self.datapath.state, in_step);
        }
        self.lasting.settle(&host, &selection.enforced, &self.attachments);
        let steered = self.steer(&host, &selection, &placed, exact, events);
        new.iter().for_each(|ifindex| self.warn_of_sysctls(&host, *ifindex));
        self.log_selection(&host, selection);
        self.log_remembered(&host);
        if self.settings.announces {
            // An announcement changes what peers know; observing must not.
            let announces = |ifindex| {
                self.attachments.contains(ifindex)
                    && self.policies.get(&ifindex).is_some_and(|policy| policy.announce == Announce::Enforce)
            };
            self.announcer.announce(&host, announces);
        }
        self.say_when_ready();
        if LINES.admits() {
            debug!(
                "in step with {} links, {} addresses and {} routes, exactly: {exact}; {:?}",
                host.links.len(),
                host.addresses.len(),
                host.routes.len(),
                started.elapsed()
            );
        }
        let later = written.and(attached).and(steered)?;
        Ok(match later {
            _ if !exact => Outcome::Behind,
            Some(at) => Outcome::Later(at),
            None => Outcome::InStep,
        })
    }

    /// Brings the next hops of routes that are followed in step with them.
    fn follow_routes(&mut self, dumper: &mut Dumper) -> Result<()> {
        let Some(leaves) = dumper.leaves() else { return Ok(()) };
        self.datapath.maps.write_next_hops(|write| self.next_hops.follow(leaves, write))
    }

    fn say_when_ready(&mut self) {
        if self.ready {
            return;
        }
        let names: Vec<&str> = self.attachments.names().map(|(_, name)| name).collect();
        if let Some(hook) = self.attachments.hook() {
            self.ready = true;
            let addresses = self.datapath.maps.written().local_addresses();
            info!(
                "mhebpf ready: {} on {} by {hook}, {addresses} local addresses",
                self.settings.intent(),
                names.join(", ")
            );
            tell_service_manager(&[NotifyState::Ready]);
        }
    }

    /// The lines of the summary, and how many packets were left alone that would not be.
    fn summary(&self) -> Result<(Vec<String>, u64)> {
        let name = |ifindex| self.names.get(&ifindex).cloned().unwrap_or_else(|| format!("if{ifindex}"));
        let counts = self.counts()?.into_iter().map(|count| (name(count.ifindex), count));
        let gone = self.gone.remembered();
        let gone = gone.flat_map(|each| each.counts.iter().map(|count| (each.name.clone(), *count)));
        let (_, earlier) = self.gone.earlier();
        let earlier = earlier.into_iter().map(|count| (summary::OTHERS.to_owned(), count));
        let counts: Vec<(String, Count)> = counts.chain(gone).chain(earlier).collect();
        Ok((summary::lines(&counts, self.datapath.counters.lost()?), observed(&self.all_counts()?)))
    }

    fn print_summary(&self) {
        // What was left out until now is told before.
        logging::flush();
        match self.summary() {
            Ok((mut lines, observed)) => {
                if let Some(flows) = self.watch.flows() {
                    let is_safe = self.settings.observes() && observed == self.observed_before;
                    lines.extend(if is_safe { vec!["safe to enforce".to_owned()] } else { flows.lines() });
                }
                logging::say(&(lines.join("\n") + "\n"));
            }
            Err(error) => warn!("no summary: {error:#}"),
        }
    }
}

/// How many packets were left alone that would not be.
fn observed(counts: &[Count]) -> u64 {
    counts.iter().filter(|count| count.observed).map(|count| count.packets).sum()
}

/// Does nothing where no service manager listens.
fn tell_service_manager(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!("telling the service manager: {error}");
    }
}
