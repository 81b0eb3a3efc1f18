//! Programs and filters of others on the interfaces that are looked at.

use std::{collections::BTreeSet, io};

use anyhow::Result;
use netlink_packet_core::Parseable as _;
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage, LinkXdp},
    tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption},
};

use super::Dumps;
use crate::{
    audit::snapshot::{Hook, Own, Program, Snapshot, Unread},
    datapath::{self, chain_on, is_filter, program_names},
    netlink::link_message,
    pins::{self, Pins, Side},
};

/// What mhebpf's own programs are called.
const OWN: &str = "mhebpf_";

/// The parents of filters (`TC_H_MIN_INGRESS` and `TC_H_MIN_EGRESS` of linux/pkt_sched.h).
const INGRESS: TcHandle = TcHandle { major: 0xffff, minor: 0xfff2 };
const EGRESS: TcHandle = TcHandle { major: 0xffff, minor: 0xfff3 };

pub(super) fn read(dumps: &mut Dumps, snapshot: &mut Snapshot) {
    let mut programs = tcx(snapshot);
    match xdp(dumps) {
        Ok(found) => programs.extend(found),
        Err(error) => snapshot.miss("XDP programs", &error),
    }
    match filters(dumps, snapshot) {
        Ok(found) => programs.extend(found),
        Err(error) => snapshot.miss("tc filters", &error),
    }
    note_who_is_before(&mut programs);
    snapshot.own = own(snapshot, &programs);
    programs.retain(|program| snapshot.interfaces.contains(&program.ifindex) && !is_own(program));
    programs.sort();
    programs.dedup();
    snapshot.programs = programs;
}

fn is_own(program: &Program) -> bool {
    program.name.starts_with(OWN)
}

/// Programs of TCX run before filters, and both are listed in the order in which they run.
fn note_who_is_before(programs: &mut [Program]) {
    let way = |program: &Program| match program.hook {
        Hook::TcxIngress | Hook::TcIngress => Some((program.ifindex, Side::Ingress)),
        Hook::TcxEgress | Hook::TcEgress => Some((program.ifindex, Side::Egress)),
        Hook::Xdp => None,
    };
    let mut with_own = Vec::new();
    for program in programs.iter_mut().rev() {
        let Some(way) = way(program) else { continue };
        program.before_mhebpf = with_own.contains(&way);
        if is_own(program) {
            with_own.push(way);
        }
    }
}

/// What mhebpf has put on interfaces: those that are looked at, and all others where that needs no look at each.
fn own(snapshot: &mut Snapshot, programs: &[Program]) -> Own {
    let mut own = Own::default();
    own.filters.extend(datapath::with_leftovers(&snapshot.host).into_iter().map(str::to_owned));
    let is_egress = |program: &&Program| program.hook == Hook::TcxEgress && is_own(program);
    for program in programs.iter().filter(is_egress) {
        *own.links.entry(snapshot.host.name_of(program.ifindex)).or_default() += 1;
    }
    match pinned() {
        Ok(pinned) => {
            for ifindex in pinned {
                own.links.entry(snapshot.host.name_of(ifindex)).or_insert(1);
            }
        }
        Err(error) => snapshot.miss("what mhebpf may have pinned", &error),
    }
    own
}

/// The interfaces on which pinned programs are in force, where `mhebpf run --pin` would find them.
fn pinned() -> Result<BTreeSet<u32>> {
    let Some(directory) = Pins::find(&pins::directory(None))? else { return Ok(BTreeSet::new()) };
    let links = pins::links(&directory)?;
    Ok(links.iter().filter(|link| link.is_in_force().unwrap_or(false)).map(|link| link.ifindex).collect())
}

