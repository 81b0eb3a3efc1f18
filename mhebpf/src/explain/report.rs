//! An explanation as text for people.

use anstyle::{AnsiColor, Style};

use super::{
    difference::Difference,
    document::{Address, Claim, Document, KernelAnswer, Owner, Source},
    explanation::{Role, Standing, Switch},
    why::Rule,
};
use crate::console::{Colours, wrap};

/// How far a line's label reaches.
const INDENT: &str = "          ";

/// The whole text, with a newline at its end.
pub fn text(document: &Document, colours: Colours) -> String {
    let mut text = line(colours, "Packet", &packet(document));
    let colour = match document.verdict.action {
        "pass" => AnsiColor::Green,
        "drop" => AnsiColor::Red,
        _ => AnsiColor::Yellow,
    };
    let verdict = verdict(document);
    let first = verdict.split([' ', ',', '.']).next().unwrap_or_default();
    let painted = colours.paint(colour.on_default().bold(), first);
    text += &line(colours, "Verdict", &verdict).replacen(first, &painted, 1);
    text += &line(colours, "Tables", tables(document.source));
    for difference in &document.differences {
        text += &line(colours, "Behind", &behind(difference));
    }
    for address in &document.judged {
        text += &line(colours, "Why", &why(document, address));
    }
    text += &line(colours, "Policy", &policy(document));
    for owner in &document.owners {
        text += &line(colours, "Next hop", &next_hop(owner));
    }
    for answer in &document.kernel {
        text += &line(colours, "Kernel", &kernel(document, answer));
    }
    text
}

/// A label, and a sentence beside it.
fn line(colours: Colours, label: &str, sentence: &str) -> String {
    // Painted when the lines are broken already: escapes have no width.
    let lines = wrap(sentence, &format!("{label:10}"), INDENT);
    lines.replacen(label, &colours.paint(Style::new().bold(), label), 1)
}

fn packet(document: &Document) -> String {
    let packet = &document.packet;
    let way = if packet.direction == "egress" { "leaves by" } else { "arrives on" };
    let (from, to) = (packet.from, packet.to);
    let what = match (packet.kind, packet.target) {
        ("arp-request", _) => format!("an ARP request of {from} for {to}"),
        ("arp-reply", _) => format!("an ARP reply of {from} to {to}"),
        ("solicitation", Some(target)) => {
            format!("a neighbour solicitation for {target} from {from} to {to}")
        }
        ("advertisement", Some(target)) => {
            format!("a neighbour advertisement of {target} from {from} to {to}")
        }
        _ if packet.forwarded => format!("a forwarded datagram from {from} to {to}"),
        _ => format!("a datagram from {from} to {to}"),
    };
    format!("{what}, which {way} {}", packet.interface)
}

fn verdict(document: &Document) -> String {
    let verdict = &document.verdict;
    let owner = verdict.owner.as_deref().unwrap_or("?");
    let address = verdict.address.map(|address| address.to_string()).unwrap_or_default();
    let what = match verdict.action {
        "drop" => "drop".to_owned(),
        "redirect" => format!("redirect to {owner}, next hop {address}"),
        "redirect-group" => format!("redirect to {owner}, to the group"),
        "rewrite-source" => format!("rewrite: it leaves with the source {address} instead"),
        "rewrite-sender" => format!("rewrite: it asks as {address} instead"),
        _ => return "pass".to_owned(),
    };
    let reason = verdict.reason.unwrap_or("?");
    if verdict.enforced {
        format!("{what}; counted as {reason}")
    } else {
        format!("pass, only observed: it would be `{what}`; counted as {reason}")
    }
}

fn tables(source: Source) -> &'static str {
    match source {
        Source::Daemon => "the live maps of the mhebpf that runs here",
        Source::Pinned => "the pinned maps, which are in force without mhebpf",
        Source::Host => "computed from the host as it is now",
    }
}

fn behind(difference: &Difference) -> String {
    let Difference { of, maps, host } = difference;
    format!("the maps are not in step with the host: {of}: {maps} in the maps, {host} by the host")
}

