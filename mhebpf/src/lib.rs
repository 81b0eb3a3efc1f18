//! The daemon of mhebpf: keeps the kernel programs of a strong end system in step with the host.
//!
//! The way of a change: [`netlink`] wakes the [`daemon`], which takes a snapshot of the host, has the
//! [`model`] compute what the programs need to know, and writes the difference to the maps of the
//! [`datapath`].

pub mod announce;
pub mod audit;
pub mod cli;
pub mod config;
pub mod console;
pub mod control;
pub mod daemon;
pub mod datapath;
pub mod explain;
pub mod instance;
pub mod logging;
pub mod metrics;
pub mod model;
pub mod monitor;
pub mod netlink;
pub mod pins;
pub mod preflight;
pub mod routes;
pub mod settings;
pub mod status;
pub mod steering;
pub mod stop;
pub mod stream;
pub mod summary;
pub mod trusted;
pub mod unload;
pub mod usage;
