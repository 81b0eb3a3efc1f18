//! What outlives the daemon: pins of links and maps in a BPF file system.
//!
//! ```text
//! DIR/                           /sys/fs/bpf/mhebpf, unless another is named
//!   netns-COOKIE/                one for each network namespace; locked by its daemon
//!     IFINDEX-egress             a link: a program on an interface
//!     IFINDEX-ingress
//!     maps-LAYOUT-NUMBER/        the maps of those programs
//! ```
//!
//! A start never writes to the maps that are in force. It fills new ones, and then has each link run the new program
//! (`BPF_LINK_UPDATE`), so that each packet is judged by whole tables, the old ones or the new ones. Maps of another version are
//! nothing special then. Only the counters go on, where their layout is the same.

mod directory;
mod file_system;
mod link;

use std::path::{Path, PathBuf};

pub use self::{
    directory::{Generation, Pins, links, remove_dead_in},
    link::{Pinned, Side, id_of_link},
};
use crate::config::Source;
pub use crate::trusted::{Directory, Entry, is_distrust};

/// Where pins are when nobody says.
pub const DEFAULT_DIRECTORY: &str = "/sys/fs/bpf/mhebpf";

/// Which directory a command looks in: the one that was named, else that of the default configuration file, else
/// [`DEFAULT_DIRECTORY`].
pub fn directory(named: Option<&Path>) -> PathBuf {
    named.map_or_else(
        || {
            // One that can't be read is the daemon's to complain about.
            let configured = Source::Default.read().ok().flatten().and_then(|config| config.pin);
            configured.unwrap_or_else(|| DEFAULT_DIRECTORY.into())
        },
        Path::to_owned,
    )
}
