//! WireGuard: an interface without an Ethernet header whose packets are encrypted.

use anyhow::Result;
use mhebpf_tests::tunnel::{Kind, Tunnel};

#[test]
fn its_own_traffic_passes_and_its_source_arrives_decrypted_at_the_peer() -> Result<()> {
    Tunnel::with(Kind::WireGuard, Tunnel::try_own_source)
}

#[test]
fn another_source_leaves_its_own_interface_with_an_ethernet_header() -> Result<()> {
    Tunnel::with(Kind::WireGuard, Tunnel::try_anothers_source)
}

#[test]
fn what_arrives_for_another_interfaces_address_is_dropped() -> Result<()> {
    Tunnel::with(Kind::WireGuard, |tunnel| tunnel.try_arriving(false))
}
