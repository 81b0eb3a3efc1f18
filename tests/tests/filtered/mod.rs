//! The filter of local addresses, which must have them all at any time.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use mhebpf::datapath::load;
use mhebpf_ebpf::{OwnersKey, filter::Bit};

use crate::{
    DATAGRAMS, egress,
    frames::{MACS, ethernet, ipv4},
    kernel::{PASS, with_kernel},
    oracle::{
        Policy,
        example::{ETH0, OF_ETH0, OF_ETH1, REMOTE, example},
    },
    subject, violations,
};

#[test]
fn addresses_are_in_the_filter_even_where_not_all_find_room_in_the_maps() -> Result<()> {
    let mut datapath = load()?;
    let mut tables = subject::tables(&example(&Policy::STRONG));
    let key = |address: Ipv4Addr| OwnersKey { domain: 0, address: address.into() };
    let owners = *tables.ipv4.owners.get(&key(OF_ETH1)).context("the example has this address")?;
    let room = datapath.capacities.get("OWNERS").context("there are owners")?;
    for number in 0..room {
        tables.ipv4.owners.insert(key(Ipv4Addr::from_bits(0x0b00_0000 + number)), owners);
    }

    ensure!(datapath.maps.write(&tables).is_err(), "there is room for more than {room} addresses");
    let filter = datapath.maps.read_filter()?;
    let written = &datapath.maps.written().ipv4.owners;
    ensure!(written.len() as u32 > room / 2, "{} of {room} were written", written.len());
    let missing = written.keys().find(|key| !Bit::of_ipv4(key.address.to_wire().into()).is_set(&filter));
    ensure!(missing.is_none(), "{missing:?} has owners and counts as foreign");
    Ok(())
}

#[test]
fn without_a_filter_everything_is_judged() -> Result<()> {
    with_kernel(|kernel| {
        let mut host = example(&Policy::STRONG);
        // Where prefixes are local it is not asked anyway.
        host.local_routes.clear();
        kernel.freeze_filter()?;
        ensure!(kernel.write(&subject::tables(&host)).is_err(), "the filter can't be written");
        for violation in &violations()[..2 * DATAGRAMS] {
            let ran = kernel.run(violation, [0; 20])??;
            ensure!(ran.code != PASS, "passes: {violation:?}");
        }
        let own = egress(ETH0, ethernet(&MACS, &[], &ipv4(OF_ETH0, REMOTE)));
        ensure!(kernel.run(&own, [0; 20])??.code == PASS, "an own address");
        Ok(())
    })
}
