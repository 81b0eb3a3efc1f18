//! Dumps of links, addresses, rules and routes.

mod followed;

use std::{
    cell::Cell,
    collections::{BTreeMap, HashSet},
    hash::Hash,
    io,
    net::IpAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use netlink_packet_core::{DecodeError, NLM_F_DUMP, Parseable as _};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::AddressMessage,
    link::{LinkAttribute, LinkExtentMask, LinkMessage},
    route::{RouteHeader, RouteMessage},
    rule::RuleMessage,
};
use tracing::{debug, warn};

use super::{following::Following, neighbours, parse, request::Requests, routes::PlacedRoute, rules};
use crate::model::{
    Address, Host, Link, LinkKind,
    host::{MAIN_DOMAIN, MAIN_TABLE},
    next_hops,
    remembered::remember,
    steering::interface_of,
};

/// How often an interrupted dump is tried again before what it gave is taken for a part of the truth.
const ATTEMPTS: usize = 3;

/// The same for links: what is missing there is taken for gone, so only a whole dump will do.
const LINK_ATTEMPTS: usize = 50;

/// What is dumped of addresses and routes.
pub(super) const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];

/// `RT_TABLE_LOCAL`.
const LOCAL_TABLE: u32 = 255;

/// A socket for dumps, in the namespace of this process.
pub struct Dumper {
    requests: Requests,
    last: Rc<Host>,
    interrupted: u64,
    /// Some routes only name a nexthop object.
    names_nexthops: bool,
    /// More routes than this are followed by their events.
    follows_from: Option<usize>,
    following: Option<Following>,
}

/// A snapshot of the host.
pub struct Snapshot {
    /// The host.
    pub host: Rc<Host>,
    /// The routes in the tables of [`crate::model::steering`], whoever added them.
    pub placed: Vec<PlacedRoute>,
    /// In what time the first of the routes expires.
    pub expires: Option<Duration>,
    /// The gateways among which the kernel chooses by whether they answer.
    pub choices: HashSet<IpAddr>,
    /// Whether it is the host at one moment. If not, addresses and routes changed during each dump: all that
    /// are there for long are in it, and some that are gone.
    pub exact: bool,
}

impl Dumper {
    /// Opens the socket.
    ///
    /// # Errors
    ///
    /// When the kernel refuses it.
    pub fn connect() -> Result<Self> {
        let requests = Requests::open().context("opening a netlink socket for dumps")?;
        Ok(Self {
            requests,
            last: Rc::default(),
            interrupted: 0,
            names_nexthops: false,
            follows_from: None,
            following: None,
        })
    }

    /// A look at the host as it is, which changes nothing of what the next snapshot is compared with.
    ///
    /// # Errors
    ///
    /// As for [`Dumper::snapshot`].
    pub fn look(&mut self) -> Result<Rc<Host>> {
        let (last, names_nexthops) = (Rc::clone(&self.last), self.names_nexthops);
        let follows_from = self.follows_from.take();
        let looked = self.snapshot();
        (self.last, self.names_nexthops, self.follows_from) = (last, names_nexthops, follows_from);
        Ok(looked?.host)
    }

    /// Takes a snapshot of the host.
    ///
    /// # Errors
    ///
    /// When a dump fails, or that of the links is interrupted by changes each time that it is tried.
    pub fn snapshot(&mut self) -> Result<Snapshot> {
        self.snapshot_if(|| true)
    }

