//! What a program answers.

use aya_ebpf::bindings::{TC_ACT_REDIRECT, TC_ACT_SHOT, TC_ACT_UNSPEC};

/// What the kernel is told to do with a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The next program, and the packet's way, go on.
    Pass,
    /// The packet ends here.
    Drop,
    /// The packet takes the way that a redirect helper has noted down.
    Redirect,
}

impl Outcome {
    /// The return code. Passing is `TC_ACT_UNSPEC` (`TCX_NEXT`): any other would hide the programs after this
    /// one.
    #[inline(always)]
    pub(super) fn code(self) -> i32 {
        match self {
            Self::Pass => TC_ACT_UNSPEC,
            Self::Drop => TC_ACT_SHOT,
            Self::Redirect => TC_ACT_REDIRECT as i32,
        }
    }

    /// What a redirect helper answered.
    #[inline(always)]
    pub(super) fn from_helper(code: i64) -> Self {
        if code == i64::from(TC_ACT_REDIRECT) { Self::Redirect } else { Self::Drop }
    }
}