fn why(document: &Document, judged: &Address) -> String {
    let interface = &document.packet.interface;
    let role = match judged.role {
        Role::Source => "source",
        Role::Destination => "destination",
        Role::Sender => "sender",
        Role::Target => "target",
    };
    let address = judged.address;
    let owned = owned(&judged.owned);
    match judged.standing {
        Standing::Own if judged.owned.is_empty() => {
            format!("the {role} {address} is of loopback, and route_localnet is on for {interface}")
        }
        Standing::Own => format!("the {role} {address} is {interface}'s own: {owned}"),
        Standing::Unspecified => format!("the {role} {address} claims nothing"),
        Standing::Loopback => {
            format!(
                "the {role} {address} is of loopback, which must not cross a wire (route_localnet is off)"
            )
        }
        Standing::Foreign if judged.owned.is_empty() && address.is_multicast() => {
            format!("the {role} {address} is a group's, and so nobody's")
        }
        Standing::Foreign if judged.owned.is_empty() => {
            format!("the {role} {address} is no address of this host: foreign")
        }
        Standing::Foreign => {
            format!("the {role} {address} is no address of this host, and foreign to {interface}: {owned}")
        }
        Standing::Elsewhere => format!("the {role} {address} is not {interface}'s: {owned}"),
    }
}

fn owned(claims: &[Claim]) -> String {
    let sentence = |claim: &Claim| {
        let through = &claim.through;
        let prefix = claim.prefix.as_deref();
        match (claim.rule, prefix) {
            (Rule::Configured, _) => format!("configured on {through}"),
            (Rule::Below, _) => {
                let owner = claim.by.as_deref().unwrap_or("?");
                format!("{owner}'s too, as packets of {through} cross it")
            }
            (Rule::HostWide, None) => format!("every interface's, through {through}"),
            (Rule::HostWide, Some(prefix)) => {
                format!("every interface's, by the local route {prefix} through {through}")
            }
            (Rule::LocalRoute, prefix) => {
                format!("{through}'s by the local route {}", prefix.unwrap_or_default())
            }
            (Rule::Owned, prefix) => {
                format!("{through}'s ({}) by the configuration", prefix.unwrap_or_default())
            }
            (Rule::Allowed, prefix) => {
                format!("allowed on {through} ({}) by the configuration", prefix.unwrap_or_default())
            }
        }
    };
    claims.iter().map(sentence).collect::<Vec<_>>().join("; ")
}

fn policy(document: &Document) -> String {
    let interface = &document.packet.interface;
    let Some(policy) = &document.policy else {
        return format!("nothing is enforced on {interface} with this configuration: everything passes");
    };
    let last = document.judged.last();
    let said = match last.map(|judged| judged.switch) {
        Some(Switch::Receive) => format!("receive is {}", policy.receive),
        Some(Switch::Announce) => format!("announce is {}", policy.announce),
        Some(Switch::Forwarded) => format!("forwarded is {}", policy.forwarded),
        Some(Switch::Send) | None => format!("send is {}", policy.send),
    };
    let is_foreign = last.is_some_and(|judged| judged.standing == Standing::Foreign);
    if is_foreign && document.packet.forwarded {
        format!("{said} on {interface}; a foreign source that is forwarded passes")
    } else if is_foreign && document.packet.direction == "egress" {
        format!("{said} on {interface}, and unknown is {}", policy.unknown)
    } else {
        format!("{said} on {interface}")
    }
}

fn next_hop(owner: &Owner) -> String {
    let interface = &owner.interface;
    let Some(route) = &owner.route else {
        return match owner.state {
            "owner_down" => format!("{interface} is down or has no carrier (owner_down)"),
            "no_route" => {
                format!("{interface} has no route to the destination, and reaches no gateway (no_route)")
            }
            _ => format!("none is needed on {interface}: a group is on every link"),
        };
    };
    let (metric, through) = (owner.metric.unwrap_or(0), owner.route_through.as_deref().unwrap_or("?"));
    match (owner.gateway, through == interface) {
        (None, _) => format!("the destination is on-link on {interface}: route {route}, metric {metric}"),
        (Some(gateway), true) => {
            format!("the gateway {gateway} on {interface}: its route {route}, metric {metric}")
        }
        (Some(gateway), false) => format!(
            "the gateway {gateway} on {interface}, which reaches it directly: it is that of the route {route} through \
             {through}, metric {metric}"
        ),
    }
}

fn kernel(document: &Document, answer: &KernelAnswer) -> String {
    let what = if document.packet.direction == "egress" { "" } else { "the answer, " };
    let bound = match &answer.bound_to {
        None => "by itself".to_owned(),
        Some(interface) => format!("bound to {interface}"),
    };
    let Some(leaves_by) = &answer.leaves_by else {
        return format!("{what}{bound}: {}", answer.error.as_deref().unwrap_or("no answer"));
    };
    let to = match answer.gateway {
        Some(gateway) => format!(" via {gateway}"),
        None => String::new(),
    };
    let table = answer.table.map(|table| format!(" (table {table})")).unwrap_or_default();
    format!("{what}{bound}: it leaves by {leaves_by}{to}{table}")
}
