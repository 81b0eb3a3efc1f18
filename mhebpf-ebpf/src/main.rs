//! The TC programs of mhebpf: parse, decide, act.
//!
//! On targets other than BPF this is an empty program, so that the whole workspace builds, lints and tests on
//! the host.
#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", no_main)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod program;

#[cfg(not(target_arch = "bpf"))]
fn main() {}
