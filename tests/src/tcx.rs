//! TC programs seen and attached through bpf(2) itself: iproute2 before 6.4 does not show TCX.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};

use crate::{interface, netns::NetNs};

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_GET_FD_BY_ID: libc::c_long = 30;
const BPF_LINK_DETACH: libc::c_long = 34;
const BPF_F_BEFORE: u32 = 1 << 3;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const XDP_FLAGS_SKB_MODE: u32 = 2;
const XDP_PASS: i32 = 2;

/// Where a TCX program sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// `BPF_TCX_INGRESS`.
    Ingress = 46,
    /// `BPF_TCX_EGRESS`.
    Egress = 47,
}

/// What a program of one instruction returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// `TCX_NEXT`: it has no opinion.
    Next = -1,
    /// `TCX_PASS`: it goes on at once, whatever is behind in the chain.
    Pass = 0,
    /// `TCX_DROP`: nothing passes.
    Drop = 2,
}

/// The beginning of `union bpf_attr` for BPF_PROG_QUERY.
#[repr(C)]
#[derive(Default)]
struct Query {
    ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    program_ids: u64,
    count: u32,
    padding: u32,
    program_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// The beginning of `union bpf_attr` for BPF_PROG_LOAD.
#[repr(C)]
struct Load {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

/// The beginning of `union bpf_attr` for BPF_LINK_CREATE.
#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
    relative: [u32; 4],
}

/// Whether the kernel has TCX (6.6).
///
/// # Errors
///
/// When the namespace cannot be asked.
pub fn is_available(ns: &NetNs) -> Result<bool> {
    ns.run(|| match query(interface::index("lo")?, Hook::Egress) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error.into()),
    })
}

/// The ids of the programs on an interface, in the order in which they run; none where the kernel lacks TCX.
///
/// # Errors
///
/// When there is no such interface.
pub fn programs(ns: &NetNs, interface: &str, hook: Hook) -> Result<Vec<u32>> {
    ns.run(|| match query(interface::index(interface)?, hook) {
        Ok(programs) => Ok(programs),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("asking for the TCX programs of {interface}")),
    })
}

/// Attaches a program of one instruction behind those that are there; it stays until the descriptor is closed.
///
/// # Errors
///
/// When the kernel refuses.
pub fn attach(ns: &NetNs, interface: &str, hook: Hook, answer: Answer) -> Result<OwnedFd> {
    attach_at(ns, interface, hook, answer, 0)
}

/// The same, in front of those that are there.
///
/// # Errors
///
/// When the kernel refuses.
pub fn attach_first(ns: &NetNs, interface: &str, hook: Hook, answer: Answer) -> Result<OwnedFd> {
    attach_at(ns, interface, hook, answer, BPF_F_BEFORE)
}

fn attach_at(ns: &NetNs, interface: &str, hook: Hook, answer: Answer, flags: u32) -> Result<OwnedFd> {
    ns.run(|| {
        let program =
            load(BPF_PROG_TYPE_SCHED_CLS, answer as i32).context("loading a program of one instruction")?;
        let mut create = LinkCreate {
            program: program.as_raw_fd().cast_unsigned(),
            ifindex: interface::index(interface)?,
            attach_type: hook as u32,
            flags,
            ..LinkCreate::default()
        };
        bpf_fd(BPF_LINK_CREATE, &mut create).with_context(|| format!("attaching a program to {interface}"))
    })
}

/// Takes a link off its interface though others hold it (`bpftool link detach`).
///
/// # Errors
///
/// When there is no such link, or the kernel refuses.
pub fn detach(ns: &NetNs, interface: &str, hook: Hook, place: usize) -> Result<()> {
    ns.run(|| {
        let mut links = vec![0_u32; 64];
        let mut programs = vec![0_u32; 64];
        let mut query = Query {
            ifindex: interface::index(interface)?,
            attach_type: hook as u32,
            program_ids: programs.as_mut_ptr() as u64,
            count: links.len() as u32,
            link_ids: links.as_mut_ptr() as u64,
            ..Query::default()
        };
        bpf(BPF_PROG_QUERY, &mut query)?;
        let mut by_id = [links[place], 0, 0];
        let link = bpf_fd(BPF_LINK_GET_FD_BY_ID, &mut by_id).context("opening a link by its id")?;
        let mut detach = [link.as_raw_fd().cast_unsigned(), 0];
        bpf(BPF_LINK_DETACH, &mut detach).context("detaching a link")?;
        Ok(())
    })
}

/// Attaches an XDP program that lets all pass, in generic mode; it stays until the descriptor is closed.
///
/// # Errors
///
/// When the kernel refuses.
pub fn attach_xdp(ns: &NetNs, interface: &str) -> Result<OwnedFd> {
    ns.run(|| {
        let program = load(BPF_PROG_TYPE_XDP, XDP_PASS).context("loading an XDP program")?;
        let mut create = LinkCreate {
            program: program.as_raw_fd().cast_unsigned(),
            ifindex: interface::index(interface)?,
            attach_type: BPF_XDP,
            flags: XDP_FLAGS_SKB_MODE,
            ..LinkCreate::default()
        };
        bpf_fd(BPF_LINK_CREATE, &mut create)
            .with_context(|| format!("attaching an XDP program to {interface}"))
    })
}

fn query(ifindex: u32, hook: Hook) -> io::Result<Vec<u32>> {
    let mut ids = vec![0_u32; 64];
    let mut query = Query {
        ifindex,
        attach_type: hook as u32,
        program_ids: ids.as_mut_ptr() as u64,
        count: ids.len() as u32,
        ..Query::default()
    };
    bpf(BPF_PROG_QUERY, &mut query)?;
    ids.truncate(query.count as usize);
    Ok(ids)
}

fn load(program_type: u32, answer: i32) -> io::Result<OwnedFd> {
    // r0 = answer; exit. (struct bpf_insn: opcode, registers, offset, immediate)
    let mut instructions = vec![0xb7, 0, 0, 0];
    instructions.extend(answer.to_ne_bytes());
    instructions.extend([0x95, 0, 0, 0, 0, 0, 0, 0]);
    let mut load = Load {
        program_type,
        instruction_count: 2,
        instructions: instructions.as_ptr() as u64,
        licence: c"GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: *b"lab_foreign\0\0\0\0\0",
    };
    bpf_fd(BPF_PROG_LOAD, &mut load)
}

fn bpf_fd<T>(command: libc::c_long, attributes: &mut T) -> io::Result<OwnedFd> {
    let fd = bpf(command, attributes)?;
    // SAFETY: on success these commands return a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the attributes are `repr(C)` without padding, as `union bpf_attr` begins for the command, and their size goes with
    // them; the addresses inside point to live buffers of the callers.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
