//! Neighbour tables.

use std::{collections::BTreeMap, net::Ipv4Addr};

use anyhow::Result;

use super::Lab;
use crate::{mac::Mac, netns::NetNs};

impl Lab {
    /// Empties the neighbour tables of host and switch, so that everyone has to ask again.
    ///
    /// # Errors
    ///
    /// When `ip` fails.
    pub fn forget_neighbours(&self) -> Result<()> {
        self.host_forgets_neighbours()?;
        forget(&self.switch)
    }

    /// Empties the neighbour table of the host only.
    ///
    /// # Errors
    ///
    /// When `ip` fails.
    pub fn host_forgets_neighbours(&self) -> Result<()> {
        forget(&self.host)
    }

    /// The hardware addresses that the peers know.
    ///
    /// # Errors
    ///
    /// When `ip` fails.
    pub fn peer_neighbours(&self) -> Result<BTreeMap<Ipv4Addr, Mac>> {
        neighbours(&self.switch, "")
    }

    /// The hardware addresses that the host knows on a port.
    ///
    /// # Errors
    ///
    /// When `ip` fails.
    pub fn host_neighbours(&self, port: usize) -> Result<BTreeMap<Ipv4Addr, Mac>> {
        neighbours(&self.host, &format!("dev eth{port}_int"))
    }
}

fn forget(ns: &NetNs) -> Result<()> {
    // `ip neighbour flush all` complains when nothing was there to flush.
    ns.ip("neighbour flush all").or_else(|error| {
        if format!("{error:#}").contains("Nothing to flush") { Ok(String::new()) } else { Err(error) }
    })?;
    Ok(())
}

fn neighbours(ns: &NetNs, restriction: &str) -> Result<BTreeMap<Ipv4Addr, Mac>> {
    let table = ns.ip(&format!("-4 neighbour show {restriction}"))?;
    let entry = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let mac = words.iter().position(|word| *word == "lladdr").and_then(|at| words.get(at + 1))?;
        Some((words.first()?.parse().ok()?, mac.parse().ok()?))
    };
    Ok(table.lines().filter_map(entry).collect())
}
