//! Small programs made of single instructions, and test runs of programs, by bpf(2) itself: aya takes programs from
//! object files only, and one that is compiled would do more than is wanted here.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_MAP_TYPE_PROG_ARRAY: u32 = 3;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;

/// A register of the eBPF machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Register(pub(crate) u8);

/// An instruction as `struct bpf_insn` has it: code, registers, offset and immediate value.
pub(crate) type Instruction = u64;

/// Any instruction.
pub(crate) fn instruction(
    code: u8,
    destination: Register,
    source: u8,
    offset: i16,
    immediate: i32,
) -> Instruction {
    u64::from(code)
        | u64::from(destination.0) << 8
        | u64::from(source) << 12
        | u64::from(offset.cast_unsigned()) << 16
        | u64::from(immediate.cast_unsigned()) << 32
}

/// The two halves of an instruction that loads 64 bits (`BPF_LD | BPF_IMM | BPF_DW`).
pub(crate) fn load_64(destination: Register, source: u8, value: u64) -> [Instruction; 2] {
    [
        instruction(0x18, destination, source, 0, (value as u32).cast_signed()),
        instruction(0, Register(0), 0, 0, ((value >> 32) as u32).cast_signed()),
    ]
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
}

/// Loads a classifier.
///
/// # Errors
///
/// When the verifier refuses it, with its words.
pub(crate) fn load(instructions: &[Instruction]) -> io::Result<OwnedFd> {
    let mut log = vec![0_u8; 1 << 16];
    let mut load = Load {
        program_type: BPF_PROG_TYPE_SCHED_CLS,
        instruction_count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        licence: c"GPL".as_ptr() as u64,
        log_level: 1,
        log_size: log.len() as u32,
        log: log.as_mut_ptr() as u64,
    };
    bpf_fd(BPF_PROG_LOAD, &mut load).map_err(|error| {
        let said = log.split(|byte| *byte == 0).next().unwrap_or_default();
        io::Error::new(
            error.kind(),
            format!("{error}; the verifier says:\n{}", String::from_utf8_lossy(said)),
        )
    })
}

/// The beginning of `union bpf_attr` for BPF_MAP_CREATE.
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

/// The beginning of `union bpf_attr` for BPF_MAP_UPDATE_ELEM.
#[repr(C)]
struct MapUpdate {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Makes a map of programs to jump to, with these in it.
///
/// # Errors
///
/// When the kernel refuses.
pub(crate) fn program_array(programs: &[BorrowedFd<'_>]) -> io::Result<OwnedFd> {
    let mut create = MapCreate {
        map_type: BPF_MAP_TYPE_PROG_ARRAY,
        key_size: 4,
        value_size: 4,
        max_entries: programs.len() as u32,
    };
    let map = bpf_fd(BPF_MAP_CREATE, &mut create)?;
    for (index, program) in (0_u32..).zip(programs) {
        let program = program.as_raw_fd().cast_unsigned();
        let mut update = MapUpdate {
            map: map.as_raw_fd().cast_unsigned(),
            padding: 0,
            key: &raw const index as u64,
            value: &raw const program as u64,
            flags: 0,
        };
        bpf(BPF_MAP_UPDATE_ELEM, &mut update)?;
    }
    Ok(map)
}

/// The beginning of `union bpf_attr` for BPF_PROG_TEST_RUN.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    answer: u32,
    data_in_size: u32,
    data_out_size: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_in_size: u32,
    context_out_size: u32,
    context_in: u64,
    context_out: u64,
}

/// What a test run gave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ran {
    /// What the program returned the last time.
    pub(crate) answer: i32,
    /// The kernel's own measurement of one repetition, in whole nanoseconds.
    pub(crate) duration: u32,
}

/// Has the kernel run a program `repeat` times on one frame. `context` is the beginning of a `struct __sk_buff`.
///
/// # Errors
///
/// When the kernel refuses the frame or the context.
pub(crate) fn test_run(program: impl AsFd, frame: &[u8], context: &[u8], repeat: u32) -> io::Result<Ran> {
    let mut run = TestRun {
        program: program.as_fd().as_raw_fd().cast_unsigned(),
        data_in_size: frame.len() as u32,
        data_in: frame.as_ptr() as u64,
        repeat,
        context_in_size: context.len() as u32,
        context_in: context.as_ptr() as u64,
        ..TestRun::default()
    };
    bpf(BPF_PROG_TEST_RUN, &mut run)?;
    Ok(Ran { answer: run.answer.cast_signed(), duration: run.duration })
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
