//! Reading a snapshot: the edge where an audit asks the kernel. Nothing is changed.

mod borrowed;
mod ipvs;
mod mptcp;
mod networkd;
mod programs;
mod published;
mod rules;
mod sockets;
mod sysctls;
mod translation;
mod ways;

use std::rc::Rc;

use anyhow::{Context as _, Result};
use netlink_packet_core::{DecodeError, NLM_F_DUMP};
use netlink_packet_route::RouteNetlinkMessage;
use tracing::debug;

use super::snapshot::{Snapshot, Unread, View};
use crate::{
    model::{Host, Selector},
    netlink::{Dumper, Requests, RouteLookup},
    settings::Settings,
};

/// Takes a snapshot of the host, without the interfaces that are to be looked at: for those see [`complete`].
///
/// # Errors
///
/// When links, addresses and routes can't be dumped.
pub fn host() -> Result<Host> {
    Ok(Rc::unwrap_or_clone(Dumper::connect()?.snapshot()?.host))
}

/// Reads all else. What can't be read is named in the snapshot, and the rest is read all the same.
///
/// # Errors
///
/// When there is no netlink.
pub fn complete(host: Host, selector: &Selector, settings: &Settings) -> Result<Snapshot> {
    let selection = selector.select(&host);
    let policies = settings.policies_if_enforced(&host, &selection);
    let interfaces = selection.enforced;
    let company = &interfaces | &selection.host.uplinks;
    let uplinks = selection.host;
    let mut snapshot = Snapshot { host, interfaces, company, uplinks, policies, ..Snapshot::default() };
    snapshot.steers = settings.steers();
    snapshot.sysctls = sysctls::read(&snapshot.host, &mut snapshot.unread);
    let mut lookup = RouteLookup::connect()?;
    let mut dumps = Dumps::connect()?;
    match rules::read(&mut dumps) {
        Ok(rules) => snapshot.rules = rules,
        Err(error) => snapshot.miss("the rules of policy routing", &error),
    }
    // A failure is the same as that before.
    snapshot.local_late =
        crate::netlink::rules::placed(&mut dumps.0).map(|rules| rules.local_late).unwrap_or_default();
    snapshot.networkd = networkd::read();
    let questions = ways::questions(&View::new(&snapshot));
    snapshot.ways = ways::ask(questions, &mut lookup);
    snapshot.borrowed = borrowed::read(&View::new(&snapshot), &mut lookup);
    let has_many = snapshot.company.len() > 1;
    snapshot.translation = translation::read(has_many && snapshot.forwards(), &mut snapshot.unread);
    match mptcp::read() {
        Ok(endpoints) => snapshot.mptcp = endpoints,
        // Whether there are any is root's to know.
        Err(error) => debug!("the endpoints of Multipath TCP: {error}"),
    }
    programs::read(&mut dumps, &mut snapshot);
    let (sockets, unread) = sockets::read(&View::new(&snapshot), &mut lookup);
    snapshot.sockets = sockets;
    snapshot.unread.extend(unread);
    snapshot.unread.sort();
    snapshot.unread.dedup();
    Ok(snapshot)
}

impl Snapshot {
    fn miss(&mut self, what: impl Into<String>, error: &anyhow::Error) {
        self.unread.push(Unread { what: what.into(), why: format!("{error:#}") });
    }
}

/// Dumps of anything but links, addresses and routes.
struct Dumps(Requests);

impl Dumps {
    fn connect() -> Result<Self> {
        Ok(Self(Requests::open().context("opening a netlink socket for dumps")?))
    }

    /// What is made of the messages of a dump; those that can't be read are left out.
    fn dump<T>(
        &mut self,
        request: RouteNetlinkMessage,
        read: impl Fn(&[u8]) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>> {
        let mut found = Vec::new();
        self.0.send(request, NLM_F_DUMP, |payload| match read(payload) {
            Ok(item) => found.push(item),
            Err(error) => debug!("leaving out what can't be read: {error}"),
        })?;
        Ok(found)
    }
}
