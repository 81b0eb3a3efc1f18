//! The host as the kernel describes it, and the tables that the programs decide from. No I/O.

pub mod host;
pub mod next_hops;
pub mod ownership;
pub mod select;
pub mod tables;
#[cfg(test)]
pub(crate) mod testing;

pub use host::{Address, Hop, Host, Link, LinkKind, Prefix, Route};
pub use select::{Selection, Selector};
pub use tables::{Policy, Tables};
