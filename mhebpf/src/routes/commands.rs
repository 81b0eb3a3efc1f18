//! Rules and tables as commands of iproute2.

use std::{cmp::Reverse, fmt::Write as _};

use crate::model::{
    Host,
    steering::{Steering, interface_of, text::left_out_metrics},
};

/// The commands, in an order in which the kernel takes them: on-link routes before those whose gateways they make
/// reachable, and a rule when its table is filled.
///
/// They don't carry the protocol number by which mhebpf knows its own rules and routes, so that it leaves these alone.
pub fn text(host: &Host, steering: &Steering) -> String {
    let mut text = "# Each address is routed by a table of its own interface.\n".to_owned();
    // Writing to a string does not fail.
    for left_out in &steering.left_out {
        let _ = writeln!(text, "# Not {}", left_out.describe(host));
    }
    for (table, routes) in &steering.tables {
        let name = interface_of(*table).map(|ifindex| host.name_of(ifindex)).unwrap_or_default();
        let _ = writeln!(text, "# {name}");
        let mut routes: Vec<_> = routes.iter().collect();
        routes.sort_by_key(|(to, _)| Reverse(to.prefix_len()));
        for (to, route) in routes {
            let unsaid = left_out_metrics(route);
            if !unsaid.is_empty() {
                let _ = writeln!(
                    text,
                    "# The route in main that this is made of has more: {}",
                    unsaid.join(", ")
                );
            }
            let _ = writeln!(text, "ip {}route add {}", family(to), route.describe(host, to, *table));
        }
    }
    for rule in &steering.rules {
        let _ = writeln!(text, "ip {}rule add {rule}", family(&rule.source));
    }
    text
}

/// What `ip` is told of the family.
const fn family(net: &ipnet::IpNet) -> &'static str {
    match net {
        ipnet::IpNet::V4(_) => "",
        ipnet::IpNet::V6(_) => "-6 ",
    }
}