/// In the order in which they run.
fn tcx(snapshot: &mut Snapshot) -> Vec<Program> {
    let mut programs = Vec::new();
    let names = program_names();
    for ifindex in snapshot.interfaces.clone() {
        for (side, hook) in [(Side::Ingress, Hook::TcxIngress), (Side::Egress, Hook::TcxEgress)] {
            let why = match chain_on(ifindex, side) {
                Ok(chain) if chain.is_empty() || !names.is_empty() => {
                    programs.extend(chain.iter().map(|member| Program {
                        ifindex,
                        hook,
                        name: names.get(&member.program).map_or("without a name", String::as_str).to_owned(),
                        id: Some(member.program),
                        before_mhebpf: false,
                    }));
                    continue;
                }
                // The kernel has no TCX (before Linux 6.6), and so no programs.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => continue,
                Err(error) if !matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES)) => {
                    error.to_string()
                }
                // Who may ask which programs there are need not be allowed to know their names.
                Ok(_) | Err(_) => {
                    "the kernel shows them to root only (CAP_SYS_ADMIN): run it with sudo".to_owned()
                }
            };
            snapshot.unread.push(Unread { what: "TCX programs".to_owned(), why });
        }
    }
    programs
}

fn xdp(dumps: &mut Dumps) -> Result<Vec<Program>> {
    let mut programs = Vec::new();
    for link in dumps.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()), link_message)? {
        let xdp = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Xdp(xdp) => Some(xdp),
            _ => None,
        });
        let ids = xdp.into_iter().flatten().filter_map(|attribute| match attribute {
            LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) | LinkXdp::HwProgId(id) => {
                Some(*id)
            }
            _ => None,
        });
        programs.extend(ids.map(|id| (link.header.index, id)));
    }
    programs.sort_unstable();
    programs.dedup();
    if programs.is_empty() {
        return Ok(Vec::new());
    }
    let names = program_names();
    let program = |(ifindex, id)| Program {
        ifindex,
        hook: Hook::Xdp,
        name: names.get(&id).cloned().unwrap_or_else(|| "program".to_owned()),
        id: Some(id),
        before_mhebpf: false,
    };
    Ok(programs.into_iter().map(program).collect())
}

/// An ingress qdisc has filters for packets that arrive, clsact for both directions.
fn filters(dumps: &mut Dumps, snapshot: &Snapshot) -> Result<Vec<Program>> {
    let mut parents = Vec::new();
    let qdiscs = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
    for qdisc in dumps.dump(qdiscs, TcMessage::parse)? {
        let Ok(ifindex) = u32::try_from(qdisc.header.index) else { continue };
        if !snapshot.interfaces.contains(&ifindex) {
            continue;
        }
        match kind(&qdisc) {
            Some("clsact") => {
                parents.extend([(ifindex, INGRESS, Hook::TcIngress), (ifindex, EGRESS, Hook::TcEgress)]);
            }
            Some("ingress") => parents.push((ifindex, INGRESS, Hook::TcIngress)),
            _ => {}
        }
    }
    let mut programs = Vec::new();
    for (ifindex, parent, hook) in parents {
        let mut request = TcMessage::with_index(ifindex.cast_signed());
        request.header.parent = parent;
        let filters = match dumps.dump(RouteNetlinkMessage::GetTrafficFilter(request), TcMessage::parse) {
            Ok(filters) => filters,
            // The qdisc has gone in the meantime.
            Err(error) if is_missing(&error) => continue,
            Err(error) => return Err(error),
        };
        // Other chains than the first see what a filter of that one sends there.
        let (first, others): (Vec<_>, Vec<_>) = filters.iter().partition(|filter| is_in_first_chain(filter));
        let filters = first.into_iter().chain(others).filter(|filter| is_filter(filter));
        programs.extend(filters.map(|filter| program(filter, ifindex, hook)));
    }
    Ok(programs)
}

fn is_missing(error: &anyhow::Error) -> bool {
    let code = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
    matches!(code, Some(libc::EINVAL | libc::ENODEV | libc::ENOENT))
}

fn kind(message: &TcMessage) -> Option<&str> {
    message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Kind(kind) => Some(kind.as_str()),
        _ => None,
    })
}

fn is_in_first_chain(message: &TcMessage) -> bool {
    !message.attributes.iter().any(|attribute| matches!(attribute, TcAttribute::Chain(chain) if *chain != 0))
}

fn program(filter: &TcMessage, ifindex: u32, hook: Hook) -> Program {
    let kind = kind(filter).unwrap_or("filter");
    let mut program =
        Program { ifindex, hook, name: format!("a filter of kind {kind}"), id: None, before_mhebpf: false };
    let options = filter.attributes.iter().filter_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    for option in options.flatten() {
        match option {
            TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => program.name.clone_from(name),
            TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => program.id = Some(*id),
            _ => {}
        }
    }
    program
}
