//! The filter of local addresses.

use std::net::Ipv6Addr;

use mhebpf_ebpf::{
    Filter, Ipv6,
    filter::{Bit, WORDS},
};

use super::Tables;

impl Tables {
    /// The filter of all single addresses that have owners here. Those of prefixes are not in it: where there are such, it is not
    /// asked.
    pub fn filter(&self) -> Box<Filter> {
        let mut filter = Box::new([0; WORDS]);
        // It is judged as loopback, whether there are owners or not. The glance knows IPv4's by itself.
        let loopback = Ipv6::from(Ipv6Addr::LOCALHOST);
        for address in self.ipv6.owners.keys().map(|key| key.address).chain([loopback]) {
            let (high, low) = address.halves();
            Bit::of_ipv6(high, low).set(&mut filter);
        }
        for key in self.ipv4.owners.keys() {
            Bit::of_ipv4(key.address.to_wire().into()).set(&mut filter);
        }
        filter
    }
}
