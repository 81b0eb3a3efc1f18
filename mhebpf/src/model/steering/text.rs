//! Rules and routes in the words of iproute2, and the rest in sentences.

use std::{
    fmt::{self, Write as _},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{ALL_MARKS, LeftOut, MOST_ROUTES, Object, PRIORITY, SteeringRoute, SteeringRule, Why};
use crate::model::{Host, Metrics};

/// The metrics that iproute2 shows as they are, by number (`RTAX_*`).
const PLAIN: [(u16, &str); 9] = [
    (Metrics::MTU, "mtu"),
    (3, "window"),
    (7, "cwnd"),
    (Metrics::ADVMSS, "advmss"),
    (9, "reordering"),
    (10, "hoplimit"),
    (11, "initcwnd"),
    (14, "initrwnd"),
    (15, "quickack"),
];

/// `RTAX_CC_ALGO`, a string.
const CONGESTION_CONTROL: u16 = 16;

impl fmt::Display for SteeringRule {
    /// What follows `ip rule add`, but for the protocol.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (source, table) = (name(&self.source), self.table);
        write!(f, "from {source} iif lo fwmark 0/{ALL_MARKS:#x} lookup {table} priority {PRIORITY}")
    }
}

impl SteeringRoute {
    /// What follows `ip route add`, or `ip -6 route add`, but for the protocol.
    ///
    /// Metrics of connections for which iproute2 has units are not in it: times, features, and that of Fast Open.
    pub fn describe(&self, host: &Host, destination: &IpNet, table: u32) -> String {
        let end = format!("table {table}");
        let way = match self {
            Self::Throw => return format!("throw {} {end}", name(destination)),
            Self::Through(way) => way,
        };
        let device = host.name_of(way.ifindex);
        let onlink = if way.on_link { " onlink" } else { "" };
        let hop = |gateway: &Option<IpAddr>| match (gateway, destination) {
            (None, _) => format!("dev {device}"),
            (Some(gateway @ IpAddr::V6(_)), IpNet::V4(_)) => {
                format!("via inet6 {gateway} dev {device}{onlink}")
            }
            (Some(gateway), _) => format!("via {gateway} dev {device}{onlink}"),
        };
        let mut text = name(destination);
        // Writing to a string does not fail.
        let mut add = |word: &str| _ = write!(text, " {word}");
        if let [gateway] = way.gateways.as_slice() {
            add(&hop(&gateway.address));
        }
        add(&end);
        if way.metric > 0 {
            add(&format!("metric {}", way.metric));
        }
        for word in metrics(&way.metrics) {
            add(&word);
        }
        if way.gateways.len() > 1 {
            for gateway in &way.gateways {
                let weight =
                    if gateway.weight > 1 { format!(" weight {}", gateway.weight) } else { String::new() };
                add(&format!("nexthop {}{weight}", hop(&gateway.address)));
            }
        }
        text
    }
}

/// A prefix as iproute2 shows it.
pub fn name(net: &IpNet) -> String {
    match net.prefix_len() {
        0 => "default".to_owned(),
        length if length == net.max_prefix_len() => net.addr().to_string(),
        _ => net.to_string(),
    }
}

/// The metrics that [`SteeringRoute::describe`] leaves out, by their names in iproute2 where they have one.
pub fn left_out_metrics(route: &SteeringRoute) -> Vec<&'static str> {
    let SteeringRoute::Through(way) = route else { return Vec::new() };
    let name = |number| match number {
        4 => Some("rtt"),
        5 => Some("rttvar"),
        6 => Some("ssthresh"),
        12 => Some("features"),
        13 => Some("rto_min"),
        17 => Some("fastopen_no_cookie"),
        _ => None,
    };
    way.metrics.iter().filter_map(|(number, _)| name(number)).collect()
}

fn metrics(metrics: &Metrics) -> Vec<String> {
    let locked = metrics.get(Metrics::LOCK).unwrap_or_default();
    let plain = PLAIN.iter().filter_map(|(number, name)| {
        let value = metrics.get(*number)?;
        let lock = if locked & (1 << number) == 0 { "" } else { "lock " };
        Some(format!("{name} {lock}{value}"))
    });
    let algorithm = metrics.iter().find(|(number, _)| *number == CONGESTION_CONTROL);
    let algorithm = algorithm.map(|(_, name)| {
        let name = String::from_utf8_lossy(name);
        format!("congctl {}", name.trim_end_matches('\0'))
    });
    plain.chain(algorithm).collect()
}

impl LeftOut {
    /// A sentence for the log.
    pub fn describe(&self, host: &Host) -> String {
        let what = match self.what {
            Object::Interface(ifindex) => host.name_of(ifindex),
            Object::Source(source) => name(&source),
        };
        let why = match &self.why {
            Why::Vrf(vrf) => format!("it is in the VRF {}, whose own rule comes first", host.name_of(*vrf)),
            Why::SeveralOwners(owners) => {
                let names: Vec<String> = owners.iter().map(|owner| host.name_of(*owner)).collect();
                format!("{} own it, and the kernel chooses among them", names.join(" and "))
            }
            Why::Overlapped => "addresses inside it have another owner".to_owned(),
            Why::NotEnforced => "what it sends is not enforced".to_owned(),
            Why::TooManyRoutes => format!("its table would have more than {MOST_ROUTES} routes"),
            Why::TableInUse(route) => format!("somebody else's route is in its table: {route}"),
        };
        format!("{what}: {why}")
    }
}
