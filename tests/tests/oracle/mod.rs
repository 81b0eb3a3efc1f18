//! A strong end system written down a second time, in the plainest way: the yardstick for the decision and
//! the programs.
//!
//! Nothing here calls the code under test or follows its structure. A [`Host`] is described as an operator
//! would, and every question is answered by looking at all of it: no tables, no caches, no wire order. It is
//! slow, and easy to check against RFC 1122 section 3.3.4.2 and the documented behaviour.
//!
//! Three limits of the programs are part of what they promise, and therefore of the oracle: an interface speaks
//! with one of its own IPv4 addresses in at most eight subnets (the hosts of [`crate::random`] stay below
//! that), a packet is redirected to one of the first four owners of its source, and a frame for a group passes
//! for a macvlan above the interface if that is among the first four owners of its address.

pub(crate) mod example;
pub(crate) mod frame;
pub(crate) mod host;
mod next_hop;
pub(crate) mod owners;
mod policy;
mod prefix;
mod redirect;
mod uplinks;
mod verdict;

pub(crate) use host::{Address, Forwarding, Hop, Host, Interface, Kind, Link, LocalRoute, Route, Rule};
pub(crate) use policy::{Announce, Forwarded, Policy, Receive, Send, Unknown};
pub(crate) use prefix::Prefix;
pub(crate) use verdict::{Action, Crossing, Direction, Verdict, judge};
