//! What is done to a packet before each repetition: a test run repeats one packet as the last repetition has left it.
//!
//! A prelude is a classifier of a few instructions that prepares the packet and then jumps (`bpf_tail_call`) to the
//! program that is measured. The same prelude runs before the empty program, so the difference of the two is the
//! program alone.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
};

use crate::bpf::{self, Instruction, Register, instruction, load_64};

/// Offsets in `struct __sk_buff` (linux/bpf.h).
const SKB_CB: i16 = 48;
const SKB_DATA: i16 = 76;
const SKB_DATA_END: i16 = 80;

const GET_PRANDOM_U32: i32 = 7;
const TAIL_CALL: i32 = 12;

/// What a prelude returns when there was nothing to jump to.
const NOT_REACHED: i32 = 99;

const R0: Register = Register(0);
const R1: Register = Register(1);
const R2: Register = Register(2);
const R3: Register = Register(3);
const R4: Register = Register(4);
const R5: Register = Register(5);
const R6: Register = Register(6);

/// How a packet is prepared.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Prelude {
    /// Clears `skb->cb`: what was redirected before would be dropped as a loop.
    pub(crate) forgets_redirect: bool,
    /// Writes an address.
    pub(crate) address: Option<Written>,
}

/// One of `count` consecutive addresses, chosen at random by the kernel for each repetition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    /// Where it stands in the frame.
    pub(crate) offset: i16,
    /// The first of the addresses. Those of IPv6 must not differ in their upper half.
    pub(crate) first: IpAddr,
    /// How many addresses there are.
    pub(crate) count: u32,
}

impl Prelude {
    /// Loads the prelude of the program at `index` in an array of programs.
    ///
    /// # Errors
    ///
    /// When the kernel refuses it.
    pub(crate) fn load(&self, programs: BorrowedFd<'_>, index: usize) -> io::Result<OwnedFd> {
        bpf::load(&self.instructions(programs.as_raw_fd(), index))
    }

    fn instructions(&self, programs: i32, index: usize) -> Vec<Instruction> {
        // The context is in R1, and is kept in R6.
        let mut program = vec![move_register(R6, R1)];
        if self.forgets_redirect {
            for word in 0..5 {
                // *(u32 *)(R6 + offset) = 0
                program.push(instruction(0x62, R6, 0, SKB_CB + 4 * word, 0));
            }
        }
        if let Some(written) = self.address {
            program.extend(written.instructions());
        }
        program.push(move_register(R1, R6));
        // BPF_PSEUDO_MAP_FD
        program.extend(load_64(R2, 1, u64::from(programs.cast_unsigned())));
        program.extend([
            move_value(R3, index as i32),
            call(TAIL_CALL),
            move_value(R0, NOT_REACHED),
            instruction(0x95, R0, 0, 0, 0),
        ]);
        program
    }
}

impl Written {
    fn instructions(&self) -> Vec<Instruction> {
        let length = if self.first.is_ipv4() { 4 } else { 16 };
        let mut program = vec![
            call(GET_PRANDOM_U32),
            // R0 = (u64)(u32)R0 * count >> 32, which is less than count.
            instruction(0xbc, R0, 0, 0, 0),
            instruction(0x27, R0, 0, 0, self.count.cast_signed()),
            instruction(0x77, R0, 0, 0, 32),
        ];
        let store = match self.first {
            IpAddr::V4(first) => vec![
                // R0 = htonl((u32)(R0 + first)); *(u32 *)(R2 + offset) = R0
                instruction(0x04, R0, 0, 0, first.to_bits().cast_signed()),
                instruction(0xdc, R0, 0, 0, 32),
                instruction(0x63, R2, R0.0, self.offset, 0),
            ],
            IpAddr::V6(first) => {
                let (upper, lower) = ((first.to_bits() >> 64) as u64, first.to_bits() as u64);
                let mut store = load_64(R5, 0, lower).to_vec();
                // R0 = htobe64(R0 + lower)
                store.extend([instruction(0x0f, R0, R5.0, 0, 0), instruction(0xdc, R0, 0, 0, 64)]);
                store.extend(load_64(R5, 0, upper.to_be()));
                store.extend([
                    instruction(0x7b, R2, R5.0, self.offset, 0),
                    instruction(0x7b, R2, R0.0, self.offset + 8, 0),
                ]);
                store
            }
        };
        program.extend([
            instruction(0x61, R2, R6.0, SKB_DATA, 0),
            instruction(0x61, R3, R6.0, SKB_DATA_END, 0),
            move_register(R4, R2),
            instruction(0x07, R4, 0, 0, i32::from(self.offset) + length),
            // Past the store where the frame ends before.
            instruction(0x2d, R4, R3.0, store.len() as i16, 0),
        ]);
        program.extend(store);
        program
    }
}

/// A program that does nothing but pass: what everything is compared with.
///
/// # Errors
///
/// When the kernel refuses it.
pub(crate) fn empty() -> io::Result<OwnedFd> {
    bpf::load(&[move_value(R0, -1), instruction(0x95, R0, 0, 0, 0)])
}

fn move_register(to: Register, from: Register) -> Instruction {
    instruction(0xbf, to, from.0, 0, 0)
}

fn move_value(to: Register, value: i32) -> Instruction {
    instruction(0xb7, to, 0, 0, value)
}

fn call(helper: i32) -> Instruction {
    instruction(0x85, R0, 0, 0, helper)
}
