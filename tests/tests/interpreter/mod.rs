//! An interpreter of eBPF that counts: what a program executes on the way of one packet.
//!
//! It runs what the compiler has made, before the kernel's verifier and its JIT compiler see it, so its counts are the same on
//! every kernel and every machine. Maps, those of global variables too, are asked through a closure. Only what programs
//! that judge a packet use is there: an instruction or a helper that is not known is an error.

mod memory;

use std::collections::HashMap;

use anyhow::{Context as _, Result, bail, ensure};
use aya_obj::{Object, generated::bpf_insn};

use memory::Memory;

/// Looks a key up in the map of a name.
pub(crate) type Lookup<'a> = dyn FnMut(&str, &[u8]) -> Result<Option<Vec<u8>>> + 'a;

/// A program with all its functions, and the maps that it refers to.
pub(crate) struct Program {
    instructions: Vec<bpf_insn>,
    /// Their names.
    maps: HashMap<i32, String>,
}

/// What running a program on one packet took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Executed {
    /// What it returned.
    pub(crate) answer: i32,
    /// How many instructions were executed.
    pub(crate) instructions: usize,
    /// How many helpers of the kernel were called, lookups in maps included.
    pub(crate) helpers: usize,
}

/// More than any way through the programs takes.
const LIMIT: usize = 100_000;

/// Offsets in `struct __sk_buff` (linux/bpf.h).
const SKB_LEN: usize = 0;
const SKB_IFINDEX: usize = 40;
const SKB_DATA: usize = 76;
const SKB_DATA_END: usize = 80;
const SKB_SIZE: usize = 192;

const PSEUDO_MAP_FD: u8 = 1;
const PSEUDO_MAP_VALUE: u8 = 2;
const PSEUDO_CALL: u8 = 1;

impl Program {
    /// Links a program of an object file.
    ///
    /// # Errors
    ///
    /// When the object has no such program, or cannot be understood.
    pub(crate) fn link(object: &[u8], name: &str) -> Result<Self> {
        let mut object = Object::parse(object)?;
        let text = object.functions.keys().map(|(section, _)| *section).collect();
        let maps: Vec<_> = object.maps.clone().into_iter().collect();
        let numbered = (1..).zip(&maps);
        object.relocate_maps(numbered.map(|(number, (name, map))| (name.as_str(), number, map)), &text)?;
        object.relocate_calls(&text)?;
        let program = object.programs.get(name).with_context(|| format!("the object has no {name}"))?;
        let function = object.functions.get(&program.function_key()).context("a program without function")?;
        let maps = (1..).zip(maps);
        Ok(Self {
            instructions: function.instructions.clone(),
            maps: maps.map(|(number, (name, _))| (number, name)).collect(),
        })
    }

    /// Runs it on a frame that crosses an interface.
    ///
    /// # Errors
    ///
    /// When it does something that is not known here.
    pub(crate) fn run(&self, frame: &[u8], ifindex: u32, lookup: &mut Lookup<'_>) -> Result<Executed> {
        let mut memory = Memory::default();
        let packet = memory.add(frame.to_vec())?;
        let mut context = vec![0; SKB_SIZE];
        for (offset, value) in [
            (SKB_LEN, frame.len() as u64),
            (SKB_IFINDEX, ifindex.into()),
            (SKB_DATA, packet),
            (SKB_DATA_END, packet + frame.len() as u64),
        ] {
            context[offset..][..4].copy_from_slice(&(value as u32).to_ne_bytes());
        }
        let context = memory.add(context)?;
        let mut run = Run {
            program: self,
            memory,
            packet,
            lookup,
            registers: [0; 11],
            callers: Vec::new(),
            globals: HashMap::new(),
        };
        run.registers[1] = context;
        run.enter_frame()?;
        run.execute()
    }
}

/// A program at work.
struct Run<'a, 'b> {
    program: &'a Program,
    memory: Memory,
    packet: u64,
    lookup: &'a mut Lookup<'b>,
    registers: [u64; 11],
    /// Where to go on, and the registers that are restored there: R6 to R10.
    callers: Vec<(usize, [u64; 5])>,
    globals: HashMap<i32, u64>,
}

