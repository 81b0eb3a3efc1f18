//! Interfaces for what IPsec protects, chosen by routes.

use anyhow::Result;
use mhebpf_tests::tunnel::{Kind, Tunnel};

#[test]
fn its_own_traffic_passes_and_its_source_arrives_decrypted_at_the_peer() -> Result<()> {
    Tunnel::with(Kind::Xfrm, Tunnel::try_own_source)
}

#[test]
fn another_source_leaves_its_own_interface_with_an_ethernet_header() -> Result<()> {
    Tunnel::with(Kind::Xfrm, Tunnel::try_anothers_source)
}

/// What carried it here was for this host, and what may be inside the security policies say.
#[test]
fn what_arrives_for_another_interfaces_address_is_taken_as_by_any_ipsec() -> Result<()> {
    Tunnel::with(Kind::Xfrm, |tunnel| tunnel.try_arriving(true))
}
