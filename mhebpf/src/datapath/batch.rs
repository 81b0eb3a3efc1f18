//! Reading many entries of a map with one system call.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use mhebpf_ebpf::CounterKey;

/// `BPF_MAP_LOOKUP_BATCH` of linux/bpf.h (Linux 5.6).
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;

/// How many entries are asked for at once at first. A bucket of the kernel's hash table is read as a whole.
const ENTRIES: usize = 1024;

/// The beginning of `union bpf_attr` for batches.
#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Calls `each` with the key of every counter of a per-CPU hash table, and the sum of its values.
///
/// # Errors
///
/// When the kernel refuses.
pub(super) fn sums(map: BorrowedFd<'_>, mut each: impl FnMut(CounterKey, u64)) -> io::Result<()> {
    let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
    let mut keys = vec![CounterKey { ifindex: 0, direction: 0, family: 0, reason: 0, observed: 0 }; ENTRIES];
    let mut values = vec![0_u64; ENTRIES * cpus];
    // The number of a bucket, as the kernel keeps it.
    let (mut position, mut begun) = (0_u32, false);
    loop {
        let mut next = position;
        let mut batch = Batch {
            in_batch: if begun { &raw const position as u64 } else { 0 },
            out_batch: &raw mut next as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: keys.len() as u32,
            map_fd: map.as_raw_fd().cast_unsigned(),
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: the attributes are as `union bpf_attr` begins for this command, and their size goes with them. There is room
        // for `count` keys and as many values of all CPUs, of eight bytes each, and for both positions; all live through the
        // call, and any bytes make a key and a number.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_LOOKUP_BATCH, &raw mut batch, size_of::<Batch>()) };
        let error = if result < 0 { io::Error::last_os_error().raw_os_error() } else { None };
        match error {
            // At the end of the table there are entries as well.
            None | Some(libc::ENOENT) => {}
            // A bucket has more entries than there is room for.
            Some(libc::ENOSPC) if keys.len() <= ENTRIES << 10 => {
                keys.resize(2 * keys.len(), keys[0]);
                values.resize(keys.len() * cpus, 0);
                continue;
            }
            Some(code) => return Err(io::Error::from_raw_os_error(code)),
        }
        for (key, values) in keys.iter().zip(values.chunks_exact(cpus)).take(batch.count as usize) {
            each(*key, values.iter().sum());
        }
        if error.is_some() {
            return Ok(());
        }
        (position, begun) = (next, true);
    }
}
