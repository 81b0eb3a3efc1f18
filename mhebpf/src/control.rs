//! Questions to the running daemon of a network namespace, over the sockets that it holds ([`crate::instance`]).
//!
//! Both ends look at who is at the other one. A client sends one line with a [`Request`] and gets lines with
//! [`Answer`]s, all of them JSON.

pub mod client;
pub mod protocol;
pub mod recording;
pub(crate) mod server;

pub use protocol::{Answer, Request};
pub use server::{Control, Question};
