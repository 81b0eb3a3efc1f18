//! The nearest rules of nftables, for hosts that can't run eBPF programs.

use std::{collections::BTreeMap, fmt::Write as _, net::IpAddr};

use super::snapshot::{Snapshot, View};
use crate::{
    console::{WIDTH, wrap_to},
    model::host::is_link_local,
};

const HEAD: &str = "\
# These drop where mhebpf redirects, so packets need the right route first: an
# ip rule and a table for each source. They know today's addresses for ARP only,
# and can't change who asks: set net.ipv4.conf.all.arp_announce=2.
# In force with nft -f FILE; away with nft delete table inet strong_end_system
# and nft delete table arp strong_end_system.
";

/// A script for `nft -f`.
pub fn rules(snapshot: &Snapshot) -> String {
    let view = View::new(snapshot);
    let names: Vec<String> = snapshot.interfaces.iter().map(|i| format!("{:?}", view.name(*i))).collect();
    if names.is_empty() {
        return "# No interface to write rules for.\n".to_owned();
    }
    let interfaces = names.join(", ");
    let mut text = HEAD.to_owned();
    // Addresses of lo and dummies belong to every interface, while the kernel finds them on theirs only.
    let host_wide = [host_wide_addresses(&view, false), host_wide_addresses(&view, true)];
    let _ = writeln!(text, "table inet strong_end_system {{");
    for (chain, hook, interface, address, fib) in [
        ("send", "postrouting", "oifname", "saddr", "fib saddr . oif"),
        ("receive", "prerouting", "iifname", "daddr", "fib daddr . iif"),
    ] {
        let _ = writeln!(text, "    chain {chain} {{");
        let _ = writeln!(text, "        type filter hook {hook} priority filter; policy accept;");
        for (protocol, version, host_wide) in [("ip", "ipv4", &host_wide[0]), ("ip6", "ipv6", &host_wide[1])]
        {
            let except = match host_wide.as_slice() {
                [] => String::new(),
                addresses => format!("{protocol} {address} != {{ {} }} ", addresses.join(", ")),
            };
            text += &rule(&format!(
                "{interface} {{ {interfaces} }} meta nfproto {version} {except}fib {address} type local {fib} type != \
                 local drop"
            ));
        }
        let _ = writeln!(text, "    }}");
    }
    let _ = writeln!(text, "}}");
    text + &arp(&view)
}

/// A rule of a chain, on as many lines as it needs.
fn rule(text: &str) -> String {
    // Room for what says that the line goes on.
    wrap_to(WIDTH - 2, text, "        ", "            ").trim_end().replace('\n', " \\\n") + "\n"
}

fn host_wide_addresses(view: &View<'_>, ipv6: bool) -> Vec<String> {
    let addresses = view.snapshot.host.addresses.iter().filter(|address| {
        address.local.is_ipv6() == ipv6
            && !address.local.is_loopback()
            && view.ownership(address).is_some_and(|ownership| ownership.host_wide)
    });
    addresses.map(|address| address.local.to_string()).collect()
}

/// Of each interface, the addresses of others: neither answered for nor announced.
fn arp(view: &View<'_>) -> String {
    let mut others: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for interface in &view.snapshot.interfaces {
        let domain = view.domain_of(*interface);
        for address in &view.snapshot.host.addresses {
            let IpAddr::V4(local) = address.local else { continue };
            let owners = view.owners(domain, address.local);
            let is_others =
                !owners.is_empty() && !owners.contains(interface) && !is_link_local(address.local);
            if is_others && view.domain_of(address.ifindex) == domain {
                others.entry(*interface).or_default().push(local.to_string());
            }
        }
    }
    if others.is_empty() {
        return String::new();
    }
    let mut text = "table arp strong_end_system {\n".to_owned();
    for (chain, hook, interface, address) in [
        ("answer", "input", "iifname", "arp daddr ip"),
        ("announce", "output", "oifname", "arp operation reply arp saddr ip"),
    ] {
        let _ = writeln!(text, "    chain {chain} {{");
        let _ = writeln!(text, "        type filter hook {hook} priority filter; policy accept;");
        for (ifindex, addresses) in &others {
            let name = view.name(*ifindex);
            text += &rule(&format!("{interface} {name:?} {address} {{ {} }} drop", addresses.join(", ")));
        }
        let _ = writeln!(text, "    }}");
    }
    text + "}\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        LinkKind,
        testing::{address, host, link},
    };

    #[test]
    fn each_interface_is_silent_about_the_addresses_of_others_and_host_wide_ones_pass() {
        let links = [link(1, LinkKind::Loopback), link(2, LinkKind::Wire), link(3, LinkKind::Wire)];
        let addresses =
            ["10.0.0.2/24", "10.0.0.3/24"].into_iter().zip([2, 3]).map(|(text, on)| address(on, text));
        let host = host(links, addresses.chain([address(1, "203.0.113.9/32"), address(1, "127.0.0.1/8")]));
        let snapshot = Snapshot { host, interfaces: [2, 3].into(), ..Snapshot::default() };
        let rules = rules(&snapshot).replace(" \\\n           ", "");
        for expected in [
            "oifname { \"eth2\", \"eth3\" } meta nfproto ipv4 ip saddr != { 203.0.113.9 } fib saddr type local \
             fib saddr . oif type != local drop",
            "meta nfproto ipv6 fib daddr type local fib daddr . iif type != local drop",
            "iifname \"eth2\" arp daddr ip { 10.0.0.3 } drop",
            "oifname \"eth3\" arp operation reply arp saddr ip { 10.0.0.2 } drop",
        ] {
            assert!(rules.contains(expected), "{expected}\n{rules}");
        }
        assert_eq!(self::rules(&Snapshot::default()), "# No interface to write rules for.\n");
    }
}