impl Run<'_, '_> {
    fn execute(&mut self) -> Result<Executed> {
        let (mut at, mut executed, mut helpers) = (0, 0, 0);
        loop {
            let instruction = *self.program.instructions.get(at).context("beyond the end of the program")?;
            executed += 1;
            ensure!(executed < LIMIT, "the program does not end");
            at += 1;
            let (to, from) = (usize::from(instruction.dst_reg()), usize::from(instruction.src_reg()));
            let relative = |distance: i64| (at as i64 + distance) as usize;
            match instruction.code {
                0x18 => {
                    let upper = self.program.instructions.get(at).context("half an instruction")?.imm;
                    self.registers[to] = self.immediate(instruction, upper)?;
                    at += 1;
                }
                0x85 if instruction.src_reg() == PSEUDO_CALL => {
                    let [.., r6, r7, r8, r9, r10] = self.registers;
                    self.callers.push((at, [r6, r7, r8, r9, r10]));
                    self.enter_frame()?;
                    at = relative(instruction.imm.into());
                }
                0x85 => {
                    helpers += 1;
                    self.registers[0] = self.help(instruction.imm)?;
                }
                0x95 => match self.callers.pop() {
                    Some((back, saved)) => {
                        at = back;
                        self.registers[6..].copy_from_slice(&saved);
                    }
                    None => {
                        let answer = (self.registers[0] as u32).cast_signed();
                        return Ok(Executed { answer, instructions: executed, helpers });
                    }
                },
                0x05 => at = relative(instruction.off.into()),
                code if matches!(code & 7, 5 | 6) => {
                    let operand = self.operand(instruction, from);
                    if compare(code, self.registers[to], operand)? {
                        at = relative(instruction.off.into());
                    }
                }
                code if matches!(code & 7, 4 | 7) => {
                    let operand = self.operand(instruction, from);
                    self.registers[to] = compute(instruction, self.registers[to], operand)?;
                }
                0x61 | 0x69 | 0x71 | 0x79 => {
                    let address = displaced(self.registers[from], instruction.off);
                    self.registers[to] = self.memory.load(address, width(instruction.code))?;
                }
                0x62 | 0x6a | 0x72 | 0x7a | 0x63 | 0x6b | 0x73 | 0x7b => {
                    let is_immediate = instruction.code & 7 == 2;
                    let value = if is_immediate {
                        i64::from(instruction.imm).cast_unsigned()
                    } else {
                        self.registers[from]
                    };
                    let address = displaced(self.registers[to], instruction.off);
                    self.memory.store(address, width(instruction.code), value)?;
                }
                code => bail!("instruction {code:#x} is not known here"),
            }
        }
    }

    fn enter_frame(&mut self) -> Result<()> {
        const STACK: usize = 512;
        self.registers[10] = self.memory.add(vec![0; STACK])? + STACK as u64;
        Ok(())
    }

    /// The value of an instruction of 64 bits: a number, a map, or a global variable.
    fn immediate(&mut self, instruction: bpf_insn, upper: i32) -> Result<u64> {
        let lower = instruction.imm;
        match instruction.src_reg() {
            0 => Ok(u64::from(upper.cast_unsigned()) << 32 | u64::from(lower.cast_unsigned())),
            PSEUDO_MAP_FD => Ok(u64::from(lower.cast_unsigned())),
            PSEUDO_MAP_VALUE => {
                let base = match self.globals.get(&lower) {
                    Some(base) => *base,
                    None => {
                        let name = self.program.maps.get(&lower).context("no such map")?;
                        let data = (self.lookup)(name, &[0; 4])?.context("globals that are nowhere")?;
                        self.memory.add(data)?
                    }
                };
                self.globals.insert(lower, base);
                Ok(base + u64::from(upper.cast_unsigned()))
            }
            other => bail!("a constant of kind {other} is not known here"),
        }
    }

    fn operand(&self, instruction: bpf_insn, from: usize) -> u64 {
        let is_register = instruction.code & 8 != 0;
        if is_register { self.registers[from] } else { i64::from(instruction.imm).cast_unsigned() }
    }

