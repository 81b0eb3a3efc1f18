//! Rules and tables as one JSON document, described by `mhebpf/schema/routes.json`.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use serde::Serialize;

use crate::model::{
    Host, Metrics,
    steering::{MANY_RULES, PRIORITY, PROTOCOL, Steering, SteeringRoute, interface_of},
};

/// The version of the schema. It changes when a field goes or changes its meaning, not when one is added.
pub const SCHEMA: u32 = 1;

/// What `mhebpf run --steer rules` would keep.
#[derive(Clone, Debug, Serialize)]
pub struct Document {
    /// [`SCHEMA`]
    pub schema: u32,
    /// The priority of all rules.
    pub priority: u32,
    /// The protocol number of all rules and routes.
    pub protocol: u8,
    /// The rules. All are for packets of local origin only (`iif lo`), and their prefixes don't overlap.
    pub rules: Vec<Rule>,
    /// More rules than are looked through at no cost.
    pub many_rules: bool,
    /// The tables.
    pub tables: Vec<Table>,
    /// What is not steered, though one could expect it.
    pub left_out: Vec<String>,
}

/// Packets from `source` are looked up in `table`.
#[derive(Clone, Debug, Serialize)]
pub struct Rule {
    /// A prefix.
    pub source: IpNet,
    /// A number.
    pub table: u32,
    /// The interface that the table is for, which owns all local addresses in the prefix.
    pub interface: String,
}

/// A table of one interface.
#[derive(Clone, Debug, Serialize)]
pub struct Table {
    /// Its number.
    pub table: u32,
    /// The interface.
    pub interface: String,
    /// Its routes.
    pub routes: Vec<Route>,
}

/// A route.
#[derive(Clone, Debug, Serialize)]
pub struct Route {
    /// A prefix.
    pub destination: IpNet,
    /// How it goes on.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// The gateways, of which there are several in a multipath route, and none where the destinations are on-link.
    pub gateways: Vec<IpAddr>,
    /// The gateways are in none of the table's subnets, and are taken for reachable.
    pub onlink: bool,
    /// Lower ones are preferred.
    pub metric: u32,
    /// The maximum transmission unit, where the route has one.
    pub mtu: Option<u32>,
    /// The same as iproute2 says it.
    pub ip: String,
}

/// How a lookup goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Through the interface.
    Unicast,
    /// With the table main: its route leads through an interface that is left alone, or nowhere.
    Throw,
}

impl Document {
    /// Puts names to what the model has.
    pub fn new(host: &Host, steering: &Steering) -> Self {
        let interface = |table| interface_of(table).map(|ifindex| host.name_of(ifindex)).unwrap_or_default();
        let rules = steering.rules.iter().map(|rule| Rule {
            source: rule.source,
            table: rule.table,
            interface: interface(rule.table),
        });
        let tables = steering.tables.iter().map(|(table, routes)| Table {
            table: *table,
            interface: interface(*table),
            routes: routes.iter().map(|(to, route)| self::route(host, *table, *to, route)).collect(),
        });
        Self {
            schema: SCHEMA,
            priority: PRIORITY,
            protocol: PROTOCOL,
            many_rules: steering.rules.len() > MANY_RULES,
            rules: rules.collect(),
            tables: tables.collect(),
            left_out: steering.left_out.iter().map(|left_out| left_out.describe(host)).collect(),
        }
    }

    /// The document with a newline at its end.
    ///
    /// # Errors
    ///
    /// When it can't be written as JSON.
    pub fn to_json(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self).context("writing rules and tables as JSON")?;
        Ok(text + "\n")
    }
}

fn route(host: &Host, table: u32, destination: IpNet, route: &SteeringRoute) -> Route {
    let (kind, gateways, onlink, mtu) = match route {
        SteeringRoute::Throw => (Kind::Throw, Vec::new(), false, None),
        SteeringRoute::Through(way) => (
            Kind::Unicast,
            way.gateways.iter().filter_map(|gateway| gateway.address).collect(),
            way.on_link,
            way.metrics.get(Metrics::MTU),
        ),
    };
    let metric = route.metric(&destination);
    let ip = route.describe(host, &destination, table);
    Route { destination, kind, gateways, onlink, metric, mtu, ip }
}
