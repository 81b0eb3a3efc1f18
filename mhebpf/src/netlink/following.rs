//! Following the routes of a host that has very many of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io, thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use netlink_packet_core::{NLM_F_APPEND, NLM_F_DUMP, NLM_F_REPLACE, NetlinkBuffer, Parseable as _};
use netlink_packet_route::{
    RouteNetlinkMessage,
    route::{RouteFlags, RouteHeader, RouteMessage},
};
use tokio::{
    sync::mpsc::{self, Receiver, Sender},
    time::Instant,
};
use tracing::{debug, warn};

use super::{
    dump::FAMILIES,
    events::Events,
    fib::{Added, Fib, RouteEvent},
    parse::{self, AnyRoute, Lifetime},
    request::Requests,
};
use crate::stop;

/// `RTM_NEWROUTE`
const NEW_ROUTE: u16 = 24;
/// `RTM_DELROUTE`
const DEL_ROUTE: u16 = 25;

/// How many routes of a dump are handed over at once: a matter of milliseconds.
const PART: usize = 2048;

/// How often the routes are dumped if nothing asks for it.
const CROSS_CHECK: Duration = Duration::from_secs(30);

/// How long after something was put in doubt they are dumped: more may follow. But not for ever.
const SETTLED: Duration = Duration::from_millis(100);

/// How long it is waited for that nothing more follows.
const UNSETTLED: Duration = Duration::from_secs(1);

/// How many times as long as a dump has taken there is none.
const REST: u32 = 20;

/// How often, in doubt.
const REST_IN_DOUBT: u32 = 5;

/// The routes, what they are read by, and a dump that may be running.
pub(super) struct Following {
    pub(super) fib: Fib,
    domains: BTreeMap<u32, u32>,
    by_rule: BTreeSet<(u32, bool)>,
    tables: parse::Tables,
    running: Option<(Receiver<Part>, Instant)>,
    /// The end of the last dump, and how long it took.
    last: (Instant, Duration),
    /// When something was put in doubt first, and last.
    doubted: Option<(Instant, Instant)>,
    expires: Option<Instant>,
}

/// A part of a dump.
pub struct Part(Content);

/// What is in a part.
enum Content {
    /// Some of the routes.
    Routes(Vec<AnyRoute>),
    /// There are no more of them. When the first one expires, and whether the dump is exact.
    End(Option<Instant>, Result<bool>),
}

impl Following {
    /// Follows what was just dumped in `took`.
    pub(super) fn begin(tables: parse::Tables, took: Duration) -> Self {
        Self {
            fib: Fib::default(),
            domains: tables.domains.clone(),
            by_rule: tables.by_rule.clone(),
            tables,
            running: None,
            last: (Instant::now(), took),
            doubted: None,
            expires: None,
        }
    }

    /// Whether the tables that matter are those that are followed.
    pub(super) fn is_of(&self, tables: &parse::Tables) -> bool {
        self.domains == tables.domains && self.by_rule == tables.by_rule
    }

    /// Takes all from a dump of everything, which was exact or not.
    pub(super) fn take_all(
        &mut self,
        tables: parse::Tables,
        routes: Vec<AnyRoute>,
        expires: Option<Duration>,
        exact: bool,
    ) {
        self.running = None;
        (self.domains, self.by_rule) = (tables.domains.clone(), tables.by_rule.clone());
        self.tables = tables;
        self.fib.begin_dump();
        for route in routes {
            if stop::is_asked() {
                break;
            }
            self.fib.dumped(route);
        }
        self.fib.end_dump(exact && !stop::is_asked());
        self.expires = expires.map(|left| Instant::now() + left);
    }

    /// Follows all events that are waiting.
    ///
    /// # Errors
    ///
    /// When the socket fails.
    pub(super) fn follow(&mut self, events: &mut Events) -> io::Result<()> {
        let (fib, tables, expires) = (&mut self.fib, &self.tables, &mut self.expires);
        let is_whole = events.take_routes(|message| {
            if let Some(event) = event(&message, tables, expires) {
                fib.follow(event);
            }
        })?;
        if !is_whole {
            debug!("events of routes were lost: they are dumped");
            fib.in_doubt = true;
            tables.nexthops.borrow_mut().are_stale = true;
        }
        if fib.in_doubt && self.doubted.is_none() {
            self.doubt();
        }
        Ok(())
    }

    /// Something has happened that may change routes without an event.
    pub(super) fn doubt(&mut self) {
        self.fib.in_doubt = true;
        let now = Instant::now();
        self.doubted = Some((self.doubted.map_or(now, |(first, _)| first), now));
    }

    /// How long ago all was seen to be right, at the latest; whether something is in doubt since.
    pub(super) fn checked(&self) -> (Duration, bool) {
        (self.last.0.elapsed(), self.fib.in_doubt)
    }

    /// Whether a dump is running.
    pub(super) fn is_comparing(&self) -> bool {
        self.running.is_some()
    }

    /// When the next dump is to begin.
    fn due(&self) -> Instant {
        let (end, took) = self.last;
        let due = match self.doubted {
            Some((first, last)) => (last + SETTLED).min(first + UNSETTLED).max(end + took * REST_IN_DOUBT),
            None => end + CROSS_CHECK.max(took * REST),
        };
        // Some milliseconds later the kernel says so.
        self.expires.map_or(due, |expires| due.min(expires + Duration::from_millis(20)))
    }

