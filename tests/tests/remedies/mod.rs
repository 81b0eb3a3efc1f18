//! Remedies of an audit, read from what it says, and carried out.

use std::{
    collections::BTreeSet,
    env, fs,
    net::Ipv4Addr,
    path::PathBuf,
    process,
    sync::atomic::{AtomicUsize, Ordering},
};

use anyhow::{Context as _, Result, ensure};
use mhebpf_tests::NetNs;
use serde_json::Value;

use crate::inspection::{document, mhebpf};

const SCHEMA: &str = include_str!("../../../mhebpf/schema/audit.json");

/// How a command starts in a sentence, and how it ends.
const STARTS: [&str; 6] = [
    "sysctl -w ",
    "ip route add ",
    "ip -6 route add ",
    "ip rule add ",
    "ip -6 rule add ",
    "ip mptcp endpoint add ",
];
const ENDS: [&str; 4] = ["; ", ". ", " (", ", or"];

/// What may be said instead, since mhebpf does away with it: packets leave now that were lost before.
const INSTEAD: [(&str, &str); 4] = [
    ("route-without-carrier", "arp-wrong-sender"),
    ("no-next-hop", "asymmetric-gateway"),
    ("service-without-next-hop", "asymmetric-gateway"),
    ("translated-answers-lost", "asymmetric-gateway"),
];

/// What an audit said.
pub(crate) struct Audit {
    pub(crate) document: Value,
}

impl Audit {
    pub(crate) fn of(ns: &NetNs, words: &[&str]) -> Result<Self> {
        let printed = mhebpf(ns, &[&["audit", "-o", "json"], words].concat())?;
        Ok(Self { document: document(&printed, SCHEMA)? })
    }

    fn findings(&self) -> impl Iterator<Item = &Value> {
        self.document["findings"].as_array().into_iter().flatten()
    }

    /// The first finding with this id.
    pub(crate) fn finding(&self, id: &str) -> Result<&Value> {
        let found = self.findings().find(|finding| finding["id"] == id);
        found.with_context(|| format!("no {id} in {:#}", self.document))
    }

    /// What is to be done about all findings with this id.
    pub(crate) fn remedies(&self, id: &str) -> Vec<String> {
        let found = self.findings().filter(|finding| finding["id"] == id);
        found.filter_map(|finding| Some(finding["remedy"].as_str()?.to_owned())).collect()
    }

    /// What is to be done about the only finding with this id.
    pub(crate) fn remedy(&self, id: &str) -> Result<String> {
        let mut found = self.remedies(id);
        ensure!(found.len() == 1, "{} findings {id} in {:#}", found.len(), self.document);
        Ok(found.remove(0))
    }

    /// The ids of errors and warnings.
    fn faults(&self) -> BTreeSet<&str> {
        let faults = self.findings().filter(|finding| finding["severity"] != "note");
        faults.filter_map(|finding| finding["id"].as_str()).collect()
    }

    #[track_caller]
    pub(crate) fn assert_mended(&self, before: &Self, id: &str) {
        assert_eq!(self.remedies(id), [""; 0], "{id} is still there: {:#}", self.document);
        self.assert_no_worse(before);
    }

    #[track_caller]
    pub(crate) fn assert_no_worse(&self, before: &Self) {
        let known = before.faults();
        let instead: BTreeSet<&str> =
            INSTEAD.iter().filter(|(id, _)| known.contains(id)).map(|(_, instead)| *instead).collect();
        let new: Vec<&str> =
            self.faults().difference(&known).copied().filter(|id| !instead.contains(id)).collect();
        assert!(new.is_empty(), "{new:?} are new: {:#}", self.document);
    }
}

/// A command of a remedy.
#[derive(Debug)]
pub(crate) struct Command(String);

impl Command {
    pub(crate) fn run(&self, ns: &NetNs) -> Result<()> {
        if let Some(words) = self.0.strip_prefix("ip ") {
            return ns.ip(words).map(drop);
        }
        let settings = self.0.strip_prefix("sysctl -w ").context("neither ip nor sysctl")?;
        settings.split(' ').try_for_each(|setting| {
            let (key, value) = setting.split_once('=').with_context(|| format!("{self:?}"))?;
            ns.sysctl(key, value)
        })
    }
}

/// The commands of a remedy, in its order, with `gateway` where one is to be filled in.
pub(crate) fn commands(remedy: &str, gateway: Ipv4Addr) -> Vec<Command> {
    let mut places: Vec<usize> =
        STARTS.iter().flat_map(|start| remedy.match_indices(start).map(|(place, _)| place)).collect();
    // Bare settings of a sentence: "Without it: net.ipv4.conf.all.arp_ignore=1, which..."
    let bare = "Without it: net.";
    let bare: Vec<usize> =
        remedy.match_indices(bare).map(|(place, _)| place + bare.len() - "net.".len()).collect();
    places.extend(&bare);
    places.sort_unstable();
    let command = |place: usize| {
        let rest = &remedy[place..];
        let end =
            ENDS.iter().chain(&[", which"]).filter_map(|end| rest.find(end)).min().unwrap_or(rest.len());
        let text = rest[..end].trim_end_matches('.').replace(" via G ", &format!(" via {gateway} "));
        Command(if bare.contains(&place) { format!("sysctl -w {text}") } else { text })
    };
    places.into_iter().map(command).collect()
}

/// The configuration file that a remedy describes: `KEY = VALUE in an [[interface]] with name = "NAME"`.
pub(crate) fn configuration(remedy: &str) -> Result<String> {
    let (before, after) =
        remedy.split_once(" in an [[interface]] with ").with_context(|| remedy.to_owned())?;
    let (_, setting) = before.rsplit_once("configuration file: ").with_context(|| remedy.to_owned())?;
    let end = after.rfind('"').with_context(|| remedy.to_owned())? + 1;
    Ok(format!("[[interface]]\n{}\n{setting}\n", &after[..end]))
}

/// A configuration file that vanishes with the test.
pub(crate) struct File(PathBuf);

impl File {
    pub(crate) fn new(contents: &str) -> Result<Self> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let file = Self(env::temp_dir().join(format!("mhebpf-remedy-{}-{number}.toml", process::id())));
        fs::write(&file.0, contents)?;
        Ok(file)
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
