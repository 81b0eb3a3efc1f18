//! Rules and tables as text for people.

use anstyle::Style;
use ipnet::IpNet;

use super::document::{Document, Kind, Route};
use crate::{
    console::{Colours, wrap},
    model::steering::{MANY_RULES, text::name},
};

/// The whole text, with a newline at its end.
pub fn text(document: &Document, colours: Colours) -> String {
    let heading = |title: &str| colours.paint(Style::new().bold(), title) + "\n";
    let mut text = String::new();
    if document.rules.is_empty() {
        text += "No rules: the kernel's own routes are all that these interfaces can have.\n";
    } else {
        text += &heading(&format!(
            "Rules of priority {} and protocol {}, for packets of local origin",
            document.priority, document.protocol
        ));
        let width = document.rules.iter().map(|rule| name(&rule.source).len()).max().unwrap_or_default();
        for rule in &document.rules {
            text +=
                &format!("  from {:width$} lookup {} ({})\n", name(&rule.source), rule.table, rule.interface);
        }
    }
    if document.many_rules {
        text += &wrap(
            &format!(
                "More than {MANY_RULES} rules: the kernel tries one after the other, which costs about 12 \
                 microseconds for each datagram of an unconnected socket with 1,000 of them."
            ),
            "  ",
            "  ",
        );
    }
    for table in &document.tables {
        text += &format!("\n{}", heading(&format!("Table {} of {}", table.table, table.interface)));
        let width = table.routes.iter().map(|route| destination(&route.destination).len()).max();
        let width = width.unwrap_or_default();
        for route in &table.routes {
            text += &format!("  {:width$} {}\n", destination(&route.destination), way(route));
        }
    }
    if !document.left_out.is_empty() {
        text += &format!("\n{}", heading("Not steered"));
        document.left_out.iter().for_each(|left_out| text += &wrap(left_out, "  ", "    "));
    }
    text
}

/// Both families are in one table, and each has a default route.
fn destination(net: &IpNet) -> String {
    match (net.prefix_len(), net) {
        (0, IpNet::V4(_)) => "default, IPv4".to_owned(),
        (0, IpNet::V6(_)) => "default, IPv6".to_owned(),
        _ => name(net),
    }
}

fn way(route: &Route) -> String {
    if route.kind == Kind::Throw {
        return "as in the table main".to_owned();
    }
    let mut text = match route.gateways.as_slice() {
        [] => "on-link".to_owned(),
        gateways => {
            let gateways: Vec<String> = gateways.iter().map(ToString::to_string).collect();
            format!("via {}", gateways.join(" and "))
        }
    };
    if let Some(mtu) = route.mtu {
        text += &format!(", mtu {mtu}");
    }
    if route.metric > 0 {
        text += &format!(", metric {}", route.metric);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mhebpf_ebpf::{Announce, Receive, Send, Unknown};

    use super::*;
    use crate::{
        model::{
            Hop, Host, LinkKind, Policy, Route,
            host::MAIN_TABLE,
            steering::Steering,
            testing::{address, host, ip, link, net},
        },
        routes::commands,
    };

    /// Two uplinks in one subnet with one default route, and a network of containers behind a bridge.
    fn example() -> (Host, Steering) {
        let links = [2, 3, 4].map(|ifindex| link(ifindex, LinkKind::Wire));
        let addresses = [address(2, "192.168.0.100/21"), address(3, "192.168.0.101/21")];
        let addresses = addresses.into_iter().chain([address(3, "2001:db8::101/64")]);
        let mut host = host(links, addresses);
        let route = |to: &str, ifindex, gateway: Option<&str>, metric| Route {
            table: MAIN_TABLE,
            destination: net(to),
            metric,
            preference: 0,
            hops: vec![Hop::new(ifindex, gateway.map(ip))],
            metrics: Default::default(),
        };
        host.routes = vec![
            route("0.0.0.0/0", 2, Some("192.168.0.1"), 100),
            route("192.168.0.0/21", 2, None, 0),
            route("192.168.0.0/21", 3, None, 0),
            route("172.17.0.0/16", 4, None, 0),
            route("2001:db8::/64", 3, None, 256),
            route("::/0", 3, Some("2001:db8::1"), 1024),
        ];
        let policy = Policy {
            send: Send::Redirect,
            receive: Receive::Drop,
            announce: Announce::Enforce,
            unknown: Unknown::Pass,
            forwarded: Send::Redirect,
            allow: Vec::new(),
            owns: Vec::new(),
            binds: true,
        };
        let policies = BTreeMap::from([(2, policy.clone()), (3, policy)]);
        let steering = Steering::new(&host, &policies);
        (host, steering)
    }

    #[test]
    fn rules_and_tables_are_said_in_three_ways() {
        let (host, steering) = example();
        let document = Document::new(&host, &steering);
        let plain = text(&document, Colours::Off);
        assert!(plain.lines().all(|line| line.len() <= crate::console::WIDTH), "{plain}");
        insta::assert_snapshot!("text", plain);
        insta::assert_snapshot!("json", document.to_json().expect("JSON"));
        insta::assert_snapshot!("ip", commands::text(&host, &steering));
        assert_eq!(text(&document, Colours::On).matches('\u{1b}').count(), 2 * 3, "three headings");
    }

    #[test]
    fn many_rules_and_none_are_said_so() {
        let (host, _) = example();
        let mut document = Document::new(&host, &Steering::default());
        assert!(text(&document, Colours::Off).starts_with("No rules:"));
        document.many_rules = true;
        assert!(text(&document, Colours::Off).contains("one after the other"));
    }
}
