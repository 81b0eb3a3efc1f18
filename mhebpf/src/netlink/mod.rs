//! The host's state from rtnetlink: dumps for the contents, events only as triggers to dump again.

mod dump;
mod events;
mod parse;

pub use dump::{Dumper, Snapshot};
pub use events::Events;