    /// The same, exact only if nothing has changed meanwhile, which is asked at the end.
    ///
    /// The kernel takes no lock for a dump (`inet_dump_ifaddr`, Linux 6.9 on), and marks it as interrupted only for a change
    /// between two of its parts: an address that moves within one can be missed on both interfaces.
    ///
    /// # Errors
    ///
    /// As for [`Dumper::snapshot`].
    pub fn snapshot_if(&mut self, nothing_changed: impl FnOnce() -> bool) -> Result<Snapshot> {
        let links = self.links()?;
        let mut tables = parse::Tables { domains: domains_by_table(&links), ..parse::Tables::default() };
        let mut host = Host { links, ..Host::default() };
        let (mut placed, mut expires) = (Vec::new(), None);
        let mut exact = true;
        let mut all = Vec::new();
        let began = Instant::now();
        if self.names_nexthops {
            tables.nexthops.get_mut().read().context("dumping the nexthop objects of the host")?;
        }
        for family in FAMILIES {
            exact &= self.addresses(family, &mut host)?;
            exact &= self.rules(family, &mut host)?;
        }
        tables.by_rule = host.rules.iter().map(|rule| (rule.table, rule.ipv4)).collect();
        let followed = self
            .following
            .as_ref()
            .filter(|following| self.follows_from.is_none() || following.is_of(&tables));
        let is_followed = followed.is_some();
        if let Some(following) = followed {
            following.fib.add_to(&mut host, &mut placed);
            placed.retain(|route| is_of_interest(route, &host.links));
        }
        for family in FAMILIES.into_iter().filter(|_| !is_followed) {
            let mut routes = self.routes(family, &tables, &host.links)?;
            // For the first time they are asked for when a route has named one.
            if tables.nexthops.get_mut().are_needed && !self.names_nexthops {
                self.names_nexthops = true;
                tables.nexthops.get_mut().read().context("dumping the nexthop objects of the host")?;
                routes = self.routes(family, &tables, &host.links)?;
            }
            exact &= routes.exact;
            expires = expires.into_iter().chain(routes.expires).min();
            all.extend(routes.routes);
        }
        if !is_followed {
            self.names_nexthops = tables.nexthops.get_mut().are_needed;
        }
        let is_many = self.follows_from.is_some_and(|many| all.len() > many || self.following.is_some());
        if !is_followed && is_many {
            let took = began.elapsed();
            let following = self.following.get_or_insert_with(|| Following::begin(tables.clone(), took));
            following.take_all(tables, all, expires.take(), exact);
            following.fib.add_to(&mut host, &mut placed);
        } else {
            all.into_iter().for_each(|route| route.add_to(&mut host, &mut placed));
        }
        exact &= nothing_changed();
        // An interrupted dump can miss what is there. What was there before stays until a whole dump says
        // otherwise: an address too many passes packets for a moment, one too few would let them go unjudged
        // for as long as the changes go on.
        if !exact {
            add_missing(&mut host.addresses, &self.last.addresses);
            if self.following.is_none() {
                add_missing(&mut host.routes, &self.last.routes);
                add_missing(&mut host.other_routes, &self.last.other_routes);
                add_missing(&mut host.local_routes, &self.last.local_routes);
            }
            add_missing(&mut host.rules, &self.last.rules);
        }
        remember(&mut host, &self.last);
        let by_neighbours = neighbours::ipv4_is_chosen_by_neighbours();
        let mut choices = next_hops::choices(&host, by_neighbours);
        if let Some(following) = &self.following {
            choices.extend(following.fib.leaves.choices(by_neighbours));
        }
        if !choices.is_empty() {
            host.unreachable = neighbours::unreachable(&mut self.requests, &choices)
                .context("dumping the neighbours of the host")?;
        }
        self.last = Rc::new(host);
        Ok(Snapshot { host: Rc::clone(&self.last), placed, expires, choices, exact })
    }

    /// The host as it was last seen.
    pub fn last(&self) -> &Host {
        &self.last
    }

    /// How many dumps were interrupted by changes.
    pub fn interrupted(&self) -> u64 {
        self.interrupted
    }

    fn links(&mut self) -> Result<BTreeMap<u32, Link>> {
        let everywhere = parse::Everywhere::read();
        let mut request = LinkMessage::default();
        request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let request = RouteNetlinkMessage::GetLink(request);
        let (links, exact) = self.dump("links", LINK_ATTEMPTS, &request, |payload| {
            parse::link_message(payload).map(|message| Some(parse::link(&message, everywhere)))
        })?;
        if !exact {
            bail!("dumping the links of the host: they changed during each of {LINK_ATTEMPTS} attempts");
        }
        Ok(links.into_iter().map(|link| (link.index, link)).collect())
    }

    /// Whether they are exact.
    fn addresses(&mut self, family: AddressFamily, host: &mut Host) -> Result<bool> {
        let mut request = AddressMessage::default();
        request.header.family = family;
        let request = RouteNetlinkMessage::GetAddress(request);
        let (addresses, exact) = self.dump("addresses", ATTEMPTS, &request, |payload| {
            let message = parse::address_message(payload)?;
            // A kernel without this family answers for all others.
            let address = parse::address(&message).filter(|_| message.header.family == family);
            Ok::<Option<Address>, _>(address)
        })?;
        append(&mut host.addresses, addresses);
        Ok(exact)
    }

    /// Rules come in the order of their priorities. Whether they are exact.
    fn rules(&mut self, family: AddressFamily, host: &mut Host) -> Result<bool> {
        let mut request = RuleMessage::default();
        request.header.family = family;
        let request = RouteNetlinkMessage::GetRule(request);
        let dumped = self.dump("rules", ATTEMPTS, &request, |payload| {
            let message = parse::rule_message(payload)?;
            Ok(Some(message)
                .filter(|message| message.header.family == family)
                .as_ref()
                .and_then(rules::leading))
        });
        match dumped {
            // A kernel without this family (`ipv6.disable=1`) has no rules for it.
            Err(error) if is_unsupported(&error) => Ok(true),
            dumped => {
                let (rules, exact) = dumped?;
                append(&mut host.rules, rules);
                Ok(exact)
            }
        }
    }

