//! `--steer rules` beside packets that a firewall marks on their way out, for another uplink than the one that the routes say.

use std::{collections::BTreeSet, net::Ipv4Addr};

use anyhow::Result;
use mhebpf_tests::{
    FAR, Lab, PEER, SECOND_PEER, nat,
    traffic::{ARTICLE_PORT, tcp},
};

/// What is sent to this port is marked.
const MARKED: u16 = 9001;

/// Marks, and translates what leaves by another uplink than the one for which its source was chosen.
const FIREWALL: &str = "table ip lab {
    chain out { type route hook output priority mangle; tcp dport 9001 meta mark set 0x1; }
    chain post { type nat hook postrouting priority srcnat; meta mark 0x1 masquerade; }
}\n";

fn lead_marked_to_the_second_uplink(lab: &Lab) -> Result<()> {
    lab.host.ip_batch(&format!(
        "route add default via {SECOND_PEER} dev eth1_int table 100\n\
         rule add fwmark 1 lookup 100"
    ))
}

/// By which ports, and from which addresses, a connection without an address of its own leaves.
fn ways(lab: &Lab, port: u16) -> Result<BTreeSet<(usize, Ipv4Addr)>> {
    let server = tcp::EchoServer::start(&lab.switch, FAR, port)?;
    let recording = lab.record();
    let stream = tcp::connect(&lab.host, Ipv4Addr::UNSPECIFIED, server.address())?;
    tcp::echo_bulk(&stream, 100_000)?;
    tcp::close(stream)?;
    let frames = recording.from_host()?;
    let there = frames.iter().filter_map(|frame| Some((frame.port, frame.ipv4()?)));
    let there = there.filter(|(_, header)| header.ports.is_some_and(|(_, to)| to == port));
    Ok(there.map(|(by, header)| (by, header.source)).collect())
}

#[test]
fn what_is_marked_goes_where_the_rule_for_the_mark_says() -> Result<()> {
    if !nat::has_nft()? {
        return Ok(());
    }
    for rule_comes_first in [true, false] {
        for more in ["", " metric 500"] {
            let lab = Lab::builder().links(1).links_in_second_subnet(1).build()?;
            lab.host.ip(&format!("route add default via {PEER}"))?;
            if !more.is_empty() {
                lab.host.ip(&format!("route add default via {SECOND_PEER}{more}"))?;
            }
            lab.host.nft(FIREWALL)?;
            if rule_comes_first {
                lead_marked_to_the_second_uplink(&lab)?;
            }
            let daemon = lab.mhebpf(&["--steer", "rules"])?;
            if !rule_comes_first {
                lead_marked_to_the_second_uplink(&lab)?;
            }
            let what = || format!("first: {rule_comes_first}, {more}: {:?}", lab.host.ip("rule"));
            assert_eq!(ways(&lab, ARTICLE_PORT)?, BTreeSet::from([(0, lab.address(0))]), "{}", what());
            assert_eq!(ways(&lab, MARKED)?, BTreeSet::from([(1, lab.address(1))]), "{}", what());
            let summary = daemon.stop()?.summary;
            assert_eq!(summary.total("redirected"), 0, "{summary:?}");
            lab.finish()?;
        }
    }
    Ok(())
}
