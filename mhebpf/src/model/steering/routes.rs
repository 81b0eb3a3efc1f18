//! The table of each owner.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{Gateway, MOST_ROUTES, MOST_WEIGHT, SteeringRoute, Way, Why, takes_routes};
use crate::model::{
    host::{Host, MAIN_DOMAIN, MAIN_TABLE, Metrics, Route, is_default, is_link_local, prefix},
    next_hops::{self, Chosen},
};

/// The routes of one owner, or why it has none.
type Routes = Result<BTreeMap<IpNet, SteeringRoute>, Why>;

/// The next hops of one owner by prefix.
type OwnNextHops<'a> = BTreeMap<IpNet, Chosen<'a>>;

/// How many throws for prefixes that are reached through other interfaces all tables may have together. With more of them only
/// those for subnets are there, or none.
const MOST_THROWS: usize = 4_000;

/// What the table main says of a prefix.
#[derive(Clone, Copy)]
enum InMain<'a> {
    /// The kernel's own route stands, whoever the owner is.
    Stands,
    /// The best route.
    Best {
        route: &'a Route,
        /// All of its interfaces are enforced.
        enforced: bool,
        /// There are several through the same interface, which are as good.
        choice: bool,
    },
}

impl InMain<'_> {
    /// Whether it leads through a gateway.
    fn has_gateway(&self) -> bool {
        matches!(self, Self::Best { route, .. } if route.hops.iter().any(|hop| hop.gateway.is_some()))
    }

    /// Whether it leads through other interfaces than this.
    fn is_elsewhere(&self, owner: u32) -> bool {
        matches!(self, Self::Best { route, .. } if route.hops.iter().all(|hop| hop.ifindex != owner))
    }

    /// Whether the kernel's own route stands for packets of an owner.
    fn stands_for(self, owner: u32) -> bool {
        match self {
            Self::Stands => true,
            Self::Best { route, enforced, choice } => {
                if route.hops.iter().any(|hop| hop.ifindex == owner) {
                    choice
                } else {
                    !enforced
                }
            }
        }
    }
}

/// The routes of `owners`, which are the enforced interfaces, by ifindex.
///
/// Every prefix of the table main is in the table of an owner: with the next hop that [`next_hops`] give it there if main
/// leads through an enforced interface, and as a throw otherwise, so that packets through tunnels, to containers and
/// into black holes go on to main. So do those to a prefix for which only other interfaces have a next hop: a source that the
/// host's address translation will replace was chosen before (a service's address that is translated in the hook OUTPUT), and
/// the programs see to the others. A prefix without any next hop is not in it. What a shorter prefix of the table says
/// anyway is left out.
pub(super) fn of_owners(host: &Host, owners: &BTreeSet<u32>) -> BTreeMap<u32, Routes> {
    let owners: BTreeSet<u32> = owners.iter().copied().filter(|owner| takes_routes(host, *owner)).collect();
    if !host.leaves.is_empty() {
        return owners.into_iter().map(|owner| (owner, Err(Why::TooManyRoutes))).collect();
    }
    let mut by_table = next_hops::by_table(&host.routes);
    let routes = by_table.remove(&MAIN_TABLE).unwrap_or_default();
    let main = table_main(host, &routes, &owners);
    let mut next_hops: HashMap<u32, OwnNextHops<'_>> = HashMap::new();
    for ((owner, destination), chosen) in next_hops::chosen(host, &host.routes, &owners) {
        next_hops.entry(owner).or_default().insert(destination, chosen);
    }
    let exceptions = exceptions(&main, &owners);
    let local: HashSet<IpAddr> = host.addresses.iter().map(|address| address.local).collect();
    let table = |owner: &u32| {
        let next_hops = next_hops.remove(owner).unwrap_or_default();
        (*owner, Table { host, local: &local, owner: *owner, next_hops }.fill(&main, &exceptions))
    };
    owners.iter().map(table).collect()
}

