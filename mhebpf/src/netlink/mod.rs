//! The host's state from rtnetlink: dumps for the contents, events only as triggers to dump again.

pub(crate) mod conntrack;
mod dump;
mod events;
mod fib;
mod following;
mod lookup;
mod neighbours;
mod nexthops;
mod parse;
pub(crate) mod raw;
mod request;
pub(crate) mod routes;
pub(crate) mod rules;

pub use dump::{Dumper, Snapshot};
pub use events::{Changed, Events, FilterEvents};
pub use following::Part;
pub use lookup::{KernelRoute, RouteLookup};
pub use neighbours::NeighbourEvents;
pub(crate) use parse::{link_message, rule_message};
pub(crate) use request::Requests;
pub use routes::PlacedRoute;
pub use rules::{LocalLate, PlacedRule};
