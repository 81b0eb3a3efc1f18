//! What outlives the daemon, as the pinned maps have it.

mod report;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use mhebpf_ebpf::{FurtherOwnerKey, Owners};
use serde::Serialize;

pub(super) use self::report::text;
use crate::{
    control::protocol::{Counter, Policy, counters_by_interface},
    datapath::PinnedMaps,
    model::{Host, Tables, host},
    netlink::Dumper,
    pins::{self, Pinned, Pins, Side},
};

/// The version of the document: raised when a field is removed or changes its meaning.
const SCHEMA: u32 = 1;

/// What is in force without a daemon. `mhebpf status -o json` prints it as it is here, described by
/// `mhebpf/schema/status-pinned.json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Lasting {
    /// [`SCHEMA`]
    pub schema: u32,
    /// Always `null`: no daemon runs.
    pub daemon: Option<u32>,
    /// Where the links and maps are pinned.
    pub directory: String,
    /// When the maps were last in step with the host, as RFC 3339 has it.
    pub written: String,
    /// How long ago that is, in seconds.
    pub age: u64,
    /// The process of the daemon that has written them.
    pub written_by: u32,
    /// How the programs are attached.
    pub hook: &'static str,
    /// How many local addresses the tables have; those of a prefix count once.
    pub addresses: usize,
    /// How many next hops they have, of all owners.
    pub next_hops: usize,
    /// The enforced interfaces, by ifindex.
    pub interfaces: Vec<Interface>,
    /// The addresses that every interface owns.
    pub host_wide: Vec<String>,
    /// How many packets could not be counted, as the table of counters had no room.
    pub counts_lost: u64,
}

/// An enforced interface.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Interface {
    /// Its name; `null` when there is none with this index any more.
    pub name: Option<String>,
    /// Its index.
    pub ifindex: u32,
    /// Whether the egress program is on it.
    pub egress: bool,
    /// Whether the ingress program is on it.
    pub ingress: bool,
    /// What is enforced.
    pub policy: Policy,
    /// The addresses that it owned besides the host-wide ones when the maps were written.
    pub owned: Vec<String>,
    /// What was counted.
    pub counters: Vec<Counter>,
}

/// Reads what is in force in this network namespace without a daemon; `None` when nothing is.
///
/// # Errors
///
/// Without the right to read the maps, or when another version has written them.
pub(super) fn read(named: Option<&Path>) -> Result<Option<Lasting>> {
    let Some(directory) = Pins::find(&pins::directory(named))? else { return Ok(None) };
    let links = pins::links(&directory)?;
    if links.is_empty() {
        return Ok(None);
    }
    let maps = PinnedMaps::youngest(&directory)?;
    let state = maps.state.read()?;
    let tables = maps.maps.read()?;
    let mut counters = counters_by_interface(maps.counters.read()?);
    let host = Dumper::connect()?.snapshot()?.host;
    let written = UNIX_EPOCH + Duration::from_secs(state.written);
    let mut interfaces = BTreeMap::new();
    for link in &links {
        let interface = interfaces.entry(link.ifindex).or_insert_with(|| {
            let counters = counters.remove(&link.ifindex).unwrap_or_default();
            interface(&host, &tables, link.ifindex, counters)
        });
        let is_on = is_on(link)?;
        match link.side {
            Side::Egress => interface.egress = is_on,
            Side::Ingress => interface.ingress = is_on,
        }
    }
    Ok(Some(Lasting {
        schema: SCHEMA,
        daemon: None,
        directory: directory.path().display().to_string(),
        written: humantime::format_rfc3339_seconds(written).to_string(),
        age: SystemTime::now().duration_since(written).unwrap_or_default().as_secs(),
        written_by: state.pid,
        hook: "tcx",
        addresses: tables.local_addresses(),
        next_hops: tables.ipv4.next_hops.len() + tables.ipv6.next_hops.len(),
        interfaces: interfaces.into_values().collect(),
        host_wide: host_wide(&tables),
        counts_lost: maps.counters.lost()?,
    }))
}

fn is_on(link: &Pinned) -> Result<bool> {
    link.is_in_force().with_context(|| {
        format!("opening the pinned link {} (this needs root or CAP_BPF)", link.place().path().display())
    })
}

/// On a wire the addresses of loopback are nobody's.
fn host_wide(tables: &Tables) -> Vec<String> {
    let mut addresses = owned(tables, |_, owners| owners.is_host_wide());
    addresses.retain(|address| !address.starts_with("127.") && address != "::1");
    addresses
}

fn interface(host: &Host, tables: &Tables, ifindex: u32, counters: Vec<Counter>) -> Interface {
    let iface = tables.ifaces.get(&ifindex).copied().unwrap_or(mhebpf_ebpf::Iface::EMPTY);
    let is_owner = |domain, owners: &Owners| {
        domain == iface.domain
            && (owners.has_inline(ifindex)
                || owners.has_further()
                    && tables.further_owners.contains(&FurtherOwnerKey::new(owners.set, ifindex)))
    };
    Interface {
        name: host.links.get(&ifindex).map(|link| link.name.clone()),
        ifindex,
        egress: false,
        ingress: false,
        policy: (&iface).into(),
        owned: owned(tables, is_owner),
        counters,
    }
}

/// The addresses and prefixes whose domain and owners are asked for, in order.
fn owned(tables: &Tables, is_asked: impl Fn(u32, &Owners) -> bool) -> Vec<String> {
    let mut found: Vec<(IpAddr, u8)> = Vec::new();
    let v4 = |address| IpAddr::from(Ipv4Addr::from(address));
    let v6 = |address| IpAddr::from(Ipv6Addr::from(address));
    let single = tables.ipv4.owners.iter().map(|(key, owners)| (key.domain, v4(key.address), 32, owners));
    let prefixes = tables.ipv4.prefixes.iter();
    let prefixes = prefixes.map(|((key, length), owners)| (key.domain, v4(key.address), *length, owners));
    let single6 = tables.ipv6.owners.iter().map(|(key, owners)| (key.domain, v6(key.address), 128, owners));
    let prefixes6 = tables.ipv6.prefixes.iter();
    let prefixes6 = prefixes6.map(|((key, length), owners)| (key.domain, v6(key.address), *length, owners));
    for (domain, address, length, owners) in single.chain(prefixes).chain(single6).chain(prefixes6) {
        if is_asked(domain, owners) {
            found.push((address, length));
        }
    }
    found.sort_unstable();
    let words = |(address, length): (IpAddr, u8)| {
        let prefix = host::prefix(address, length);
        if prefix.prefix_len() == prefix.max_prefix_len() { address.to_string() } else { prefix.to_string() }
    };
    found.into_iter().map(words).collect()
}
