//! How the daemon is.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use anyhow::Result;
use mhebpf_ebpf::Reason;
use tokio::time::Instant;

use super::{Daemon, flows::Flows, pace::Outcome, watch};
use crate::{
    control::{
        Answer, Question,
        protocol::{
            Chain, Counter, Earlier, FollowedRoutes, Former, Interface, InterfaceSteering, LeftOut, NoRoom,
            Owned, Resynchronisations, Status, Steering, counters_by_interface,
        },
    },
    datapath::Count,
    metrics::Durations,
    model::{
        Bindings, Host, LinkKind, Stacking,
        reasons::{self, Claim},
        steering,
        tables::Missing,
        uplinks,
    },
    netlink::{Dumper, Events},
    pins::Side,
};

/// What has happened since the start.
#[derive(Debug)]
pub(super) struct History {
    started: Instant,
    /// The same by the time of day.
    pub(super) started_at: SystemTime,
    /// Whether the last synchronisation found the host as the maps are.
    pub(super) is_in_step: bool,
    /// When one did last.
    pub(super) in_step: Option<Instant>,
    /// The same by the time of day.
    pub(super) in_step_at: Option<SystemTime>,
    pub(super) synchronisations: u64,
    pub(super) failures: u64,
    pub(super) durations: Durations,
    /// Of subscriptions that were given up.
    pub(super) overruns: u64,
    /// How often programs were attached again, or put first again, that others had disturbed.
    pub(super) restored: u64,
    /// Packets that were redirected before policy routing was kept.
    pub(super) redirected_before: u64,
}

/// How many packets were redirected.
pub(super) fn redirected(counts: &[Count]) -> u64 {
    let redirected = counts.iter().filter(|count| count.reason == Reason::Redirected && !count.observed);
    redirected.map(|count| count.packets).sum()
}

impl History {
    pub(super) fn begin() -> Self {
        Self {
            started: Instant::now(),
            started_at: SystemTime::now(),
            is_in_step: false,
            in_step: None,
            in_step_at: None,
            synchronisations: 0,
            failures: 0,
            durations: Durations::default(),
            overruns: 0,
            restored: 0,
            redirected_before: 0,
        }
    }

    /// Notes a synchronisation, and how long it took.
    pub(super) fn note(&mut self, result: &Result<Outcome>, took: Duration) {
        self.is_in_step = matches!(result, Ok(Outcome::InStep));
        if self.is_in_step {
            self.in_step = Some(Instant::now());
            self.in_step_at = Some(SystemTime::now());
        }
        if result.is_ok() {
            self.synchronisations += 1;
            self.durations.note(took);
        } else {
            self.failures += 1;
        }
    }

    /// Keeps what a subscription has counted that another one replaces.
    pub(super) fn keep(&mut self, events: &Events) {
        self.overruns += events.overruns();
    }
}

