//! What outlives the daemon, as text.

use std::fmt::Write as _;

use super::{Interface, Lasting};
use crate::{
    console::{Colours, wrap},
    status::report::{ADDRESSES, BAD, NAME, counters, lost, seconds},
};

/// Lines of at most 80 columns.
pub(in crate::status) fn text(lasting: &Lasting, colours: Colours) -> String {
    let mut text =
        format!("{}\n", colours.paint(NAME, "no mhebpf is running; what it has pinned is in force"));
    let mut line = |sentence: &str| text += &wrap(sentence, "  ", "    ");
    line(&format!(
        "with the tables of {}, {} ago, as process {} has last written them: addresses that are new since then are \
         foreign, and pass",
        lasting.written,
        seconds(lasting.age as f64),
        lasting.written_by
    ));
    line(&format!("pinned in {}", lasting.directory));
    line(&format!("{} local addresses, {} next hops", lasting.addresses, lasting.next_hops));
    if let Some(lost) = lost(lasting.counts_lost, colours) {
        line(&lost);
    }
    line("`mhebpf run --pin` takes it over, `mhebpf unload` takes it off");
    for interface in &lasting.interfaces {
        text.push('\n');
        text += &of_interface(interface, lasting.hook, colours);
    }
    if !lasting.host_wide.is_empty() {
        let _ = write!(text, "\n{} owns\n", colours.paint(NAME, "every interface"));
        text += &owned(&lasting.host_wide);
    }
    text
}

fn of_interface(interface: &Interface, hook: &str, colours: Colours) -> String {
    let Interface { name, ifindex, egress, ingress, policy, .. } = interface;
    let mut text = match name {
        Some(name) => format!("{} ({ifindex})\n", colours.paint(NAME, name)),
        None => format!("{} ({ifindex})\n", colours.paint(BAD, "an interface that is gone")),
    };
    let mut line = |sentence: &str| text += &wrap(sentence, "  ", "    ");
    line(&match (egress, ingress) {
        (true, true) => format!("attached by {hook} on egress and ingress"),
        (true, false) => format!("attached by {hook} on egress only"),
        (false, true) => format!("attached by {hook} on ingress only"),
        (false, false) => "the programs are not attached any more".to_owned(),
    });
    line(&policy.to_string());
    text += &owned(&interface.owned);
    text + &counters(&interface.counters)
}

fn owned(addresses: &[String]) -> String {
    let mut text = String::new();
    for address in addresses.iter().take(ADDRESSES) {
        let _ = writeln!(text, "  {address:<43} as last written");
    }
    if let Some(more @ 1..) = addresses.len().checked_sub(ADDRESSES) {
        let _ = writeln!(text, "  and {more} more (-o json shows all)");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{console::WIDTH, control::protocol::Policy};

    #[test]
    fn it_says_how_old_it_is_and_fits() {
        let [send, receive, announce, unknown, forwarded] =
            ["redirect", "drop", "enforce", "pass", "redirect"].map(str::to_owned);
        let interface = Interface {
            name: None,
            ifindex: 7,
            egress: true,
            ingress: false,
            policy: Policy { send, receive, announce, unknown, forwarded },
            owned: vec!["2001:db8:1234:5678:9abc:def0:1234:5678".to_owned()],
            counters: Vec::new(),
        };
        let lasting = Lasting {
            schema: 1,
            daemon: None,
            directory: "/sys/fs/bpf/mhebpf/netns-1".to_owned(),
            written: "2026-01-01T00:00:00Z".to_owned(),
            age: 3661,
            written_by: 4242,
            hook: "tcx",
            addresses: 1,
            next_hops: 2,
            interfaces: vec![interface],
            host_wide: vec!["203.0.113.9".to_owned()],
            counts_lost: 5,
        };
        let text = text(&lasting, Colours::Off);
        for part in
            ["1h 1m 1s ago", "on egress only", "is gone (7)", "as last written", "not counted: 5 packets"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
    }
}
