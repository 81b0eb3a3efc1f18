//! An audit as text for people.

use anstyle::{AnsiColor, Style};

use super::{
    document::{Document, Interface, LeftOut},
    finding::{Finding, Id, Severity},
    sysctls::Sysctl,
};
use crate::console::{Colours, wrap};

/// The whole text, with a newline at its end.
pub fn text(document: &Document, colours: Colours) -> String {
    let mut text = String::new();
    let roles =
        document.roles.iter().map(|role| wrap(&format!("{}: {}", role.role.name(), role.why), "  ", "    "));
    section(&mut text, colours, "What this host is", &roles.collect::<String>());
    section(&mut text, colours, "Interfaces", &interfaces(&document.interfaces));
    section(&mut text, colours, "Left out by --all", &left_out(&document.left_out));
    section(
        &mut text,
        colours,
        "Sysctls of net.ipv4.conf, as they count together with `all`",
        &sysctls(document),
    );
    let findings: Vec<String> =
        document.findings.iter().map(|finding| self::finding(finding, colours)).collect();
    section(&mut text, colours, "Findings", &findings.join("\n"));
    let unread: String = document
        .unread
        .iter()
        .map(|unread| wrap(&format!("{}: {}", unread.what, unread.why), "  ", "    "))
        .collect();
    section(&mut text, colours, "Not read", &unread);
    if let Some(rules) = &document.nftables {
        // To be copied: not indented, and nothing is broken.
        text += &format!("{}\n{rules}\n", heading(colours, "The nearest rules of nftables"));
    }
    text + &verdict(document, colours)
}

fn heading(colours: Colours, title: &str) -> String {
    colours.paint(Style::new().bold(), title)
}

fn section(text: &mut String, colours: Colours, title: &str, body: &str) {
    if !body.is_empty() {
        *text += &format!("{}\n{body}\n", heading(colours, title));
    }
}

fn interfaces(interfaces: &[Interface]) -> String {
    let lines = interfaces.iter().map(|interface| {
        let state = if interface.up { "up" } else { "DOWN or without carrier" };
        let mac = interface.mac.as_deref().map(|mac| format!(", {mac}")).unwrap_or_default();
        let addresses = match interface.addresses.as_slice() {
            [] => "no address".to_owned(),
            addresses => super::checks::list(addresses),
        };
        wrap(&format!("{}: {state}{mac}, mtu {}, {addresses}", interface.name, interface.mtu), "  ", "    ")
    });
    lines.collect()
}

/// Devices that are left out for the same reason together. How each is taken all the same names it, unless it is the only one.
fn left_out(devices: &[LeftOut]) -> String {
    let mut groups: Vec<(String, Vec<&str>)> = Vec::new();
    for device in devices {
        let why =
            device.why.replace(&format!("--interface {} takes it", device.name), "--interface NAME takes it");
        match groups.iter_mut().find(|(known, _)| *known == why) {
            Some((_, names)) => names.push(&device.name),
            None => groups.push((why, vec![&device.name])),
        }
    }
    let line = |(why, names): &(String, Vec<&str>)| {
        let why = match names.as_slice() {
            [name] => why.replace("--interface NAME", &format!("--interface {name}")),
            _ => why.clone(),
        };
        wrap(&format!("{}: {why}", super::checks::list(names)), "  ", "    ")
    };
    groups.iter().map(line).collect()
}

/// Values by name, in the order of [`Sysctl::ALL`].
type Effective = Vec<(Sysctl, u32)>;

/// Interfaces with the same values together, in the order of their first one.
fn sysctls(document: &Document) -> String {
    let mut groups: Vec<(Effective, Vec<&str>)> = Vec::new();
    for interface in &document.interfaces {
        let values = interface.sysctls.iter().map(|(sysctl, value)| (*sysctl, value.effective)).collect();
        match groups.iter_mut().find(|(known, _)| *known == values) {
            Some((_, names)) => names.push(&interface.name),
            None => groups.push((values, vec![&interface.name])),
        }
    }
    let all = document.all.iter().map(|(sysctl, value)| (*sysctl, *value)).collect();
    groups.push((all, vec!["all"]));
    let line = |(values, names): &(Effective, Vec<&str>)| {
        let values: Vec<String> =
            values.iter().map(|(sysctl, value)| format!("{}={value}", sysctl.name())).collect();
        wrap(&format!("{}: {}", names.join(", "), values.join(" ")), "  ", "    ")
    };
    groups.iter().map(line).collect()
}

