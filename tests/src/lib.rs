//! The lab in which mhebpf is tested and shown: network namespaces, captures on every link, and a judge of leaks.
//!
//! A [`Lab`] is a multihomed host on a switch. The one by which the weak end system is usually explained, in articles and here
//! ([`Lab::article`]), has four links in one subnet; others are larger. A test starts mhebpf in it with
//! [`Lab::mhebpf`], makes traffic ([`traffic`], [`craft`]), asks a [`Recording`] what crossed which link, and ends with
//! [`Lab::finish`], where the judge looks at every frame that left the host.
//!
//! Nothing here waits by the clock: a test waits for a condition with a deadline, or passes [`Lab::fence`], after which
//! everything sent before has arrived.

pub mod binary;
pub mod bpf_file_system;
pub mod capture;
mod cpu;
pub mod craft;
pub mod daemon;
pub mod device;
pub mod docker;
pub mod family;
pub mod features;
mod file;
pub mod frame;
mod generic_netlink;
pub mod interface;
pub mod ipsec;
pub mod ipvs;
mod judge;
pub mod lab;
pub mod mac;
pub mod monitor;
pub mod nat;
mod netlink;
pub mod netns;
mod packet_socket;
pub mod route;
pub mod rtnetlink;
mod sentinel;
pub mod service;
mod skip;
pub mod summary;
pub mod tcx;
pub mod team;
pub mod traffic;
pub mod tun;
pub mod tunnel;
pub mod wait;
pub mod way;
pub mod wire;
pub mod wireguard;

pub use bpf_file_system::BpfFileSystem;
pub use capture::Captured;
pub use cpu::stay_on_one_cpu;
pub use daemon::{Daemon, Ended};
pub use family::Family;
pub use file::File;
pub use judge::GRACE;
pub use lab::{FAR, FAR6, Lab, PEER, PEER6, Recording, SECOND_PEER};
pub use mac::Mac;
pub use monitor::Monitor;
pub use netns::NetNs;
pub use service::Service;
pub use skip::skip;
pub use wait::{PATIENCE, scaled, wait_until};
