//! The host as the kernel describes it, and the tables that the programs decide from. No I/O.

pub mod host;
pub mod leaves;
pub mod metadata;
pub mod next_hops;
pub mod ownership;
pub mod policy;
pub mod reasons;
pub mod remembered;
pub mod select;
pub mod stacking;
pub mod steering;
pub mod tables;
#[cfg(test)]
pub(crate) mod testing;
pub mod uplinks;

pub use host::{Address, Framing, Hop, Host, Link, LinkKind, LocalRoute, Metrics, OtherRoute, Route, Rule};
pub use leaves::Leaves;
pub use ownership::Bindings;
pub use policy::Policy;
pub use select::{Selection, Selector};
pub use stacking::Stacking;
pub use steering::Steering;
pub use tables::Tables;
