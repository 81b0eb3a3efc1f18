//! What the programs may cost, without a clock: how many instructions and helpers judge a packet that passes, how large the
//! programs are, and how much work the verifier has with them.
//!
//! Whoever makes them dearer has to say so here. Whoever makes them cheaper lowers the budget, so that it stays so.

#[expect(dead_code, reason = "errors take more than the budgets are about")]
mod frames;
mod interpreter;

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd as _, AsRawFd as _},
};

use anyhow::{Context as _, Result, ensure};
use aya::{maps::MapInfo, programs::ProgramInfo};
use frames::{MACS, PRIORITY_TAG, REPLY, REQUEST, TO_ALL, advertisement, arp, ethernet, ip, solicitation};
use interpreter::{Executed, Program};
use mhebpf::{
    datapath::{Datapath, load, object},
    model::{Address, Framing, Host, Link, LinkKind, Policy, Tables, host::prefix},
};
use mhebpf_ebpf::{Announce, Direction, Receive, Send, Unknown};
use mhebpf_tests::skip;

const EGRESS: &str = "mhebpf_egress";
const INGRESS: &str = "mhebpf_ingress";
/// `TC_ACT_UNSPEC`
const PASS: i32 = -1;

const ETH0: u32 = 10;

/// What a packet may cost on its way through a program.
struct Budget {
    /// The first address of one, the last of eight, the last of 64 in a block or without one, or a foreign one.
    whose: Whose,
    protocol: Protocol,
    direction: Direction,
    instructions: usize,
    helpers: usize,
}

#[derive(Clone, Copy, Debug)]
enum Whose {
    Own(u32),
    /// The same where foreign sources are dropped, and so no block of addresses passes.
    OwnWithoutBlock(u32),
    Foreign,
}

#[derive(Clone, Copy, Debug)]
enum Protocol {
    Ipv4,
    /// Behind a priority tag in the frame.
    TaggedIpv4,
    Ipv6,
    /// An advertisement that leaves, or a solicitation that arrives.
    Ndp,
    Arp,
    ArpReply,
}

const fn budget(
    whose: Whose,
    protocol: Protocol,
    direction: Direction,
    instructions: usize,
    helpers: usize,
) -> Budget {
    Budget { whose, protocol, direction, instructions, helpers }
}

use self::{Direction as D, Protocol as P, Whose as W};

/// Instructions as the compiler makes them, and a few more: another version of it may need those.
const BUDGETS: [Budget; 28] = [
    budget(W::Own(1), P::Ipv4, D::Egress, 42, 1),
    budget(W::Own(1), P::Ipv4, D::Ingress, 40, 1),
    budget(W::Own(8), P::Ipv4, D::Egress, 42, 1),
    budget(W::Own(8), P::Ipv4, D::Ingress, 40, 1),
    budget(W::Own(64), P::Ipv4, D::Egress, 42, 1),
    budget(W::Own(64), P::Ipv4, D::Ingress, 40, 1),
    budget(W::OwnWithoutBlock(64), P::Ipv4, D::Egress, 262, 3),
    budget(W::OwnWithoutBlock(64), P::Ipv4, D::Ingress, 195, 2),
    budget(W::Foreign, P::Ipv4, D::Egress, 103, 1),
    budget(W::Foreign, P::Ipv4, D::Ingress, 99, 1),
    budget(W::Own(1), P::Ipv6, D::Egress, 66, 1),
    budget(W::Own(1), P::Ipv6, D::Ingress, 64, 1),
    budget(W::Own(8), P::Ipv6, D::Egress, 66, 1),
    budget(W::Own(8), P::Ipv6, D::Ingress, 64, 1),
    budget(W::Own(64), P::Ipv6, D::Egress, 66, 1),
    budget(W::Own(64), P::Ipv6, D::Ingress, 64, 1),
    budget(W::OwnWithoutBlock(64), P::Ipv6, D::Egress, 363, 3),
    budget(W::OwnWithoutBlock(64), P::Ipv6, D::Ingress, 257, 2),
    budget(W::Foreign, P::Ipv6, D::Egress, 160, 1),
    budget(W::Foreign, P::Ipv6, D::Ingress, 156, 1),
    budget(W::Own(1), P::Arp, D::Egress, 196, 3),
    budget(W::Own(1), P::Arp, D::Ingress, 176, 3),
    budget(W::Own(1), P::ArpReply, D::Egress, 198, 3),
    budget(W::Own(1), P::ArpReply, D::Ingress, 176, 3),
    budget(W::Own(1), P::Ndp, D::Egress, 271, 4),
    budget(W::Own(1), P::Ndp, D::Ingress, 220, 4),
    budget(W::Own(1), P::TaggedIpv4, D::Egress, 179, 4),
    budget(W::Own(1), P::TaggedIpv4, D::Ingress, 160, 4),
];