/// Prefixes that an owner's table may have to name though the owner has no next hop of its own there, in order: those for
/// which the kernel's route stands for some, those that are reached through other interfaces, and those inside them. What is
/// left is as the next hops are: so the work for many interfaces grows with what each of them has.
fn exceptions(main: &BTreeMap<IpNet, InMain<'_>>, owners: &BTreeSet<u32>) -> Vec<IpNet> {
    let is_room_for = |prefixes: usize| prefixes.saturating_mul(owners.len()) <= MOST_THROWS;
    let through_gateways = main.values().filter(|in_main| in_main.has_gateway()).count();
    let (names_all, names_subnets) = (is_room_for(main.len()), is_room_for(main.len() - through_gateways));
    let mut around: Vec<IpNet> = Vec::new();
    let mut exceptions = Vec::new();
    for (prefix, in_main) in main {
        while around.last().is_some_and(|outer| !outer.contains(prefix)) {
            around.pop();
        }
        let stands = match in_main {
            InMain::Best { enforced: true, .. } => {
                !is_default(prefix) && (names_all || (names_subnets && !in_main.has_gateway()))
            }
            _ => true,
        };
        if stands || !around.is_empty() {
            exceptions.push(*prefix);
            around.push(*prefix);
        }
    }
    exceptions
}

/// By prefix, shorter ones before those inside them. `routes` are sorted by preference.
fn table_main<'a>(host: &Host, routes: &[&'a Route], owners: &BTreeSet<u32>) -> BTreeMap<IpNet, InMain<'a>> {
    let mut main: BTreeMap<IpNet, InMain<'a>> = BTreeMap::new();
    // Prefixes for which main has routes that are as good through different interfaces.
    let mut spread = BTreeSet::new();
    for route in routes {
        let to = route.destination;
        // The interface of a link-local destination is named by the sender, and the kernel heeds that.
        if is_link_local(to.addr()) {
            main.insert(to, InMain::Stands);
            continue;
        }
        let enforced = route.hops.iter().all(|hop| owners.contains(&hop.ifindex));
        let new = InMain::Best { route, enforced, choice: false };
        // The kernel takes the first of IPv4 routes. Among routers on one link it chooses by what they say of themselves and
        // by whether they can be reached (RFC 4191 section 3.2), which can't be said in another table.
        if let InMain::Best { route: first, choice, .. } = main.entry(to).or_insert(new)
            && to.addr().is_ipv6()
            && first.metric == route.metric
            && *first != *route
        {
            if !devices(first).eq(devices(route)) {
                spread.insert(to);
            }
            *choice = !spread.contains(&to);
        }
    }
    for other in &host.other_routes {
        let is_better = match main.get(&other.destination) {
            Some(InMain::Best { route, .. }) => other.metric <= route.metric,
            _ => true,
        };
        if is_better {
            main.insert(other.destination, InMain::Stands);
        }
    }
    for local in host.local_routes.iter().filter(|local| local.domain == MAIN_DOMAIN) {
        main.insert(local.prefix, InMain::Stands);
    }
    main
}

fn devices(route: &Route) -> impl Iterator<Item = u32> {
    route.hops.iter().map(|hop| hop.ifindex)
}

/// The table of one owner.
struct Table<'a> {
    host: &'a Host,
    local: &'a HashSet<IpAddr>,
    owner: u32,
    next_hops: OwnNextHops<'a>,
}

/// A prefix around others.
struct Around<'a> {
    prefix: IpNet,
    /// The next hop of the owner there.
    next_hop: Option<&'a Chosen<'a>>,
    /// What the table says there; `None` where it says nothing.
    says: Option<SteeringRoute>,
}

impl<'a> Table<'a> {
    fn fill(&self, main: &BTreeMap<IpNet, InMain<'a>>, exceptions: &[IpNet]) -> Routes {
        let mut prefixes: Vec<&IpNet> = exceptions.iter().chain(self.next_hops.keys()).collect();
        prefixes.sort();
        prefixes.dedup();
        let mut table = BTreeMap::new();
        let mut around: Vec<Around<'_>> = Vec::new();
        for prefix in prefixes {
            let Some(in_main) = main.get(prefix) else { continue };
            while around.last().is_some_and(|outer| !outer.prefix.contains(prefix)) {
                around.pop();
            }
            let (outer_hop, outer) = around.last().map_or((None, None), |o| (o.next_hop, o.says.as_ref()));
            let is_elsewhere = !is_default(prefix) && in_main.is_elsewhere(self.owner);
            let next_hop = self.next_hops.get(prefix).or(outer_hop.filter(|_| !is_elsewhere));
            let next_hop_counts = next_hop.filter(|_| !in_main.stands_for(self.owner));
            let way = next_hop_counts.and_then(|chosen| self.way(chosen));
            let wanted = way.map_or(SteeringRoute::Throw, SteeringRoute::Through);
            let says = if says_the_same(outer, &wanted) {
                outer.cloned()
            } else {
                table.insert(*prefix, wanted.clone());
                Some(wanted)
            };
            if table.len() > MOST_ROUTES {
                return Err(Why::TooManyRoutes);
            }
            around.push(Around { prefix: *prefix, next_hop, says });
        }
        mark_on_link(&mut table);
        Ok(table)
    }