    /// Routes come in the order of their prefixes, and those of equal metric in the order in which the kernel
    /// tries them. Whether they are exact.
    fn routes(
        &mut self,
        family: AddressFamily,
        tables: &parse::Tables,
        links: &BTreeMap<u32, Link>,
    ) -> Result<Routes> {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        let request = RouteNetlinkMessage::GetRoute(request);
        let expires = Cell::new(None);
        let matters = |route: &parse::AnyRoute| match route {
            // Tables of interfaces that there are not are none of ours, but for what an earlier run has left.
            parse::AnyRoute::Placed(placed) => is_of_interest(placed, links),
            _ => true,
        };
        let (routes, exact) = self.dump("routes", ATTEMPTS, &request, |payload| {
            let header = RouteHeader::parse(payload)?;
            // Most routes of a host with many addresses are those that come of them: they need not be read further.
            if header.address_family != family || !parse::route_matters(&header) {
                return Ok(None);
            }
            let message = RouteMessage::parse(payload)?;
            match parse::lifetime(&message) {
                parse::Lifetime::Expired => return Ok(None),
                parse::Lifetime::Ends(left) => {
                    expires.set(Some(expires.get().map_or(left, |first: Duration| first.min(left))));
                }
                parse::Lifetime::Forever => {}
            }
            Ok(parse::route(&message, tables).filter(matters))
        })?;
        Ok(Routes { routes, expires: expires.get(), exact })
    }

    /// What is made of the messages of a dump, and whether it is exact: the last of the attempts was not interrupted.
    fn dump<T>(
        &mut self,
        what: &str,
        attempts: usize,
        request: &RouteNetlinkMessage,
        read: impl Fn(&[u8]) -> Result<Option<T>, DecodeError>,
    ) -> Result<(Vec<T>, bool)> {
        let mut found = Vec::new();
        for _ in 0..attempts {
            found.clear();
            let exact = self
                .requests
                .send(request.clone(), NLM_F_DUMP, |payload| match read(payload) {
                    Ok(item) => found.extend(item),
                    Err(error) => {
                        warn!("leaving out one of the {what} of the host, which can't be read: {error}");
                    }
                })
                .or_else(|error| if is_overrun(&error) { Ok(false) } else { Err(error) })
                .with_context(|| format!("dumping the {what} of the host"))?;
            if exact {
                return Ok((found, true));
            }
            self.interrupted += 1;
            debug!("the dump of the {what} was interrupted by a change");
        }
        Ok((found, false))
    }
}

/// Whether a route in one of our tables is ours, or in that of an interface that there is.
fn is_of_interest(placed: &PlacedRoute, links: &BTreeMap<u32, Link>) -> bool {
    placed.is_ours() || interface_of(placed.table).is_some_and(|owner| links.contains_key(&owner))
}

/// The routes of one family.
struct Routes {
    routes: Vec<parse::AnyRoute>,
    expires: Option<Duration>,
    exact: bool,
}

/// Whether the kernel does not have the family.
fn is_unsupported(error: &anyhow::Error) -> bool {
    let code = error.root_cause().downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
    matches!(code, Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP))
}

/// Whether the kernel had to drop a part of its answer.
fn is_overrun(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOBUFS)
}

/// Without copying where there is nothing yet.
fn append<T>(all: &mut Vec<T>, mut more: Vec<T>) {
    if all.is_empty() {
        *all = more;
    } else {
        all.append(&mut more);
    }
}

/// The domains that routing tables belong to. Other tables, those of policy routing and transparent proxies, say
/// nothing of what is local.
fn domains_by_table(links: &BTreeMap<u32, Link>) -> BTreeMap<u32, u32> {
    let vrfs = links.values().filter_map(|link| match link.kind {
        LinkKind::Vrf { table } => Some((table, link.index)),
        _ => None,
    });
    vrfs.chain([(MAIN_TABLE, MAIN_DOMAIN), (LOCAL_TABLE, MAIN_DOMAIN)]).collect()
}

fn add_missing<T: Clone + Eq + Hash>(dumped: &mut Vec<T>, before: &[T]) {
    let known: HashSet<T> = dumped.iter().cloned().collect();
    dumped.extend(before.iter().filter(|item| !known.contains(item)).cloned());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_interrupted_dump_misses_stays() {
        let mut dumped = vec![3, 1];
        add_missing(&mut dumped, &[1, 2]);
        assert_eq!(dumped, [3, 1, 2]);
    }
}