/// A budget may be so many percent higher than what is needed.
const ROOM: usize = 20;

#[test]
fn a_packet_that_passes_takes_no_more_than_its_budget() -> Result<()> {
    let mut datapath = load()?;
    let mut wrong = String::new();
    for Budget { whose, protocol, direction, instructions, helpers } in BUDGETS {
        let Executed { answer, instructions: executed, helpers: called } =
            judge(&mut datapath, whose, protocol, direction)?;
        ensure!(answer == PASS, "{whose:?} {protocol:?} {direction:?} does not pass but gives {answer}");
        let is_high = instructions > executed + (executed * ROOM).div_ceil(100) || helpers > called;
        if executed > instructions || called > helpers || is_high {
            writeln!(
                wrong,
                "{whose:?} {protocol:?} {direction:?}: {executed} instructions with {called} helpers, and not \
                 {instructions} with {helpers}{}",
                if is_high { ": lower the budget" } else { "" }
            )?;
        }
    }
    ensure!(wrong.is_empty(), "what is executed is not as budgeted:\n{wrong}");
    Ok(())
}

/// Runs the program of a direction, in the interpreter, on a host with so many addresses.
fn judge(
    datapath: &mut Datapath,
    whose: Whose,
    protocol: Protocol,
    direction: Direction,
) -> Result<Executed> {
    let (count, number, unknown) = match whose {
        Whose::Own(count) => (count, count, Unknown::Pass),
        Whose::OwnWithoutBlock(count) => (count, count, Unknown::Drop),
        Whose::Foreign => (8, 200, Unknown::Pass),
    };
    datapath.maps.write(&tables(count, unknown))?;
    datapath.maps.settle()?;
    let [judged, judged6] = own(number);
    let (other, other6) = (Ipv4Addr::new(198, 51, 100, 1), Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 1));
    let leaves = direction == Direction::Egress;
    let (source, destination) = if leaves { (judged, other.into()) } else { (other.into(), judged) };
    let (source6, destination6) = if leaves { (judged6, other6.into()) } else { (other6.into(), judged6) };
    let frame = match (protocol, source, destination, judged6) {
        (Protocol::Ipv6, ..) => ethernet(&MACS, &[], &ip(source6, destination6)),
        (Protocol::Ndp, _, _, IpAddr::V6(target)) if leaves => {
            ethernet(&MACS, &[], &advertisement(target, other6, target))
        }
        (Protocol::Ndp, _, _, IpAddr::V6(target)) => {
            ethernet(&TO_ALL, &[], &solicitation(other6, target, target))
        }
        (Protocol::Arp, IpAddr::V4(sender), IpAddr::V4(target), _) => {
            ethernet(&TO_ALL, &[], &arp(REQUEST, sender, target))
        }
        (Protocol::ArpReply, IpAddr::V4(sender), IpAddr::V4(target), _) => {
            ethernet(&MACS, &[], &arp(REPLY, sender, target))
        }
        (Protocol::TaggedIpv4, ..) => ethernet(&MACS, &[PRIORITY_TAG], &ip(source, destination)),
        _ => ethernet(&MACS, &[], &ip(source, destination)),
    };
    let name = if leaves { EGRESS } else { INGRESS };
    let maps = maps(datapath)?;
    Program::link(object(), name)?.run(&frame, ETH0, &mut |map, key| maps[map].lookup(key))
}

/// The addresses of this number.
fn own(number: u32) -> [IpAddr; 2] {
    [
        Ipv4Addr::new(192, 0, 2, number as u8).into(),
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number as u16).into(),
    ]
}