    /// The way by these hops.
    ///
    /// `None` where the gateways are the host's own addresses, which the kernel refuses: a router's that has just become
    /// this host's (VRRP), say.
    fn way(&self, Chosen { route, own, hops, .. }: &Chosen<'_>) -> Option<Way> {
        let hops = hops.iter().filter(|hop| hop.gateway.is_none_or(|gateway| !self.local.contains(&gateway)));
        let mut gateways: Vec<Gateway> =
            hops.map(|hop| Gateway { address: hop.gateway, weight: hop.weight.min(MOST_WEIGHT) }).collect();
        if let [only] = gateways.as_mut_slice() {
            only.weight = 1;
        }
        (!gateways.is_empty()).then(|| Way {
            ifindex: self.owner,
            gateways,
            on_link: false,
            metric: route.metric,
            metrics: if *own { route.metrics.clone() } else { self.fitting(&route.metrics) },
        })
    }

    /// The metrics of another interface's route, without what is too large for the owner.
    fn fitting(&self, metrics: &Metrics) -> Metrics {
        let mtu = self.host.links.get(&self.owner).map_or(u32::MAX, |link| link.mtu);
        let fits = |number| metrics.get(number).is_none_or(|value| value <= mtu);
        if fits(Metrics::MTU) && fits(Metrics::ADVMSS) {
            return metrics.clone();
        }
        let all = metrics
            .iter()
            .filter(|(number, _)| !matches!(*number, Metrics::MTU | Metrics::ADVMSS) || fits(*number));
        let lock = metrics.get(Metrics::LOCK).unwrap_or_default();
        let kept = all.map(|(number, value)| {
            let unlocked = if fits(Metrics::MTU) { lock } else { lock & !(1 << Metrics::MTU) };
            let value: Box<[u8]> =
                if number == Metrics::LOCK { Box::new(unlocked.to_ne_bytes()) } else { value.into() };
            (number, value)
        });
        kept.filter(|(number, value)| *number != Metrics::LOCK || value.iter().any(|byte| *byte != 0))
            .collect()
    }
}

/// Whether a table that says `outer` for a shorter prefix needs nothing more for `wanted`.
fn says_the_same(outer: Option<&SteeringRoute>, wanted: &SteeringRoute) -> bool {
    match (outer, wanted) {
        (None | Some(SteeringRoute::Throw), SteeringRoute::Throw) => true,
        (Some(SteeringRoute::Through(outer)), SteeringRoute::Through(wanted)) => {
            outer.gateways == wanted.gateways && outer.metrics == wanted.metrics
        }
        _ => false,
    }
}

/// Gateways outside the subnets of the table were on-link by the word of the operator.
fn mark_on_link(table: &mut BTreeMap<IpNet, SteeringRoute>) {
    let is_subnet = |prefix: &IpNet, table: &BTreeMap<IpNet, SteeringRoute>| matches!(table.get(prefix), Some(SteeringRoute::Through(way)) if way.is_on_link());
    let lengths: BTreeSet<u8> = table.keys().map(IpNet::prefix_len).collect();
    let is_near = |gateway: &IpAddr, table: &BTreeMap<IpNet, SteeringRoute>| {
        let prefixes = lengths.iter().rev().map(|length| prefix(*gateway, *length));
        let longest = { prefixes }.find(|prefix| table.contains_key(prefix));
        is_link_local(*gateway) || longest.is_some_and(|prefix| is_subnet(&prefix, table))
    };
    let mut far: Vec<IpNet> = Vec::new();
    for (destination, route) in &*table {
        if let SteeringRoute::Through(way) = route
            && way
                .gateways
                .iter()
                .filter_map(|gateway| gateway.address)
                .any(|gateway| !is_near(&gateway, table))
        {
            far.push(*destination);
        }
    }
    for destination in far {
        if let Some(SteeringRoute::Through(way)) = table.get_mut(&destination) {
            way.on_link = true;
        }
    }
}
