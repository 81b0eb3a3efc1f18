//! How the daemon is. `mhebpf status -o json` prints it as it is here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{datapath::Count, model::reasons::Rule};

/// How the daemon is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The version of this document: raised when a field is removed or changes its meaning.
    pub schema: u32,
    /// The version of mhebpf that runs.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// How long it has been running, in seconds.
    pub uptime: f64,
    /// What it is to do, in the words of the command line.
    pub intent: String,
    /// How the interfaces were selected, in the words of the command line.
    pub selected_by: String,
    /// Nothing is changed anywhere: what is counted would be done.
    pub observing: bool,
    /// How the programs are attached: `tcx` or `clsact`; `null` when they are not attached anywhere.
    pub hook: Option<String>,
    /// Where the links and maps are pinned, which then outlive the daemon; `null` when they end with it.
    #[serde(default)]
    pub pinned: Option<String>,
    /// How long ago the tables were last brought in step with the host, in seconds.
    pub in_step: Option<f64>,
    /// How often they were.
    pub synchronisations: u64,
    /// What made it look at the host again, besides changes.
    pub resynchronisations: Resynchronisations,
    /// How many local addresses the tables have; those of a prefix count once.
    pub addresses: usize,
    /// How many next hops they have, of all owners.
    pub next_hops: usize,
    /// The routes, where they are so many that they are followed by their events; `null` where all are read at each change.
    #[serde(default)]
    pub routes: Option<FollowedRoutes>,
    /// What the BPF maps have no room for, by interface.
    #[serde(default)]
    pub no_room: Vec<NoRoom>,
    /// The policy routing that is kept (`--steer rules`); `null` without.
    pub steering: Option<Steering>,
    /// The enforced interfaces, by ifindex.
    pub interfaces: Vec<Interface>,
    /// The addresses that every interface owns.
    pub host_wide: Vec<Owned>,
    /// Interfaces that were looked at and left out, by ifindex.
    pub left_out: Vec<LeftOut>,
    /// Interfaces that were enforced once, and on which something was counted.
    pub former: Vec<Former>,
    /// Interfaces that have been gone for longer than the last 64 of those.
    #[serde(default)]
    pub earlier: Earlier,
    /// How many packets could not be counted, as the table of counters had no room.
    #[serde(default)]
    pub counts_lost: u64,
}

impl Status {
    /// The version of the document that this version of mhebpf writes.
    pub const SCHEMA: u32 = 1;
}

/// Routes that are followed by their events.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FollowedRoutes {
    /// How many there are.
    pub followed: usize,
    /// How long ago they were last compared with all that the kernel has, in seconds.
    pub compared: f64,
    /// Something has happened since that has no events of its own: they are compared soon.
    pub in_doubt: bool,
}

/// What made the daemon look at the host again, besides changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resynchronisations {
    /// The kernel had more events than the socket could keep (`ENOBUFS`).
    pub lost_events: u64,
    /// A dump was interrupted by a change (`NLM_F_DUMP_INTR`), and taken again.
    pub interrupted_dumps: u64,
    /// Something failed, and was tried again.
    pub failures: u64,
}

/// What the BPF maps have no room for of an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoRoom {
    /// Its name.
    pub name: String,
    /// Its index; 0 for the addresses of every interface.
    pub ifindex: u32,
    /// How many of its addresses and prefixes are missing: no interface is held to them.
    pub addresses: usize,
    /// Nothing is enforced on it.
    pub unjudged: bool,
    /// The same as a sentence, and what to do.
    pub why: String,
}

/// The policy routing that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steering {
    /// How many rules there are.
    pub rules: usize,
    /// Their priority.
    pub priority: u32,
    /// The routing protocol of rules and routes.
    pub protocol: u8,
    /// How many tables there are.
    pub tables: usize,
    /// How many routes they have.
    pub routes: usize,
    /// How many packets had to be redirected all the same, since the programs were loaded.
    pub redirected: u64,
    /// The flows of those that were sampled, the most frequent ones first.
    pub flows: Vec<String>,
    /// What is not steered, and why.
    pub left_out: Vec<String>,
}

/// The policy routing of one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceSteering {
    /// Its table.
    pub table: u32,
    /// How many routes that has.
    pub routes: usize,
    /// The sources that rules lead there.
    pub sources: Vec<String>,
}

/// An enforced interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// It is up and has carrier.
    pub up: bool,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// The VRF that it belongs to.
    pub vrf: Option<String>,
    /// How the programs are attached: `tcx` or `clsact`; `null` when they are not.
    pub hook: Option<String>,
    /// The place of the ingress program among the programs and filters of others; `null` where that can't be asked.
    pub ingress_chain: Option<Chain>,
    /// The same of the egress program.
    pub egress_chain: Option<Chain>,
    /// What is enforced.
    pub policy: Policy,
    /// Its policy routing; `null` where there is none.
    pub steering: Option<InterfaceSteering>,
    /// The addresses that it owns besides the host-wide ones, and why.
    pub owned: Vec<Owned>,
    /// What was counted.
    pub counters: Vec<Counter>,
}

/// A place among the programs and filters that see the same packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// From 1: the first. What those before let pass for good, drop or take is not judged.
    pub place: usize,
    /// How many programs there are.
    pub programs: usize,
}

/// What is enforced, in the words of the configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the keys of the configuration file")]
pub struct Policy {
    pub send: String,
    pub receive: String,
    pub announce: String,
    pub unknown: String,
    pub forwarded: String,
}

/// An address that an interface owns, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Owned {
    /// The address, or a prefix of several.
    pub address: String,
    /// Why.
    pub rule: Rule,
    /// The interface that the rule is about.
    pub through: String,
}

/// A counter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counter {
    /// `egress` or `ingress`.
    pub direction: String,
    /// `ipv4`, `ipv6`, `arp` or `ndp`.
    pub family: String,
    /// Why the packets did not simply pass.
    pub reason: String,
    /// They were left alone and only counted.
    pub observed: bool,
    /// How many.
    pub packets: u64,
    /// How many in a second, since the last look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
}

/// An interface that was left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Its name.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// Why.
    pub why: String,
}

/// An interface that is not enforced any more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Former {
    /// The name that it had last.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// What was counted.
    pub counters: Vec<Counter>,
}

/// Interfaces that are gone, added up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Earlier {
    /// How many had counts.
    pub interfaces: u64,
    /// What was counted.
    pub counters: Vec<Counter>,
}

impl From<Count> for Counter {
    fn from(count: Count) -> Self {
        Self {
            direction: count.direction.name().to_owned(),
            family: count.family.name().to_owned(),
            reason: count.reason.name().to_owned(),
            observed: count.observed,
            packets: count.packets,
            rate: None,
        }
    }
}

/// Puts counters into words, by ifindex.
pub(crate) fn counters_by_interface(counts: Vec<Count>) -> BTreeMap<u32, Vec<Counter>> {
    let mut by_interface: BTreeMap<u32, Vec<Counter>> = BTreeMap::new();
    for count in counts {
        by_interface.entry(count.ifindex).or_default().push(count.into());
    }
    by_interface
}
