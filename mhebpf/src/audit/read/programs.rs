//! Programs and filters of others on the interfaces that are looked at.

use std::{collections::BTreeMap, io};

use anyhow::Result;
use aya::programs::{ProgramError, SchedClassifier, TcAttachType, loaded_programs, tc::TcError};
use netlink_packet_core::Parseable as _;
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage, LinkXdp},
    tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption},
};

use super::Dumps;
use crate::audit::snapshot::{Hook, Program, Snapshot, Unread};

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
    programs
        .retain(|program| snapshot.interfaces.contains(&program.ifindex) && !program.name.starts_with(OWN));
    programs.sort();
    programs.dedup();
    snapshot.programs = programs;
}

/// In the order in which they run.
fn tcx(snapshot: &mut Snapshot) -> Vec<Program> {
    let mut programs = Vec::new();
    for ifindex in snapshot.interfaces.clone() {
        let name = snapshot.host.name_of(ifindex);
        for (direction, hook) in
            [(TcAttachType::Ingress, Hook::TcxIngress), (TcAttachType::Egress, Hook::TcxEgress)]
        {
            match SchedClassifier::query_tcx(&name, direction) {
                Ok((_, found)) => programs.extend(found.iter().map(|info| Program {
                    ifindex,
                    hook,
                    name: info.name_as_str().unwrap_or("without a name").to_owned(),
                    id: Some(info.id()),
                })),
                Err(error) => {
                    let why = match os_error(&error) {
                        // The interface has gone, or the kernel has no TCX (before Linux 6.6), and so no programs.
                        Some(libc::EINVAL | libc::ENODEV) => continue,
                        Some(libc::EPERM | libc::EACCES) => {
                            "the kernel shows them to root only (CAP_SYS_ADMIN): run it with sudo".to_owned()
                        }
                        _ => format!("{:#}", anyhow::Error::from(error)),
                    };
                    snapshot.unread.push(Unread { what: "TCX programs".to_owned(), why });
                }
            }
        }
    }
    programs
}

fn os_error(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        ProgramError::TcError(TcError::IoError(error)) => error.raw_os_error(),
        _ => None,
    }
}

fn xdp(dumps: &mut Dumps) -> Result<Vec<Program>> {
    let mut programs = Vec::new();
    for link in dumps.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()), LinkMessage::parse)? {
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
    let names = names();
    let program = |(ifindex, id)| Program {
        ifindex,
        hook: Hook::Xdp,
        name: names.get(&id).cloned().unwrap_or_else(|| "program".to_owned()),
        id: Some(id),
    };
    Ok(programs.into_iter().map(program).collect())
}

/// The names of the loaded programs, as far as this process may know them.
fn names() -> BTreeMap<u32, String> {
    let loaded = loaded_programs().map_while(Result::ok);
    loaded.filter_map(|info| Some((info.id(), info.name_as_str()?.to_owned()))).collect()
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
        // One without a handle is the head of a list, not a filter.
        let filters = filters.iter().filter(|filter| u32::from(filter.header.handle) != 0);
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

fn program(filter: &TcMessage, ifindex: u32, hook: Hook) -> Program {
    let kind = kind(filter).unwrap_or("filter");
    let mut program = Program { ifindex, hook, name: format!("a filter of kind {kind}"), id: None };
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
