//! Keeping the rules and tables of [`crate::model::steering`] in the kernel.

mod plan;

use std::{
    collections::{BTreeSet, HashSet},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use self::plan::Plan;
use crate::{
    model::{
        Host, LinkKind, Steering,
        steering::{LeftOut, MANY_RULES, PRIORITY, SteeringRoute, SteeringRule, Why, interface_of},
    },
    netlink::{
        PlacedRoute, PlacedRule, Requests, routes,
        rules::{self, LocalLate, Rules},
    },
    stop,
};

/// How long rules that somebody has removed stay away, so that two who undo each other's work do not do so all day.
const PUT_BACK: Duration = Duration::from_secs(5);

/// How much of what is not steered is named at once.
const TOLD_AT_ONCE: usize = 16;

/// What keeps them.
pub struct Steerer {
    requests: Requests,
    /// What was last brought about.
    kept: Steering,
    /// There may be rules or routes of ours: left by an earlier run, or kept by this one.
    may_be_there: bool,
    /// Those that are there are this run's.
    is_keeping: bool,
    put_back: Option<Instant>,
    /// Rules of others with our priority that were named.
    named: HashSet<String>,
    /// Rules were so many at the last look that a warning was due.
    many: bool,
}

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Rules and tables.
    Rules,
    /// None, and those that are there are removed.
    Nothing,
    /// Nothing is to be changed at all.
    Untouched,
}

impl Steerer {
    /// Opens a socket in the namespace of this process.
    ///
    /// # Errors
    ///
    /// When the kernel refuses it.
    pub fn connect() -> Result<Self> {
        let requests = Requests::open().context("opening a netlink socket for policy routing")?;
        Ok(Self {
            requests,
            kept: Steering::default(),
            may_be_there: true,
            is_keeping: false,
            put_back: None,
            named: HashSet::new(),
            many: false,
        })
    }

    /// Whether there are rules or tables of this run.
    pub fn is_keeping(&self) -> bool {
        self.is_keeping
    }

    /// What is kept.
    pub fn kept(&self) -> &Steering {
        &self.kept
    }

    /// Refuses to begin where others use our priority or tables.
    ///
    /// # Errors
    ///
    /// When there is such a rule or route, or the kernel refuses to tell.
    pub fn check_room(&mut self, host: &Host, placed: &[PlacedRoute]) -> Result<()> {
        let Rules { placed: rules, local_late, .. } = self.rules()?;
        if let Some(late) = local_late.first() {
            bail!("{}: {}", late.describe(), remedy(late));
        }
        if let Some(rule) = rules.iter().find(|rule| !rule.is_ours()) {
            bail!("{}", in_our_place(rule));
        }
        if let Some((vrf, table, ifindex)) = vrfs_in_our_tables(host).next() {
            bail!(
                "the table {table} is that of the VRF {}, and the one that mhebpf keeps for {}: give the VRF another one, or \
                 run without --steer rules",
                host.name_of(vrf),
                host.name_of(ifindex)
            );
        }
        for route in placed.iter().filter(|route| !route.is_ours()) {
            if let Some(ifindex) =
                interface_of(route.table).filter(|ifindex| host.links.contains_key(ifindex))
            {
                bail!(
                    "the route `{}` is somebody else's, and in the table that mhebpf keeps for {}: remove it, or run \
                     without --steer rules",
                    route.describe(),
                    host.name_of(ifindex)
                );
            }
        }
        Ok(())
    }

    /// Brings the kernel in step: what is new is added before what is old is removed, and tables are filled before rules
    /// lead there.
    ///
    /// `placed` are the routes in our tables as they were dumped with `host`, and `exact` says whether that was the host at
    /// one moment. The answer is when to look again, where there is something that is not to be done at once.
    ///
    /// # Errors
    ///
    /// The first failure, after all the rest was done.
    pub fn keep(
        &mut self,
        wanted: Wanted,
        host: &Host,
        steering: impl FnOnce() -> Steering,
        placed: &[PlacedRoute],
        exact: bool,
    ) -> Result<Option<Instant>> {
        let mut steering = match wanted {
            Wanted::Rules => steering(),
            Wanted::Nothing if self.may_be_there => Steering::default(),
            Wanted::Nothing | Wanted::Untouched => return Ok(None),
        };
        let Rules { placed: rules, local_late, exact: rules_exact } = match self.rules() {
            // A kernel without policy routing has nothing to be removed either.
            Err(error) if wanted == Wanted::Nothing && !self.is_keeping => {
                debug!("{error:#}");
                Rules { placed: Vec::new(), local_late: Vec::new(), exact: true }
            }
            rules => rules?,
        };
        if wanted == Wanted::Rules {
            self.name_others(&rules, &local_late);
            local_late.iter().for_each(|late| steering.without_family(late.ipv4));
        }
        withdraw_where_others_are(&mut steering, host, placed);
        let left_alone = self.removed_by_others(&steering, &rules, rules_exact);
        let plan = Plan::new(&steering, &left_alone, placed, &rules);
        if !self.is_keeping && plan.removes() {
            info!("policy routing that an earlier run has left: {}", plan.describe());
        } else if !plan.is_empty() {
            debug!("policy routing: {}", plan.describe());
        }
        if wanted == Wanted::Rules && !self.is_keeping {
            info!(
                "steering by {} rules and {} tables with {} routes",
                steering.rules.len(),
                steering.tables.len(),
                steering.routes()
            );
        }
        let (failed, done) = self.carry_out(host, &plan);
        self.tell(host, &steering);
        let whole = exact && rules_exact;
        self.is_keeping = wanted == Wanted::Rules || done.is_err() || (self.is_keeping && !whole);
        self.may_be_there = self.is_keeping || !whole;
        self.kept = steering;
        self.kept.rules.retain(|rule| !failed.contains(rule));
        done?;
        Ok(self.put_back.filter(|_| !left_alone.is_empty()).map(|last| last + PUT_BACK))
    }

