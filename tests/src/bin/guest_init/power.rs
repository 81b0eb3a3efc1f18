//! The end of the machine.

use std::{arch::asm, process::ExitCode};

/// Where the emulator has its device `isa-debug-exit`.
const PORT: u16 = 0xf4;

/// Ends the emulator with the status `2 * code + 1`, or with another where it has no device for that.
pub(crate) fn end(code: u32) -> ExitCode {
    // SAFETY: ioperm, sync and reboot take no pointers. The port was asked for; writing to it touches no memory, and nothing
    // runs after it. This is the first process of an emulated machine, which may end it.
    unsafe {
        libc::sync();
        if libc::ioperm(PORT.into(), 4, 1) == 0 {
            asm!("out dx, eax", in("dx") PORT, in("eax") code, options(nomem, nostack, preserves_flags));
        }
        libc::reboot(libc::RB_AUTOBOOT);
    }
    ExitCode::FAILURE
}