fn finding(finding: &Finding, colours: Colours) -> String {
    let colour = match finding.severity {
        Severity::Error => AnsiColor::Red,
        Severity::Warning => AnsiColor::Yellow,
        Severity::Note => AnsiColor::Cyan,
    };
    // Painted when the lines are broken already: escapes have no width.
    let label = finding.severity.name();
    let head = wrap(&format!("{label} {}: {}", finding.id.name(), finding.summary), "  ", "    ");
    let painted = colours.paint(colour.on_default().bold(), label);
    head.replacen(label, &painted, 1)
        + &wrap(&finding.consequence, "    ", "    ")
        + &wrap(&finding.remedy, "    Remedy: ", "      ")
}

fn verdict(document: &Document, colours: Colours) -> String {
    let counts = &document.counts;
    let number = |number: usize, one: &str| format!("{number} {one}{}", if number == 1 { "" } else { "s" });
    let counted =
        [number(counts.errors, "error"), number(counts.warnings, "warning"), number(counts.notes, "note")]
            .join(", ");
    let is_enforced = document.findings.iter().any(|finding| finding.id == Id::DaemonRunning);
    let verdict = match (document.weak, counts.errors + counts.warnings) {
        (true, _) if is_enforced => {
            format!("But for mhebpf, which runs, this host is a weak end system: {counted}.")
        }
        (true, _) => format!("This host is a weak end system: {counted}."),
        (false, 0) => format!("Nothing is wrong here: {counted}."),
        (false, _) => format!("The end system model does no harm here, but: {counted}."),
    };
    let mut text = wrap(&colours.paint(Style::new().bold(), &verdict), "", "");
    match &document.run {
        _ if is_enforced => text += "What is enforced now:\n  mhebpf status\n",
        Some(run) => {
            text += "Try it first, for a minute and without changing anything:\n";
            text += &format!("  {run} --mode observe --for 60s\nThen:\n  {run}\n");
        }
        None => text += "No two interfaces with addresses: mhebpf has nothing to tell apart.\n",
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{
        finding::{Kind, Object},
        snapshot::{Snapshot, Unread},
    };

    fn document() -> Document {
        let finding = |severity, id| Finding {
            id,
            severity,
            objects: vec![Object::new(Kind::Interface, "eth0")],
            summary: "an error in a warning of a note".to_owned(),
            consequence: "a long one ".repeat(20),
            remedy: "none".to_owned(),
        };
        let findings =
            vec![finding(Severity::Error, Id::FirstRouteWins), finding(Severity::Note, Id::LinkdownRoutes)];
        let unread = vec![Unread { what: "TCX programs".to_owned(), why: "not allowed".to_owned() }];
        let snapshot = Snapshot { unread, ..Snapshot::default() };
        Document::new(&snapshot, findings, Some("mhebpf run --all".to_owned()), None)
    }

    #[test]
    fn colours_change_nothing_else() {
        let (plain, coloured) = (text(&document(), Colours::Off), text(&document(), Colours::On));
        assert!(!plain.contains('\u{1b}') && coloured.contains('\u{1b}'));
        let mut stripped = String::new();
        for part in coloured.split('\u{1b}') {
            stripped +=
                if stripped.is_empty() { part } else { part.split_once('m').map_or(part, |(_, rest)| rest) };
        }
        assert_eq!(stripped.trim_start_matches("[1m"), plain);
    }

    #[test]
    fn the_command_comes_last() {
        let plain = text(&document(), Colours::Off);
        assert!(plain.contains("TCX programs: not allowed"), "{plain}");
        assert!(plain.ends_with("Then:\n  mhebpf run --all\n"), "{plain}");
        assert!(plain.contains("This host is a weak end system: 1 error, 0 warnings, 1 note."), "{plain}");
    }

    #[test]
    fn a_daemon_that_runs_is_not_recommended_again() {
        let mut document = document();
        document.findings[1].id = Id::DaemonRunning;
        let plain = text(&document, Colours::Off);
        assert!(plain.ends_with("What is enforced now:\n  mhebpf status\n"), "{plain}");
        assert!(plain.contains("But for mhebpf, which runs, this host is a weak end system"), "{plain}");
    }
}