    /// What the kernel's helper of a number answers (`enum bpf_func_id`).
    fn help(&mut self, number: i32) -> Result<u64> {
        let [_, r1, r2, r3, r4, ..] = self.registers;
        match number {
            // bpf_map_lookup_elem
            1 => {
                let map = self.program.maps.get(&(r1 as i32)).context("a lookup in no map")?;
                let key = self.memory.rest_of(r2)?;
                match (self.lookup)(map, key)? {
                    Some(value) => self.memory.add(value),
                    None => Ok(0),
                }
            }
            // bpf_skb_load_bytes
            26 => {
                let Ok(bytes) = self.memory.bytes(self.packet + r2, r4 as usize).map(<[u8]>::to_vec) else {
                    return Ok((-i64::from(libc::EFAULT)).cast_unsigned());
                };
                self.memory.copy_to(r3, &bytes)?;
                Ok(0)
            }
            // bpf_csum_diff, of one word that is short enough to be its own sum
            28 if r2 == 0 && r4 == 4 => {
                let sum = self.memory.load(r3, 4)?;
                ensure!(sum <= 0xffff, "a checksum of {sum:#x} is not known here");
                Ok(sum)
            }
            // bpf_skb_pull_data: all of the packet is there.
            39 => Ok(0),
            _ => bail!("helper {number} is not known here"),
        }
    }
}

fn displaced(address: u64, offset: i16) -> u64 {
    address.wrapping_add_signed(offset.into())
}

/// How many bytes an instruction loads or stores.
const fn width(code: u8) -> usize {
    match code & 0x18 {
        0x00 => 4,
        0x08 => 2,
        0x10 => 1,
        _ => 8,
    }
}

fn compare(code: u8, left: u64, right: u64) -> Result<bool> {
    let is_64 = code & 7 == 5;
    let (left, right) = if is_64 { (left, right) } else { (left & 0xffff_ffff, right & 0xffff_ffff) };
    let signed = |value: u64| {
        if is_64 { value.cast_signed() } else { i64::from((value as u32).cast_signed()) }
    };
    let (signed_left, signed_right) = (signed(left), signed(right));
    Ok(match code & 0xf0 {
        0x10 => left == right,
        0x20 => left > right,
        0x30 => left >= right,
        0x40 => left & right != 0,
        0x50 => left != right,
        0x60 => signed_left > signed_right,
        0x70 => signed_left >= signed_right,
        0xa0 => left < right,
        0xb0 => left <= right,
        0xc0 => signed_left < signed_right,
        0xd0 => signed_left <= signed_right,
        _ => bail!("jump {code:#x} is not known here"),
    })
}

fn compute(instruction: bpf_insn, left: u64, right: u64) -> Result<u64> {
    let code = instruction.code;
    let is_64 = code & 7 == 7;
    let bits: u32 = if is_64 { 64 } else { 32 };
    // Swaps say the width themselves.
    let whole = left;
    let (left, right) = if is_64 { (left, right) } else { (left & 0xffff_ffff, right & 0xffff_ffff) };
    let distance = (right as u32) % bits;
    let value = match code & 0xf0 {
        0x00 => left.wrapping_add(right),
        0x10 => left.wrapping_sub(right),
        0x20 => left.wrapping_mul(right),
        0x30 if instruction.off == 0 => left.checked_div(right).unwrap_or(0),
        0x40 => left | right,
        0x50 => left & right,
        0x60 => left << distance,
        0x70 => left >> distance,
        0x80 => left.wrapping_neg(),
        0x90 if instruction.off == 0 => left.checked_rem(right).unwrap_or(left),
        0xa0 => left ^ right,
        0xb0 => match instruction.off {
            0 => right,
            8 => i64::from(right as i8).cast_unsigned(),
            16 => i64::from(right as i16).cast_unsigned(),
            32 => i64::from(right as i32).cast_unsigned(),
            _ => bail!("a move of {} bits is not known here", instruction.off),
        },
        0xc0 if is_64 => (left.cast_signed() >> distance).cast_unsigned(),
        0xc0 => ((left as u32).cast_signed() >> distance).cast_unsigned().into(),
        // To little endian (0xd4), to big endian (0xdc), and both unconditionally (0xd7). This machine may be either.
        0xd0 => {
            let swaps = match code {
                0xd4 => cfg!(target_endian = "big"),
                0xdc => cfg!(target_endian = "little"),
                _ => true,
            };
            return Ok(match (instruction.imm, swaps) {
                (16, true) => (left as u16).swap_bytes().into(),
                (32, true) => (left as u32).swap_bytes().into(),
                (64, true) => whole.swap_bytes(),
                (16, false) => left & 0xffff,
                (32, false) => left & 0xffff_ffff,
                (64, false) => whole,
                _ => bail!("a swap of {} bits is not known here", instruction.imm),
            });
        }
        _ => bail!("operation {code:#x} is not known here"),
    };
    Ok(if is_64 { value } else { value & 0xffff_ffff })
}
