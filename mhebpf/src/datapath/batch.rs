//! Reading and deleting many entries of a map with one system call.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use mhebpf_ebpf::CounterKey;

/// `BPF_MAP_LOOKUP_BATCH` of linux/bpf.h (Linux 5.6).
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;

/// `BPF_MAP_DELETE_BATCH` of linux/bpf.h (Linux 5.6).
const BPF_MAP_DELETE_BATCH: libc::c_long = 27;

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

/// How far a table has been read: a bucket, as the kernel numbers them. Entries that come and go meanwhile disturb nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Position(Option<u32>);

/// Calls `each` with the key of every counter of a per-CPU hash table, and the sum of its values.
///
/// # Errors
///
/// When the kernel refuses.
pub(super) fn sums(map: BorrowedFd<'_>, mut each: impl FnMut(CounterKey, u64)) -> io::Result<()> {
    let mut room = Room::new()?;
    let mut position = Some(Position::default());
    while let Some(from) = position {
        position = room.read(map, from, &mut each)?;
    }
    Ok(())
}

/// The same for the next thousand or so: where to go on, or `None` at the end.
///
/// # Errors
///
/// When the kernel refuses.
pub(super) fn some_sums(
    map: BorrowedFd<'_>,
    from: Position,
    each: impl FnMut(CounterKey, u64),
) -> io::Result<Option<Position>> {
    Room::new()?.read(map, from, each)
}

/// Deletes entries that are there.
///
/// # Errors
///
/// When the kernel refuses, or one is not there; those before it are deleted.
pub(super) fn delete(map: BorrowedFd<'_>, keys: &[CounterKey]) -> io::Result<()> {
    if keys.is_empty() {
        return Ok(());
    }
    let mut batch = Batch {
        in_batch: 0,
        out_batch: 0,
        keys: keys.as_ptr() as u64,
        values: 0,
        count: keys.len() as u32,
        map_fd: map.as_raw_fd().cast_unsigned(),
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: the attributes are as `union bpf_attr` begins for this command, and their size goes with them. The kernel reads
    // `count` keys, which live through the call, and writes the count only.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_DELETE_BATCH, &raw mut batch, size_of::<Batch>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Room for entries.
struct Room {
    cpus: usize,
    keys: Vec<CounterKey>,
    values: Vec<u64>,
}

impl Room {
    fn new() -> io::Result<Self> {
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        let none = CounterKey { ifindex: 0, direction: 0, family: 0, reason: 0, observed: 0 };
        Ok(Self { cpus, keys: vec![none; ENTRIES], values: vec![0; ENTRIES * cpus] })
    }

    /// Reads as many whole buckets as there is room for.
    fn read(
        &mut self,
        map: BorrowedFd<'_>,
        Position(position): Position,
        mut each: impl FnMut(CounterKey, u64),
    ) -> io::Result<Option<Position>> {
        let Self { cpus, keys, values } = self;
        let from = position.unwrap_or_default();
        loop {
            let mut next = from;
            let mut batch = Batch {
                in_batch: if position.is_some() { &raw const from as u64 } else { 0 },
                out_batch: &raw mut next as u64,
                keys: keys.as_mut_ptr() as u64,
                values: values.as_mut_ptr() as u64,
                count: keys.len() as u32,
                map_fd: map.as_raw_fd().cast_unsigned(),
                elem_flags: 0,
                flags: 0,
            };
            // SAFETY: the attributes are as `union bpf_attr` begins for this command, and their size goes with them. There is
            // room for `count` keys and as many values of all CPUs, of eight bytes each, and for both positions; all live
            // through the call, and any bytes make a key and a number.
            let result = unsafe {
                libc::syscall(libc::SYS_bpf, BPF_MAP_LOOKUP_BATCH, &raw mut batch, size_of::<Batch>())
            };
            let error = if result < 0 { io::Error::last_os_error().raw_os_error() } else { None };
            match error {
                // At the end of the table there are entries as well.
                None | Some(libc::ENOENT) => {}
                // A bucket has more entries than there is room for.
                Some(libc::ENOSPC) if keys.len() <= ENTRIES << 10 => {
                    keys.resize(2 * keys.len(), keys[0]);
                    values.resize(keys.len() * *cpus, 0);
                    continue;
                }
                Some(code) => return Err(io::Error::from_raw_os_error(code)),
            }
            for (key, values) in keys.iter().zip(values.chunks_exact(*cpus)).take(batch.count as usize) {
                each(*key, values.iter().sum());
            }
            return Ok(error.is_none().then_some(Position(Some(next))));
        }
    }
}