/// What the programs know of a host with one interface.
fn tables(count: u32, unknown: Unknown) -> Tables {
    let addresses = (1..=count).flat_map(own).map(|local| {
        let subnet = prefix(local, if local.is_ipv4() { 24 } else { 64 });
        Address { ifindex: ETH0, local, subnet, tentative: false, host_scope: false }
    });
    let link = Link {
        index: ETH0,
        name: "eth0".to_owned(),
        kind: LinkKind::Wire,
        framing: Framing::Ethernet,
        mac: Some([2, 0, 0, 0, 0, 1]),
        mtu: 1500,
        up: true,
        master: None,
        link: None,
        link_elsewhere: false,
        outer: None,
        route_localnet: false,
        forwards: false,
        router: false,
        arp_ignore: 0,
        arp_filter: false,
        strict_reverse_path: false,
    };
    let policy = Policy {
        send: Send::Redirect,
        receive: Receive::Drop,
        announce: Announce::Enforce,
        unknown,
        forwarded: Send::Redirect,
        allow: Vec::new(),
        owns: Vec::new(),
        binds: true,
    };
    let links = BTreeMap::from([(ETH0, link)]);
    let host = Host { links, addresses: addresses.collect(), ..Host::default() };
    Tables::new(&host, &BTreeMap::from([(ETH0, policy)]))
}

/// A map in the kernel, whatever is in it.
struct Map(MapInfo);

/// The maps of both programs by their names.
fn maps(datapath: &mut Datapath) -> Result<HashMap<String, Map>> {
    let mut maps = HashMap::new();
    for info in infos(datapath)? {
        for id in info.map_ids()?.context("this kernel does not tell a program's maps")? {
            let map = MapInfo::from_id(id)?;
            let name = map.name_as_str().unwrap_or_default().to_owned();
            maps.insert(name, Map(map));
        }
    }
    Ok(maps)
}

fn infos(datapath: &mut Datapath) -> Result<[ProgramInfo; 2]> {
    Ok([datapath.programs.egress()?.info()?, datapath.programs.ingress()?.info()?])
}

impl Map {
    fn lookup(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
        let size = self.0.key_size() as usize;
        let key = key.get(..size).context("a key that is too short")?;
        let size = self.0.value_size() as usize;
        // Of a map with values for each CPU all are read.
        let cpus = aya::util::nr_cpus().map_err(|(what, error)| io::Error::new(error.kind(), what))?;
        let mut value = vec![0_u8; size.next_multiple_of(8) * cpus];
        let fd = self.0.fd()?;
        let fd = u64::from(fd.as_fd().as_raw_fd().cast_unsigned());
        // The beginning of `union bpf_attr` for the command; the descriptor has 32 bits, and the rest is padding.
        let attributes = [fd.to_le(), key.as_ptr() as u64, value.as_mut_ptr() as u64, 0];
        // SAFETY: the key has the size that the map was made with, and the value has room for one of each CPU.
        let result = unsafe {
            libc::syscall(libc::SYS_bpf, BPF_MAP_LOOKUP_ELEM, attributes.as_ptr(), size_of_val(&attributes))
        };
        match io::Error::last_os_error() {
            _ if result == 0 => {
                value.truncate(size);
                Ok(Some(value))
            }
            error if error.kind() == io::ErrorKind::NotFound => Ok(None),
            error => Err(error).context("looking up a key"),
        }
    }
}

/// Bytes of eBPF and, on x86-64, of machine code; and instructions that the verifier of Linux 6.18 looks at. A tenth more
/// than there is: another compiler may need it.
const SIZES: [(&str, u32, u32, u32); 2] =
    [(EGRESS, 60_000, 34_500, 113_000), (INGRESS, 22_500, 12_900, 10_300)];

#[test]
fn the_programs_are_no_larger_than_their_budget() -> Result<()> {
    let series = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    if !series.starts_with("6.18.") || !cfg!(target_arch = "x86_64") {
        skip(&format!("the sizes are those of Linux 6.18 on x86-64, and this is {}", series.trim()));
        return Ok(());
    }
    let mut datapath = load()?;
    let mut wrong = String::new();
    for (info, (name, translated, compiled, verified)) in infos(&mut datapath)?.iter().zip(SIZES) {
        let sizes = [
            ("bytes of eBPF", info.size_translated().unwrap_or(0), translated),
            ("bytes of machine code", info.size_jitted(), compiled),
            ("verified instructions", info.verified_instruction_count().unwrap_or(0), verified),
        ];
        for (what, size, budget) in sizes {
            if size > budget || budget > size + size / 5 {
                writeln!(wrong, "{name}: {size} {what}, and not {budget}")?;
            }
        }
    }
    ensure!(wrong.is_empty(), "the programs are not as large as budgeted:\n{wrong}");
    Ok(())
}