impl Daemon<'_> {
    /// Answers what is asked.
    pub(super) fn answer(&mut self, question: Question, dumper: &mut Dumper, events: &Events) {
        match question {
            Question::Status(sender) => {
                let answer = match self.status(dumper, events) {
                    Ok(status) => Answer::Status(Box::new(status)),
                    Err(error) => Answer::Error { message: format!("{error:#}") },
                };
                // Who does not wait for the answer any more needs none.
                let _ = sender.send(answer);
            }
            Question::Measures(sender) => {
                let _ = sender.send(self.measures(dumper, events).map(Box::new));
            }
            Question::Judge(crossing, sender) => {
                let answer = match self.judge(&crossing) {
                    Ok(judgement) => Answer::Judged(Box::new(judgement)),
                    Err(error) => Answer::Error { message: format!("{error:#}") },
                };
                let _ = sender.send(answer);
            }
            Question::Watch(lines) => {
                let context = watch::Context { host: dumper.last(), tables: self.datapath.maps.written() };
                self.watch.begin(lines, &mut self.datapath.samples, &context);
            }
            Question::Left => self.watch.prune(&mut self.datapath.samples),
        }
    }

    /// How this daemon is, with what interfaces own by the host as it is now.
    ///
    /// # Errors
    ///
    /// When links, addresses, routes or counters can't be read.
    pub(super) fn status(&mut self, dumper: &mut Dumper, events: &Events) -> Result<Status> {
        let host = dumper.look()?;
        let counts = self.counts()?;
        let steering = match self.steerer.is_keeping() {
            true => Some(self.steering(&host, &self.all_counts()?)),
            false => None,
        };
        let mut counts = counters_by_interface(counts);
        let interfaces = self.interfaces(&host, &mut counts);
        let tables = self.datapath.maps.written();
        let name = |ifindex| self.names.get(&ifindex).cloned().unwrap_or_else(|| format!("if{ifindex}"));
        let former =
            counts.into_iter().map(|(ifindex, counters)| Former { name: name(ifindex), ifindex, counters });
        let gone = self.gone.remembered().map(|gone| Former {
            name: gone.name.clone(),
            ifindex: gone.ifindex,
            counters: gone.counts.iter().copied().map(Counter::from).collect(),
        });
        let (earlier, earlier_counts) = self.gone.earlier();
        let left_out = self.selection.iter().flat_map(|selection| &selection.left_out);
        Ok(Status {
            schema: Status::SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime: self.history.started.elapsed().as_secs_f64(),
            intent: self.settings.intent(),
            selected_by: self.selector.describe(),
            observing: self.settings.observes(),
            hook: self.attachments.hook().map(|hook| hook.name().to_owned()),
            pinned: self.lasting.place(),
            in_step: self.history.in_step.map(|at| at.elapsed().as_secs_f64()),
            synchronisations: self.history.synchronisations,
            resynchronisations: Resynchronisations {
                lost_events: self.history.overruns + events.overruns(),
                interrupted_dumps: dumper.interrupted(),
                failures: self.history.failures,
            },
            addresses: tables.local_addresses(),
            next_hops: self.count_next_hops(tables).into_iter().sum(),
            routes: dumper.followed().map(|(followed, compared, in_doubt)| FollowedRoutes {
                followed,
                compared: compared.as_secs_f64(),
                in_doubt,
            }),
            host_wide: self.host_wide(&host),
            left_out: left_out
                .map(|(ifindex, why)| LeftOut {
                    name: host.name_of(*ifindex),
                    ifindex: *ifindex,
                    why: uplinks::with_remedy(&host.name_of(*ifindex), why),
                })
                .collect(),
            no_room: self
                .growing
                .left_out
                .iter()
                .map(|(ifindex, missing)| no_room(&host, *ifindex, *missing))
                .collect(),
            steering,
            interfaces,
            former: former.chain(gone).collect(),
            earlier: Earlier {
                interfaces: earlier,
                counters: earlier_counts.into_iter().map(Counter::from).collect(),
            },
            counts_lost: self.datapath.counters.lost()?,
        })
    }

    fn claims(&self, host: &Host) -> reasons::Claims {
        let enforced: BTreeSet<u32> = self.policies.keys().copied().collect();
        let bindings = Bindings::new(host, &self.policies);
        reasons::of_interfaces(&Stacking::of(host), &bindings, &enforced)
    }

    fn host_wide(&self, host: &Host) -> Vec<Owned> {
        self.claims(host).host_wide.iter().map(|(_, claim)| owned(host, claim)).collect()
    }

    fn steering(&self, host: &Host, counts: &[Count]) -> Steering {
        let kept = self.steerer.kept();
        let flows = self.watch.flows().map(Flows::most_frequent).unwrap_or_default();
        Steering {
            rules: kept.rules.len(),
            priority: steering::PRIORITY,
            protocol: steering::PROTOCOL,
            tables: kept.tables.len(),
            routes: kept.routes(),
            redirected: redirected(counts).saturating_sub(self.history.redirected_before),
            flows: flows.into_iter().map(str::to_owned).collect(),
            left_out: kept.left_out.iter().map(|each| each.describe(host)).collect(),
        }
    }

    /// The sources of the rules that are kept, by the table that they lead to.
    fn steered(&self) -> BTreeMap<u32, Vec<String>> {
        let mut sources: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        for rule in &self.steerer.kept().rules {
            sources.entry(rule.table).or_default().push(rule.source.to_string());
        }
        sources
    }

    fn interfaces(&self, host: &Host, counts: &mut BTreeMap<u32, Vec<Counter>>) -> Vec<Interface> {
        let claims = self.claims(host);
        let mut steered = self.steered();
        let mut interfaces = Vec::new();
        for (ifindex, policy) in &self.policies {
            // One that is gone is forgotten with the next synchronisation.
            let Some(link) = host.links.get(ifindex) else { continue };
            let hook = self.attachments.hook_of(*ifindex);
            let table = steering::TABLE_BASE + ifindex;
            let steering = self.steerer.kept().tables.get(&table).map(|routes| InterfaceSteering {
                table,
                routes: routes.len(),
                sources: steered.remove(&table).unwrap_or_default(),
            });
            let chain = |side| {
                let place = self.attachments.place(*ifindex, side)?;
                Some(Chain { place: place.place, programs: place.programs })
            };
            let domain = host.domain_of(*ifindex);
            let in_vrf = host.links.get(&domain).filter(|link| matches!(link.kind, LinkKind::Vrf { .. }));
            interfaces.push(Interface {
                name: link.name.clone(),
                ifindex: *ifindex,
                up: link.up,
                mtu: link.mtu,
                vrf: in_vrf.map(|vrf| vrf.name.clone()),
                hook: hook.map(|hook| hook.name().to_owned()),
                ingress_chain: chain(Side::Ingress),
                egress_chain: chain(Side::Egress),
                policy: policy.into(),
                steering,
                owned: claims
                    .by_interface
                    .get(ifindex)
                    .map_or_else(Vec::new, |claims| claims.iter().map(|claim| owned(host, claim)).collect()),
                counters: counts.remove(ifindex).unwrap_or_default(),
            });
        }
        interfaces
    }
}

/// Says what the maps have no room for.
pub(super) fn no_room(host: &Host, ifindex: u32, missing: Missing) -> NoRoom {
    let Missing { addresses, is_unjudged } = missing;
    let name = if ifindex == 0 { "every interface".to_owned() } else { host.name_of(ifindex) };
    let mut what = Vec::new();
    if is_unjudged {
        what.push(format!("nothing is enforced on {name}"));
    }
    if addresses > 0 {
        what.push(format!("{addresses} addresses of {name} may be used on all interfaces"));
    }
    let why = format!(
        "the BPF maps have no room: {}; free memory for larger ones, or have fewer addresses and interfaces",
        what.join(", and ")
    );
    NoRoom { name, ifindex, addresses, unjudged: is_unjudged, why }
}

fn owned(host: &Host, claim: &Claim) -> Owned {
    let is_single = claim.prefix.prefix_len() == claim.prefix.max_prefix_len();
    Owned {
        address: if is_single { claim.prefix.addr().to_string() } else { claim.prefix.to_string() },
        rule: claim.rule,
        through: host.name_of(claim.through),
    }
}
