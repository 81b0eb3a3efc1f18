//! The host's state from rtnetlink: dumps for the contents, events only as triggers to dump again.

mod dump;
mod events;
mod parse;
mod request;

pub use dump::{Dumper, Snapshot};
pub use events::Events;
pub(crate) use request::Requests;
