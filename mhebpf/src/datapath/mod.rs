//! The programs and maps in the kernel.

mod attach;
mod capacity;
mod chain;
mod clsact;
mod counters;
mod grace_period;
mod load;
mod loader;
mod maps;
mod raw;
pub mod reports;
mod samples;

pub use attach::{Attachments, Hook};
pub use capacity::Capacities;
pub use chain::Place;
pub use counters::{Count, Counters};
pub use load::{Datapath, Programs, load, load_reporting, object};
pub use maps::{Live, Maps};
pub use reports::Reports;
pub use samples::Samples;
