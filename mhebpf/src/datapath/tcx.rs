//! The chains of TCX programs. Interfaces go by their index: a name need not be UTF-8.

use std::{
    fmt, io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use crate::pins::Side;

/// `BPF_LINK_CREATE` of linux/bpf.h.
const BPF_LINK_CREATE: libc::c_long = 28;
/// `BPF_LINK_UPDATE` of linux/bpf.h.
const BPF_LINK_UPDATE: libc::c_long = 29;
/// `BPF_F_BEFORE` of linux/bpf.h; without another program, before all.
const BPF_F_BEFORE: u32 = 1 << 3;

/// `BPF_PROG_QUERY` of linux/bpf.h.
const BPF_PROG_QUERY: libc::c_long = 16;
/// `BPF_TCX_INGRESS` of linux/bpf.h.
const BPF_TCX_INGRESS: u32 = 46;
/// `BPF_TCX_EGRESS` of linux/bpf.h.
const BPF_TCX_EGRESS: u32 = 47;
/// How many programs a chain has at most (`BPF_MPROG_MAX`, Linux 6.6).
const CHAIN: usize = 64;

/// The beginning of `union bpf_attr` for `BPF_PROG_QUERY`.
#[repr(C)]
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

/// The beginning of `union bpf_attr` for `BPF_LINK_CREATE`.
#[repr(C)]
struct Create {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    padding: u32,
    expected_revision: u64,
}

/// The beginning of `union bpf_attr` for `BPF_LINK_UPDATE`.
#[repr(C)]
struct Update {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

/// The kernel has no TCX.
#[derive(Debug)]
pub(super) struct NoTcx(io::Error);

impl fmt::Display for NoTcx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl std::error::Error for NoTcx {}

/// Has a program run first on an interface of this network namespace, as long as the link is open or pinned.
///
/// # Errors
///
/// When the kernel refuses; [`NoTcx`] before Linux 6.6, which answers EINVAL to the unknown attach type.
pub(super) fn attach_first(program: BorrowedFd<'_>, ifindex: u32, side: Side) -> anyhow::Result<OwnedFd> {
    let mut create = Create {
        program: program.as_raw_fd().cast_unsigned(),
        ifindex,
        attach_type: attach_type(side),
        flags: BPF_F_BEFORE,
        relative: 0,
        padding: 0,
        expected_revision: 0,
    };
    // SAFETY: the attributes are as `union bpf_attr` begins for this command, and their size goes with them.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_LINK_CREATE, &raw mut create, size_of::<Create>()) };
    if result < 0 {
        let error = io::Error::last_os_error();
        return Err(match error.raw_os_error() {
            Some(libc::EINVAL) => NoTcx(error).into(),
            _ => error.into(),
        });
    }
    // SAFETY: on success the command returns a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(result as i32) })
}

/// Has a link run another program from now on, in the same place: each packet is judged by one of the two.
///
/// # Errors
///
/// When the kernel refuses: `ENOLINK` where the interface is gone (`tcx_link_update`, Linux 6.6).
pub(super) fn update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut update = Update {
        link: link.as_raw_fd().cast_unsigned(),
        program: program.as_raw_fd().cast_unsigned(),
        flags: 0,
        old_program: 0,
    };
    // SAFETY: the attributes are as `union bpf_attr` begins for this command, and their size goes with them.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_LINK_UPDATE, &raw mut update, size_of::<Update>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

const fn attach_type(side: Side) -> u32 {
    match side {
        Side::Ingress => BPF_TCX_INGRESS,
        Side::Egress => BPF_TCX_EGRESS,
    }
}

/// The ids of the links on an interface of this network namespace, in the order in which their programs run; 0 for a program
/// without one. None where there is no such interface.
///
/// # Errors
///
/// As [`chain`].
pub fn links(ifindex: u32, side: Side) -> io::Result<Vec<u32>> {
    Ok(chain(ifindex, side)?.into_iter().map(|member| member.link).collect())
}

/// A program in a chain.
pub struct Member {
    /// Its id.
    pub program: u32,
    /// The id of its link; 0 for one without.
    pub link: u32,
}

/// The programs on an interface of this network namespace by their ids, in the order in which they run. None where there is no
/// such interface.
///
/// # Errors
///
/// Without `CAP_NET_ADMIN`, and on kernels without TCX (`bpf_prog_query`, `tcx_prog_query`, Linux 6.6).
pub fn chain(ifindex: u32, side: Side) -> io::Result<Vec<Member>> {
    let mut programs = [0_u32; CHAIN];
    let mut links = [0_u32; CHAIN];
    let mut query = Query {
        ifindex,
        attach_type: attach_type(side),
        query_flags: 0,
        attach_flags: 0,
        // The links are listed only where the programs are.
        program_ids: programs.as_mut_ptr() as u64,
        count: CHAIN as u32,
        padding: 0,
        program_attach_flags: 0,
        link_ids: links.as_mut_ptr() as u64,
        link_attach_flags: 0,
        revision: 0,
    };
    // SAFETY: the attributes are as `union bpf_attr` begins for this command, and their size goes with them; both arrays have
    // room for as many ids as `count` says, and live through the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, &raw mut query, size_of::<Query>()) };
    if result < 0 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::ENODEV) { Ok(Vec::new()) } else { Err(error) };
    }
    let members = programs.into_iter().zip(links).map(|(program, link)| Member { program, link });
    Ok(members.take(query.count as usize).collect())
}
