//! mhebpf beside a real Docker engine, and inside a container of it.

mod comings;
mod inside;
mod networks;
mod published;
