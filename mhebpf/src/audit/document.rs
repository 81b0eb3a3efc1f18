//! An audit as one JSON document, described by `mhebpf/schema/audit.json`.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::{
    finding::{Finding, Severity},
    roles::{self, Role},
    snapshot::{Program, Rule, Snapshot, Unread},
    sysctls::{Sysctl, Values},
};
use crate::model::{LinkKind, uplinks::with_remedy};

/// The version of the schema. It changes when a field goes or changes its meaning, not when one is added.
pub const SCHEMA: u32 = 1;

/// All that an audit says.
#[derive(Clone, Debug, Serialize)]
pub struct Document {
    /// [`SCHEMA`]
    pub schema: u32,
    /// Whether the host behaves as a weak end system where that shows: on one with a single interface it does not.
    pub weak: bool,
    /// How many findings of each severity there are.
    pub counts: Counts,
    /// The findings, errors first.
    pub findings: Vec<Finding>,
    /// What the host is.
    pub roles: Vec<Role>,
    /// What `--all` leaves out and was not looked at all the same, but for loopback, by ifindex.
    pub left_out: Vec<LeftOut>,
    /// The interfaces that were looked at, by ifindex.
    pub interfaces: Vec<Interface>,
    /// The sysctls of `all`.
    pub all: Values,
    /// The rules of policy routing that are not the kernel's own.
    pub rules: Vec<Rule>,
    /// What could not be read.
    pub unread: Vec<Unread>,
    /// The rules of nftables, where they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nftables: Option<String>,
    /// The command that makes the host a strong end system; `null` where it has no two interfaces to be told apart.
    pub run: Option<String>,
}

/// A device that `--all` leaves out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// The name.
    pub name: String,
    /// The index.
    pub ifindex: u32,
    /// This host is the router of what is behind it.
    pub downlink: bool,
    /// Why, and how it is taken all the same.
    pub why: String,
}

/// How many findings there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Of [`Severity::Error`].
    pub errors: usize,
    /// Of [`Severity::Warning`].
    pub warnings: usize,
    /// Of [`Severity::Note`].
    pub notes: usize,
}

/// An interface.
#[derive(Clone, Debug, Serialize)]
pub struct Interface {
    /// The name.
    pub name: String,
    /// The index.
    pub ifindex: u32,
    /// The hardware address, where it has one of six bytes.
    pub mac: Option<String>,
    /// In bytes, without the link layer's header.
    pub mtu: u32,
    /// It is up and has carrier.
    pub up: bool,
    /// Addresses with the length of their prefix.
    pub addresses: Vec<String>,
    /// By name.
    pub sysctls: BTreeMap<Sysctl, SysctlValue>,
    /// Programs and filters of others.
    pub programs: Vec<Program>,
}

/// A sysctl of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SysctlValue {
    /// The interface's own; `null` when it could not be read.
    pub own: Option<u32>,
    /// What counts, together with that of `all`.
    pub effective: u32,
}

impl Document {
    /// Puts together what there is to say.
    pub fn new(
        snapshot: &Snapshot,
        findings: Vec<Finding>,
        run: Option<String>,
        nftables: Option<String>,
    ) -> Self {
        let number = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
        let counts = Counts {
            errors: number(Severity::Error),
            warnings: number(Severity::Warning),
            notes: number(Severity::Note),
        };
        Self {
            schema: SCHEMA,
            weak: findings.iter().any(|finding| finding.id.shows_weakness()),
            counts,
            findings,
            roles: roles::of(snapshot),
            left_out: left_out(snapshot),
            interfaces: snapshot.interfaces.iter().filter_map(|i| interface(snapshot, *i)).collect(),
            all: snapshot.sysctls.everywhere.clone(),
            rules: snapshot.rules.clone(),
            unread: snapshot.unread.clone(),
            nftables,
            run,
        }
    }

    /// The document as text, with a newline at its end.
    ///
    /// # Errors
    ///
    /// Never, as far as is known.
    pub fn to_json(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self).context("writing what was found as JSON")?;
        Ok(text + "\n")
    }
}

fn left_out(snapshot: &Snapshot) -> Vec<LeftOut> {
    let is_looked_at = |ifindex: &u32| snapshot.interfaces.contains(ifindex);
    let left_out = snapshot.uplinks.left_out.iter().filter(|(ifindex, _)| !is_looked_at(ifindex));
    let left_out = left_out.filter_map(|(ifindex, why)| {
        let link = snapshot.host.links.get(ifindex).filter(|link| link.kind != LinkKind::Loopback)?;
        Some(LeftOut {
            name: link.name.clone(),
            ifindex: *ifindex,
            downlink: snapshot.uplinks.downlinks.contains(ifindex),
            why: with_remedy(&link.name, why),
        })
    });
    left_out.collect()
}

fn interface(snapshot: &Snapshot, ifindex: u32) -> Option<Interface> {
    let link = snapshot.host.links.get(&ifindex)?;
    let addresses = snapshot.host.addresses.iter().filter(|address| address.ifindex == ifindex);
    let sysctl = |sysctl: Sysctl| {
        let own = snapshot.sysctls.links.get(&ifindex).and_then(|values| values.get(&sysctl)).copied();
        (sysctl, SysctlValue { own, effective: snapshot.sysctls.effective(ifindex, sysctl) })
    };
    Some(Interface {
        name: link.name.clone(),
        ifindex,
        mac: link.mac.map(|mac| mac.map(|byte| format!("{byte:02x}")).join(":")),
        mtu: link.mtu,
        up: link.up,
        addresses: addresses.map(|a| with_length(a.local, a.subnet.prefix_len())).collect(),
        sysctls: Sysctl::ALL.map(sysctl).into(),
        programs: snapshot.programs.iter().filter(|program| program.ifindex == ifindex).cloned().collect(),
    })
}

fn with_length(address: IpAddr, length: u8) -> String {
    format!("{address}/{length}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::finding::Id;

    const FILE: &str = include_str!("../../schema/audit.json");

    fn names(choices: &serde_json::Value) -> Vec<&str> {
        choices.as_array().into_iter().flatten().filter_map(|choice| choice["const"].as_str()).collect()
    }

    #[test]
    fn the_schema_names_every_kind_of_finding() {
        let schema: serde_json::Value = serde_json::from_str(FILE).expect("JSON");
        let ids = names(&schema["$defs"]["finding"]["properties"]["id"]["oneOf"]);
        assert_eq!(ids, Id::ALL.iter().map(|id| id.name()).collect::<Vec<_>>());
        let severities = names(&schema["$defs"]["finding"]["properties"]["severity"]["oneOf"]);
        assert_eq!(severities, [Severity::Error, Severity::Warning, Severity::Note].map(Severity::name));
        assert_eq!(schema["properties"]["schema"]["const"], SCHEMA);
        let roles = names(&schema["properties"]["roles"]["items"]["properties"]["role"]["oneOf"]);
        assert_eq!(roles, roles::Name::ALL.map(roles::Name::name));
    }
}