    /// Waits for the next part of a dump that is running, or begins one when it is time.
    pub(super) async fn part(&mut self) -> Part {
        loop {
            if let Some((parts, _)) = &mut self.running {
                let failed = || Part(Content::End(None, Err(anyhow::anyhow!("the dump has ended early"))));
                return parts.recv().await.unwrap_or_else(failed);
            }
            tokio::time::sleep_until(self.due()).await;
            self.dump();
        }
    }

    /// Takes a part; whether it was the last one.
    pub(super) fn take(&mut self, part: Part) -> bool {
        let (expires, ended) = match part.0 {
            Content::Routes(routes) => {
                routes.into_iter().for_each(|route| self.fib.dumped(route));
                return false;
            }
            Content::End(expires, ended) => (expires, ended),
        };
        let began = self.running.take().map_or_else(Instant::now, |(_, began)| began);
        self.last = (Instant::now(), began.elapsed());
        let exact = ended.unwrap_or_else(|error| {
            warn!("{error:#}");
            false
        });
        self.expires = expires;
        self.fib.end_dump(exact);
        if self.fib.in_doubt {
            self.doubt();
        }
        true
    }

    /// Begins a dump beside all else, on a thread of its own.
    fn dump(&mut self) {
        self.fib.begin_dump();
        self.fib.in_doubt = false;
        self.doubted = None;
        self.expires = None;
        let (sender, receiver) = mpsc::channel(2);
        self.running = Some((receiver, Instant::now()));
        let tables = parse::Tables {
            domains: self.domains.clone(),
            by_rule: self.by_rule.clone(),
            ..parse::Tables::default()
        };
        let spawned = thread::Builder::new().name("routes".to_owned()).spawn(move || {
            let mut expires = None;
            let ended = dump(&tables, &sender, &mut expires);
            // Whoever asked may be gone.
            let _ = sender.blocking_send(Part(Content::End(expires, ended)));
        });
        if let Err(error) = spawned {
            warn!("dumping the routes of the host: {error}");
        }
    }
}

/// Dumps the routes of both families, and hands them over in parts.
fn dump(tables: &parse::Tables, sender: &Sender<Part>, expires: &mut Option<Instant>) -> Result<bool> {
    let mut requests = Requests::open().context("opening a netlink socket for dumps")?;
    tables.nexthops.borrow_mut().read_if_there_are().context("dumping the nexthop objects of the host")?;
    let mut exact = true;
    for family in FAMILIES {
        let mut routes = Vec::with_capacity(PART);
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        let request = RouteNetlinkMessage::GetRoute(request);
        let dumped = requests.send(request, NLM_F_DUMP, |payload| {
            let read = RouteHeader::parse(payload).and_then(|header| {
                if header.address_family != family || !parse::route_matters(&header) {
                    return Ok(None);
                }
                RouteMessage::parse(payload).map(Some)
            });
            match read {
                Ok(Some(message)) => routes.extend(lasting(&message, tables, expires)),
                Ok(None) => {}
                Err(error) => warn!("leaving out a route of the host, which can't be read: {error}"),
            }
            if routes.len() == PART {
                let _ = sender.blocking_send(Part(Content::Routes(std::mem::replace(
                    &mut routes,
                    Vec::with_capacity(PART),
                ))));
            }
        });
        exact &= dumped.with_context(|| format!("dumping the routes of {family:?}"))?;
        let _ = sender.blocking_send(Part(Content::Routes(routes)));
    }
    Ok(exact)
}

/// A route that has not expired.
fn lasting(
    message: &RouteMessage,
    tables: &parse::Tables,
    expires: &mut Option<Instant>,
) -> Option<AnyRoute> {
    match parse::lifetime(message) {
        Lifetime::Expired => return None,
        Lifetime::Ends(left) => {
            let at = Instant::now() + left;
            *expires = Some(expires.map_or(at, |first| first.min(at)));
        }
        Lifetime::Forever => {}
    }
    parse::route(message, tables)
}

/// What a message of the subscription says of routes that matter.
fn event(
    message: &NetlinkBuffer<&[u8]>,
    tables: &parse::Tables,
    expires: &mut Option<Instant>,
) -> Option<RouteEvent> {
    let kind = message.message_type();
    if !matches!(kind, NEW_ROUTE | DEL_ROUTE) {
        // A nexthop object: what routes have it is not said.
        tables.nexthops.borrow_mut().are_stale = true;
        return Some(RouteEvent::Unclear);
    }
    let header = RouteHeader::parse(message.payload()).ok()?;
    let is_exception = header.flags.contains(RouteFlags::Cloned);
    if is_exception || !FAMILIES.contains(&header.address_family) || !parse::route_matters(&header) {
        return None;
    }
    let Ok(message_of) = RouteMessage::parse(message.payload()) else { return Some(RouteEvent::Unclear) };
    if kind == DEL_ROUTE {
        let mut gone = message_of;
        // It may have died before.
        gone.header.flags.remove(RouteFlags::Dead);
        return parse::route(&gone, tables).map(RouteEvent::Gone);
    }
    let added = if message.flags() & NLM_F_REPLACE != 0 {
        Added::Instead
    } else if message.flags() & NLM_F_APPEND != 0 {
        Added::Behind
    } else {
        Added::InFront
    };
    lasting(&message_of, tables, expires).map(|route| RouteEvent::New(route, added))
}