    /// How many rules of mhebpf there are.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to tell.
    pub fn leftovers(&mut self) -> Result<usize> {
        Ok(self.rules()?.placed.iter().filter(|rule| rule.is_ours()).count())
    }

    /// Removes everything.
    ///
    /// # Errors
    ///
    /// The first failure, after all the rest was done.
    pub fn remove_all(&mut self, host: &Host, placed: &[PlacedRoute], exact: bool) -> Result<()> {
        let removed = self.keep(Wanted::Nothing, host, Steering::default, placed, exact);
        self.is_keeping = self.may_be_there;
        removed.map(drop)
    }

    fn rules(&mut self) -> Result<Rules> {
        rules::placed(&mut self.requests).context("dumping the rules of policy routing")
    }

    /// The rules that could not be added, and the first failure of all.
    fn carry_out(&mut self, host: &Host, plan: &Plan<'_>) -> (BTreeSet<SteeringRule>, Result<()>) {
        let requests = &mut self.requests;
        let mut failed = BTreeSet::new();
        let mut result = Ok(());
        let mut note = |done: std::io::Result<()>, what: &dyn Fn() -> String| {
            if let Err(error) = done {
                debug!("{}: {error}", what());
                if result.is_ok() {
                    result = Err(error).with_context(what);
                }
            }
        };
        let mut set_aside = BTreeSet::new();
        for (table, destination, route) in &plan.set_routes {
            if let Err(stopped) = stop::check() {
                return (failed, Err(stopped.into()));
            }
            let set = routes::set(requests, *table, *destination, route);
            let refused = set.is_err();
            note(set, &|| format!("adding the route `{}`", route.describe(host, destination, *table)));
            // A shorter prefix's next hop, or the one before, would be wrong: main has the word.
            if refused && **route != SteeringRoute::Throw {
                set_aside.insert((*table, *destination));
                note(routes::set_aside(requests, *table, *destination), &|| {
                    format!("adding the route `throw {destination} table {table}`")
                });
            }
        }
        for rule in &plan.add_rules {
            if let Err(stopped) = stop::check() {
                return (failed, Err(stopped.into()));
            }
            let added = rules::add(requests, rule);
            if added.is_err() {
                failed.insert(*rule);
            }
            note(added, &|| format!("adding the rule `{rule}`"));
        }
        for rule in &plan.remove_rules {
            note(rules::remove(requests, rule), &|| format!("removing the rule `{}`", rule.describe()));
        }
        let is_set_aside = |placed: &PlacedRoute| {
            placed.route == Some(SteeringRoute::Throw)
                && set_aside.contains(&(placed.table, placed.destination))
        };
        for route in plan.remove_routes.iter().filter(|placed| !is_set_aside(placed)) {
            note(routes::remove(requests, route), &|| format!("removing the route `{}`", route.describe()));
        }
        (failed, result)
    }

    /// Rules that somebody has removed since they were added, and which it is too early to put back.
    fn removed_by_others(
        &mut self,
        steering: &Steering,
        rules: &[PlacedRule],
        exact: bool,
    ) -> BTreeSet<SteeringRule> {
        let there: HashSet<SteeringRule> = rules.iter().filter_map(|rule| rule.rule).collect();
        let gone = self.kept.rules.intersection(&steering.rules).filter(|rule| !there.contains(rule));
        let gone: BTreeSet<SteeringRule> = gone.copied().collect();
        let Some(first) = gone.first().filter(|_| exact) else { return BTreeSet::new() };
        let now = Instant::now();
        if self.put_back.is_some_and(|last| now - last < PUT_BACK) {
            return gone;
        }
        self.put_back = Some(now);
        warn!(
            "somebody has removed {} of mhebpf's rules, such as `{first}`: putting them back. systemd-networkd does so \
             unless networkd.conf says ManageForeignRoutingPolicyRules=no",
            gone.len()
        );
        BTreeSet::new()
    }

