//! What a CPU remembers of a flow, against tables that change.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use mhebpf_tests::stay_on_one_cpu;

use crate::{
    REMOTE, REMOTE_6, egress,
    frames::{MACS, ethernet, ip},
    kernel::{Trial, with_kernel},
    oracle::{
        Host, Interface, Policy, Send,
        example::{ETH0, ETH1, NEIGHBOUR_6, OF_ETH1, OF_ETH1_6, OF_STORAGE, OF_STORAGE_6, STORAGE, example},
    },
};

fn interface(host: &mut Host, index: u32, change: impl Fn(&mut Interface)) {
    host.interfaces.iter_mut().filter(|interface| interface.index == index).for_each(change);
}

fn policy(host: &mut Host, send: Send) {
    interface(host, ETH0, |eth0| eth0.policy = Some(Policy { send, ..Policy::STRONG }));
}

/// Each host follows one on which the flows were redirected, and remembered.
#[test]
fn a_flow_that_is_remembered_fares_as_the_tables_say_now() -> Result<()> {
    let changes: [fn(&mut Host); 9] = [
        |_| {},
        |host| interface(host, ETH1, |eth1| eth1.up = false),
        |host| policy(host, Send::Drop),
        |host| policy(host, Send::Observe),
        |host| policy(host, Send::Off),
        |host| interface(host, ETH0, |eth0| eth0.policy = None),
        |host| host.routes.clear(),
        |host| interface(host, ETH1, |eth1| eth1.addresses.clear()),
        // The addresses are another's now too, or the interface's own.
        |host| {
            let moved = host.interface(ETH1).map(|eth1| eth1.addresses.clone()).unwrap_or_default();
            for index in [ETH0, STORAGE] {
                interface(host, index, |other| other.addresses.extend(moved.clone()));
            }
        },
    ];
    with_kernel(|kernel| {
        stay_on_one_cpu()?;
        for change in changes {
            let mut host = example(&Policy::STRONG);
            for changed in [false, true] {
                if changed {
                    change(&mut host);
                }
                let mut trial = Trial::watching(kernel, host.clone())?;
                for interface in [ETH0, STORAGE, ETH0, ETH0, STORAGE] {
                    for flow in [ip(OF_ETH1, REMOTE), ip(OF_ETH1_6, REMOTE_6)] {
                        trial.run(&egress(interface, ethernet(&MACS, &[], &flow)), [0; 20])?;
                    }
                }
                trial.finish()?;
            }
        }
        Ok(())
    })
}

/// There are so many that each flow finds the place of another one.
#[test]
fn flows_are_told_apart() -> Result<()> {
    with_kernel(|kernel| {
        stay_on_one_cpu()?;
        let mut trial = Trial::watching(kernel, example(&Policy::STRONG))?;
        for number in 0..3000 {
            let near = Ipv4Addr::from_bits(u32::from_be_bytes([192, 168, 1, 0]) + number % 1500);
            let near_6 = Ipv6Addr::from_bits(NEIGHBOUR_6.to_bits() + u128::from(number % 1500));
            let flows =
                [ip(OF_ETH1, near), ip(OF_STORAGE, near), ip(OF_ETH1_6, near_6), ip(OF_STORAGE_6, near_6)];
            for flow in flows {
                trial.run(&egress(ETH0, ethernet(&MACS, &[], &flow)), [0; 20])?;
            }
        }
        trial.finish()?;
        Ok(())
    })
}
