//! The programs and maps in the kernel.

mod attach;
mod batch;
mod capacity;
mod chain;
mod clsact;
mod counters;
mod grace_period;
mod load;
mod loader;
mod maps;
mod pinned;
mod raw;
mod replace;
pub mod reports;
mod samples;
mod sizes;
mod standing;
mod state;
mod tcx;

pub use attach::{Attachments, Hook};
pub use batch::Position;
pub use capacity::Capacities;
pub use chain::{Place, Strangers, program_names};
pub use clsact::{clear_leftovers, is_filter, is_there, remove_leftovers, with_leftovers};
pub use counters::{Count, Counters};
pub use grace_period::expedited;
pub use load::{Datapath, Programs, load, load_into, load_reporting, object};
pub use maps::{Live, Maps, wait_for_grace_period};
pub use pinned::{COUNTING, PinnedMaps, pin_again};
pub use reports::Reports;
pub use samples::Samples;
pub use sizes::Sizes;
pub use standing::Standing;
pub use state::StateMap;
pub use tcx::{chain as chain_on, links as links_on};