    fn name_others(&mut self, rules: &[PlacedRule], local_late: &[LocalLate]) {
        let not_kept = |late: &LocalLate| {
            format!("{}; nothing is steered in this family: {}", late.describe(), remedy(late))
        };
        let in_place = rules.iter().filter(|rule| !rule.is_ours()).map(in_our_place);
        let others: HashSet<String> = in_place.chain(local_late.iter().map(not_kept)).collect();
        for other in others.difference(&self.named) {
            error!("{other}");
        }
        self.named = others;
    }

    /// Says what has changed and is worth a line.
    fn tell(&mut self, host: &Host, steering: &Steering) {
        tell_left_out(host, steering, &self.kept.left_out);
        let many = steering.rules.len() > MANY_RULES;
        if many && !self.many {
            warn_of_many(steering);
        }
        self.many = many;
    }
}

/// Says what would be kept, and changes nothing.
pub fn announce(host: &Host, steering: &Steering) {
    info!(
        "nothing is changed: {} rules and {} tables with {} routes would be kept",
        steering.rules.len(),
        steering.tables.len(),
        steering.routes()
    );
    tell_left_out(host, steering, &[]);
    if steering.rules.len() > MANY_RULES {
        warn_of_many(steering);
    }
}

fn tell_left_out(host: &Host, steering: &Steering, told: &[LeftOut]) {
    let told: HashSet<&LeftOut> = told.iter().collect();
    let new: Vec<&LeftOut> = steering.left_out.iter().filter(|each| !told.contains(each)).collect();
    for left_out in new.iter().take(TOLD_AT_ONCE) {
        match left_out.why {
            Why::TooManyRoutes | Why::TableInUse(_) => warn!("not steering {}", left_out.describe(host)),
            _ => info!("not steering {}", left_out.describe(host)),
        }
    }
    if let Some(more @ 1..) = new.len().checked_sub(TOLD_AT_ONCE) {
        info!("not steering {more} more (mhebpf status -o json names them)");
    }
}

fn warn_of_many(steering: &Steering) {
    warn!(
        "{} rules of policy routing are many: the kernel tries them one after the other, which costs about 12 microseconds \
         for each 1,000 and lookup. Addresses of one interface share a rule where they are next to each other in a subnet",
        steering.rules.len()
    );
}

fn in_our_place(rule: &PlacedRule) -> String {
    format!(
        "the rule `{}` is somebody else's, and mhebpf's rules have the priority {PRIORITY} too: give it another one, or run \
         without --steer rules",
        rule.describe()
    )
}

/// What to do about a table local that is looked up late.
fn remedy(late: &LocalLate) -> String {
    let family = if late.ipv4 { "" } else { "-6 " };
    format!("run `ip {family}rule add priority 0 lookup local`, or mhebpf without --steer rules")
}

/// VRFs with a table that is ours by its number: the VRF, the table, and the interface that it would be for.
fn vrfs_in_our_tables(host: &Host) -> impl Iterator<Item = (u32, u32, u32)> {
    host.links.values().filter_map(|link| match link.kind {
        LinkKind::Vrf { table } => {
            let ifindex = interface_of(table).filter(|ifindex| host.links.contains_key(ifindex))?;
            Some((link.index, table, ifindex))
        }
        _ => None,
    })
}

/// Tables that somebody else has routes in are left alone, and with them the interfaces that they were for.
fn withdraw_where_others_are(steering: &mut Steering, host: &Host, placed: &[PlacedRoute]) {
    for (vrf, table, ifindex) in vrfs_in_our_tables(host) {
        if steering.tables.contains_key(&table) {
            steering
                .withdraw(ifindex, Why::TableInUse(format!("it is that of the VRF {}", host.name_of(vrf))));
        }
    }
    for route in placed.iter().filter(|route| !route.is_ours()) {
        if steering.tables.contains_key(&route.table)
            && let Some(ifindex) = interface_of(route.table)
        {
            steering.withdraw(ifindex, Why::TableInUse(route.describe()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        steering::TABLE_BASE,
        testing::{host, link},
    };

    #[test]
    fn a_vrf_with_the_table_of_an_interface_is_found() {
        let vrf = |index, table| link(index, LinkKind::Vrf { table });
        let host =
            host([link(3, LinkKind::Wire), vrf(9, TABLE_BASE + 3), vrf(10, TABLE_BASE + 4), vrf(11, 10)], []);
        assert_eq!(vrfs_in_our_tables(&host).collect::<Vec<_>>(), [(9, TABLE_BASE + 3, 3)]);
    }
}
