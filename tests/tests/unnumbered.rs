//! A link without an address of its own borrows another interface's, which takes an entry `allow`.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Result;
use mhebpf_tests::{File, Lab, PATIENCE, SECOND_PEER, scaled, traffic::icmp};

/// The second link has no address; the peer there is reached from the first one's, and reaches it.
fn lab() -> Result<Lab> {
    let lab = Lab::builder().links(1).links_in_second_subnet(1).build()?;
    let own = lab.address(0);
    lab.host.ip_batch(&format!(
        "address flush dev eth1_int\n\
         route add {SECOND_PEER}/32 dev eth1_int src {own}"
    ))?;
    lab.switch.ip(&format!("route add {own}/32 dev br1 src {SECOND_PEER}"))?;
    Ok(lab)
}

#[test]
fn a_link_that_borrows_an_address_works_where_that_is_allowed() -> Result<()> {
    for mode in ["redirect", "drop"] {
        let lab = lab()?;
        let own = lab.address(0);
        let ping_both_ways = |limit| {
            let there = icmp::ping(&lab.host, own, SECOND_PEER, limit).is_ok();
            let back = icmp::ping(&lab.switch, SECOND_PEER, own, limit).is_ok();
            [there, back]
        };
        let daemon = lab.mhebpf_quietly(&["--mode", mode])?;
        let limit = scaled(Duration::from_millis(200));
        assert_eq!(ping_both_ways(limit), [false, false], "strong, mode {mode}");
        daemon.stop()?;

        lab.claim(1, own, Duration::ZERO);
        let file = File::new(&format!(
            "interfaces = [\"eth*_int\"]\nmode = \"{mode}\"\n[[interface]]\nname = \"eth1_int\"\nallow = [\"{own}/32\"]"
        ))?;
        let daemon = lab.run_mhebpf(&["run", "--no-announce", "--config", file.path()])?;
        lab.forget_neighbours()?;
        let recording = lab.record();
        assert_eq!(ping_both_ways(PATIENCE), [true, true], "mode {mode}");
        assert_eq!(recording.ports_of(own)?, BTreeSet::from([1]), "mode {mode}");
        assert_eq!(daemon.stop()?.summary.counts(), [], "mode {mode}");
        lab.finish()?;
    }
    Ok(())
}
