//! IPv4 routes that go without a word: no `RTM_DELROUTE` is sent where they go with a link, an address or a device
//! (`fib_flush`, Linux 6.18). What is redirected follows, also beside thousands of other routes.

mod hops;
#[expect(dead_code, reason = "other tests use the rest")]
mod many_routes;

use anyhow::Result;
use hops::{OWNER, ROUTERS, Sender, destinations, know, lab, wait_all_by};
use many_routes::add_many;
use mhebpf_tests::{Family, Lab};

/// How many routes stay.
const ROUTES: u32 = 5_000;

/// Each sender with what mhebpf is started with.
const SENDERS: [(Sender, &[&str]); 2] =
    [(Sender::Redirected, &["--no-announce"]), (Sender::Routed, &["--no-announce", "--steer", "rules"])];

/// A default route of the owner's by the first router, and a longer prefix by the second that goes with `removal`.
fn goes(route: &str, before: &str, removal: impl Fn(&Lab) -> Result<()>) -> Result<()> {
    for (sender, arguments) in SENDERS {
        let (lab, routers) = lab(Family::V4)?;
        know(&lab, &routers, Family::V4)?;
        add_many(&lab, ROUTES)?;
        lab.host.ip_batch(before)?;
        lab.host.ip_batch(&format!(
            "route add default via {} dev eth1_int metric 2000\n\
             route add 198.51.100.0/24 via {} {route}",
            ROUTERS[0], ROUTERS[1]
        ))?;
        let daemon = lab.mhebpf(arguments)?;
        let (from, to) = (lab.address(OWNER), destinations(Family::V4, 8));
        wait_all_by(&lab, sender, from, &to, (OWNER, routers[1].mac))?;
        removal(&lab)?;
        let left = lab.host.ip("route show 198.51.100.0/24")?;
        assert_eq!(left, "", "the kernel has removed it");
        wait_all_by(&lab, sender, from, &to, (OWNER, routers[0].mac))?;
        daemon.stop()?;
        lab.finish()?;
    }
    Ok(())
}

/// The gateway is on-link on the owner too, so its routes follow those of the other interface.
#[test]
fn routes_of_a_link_that_goes_down_are_gone() -> Result<()> {
    goes("dev eth2_int", "", |lab| lab.down(2))
}

#[test]
fn routes_with_a_source_address_that_is_removed_are_gone() -> Result<()> {
    goes("dev eth1_int src 192.168.3.9", "address add 192.168.3.9/32 dev eth1_int", |lab| {
        lab.host.ip("address delete 192.168.3.9/32 dev eth1_int").map(drop)
    })
}

#[test]
fn routes_of_a_device_that_is_deleted_are_gone() -> Result<()> {
    goes("dev eth2_int", "", |lab| lab.delete_link(2))
}

/// Without its last address IPv4 is off on an interface (`fib_disable_ip`).
#[test]
fn routes_of_an_interface_that_loses_its_last_address_are_gone() -> Result<()> {
    goes("dev eth2_int", "", |lab| lab.remove_address(2, lab.address(2)))
}
