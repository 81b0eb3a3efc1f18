//! The same on a host that the kernel has described, as `mhebpf explain` reads it.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    rc::Rc,
};

use anyhow::{Context as _, Result, ensure};
use mhebpf::{explain::explanation::Model, model::Policy, netlink::Dumper};
use mhebpf_ebpf::{Announce, Receive, Send, Unknown, Verdict, packet::parse};
use mhebpf_tests::{FAR, FAR6, Lab, PEER, PEER6, SECOND_PEER};

use super::{action_name, ask, is_sound};
use crate::{
    egress,
    frames::{MACS, TO_ALL, advertisement, arp, ethernet, ip, solicitation},
    ingress,
    kernel::{DROP, PASS, REDIRECT, with_kernel_in},
    oracle::{Crossing, Direction},
    random::Generator,
    sign,
};

const PACKETS: u64 = 10_000;

/// One interface of each kind of policy.
fn policies(host: &mhebpf::model::Host, allowed: IpAddr) -> BTreeMap<u32, Policy> {
    let strong = Policy {
        send: Send::Redirect,
        receive: Receive::Drop,
        announce: Announce::Enforce,
        unknown: Unknown::Pass,
        forwarded: Send::Redirect,
        allow: Vec::new(),
        owns: Vec::new(),
        binds: true,
    };
    let of = |name: &str| match name {
        "eth0_int" => Some(Policy { allow: vec![allowed.into()], ..strong.clone() }),
        "eth1_int" => Some(Policy { send: Send::Drop, ..strong.clone() }),
        "eth2_int" => Some(strong.clone().observing()),
        "eth3_int" => Some(Policy { unknown: Unknown::Drop, ..strong.clone() }),
        _ => None,
    };
    host.links.values().filter_map(|link| Some((link.index, of(&link.name)?))).collect()
}

#[test]
fn what_explain_says_of_a_live_host_is_what_the_programs_do() -> Result<()> {
    let lab = Lab::builder().links(4).links_in_second_subnet(1).ipv6().build()?;
    lab.host.ip_batch(&format!(
        "route add default via {PEER}\naddress add 203.0.113.9/32 dev lo\n\
         route add local 10.5.0.0/16 dev eth1_int\nlink set eth2_int mtu 1400\n"
    ))?;
    lab.down(3)?;
    let seed = RandomState::new().hash_one(());
    with_kernel_in(&lab.host, |kernel| {
        let host = Rc::unwrap_or_clone(Dumper::connect()?.snapshot()?.host);
        let policies = policies(&host, lab.address(3).into());
        ensure!(policies.len() == 4, "{host:?}");
        let interfaces: Vec<u32> = host.links.keys().copied().collect();
        let macs: BTreeMap<u32, [u8; 6]> =
            host.links.values().map(|link| (link.index, link.mac.unwrap_or_default())).collect();
        let addresses = addresses(&host)?;
        let model = Model::new(host, policies);
        kernel.write(&model.tables)?;
        let mut generator = Generator::new(seed);
        let mut actions: BTreeMap<&str, u64> = BTreeMap::new();
        for _ in 0..PACKETS {
            let mut crossing = crossing(&generator.bytes(), &interfaces, &addresses);
            if crossing.direction == Direction::Egress {
                sign(&mut crossing.frame, macs[&crossing.interface]);
            }
            let packet = parse(crossing.frame.as_slice(), 0).context("the frame is whole")?;
            let (question, explanation) = ask(&model, &crossing, packet);
            let ran = kernel.run(&crossing, [0; 20])??;
            let live = kernel.judge(&question)?;
            ensure!(
                live == explanation.verdict,
                "{live:?} by the maps, {explanation:?} of {question:?}, seed {seed}"
            );
            let expected = match explanation.verdict {
                Verdict::Act { enforced: true, .. } => match action_name(&explanation.verdict) {
                    "drop" => DROP,
                    "rewrite-sender" => PASS,
                    _ => REDIRECT,
                },
                _ => PASS,
            };
            ensure!(ran.code == expected, "{ran:?} for {explanation:?} of {question:?}, seed {seed}");
            ensure!(is_sound(&question, &explanation), "{explanation:?} of {question:?}, seed {seed}");
            *actions.entry(action_name(&explanation.verdict)).or_default() += 1;
        }
        println!("{actions:?}");
        let seen: Vec<&str> = actions.keys().copied().collect();
        ensure!(seen == ["drop", "pass", "redirect", "redirect-group", "rewrite-sender"], "{actions:?}");
        Ok(())
    })?;
    lab.finish()
}

/// Those of the host, of its neighbours, far ones, and those that mean something special; IPv4 first.
fn addresses(host: &mhebpf::model::Host) -> Result<[Vec<IpAddr>; 2]> {
    let special =
        ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "10.5.3.4", "192.168.0.200", "::", "::1"];
    let special6 = ["ff02::1", "ff02::1:ff00:101", "fe80::99", "2001:db8::99"];
    let parsed: Vec<IpAddr> =
        special.into_iter().chain(special6).map(str::parse).collect::<Result<_, _>>()?;
    let others: [IpAddr; 5] = [PEER.into(), SECOND_PEER.into(), FAR.into(), PEER6.into(), FAR6.into()];
    let own = host.addresses.iter().map(|address| address.local);
    let all = own.clone().chain(own).chain(parsed).chain(others);
    Ok(all.partition::<Vec<_>, _>(IpAddr::is_ipv4).into())
}

fn crossing(bytes: &[u8], interfaces: &[u32], [ipv4, ipv6]: &[Vec<IpAddr>; 2]) -> Crossing {
    let number = |at: usize| usize::from(u16::from_ne_bytes([bytes[2 * at], bytes[2 * at + 1]]));
    let pick = |from: &[IpAddr], at: usize| from[number(at) % from.len()];
    let v4 = |at| match pick(ipv4, at) {
        IpAddr::V4(address) => address,
        IpAddr::V6(address) => unreachable!("{address} among those of IPv4"),
    };
    let v6 = |at| match pick(ipv6, at) {
        IpAddr::V6(address) => address,
        IpAddr::V4(address) => unreachable!("{address} among those of IPv6"),
    };
    let network = match number(0) % 6 {
        0 | 1 => ip(v4(1), v4(2)),
        2 => ip(v6(1), v6(2)),
        3 => advertisement(v6(1), v6(2), v6(3)),
        4 => solicitation(v6(1), v6(2), v6(3)),
        _ => arp(1 + (number(4) % 2) as u8, v4(1), v4(2)),
    };
    let macs = if number(5).is_multiple_of(4) { &TO_ALL } else { &MACS };
    let (frame, interface) = (ethernet(macs, &[], &network), interfaces[number(6) % interfaces.len()]);
    if number(7).is_multiple_of(2) { egress(interface, frame) } else { ingress(interface, frame) }
}
