//! Questions to the running daemon, over the abstract Unix socket that also holds its network namespace
//! ([`crate::instance`]).
//!
//! Such names belong to a namespace, so each command speaks to the daemon of its own. They have no permissions either:
//! both ends look at who is at the other one. A client sends one line with a [`Request`] and gets lines with
//! [`Answer`]s, all of them JSON.

pub mod client;
pub mod protocol;
pub mod recording;
pub(crate) mod server;

pub use protocol::{Answer, Request};
pub use server::{Control, Question};

/// Whether somebody with the effective user id `uid` may be spoken with: root, or the user of this process.
fn is_trusted(uid: u32) -> bool {
    // SAFETY: a system call without arguments that always succeeds.
    uid == 0 || uid == unsafe { libc::geteuid() }
}
